"""A mailbox over IMAP4rev1, always encrypted, with the certificate checked and a time limit for every step.

The folder is a queue: whatever lies in it is looked at, and leaves it. What is taken out is deleted; what is put aside
goes to another folder, made when it is first needed. Mail that somebody has marked as deleted is left alone.
"""

import imaplib
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Self

from adapters.tls import trusted
from domain.errors import MailboxAway
from domain.ports import WaitingMail

TIMEOUT_SECONDS = 15.0
ENOUGH_BYTES = 1_000_000
"""A report says what it is about at its beginning; no more of a mail than this is fetched."""

_WHAT_FAILS = (imaplib.IMAP4.error, OSError, UnicodeError)


class ImapMailbox:
    """``starttls`` on a plain port, else TLS from the first byte; ``tls`` says whom to trust."""

    def __init__(
        self,
        host: str,
        port: int,
        username: str,
        password: str,
        *,
        folder: str,
        aside: str,
        starttls: bool = False,
        timeout: float = TIMEOUT_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._username, self._password = username, password
        self.folder, self.aside = folder, aside
        self._starttls = starttls
        self._timeout = timeout
        self._tls = tls or trusted()

    def visit(self) -> "ImapVisit":
        return ImapVisit(self)

    def signed_in(self) -> imaplib.IMAP4:
        """A connection with the folder selected. Raises MailboxAway."""
        connection: imaplib.IMAP4 | None = None
        try:
            if self._starttls:
                connection = imaplib.IMAP4(self._host, self._port, timeout=self._timeout)
                connection.starttls(self._tls)
            else:
                connection = imaplib.IMAP4_SSL(self._host, self._port, ssl_context=self._tls, timeout=self._timeout)
            self._sign_in(connection)
            _done(connection.select(_quoted(self.folder)), f"the folder {self.folder}")
        except _WHAT_FAILS as error:
            if connection is not None:
                _closed(connection)
            raise MailboxAway(f"the mailbox at {self._host}:{self._port}: {_said(error)}") from None
        return connection

    def _sign_in(self, connection: imaplib.IMAP4) -> None:
        if "AUTH=PLAIN" in connection.capabilities:
            # A password may have letters that LOGIN cannot carry.
            answer = f"\0{self._username}\0{self._password}".encode()
            connection.authenticate("PLAIN", lambda _challenge: answer)
        else:
            connection.login(_quoted(self._username), self._password)


class ImapVisit:
    """One connection with the folder open."""

    def __init__(self, mailbox: ImapMailbox) -> None:
        self._mailbox = mailbox

    def __enter__(self) -> Self:
        self._connection = self._mailbox.signed_in()
        # What may be offered only to who has signed in is not in the capabilities of the greeting.
        _, offered = self._tried("its capabilities", lambda: self._connection.capability())
        self._offered = frozenset(b" ".join(offered).decode("ascii", "replace").upper().split())
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._connection.logout()
        except _WHAT_FAILS:
            # It was cut: all that is left is our end of it.
            _closed(self._connection)

    def waiting(self) -> Iterator[WaitingMail]:
        _, found = self._tried("what waits", lambda: self._connection.uid("SEARCH", "UNDELETED"))
        for uid in (found[0] or b"").decode("ascii").split():
            raw = self._read(uid)
            # Somebody else may have taken it out meanwhile.
            if raw is not None:
                yield WaitingMail(uid, raw)

    def take_out(self, mail: WaitingMail) -> None:
        uid = mail.name
        self._tried("deleting", lambda: self._connection.uid("STORE", uid, "+FLAGS.SILENT", r"(\Deleted)"))
        if "UIDPLUS" in self._offered:
            self._tried("deleting", lambda: self._connection.uid("EXPUNGE", uid))
        else:
            self._tried("deleting", lambda: self._connection.expunge())

    def put_aside(self, mail: WaitingMail) -> None:
        try:
            self._move(mail.name)
        except MailboxAway:
            # Most often it is the first one, and the folder is not there yet. If it was something else, it shows again.
            with suppress(*_WHAT_FAILS):
                self._connection.create(_quoted(self._mailbox.aside))
            self._move(mail.name)

    def _move(self, uid: str) -> None:
        aside = _quoted(self._mailbox.aside)
        if "MOVE" in self._offered:
            self._tried("moving", lambda: self._connection.uid("MOVE", uid, aside))
            return
        self._tried("moving", lambda: self._connection.uid("COPY", uid, aside))
        self.take_out(WaitingMail(uid, b""))

    def _read(self, uid: str) -> bytes | None:
        _, parts = self._tried(
            "reading", lambda: self._connection.uid("FETCH", uid, f"(BODY.PEEK[]<0.{ENOUGH_BYTES}>)")
        )
        return next((part[1] for part in parts if isinstance(part, tuple)), None)

    def _tried(self, what: str, command: Callable[[], tuple[str, list[Any]]]) -> tuple[str, list[Any]]:
        try:
            return _done(command(), what)
        except _WHAT_FAILS as error:
            raise MailboxAway(f"the mailbox of bounces: {_said(error)}") from None


def _done(answer: tuple[str, list[Any]], what: str) -> tuple[str, list[Any]]:
    status, data = answer
    if status != "OK":
        raise imaplib.IMAP4.error(f"{what}: {_text(data[0]) if data and data[0] else status}")
    return answer


def _closed(connection: imaplib.IMAP4) -> None:
    with suppress(OSError):
        connection.shutdown()


def _quoted(folder: str) -> str:
    return '"' + folder.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not to be trusted: {error.verify_message}"
    text = " ".join(_text(part) for part in error.args if isinstance(part, str | bytes)) or str(error)
    return " ".join(re.sub(r"[\x00-\x1f]+", " ", text).split()) or type(error).__name__


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
