"""Posting a webhook: one connection to an address that was looked at, a time limit for all of it, no redirect."""

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from time import monotonic

from adapters.tls import trusted
from adapters.webhooks.guard import Forbidden, Network, Resolve, Target, reachable, resolve
from domain.ports import Outcome, WebhookReply

STEP_SECONDS = 10.0
TOTAL_SECONDS = 30.0
LONGEST_BODY = 64 * 1024
LONGEST_WAIT = 24 * 60 * 60

PASSING = frozenset({408, 425, 429})

LOST = (OSError, HTTPException)
"""What a line or somebody who speaks no HTTP raises."""


class HttpSender:
    """Webhooks over HTTPS. ``allowed``: networks that may be reached though they are private, also without TLS.

    ``step`` and ``total`` are seconds, for each wait and for all of a call; ``tls`` says whom to trust.
    """

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        step: float = STEP_SECONDS,
        total: float = TOTAL_SECONDS,
        tls: ssl.SSLContext | None = None,
        look_up: Resolve = resolve,
    ) -> None:
        self._allowed = tuple(allowed)
        self._step, self._total = step, total
        self._tls = tls or trusted()
        self._look_up = look_up

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookReply:
        until = monotonic() + self._total
        try:
            target = Target.of(url)
            addresses = reachable(target, self._allowed, self._look_up)
        except Forbidden as error:
            return WebhookReply(Outcome.PERMANENT, 0, str(error))
        except OSError:
            return _unanswered("the host name cannot be found")
        for address in addresses:
            step = min(self._step, until - monotonic())
            if step <= 0:
                break
            with suppress(OSError), socket.create_connection((address, target.port), step) as line:
                line.settimeout(self._step)
                return self._talk(line, until, target, body, headers)
        return _unanswered("no connection")

    def _talk(
        self, line: socket.socket, until: float, target: Target, body: bytes, headers: Mapping[str, str]
    ) -> WebhookReply:
        try:
            if target.secure:
                line = self._tls.wrap_socket(line, server_hostname=target.host, do_handshake_on_connect=False)
            with line, _cut_at(until, line):
                if isinstance(line, ssl.SSLSocket):
                    line.do_handshake()
                return _ask(line, target, body, headers)
        except ssl.SSLCertVerificationError as error:
            return _unanswered(f"the certificate is not trusted: {error.verify_message}")
        except LOST as error:
            late = isinstance(error, TimeoutError) or monotonic() >= until
            return _unanswered("no answer in time" if late else "the connection was lost before an answer")


@contextmanager
def _cut_at(until: float, line: socket.socket) -> Iterator[None]:
    """Inside, the line is cut when the time is over, however slowly the other side goes on talking."""

    def cut() -> None:
        with suppress(OSError):
            # Of the plain socket: the one of TLS would first forget its session, under its reader's hands.
            socket.socket.shutdown(line, socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, until - monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _ask(line: socket.socket, target: Target, body: bytes, headers: Mapping[str, str]) -> WebhookReply:
    connection = HTTPConnection(target.host, target.port)
    # It connects nowhere by itself: the line is there.
    connection.sock = line
    connection.request(
        "POST",
        target.path,
        body,
        {
            "Content-Type": "application/json",
            "User-Agent": "Dormouse",
            **headers,
            "Host": target.host_header,
            "Connection": "close",
        },
    )
    with connection.getresponse() as answer:
        status = answer.status
        said = b""
        with suppress(*LOST):
            # The status is what was asked for: that stands, even where the rest of the answer is lost or too long.
            said = answer.read(LONGEST_BODY)
        after = answer.headers.get("Retry-After", "")
    seconds = min(int(after), LONGEST_WAIT) if after.isascii() and after.isdigit() and len(after) < 10 else None
    return WebhookReply(_outcome(status), status, f"answered {status}", said, seconds)


def _outcome(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome.ACCEPTED
    if status == 410:
        return Outcome.GONE
    return Outcome.TEMPORARY if status >= 500 or status in PASSING else Outcome.PERMANENT


def _unanswered(reason: str) -> WebhookReply:
    return WebhookReply(Outcome.TEMPORARY, 0, reason)
