"""What tests put in the place of the outside world: a clock that is set, and a real SMTP server that remembers."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


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
