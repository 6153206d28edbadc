"""What tests put in the place of the outside world: a clock that is set, and real servers that remember."""

import asyncio
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from domain.errors import DnsAway


class FrozenClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._booted_at = now - timedelta(days=100)

    def now(self) -> datetime:
        return self._now

    def booted_at(self) -> datetime:
        return self._booted_at

    def travel(self, to: datetime) -> None:
        self._now = to

    def tick(self, **by: float) -> None:
        self._now += timedelta(**by)

    def jump(self, **by: float) -> None:
        """Somebody sets the machine's clock, while no time passes."""
        self.tick(**by)
        self._booted_at += timedelta(**by)


class NoDns:
    """No name server anywhere. tests/names.py has a real one, for who wants to be told something."""

    def knows_the_root(self) -> bool:
        raise DnsAway("no name server answers")

    def texts(self, name: str) -> list[str]:
        raise DnsAway(f"no answer about {name}")

    mail_hosts = addresses = texts


@dataclass(frozen=True)
class Received:
    """One mail as the server accepted it."""

    sender: str
    recipients: list[str]
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        message = message_from_bytes(self.raw, policy=default)
        assert isinstance(message, EmailMessage)
        return message


class AnyPort(Controller):
    """A controller on the port the system gave, which the original does not look up before it connects to itself."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


class SmtpCatcher:
    """A real SMTP server on a free port. ``replies`` maps an address, or "*", to the reply its RCPT or DATA gets.

    It can also be unkind: ``sender_reply`` answers MAIL; mail to an address in ``drops`` loses its line in DATA, and to
    one in ``hangs`` gets no answer. ``connections`` counts who came. Options go to aiosmtpd, such as ``tls_context``.
    """

    host = "127.0.0.1"

    def __init__(self, **options: Any) -> None:
        self.mails: list[Received] = []
        self.replies: dict[str, str] = {}
        self.sender_reply: str | None = None
        self.drops: set[str] = set()
        self.hangs: set[str] = set()
        self.connections = 0
        self._controller = AnyPort(self, hostname=self.host, port=0, **options)

    def start(self) -> None:
        self._controller.start()

    def stop(self) -> None:
        self._controller.stop()

    @property
    def port(self) -> int:
        return int(self._controller.port)

    def to(self, address: str) -> list[Received]:
        return [mail for mail in self.mails if address in mail.recipients]

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        self.connections += 1
        session.host_name = hostname
        return responses

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.sender_reply is not None:
            return self.sender_reply
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.replies:
            return self.replies[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.drops.intersection(envelope.rcpt_tos):
            server.transport.abort()
            return "250 nobody hears this"
        if self.hangs.intersection(envelope.rcpt_tos):
            # aiosmtpd cancels this as soon as the client hangs up.
            await asyncio.Event().wait()
        if "*" in self.replies:
            return self.replies["*"]
        assert envelope.content is not None
        assert envelope.mail_from is not None
        self.mails.append(Received(envelope.mail_from, list(envelope.rcpt_tos), bytes(envelope.content)))
        return "250 OK queued"


@dataclass(frozen=True)
class Called:
    """One webhook as it arrived. Names of headers are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answering:
    """What the catcher of webhooks answers: a status alone, or more. ``raw`` goes out instead of a proper answer."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes | None = None
    drips: bool = False
    """Sends the body a byte at a time until the other side hangs up or the server stops."""


class WebhookCatcher:
    """A real HTTP server on a free port; ``answers`` maps a call to what it gets, or is what every call gets."""

    host = "127.0.0.1"

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.calls: list[Called] = []
        self.answers: Answering | Callable[[Called], Answering] = Answering()
        self._stopping = threading.Event()
        catcher = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                catcher._take(self)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                """Whoever calls may hang up whenever it likes."""

        self._server = Server((self.host, 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/hooks"

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        call = Called(handler.path, headers, handler.rfile.read(int(headers.get("content-length", 0))))
        self.calls.append(call)
        answer = self.answers(call) if callable(self.answers) else self.answers
        if answer.raw is not None:
            handler.wfile.write(answer.raw)
            return
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if answer.status != 204:
            handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        if answer.drips:
            for byte in answer.body:
                handler.wfile.write(bytes([byte]))
                if self._stopping.wait(0.05):
                    break
        elif answer.status != 204:
            handler.wfile.write(answer.body)
