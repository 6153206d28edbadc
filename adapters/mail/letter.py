"""A mail as bytes: a Flask-Mail message that is written so that every server on its way takes it unchanged.

Flask-Mail leaves UTF-8 text in lines as long as they come and sends what is over 998 bytes, which servers refuse; it
also writes the local part of an address as an encoded word, which is no address any more. Both are put right here.
"""

import re
from base64 import b64decode
from binascii import b2a_base64, b2a_qp
from email.charset import QP, Charset
from email.encoders import encode_base64
from email.header import Header
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTPUTF8, Compat32
from email.utils import formataddr, parseaddr
from functools import lru_cache
from typing import Self

import flask_mail
import idna

from domain.addresses import nameable
from domain.ports import Frame, Mail, Text

WIRE = Compat32(linesep="\r\n", max_line_length=76)

QUOTED_PRINTABLE = Charset("utf-8")
QUOTED_PRINTABLE.body_encoding = QP

SURELY_ONE_LINE = 76

AUTOMATIC = {"Auto-Submitted": "auto-generated", "X-Auto-Response-Suppress": "OOF, AutoReply"}
"""By which answering machines leave a mail alone (RFC 3834; the second is what Exchange reads)."""
ALWAYS = "".join(f"{name}: {value}\r\n" for name, value in AUTOMATIC.items()).encode()

_BREAKS_A_HEADER = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+")


class NoAddress(ValueError):
    """What should be an address is none that SMTP can name."""


def one_line(value: str) -> str:
    """A header's value without anything that would end it or begin another."""
    if value.isprintable():
        return value.strip()
    return _BREAKS_A_HEADER.sub(" ", value).strip()


def envelope_address(address: str) -> str:
    """An address as SMTP names it: the host in its ASCII form (IDNA 2008, which is what the registries use)."""
    local, _, host = address.rpartition("@")
    if not nameable(address):
        raise NoAddress("this is not an address that mail can be sent to")
    if host.isascii():
        return address
    try:
        return f"{local}@{idna.encode(host, uts46=True).decode('ascii')}"
    except idna.IDNAError:
        raise NoAddress("the host of this address cannot exist") from None


class Letter(flask_mail.Message):
    """One mail to one address. A connection asks for its bytes, which can be made before (``seal``)."""

    _sealed: bytes | None = None

    def __init__(self, mail: Mail, sender: str) -> None:
        self.recipient = envelope_address(mail.to)
        self.sender_name, self.from_address = _sender(sender)
        self.envelope_sender = envelope_address(mail.return_path) if mail.return_path else self.from_address
        self.needs_smtputf8 = not (self.recipient + self.from_address + self.envelope_sender).isascii()
        """Whether an address has letters beyond ASCII before its @: only a server with SMTPUTF8 can take it."""
        self.calendar = mail.calendar
        # All that is used of what Flask-Mail keeps. Its own way asks the system for this host's name for each message,
        # to make a Message-ID of its own, and that may be a question to a name server.
        self.subject = one_line(mail.subject)
        self.recipients = [self.recipient]
        self.sender = self.from_address
        self._text, self._html = mail.text, mail.html
        self.extra_headers = {name: one_line(value) for name, value in mail.headers.items()}
        self.msgId = one_line(mail.message_id)

    @classmethod
    def of(cls, mail: Mail, sender: str) -> Self:
        return cls(mail, sender)

    def seal(self) -> None:
        """Make the bytes now."""
        self._sealed = self.as_bytes()

    def as_bytes(self) -> bytes:
        """The message as it goes out. Most are put together from parts: see ``envelope``; the others are built."""
        if self._sealed is not None:
            return self._sealed
        if self.needs_smtputf8 or _has_returns(self._text) or _has_returns(self._html):
            return self.built()
        bodies = [_encoded(self._text), _encoded(self._html)]
        if self.calendar is not None:
            bodies.append(_base64(self.calendar.encode()))
        first, *others = envelope(with_calendar=self.calendar is not None)
        pieces = [first, *_lines(self._own_headers()), ALWAYS, *_lines(self.extra_headers or {})]
        for before, body in zip(others, [*bodies, b""], strict=True):
            pieces += [before, body]
        return b"".join(pieces)

    def built(self) -> bytes:
        """The same by the standard library: a tree of parts, each encoded by itself."""
        letter = self._text_and_html() if self.calendar is None else self._with_calendar(self.calendar)
        for name, value in {**self._own_headers(), **AUTOMATIC, **(self.extra_headers or {})}.items():
            letter[name] = value if self.needs_smtputf8 else _in_ascii(name, value)
        return letter.as_bytes(policy=SMTPUTF8) if self.needs_smtputf8 else letter.as_bytes()

    def _own_headers(self) -> dict[str, str]:
        return {
            "Subject": str(self.subject),
            "From": self._from(),
            "To": self.recipient,
            "Message-ID": str(self.msgId),
        }

    def _text_and_html(self) -> MIMEMultipart:
        both = MIMEMultipart("alternative", policy=WIRE)
        both.attach(MIMEText(str(self._text), "plain", QUOTED_PRINTABLE, policy=WIRE))  # type: ignore[arg-type]
        both.attach(MIMEText(str(self._html), "html", QUOTED_PRINTABLE, policy=WIRE))  # type: ignore[arg-type]
        return both

    def _with_calendar(self, calendar: str) -> MIMEMultipart:
        attached = MIMEBase("text", "calendar", charset="utf-8", method="PUBLISH", policy=WIRE)
        # As Base64, because the line breaks of an iCalendar are part of it.
        attached.set_payload(calendar.encode())
        encode_base64(attached)
        attached["Content-Disposition"] = 'attachment; filename="deadline.ics"'
        mixed = MIMEMultipart("mixed", policy=WIRE)
        mixed.attach(self._text_and_html())
        mixed.attach(attached)
        return mixed

    def _from(self) -> str:
        if not self.sender_name:
            return self.from_address
        if self.needs_smtputf8:
            quoted = self.sender_name.replace("\\", "").replace('"', "")
            return f'"{quoted}" <{self.from_address}>'
        return _named(self.sender_name, self.from_address)


@lru_cache(maxsize=2)
def envelope(*, with_calendar: bool) -> list[bytes]:
    """All of a message but its headers and what its parts hold, as the standard library builds it, cut where those go.

    No body can look like one of the lines between the parts, the same in all messages of a process: they begin with
    ``--===``, and neither quoted-printable nor Base64 has two equals signs in a row but at the end of a line.
    """
    marks = ["c2Vjb25k", "dGhpcmQr", "Zm91cnRo"][: 3 if with_calendar else 2]
    nobody = Mail("nobody@example.org", "", *marks[:2], "", {}, calendar=_decoded(marks[2]) if with_calendar else None)
    letter = Letter(nobody, "nobody@example.org")
    tree = letter._text_and_html() if letter.calendar is None else letter._with_calendar(letter.calendar)
    head, _, rest = tree.as_bytes().partition(b"\r\n\r\n")
    pieces = [head + b"\r\n"]
    rest = b"\r\n" + rest
    for mark in marks:
        before, _, rest = rest.partition(mark.encode())
        pieces.append(before)
    return [*pieces, rest]


def _decoded(mark: str) -> str:
    return b64decode(mark).decode()


def _in_ascii(name: str, value: str) -> str:
    return value if value.isascii() else Header(value, "utf-8", header_name=name, maxlinelen=76).encode()


def _lines(headers: dict[str, str]) -> list[bytes]:
    return [_header(name, value) for name, value in headers.items()]


def _header(name: str, value: str) -> bytes:
    """A header as a line, or as several."""
    if len(name) + len(value) + 2 <= SURELY_ONE_LINE and value.isascii():
        return f"{name}: {value}\r\n".encode()
    return _folded(name, value)


@lru_cache(maxsize=1024)
def _folded(name: str, value: str) -> bytes:
    return WIRE.fold_binary(name, _in_ascii(name, value))


def _has_returns(text: Text) -> bool:
    """Which are no end of a line here, and are kept only by the standard library."""
    return "\r" in (text if isinstance(text, str) else "".join(text.words))


def _encoded(text: Text) -> bytes:
    """A body as quoted-printable: what is the same in many is encoded once, and word by word what is not."""
    if isinstance(text, str):
        return _lines_encoded(text)
    whole = _frame_encoded(text.frame).copy()
    whole[1::2] = [_piece(word) for word in text.words]
    # After the last piece nothing goes on.
    return b"".join(whole).removesuffix(_GOES_ON)


_GOES_ON = b"=\r\n"
"""Quoted-printable for a line break that is none."""


@lru_cache(maxsize=256)
def _frame_encoded(frame: Frame) -> list[bytes]:
    """With nothing yet where the words go."""
    whole = [b""] * (2 * len(frame) - 1)
    whole[::2] = [_piece(piece) for piece in frame]
    return whole


@lru_cache(maxsize=2048)
def _piece(piece: str) -> bytes:
    """What follows begins a line of its own, so no piece has to know what the others are."""
    encoded = _lines_encoded(piece)
    return encoded if not piece or piece.endswith("\n") else encoded + _GOES_ON


def _lines_encoded(text: str) -> bytes:
    return b2a_qp(text.encode(), istext=True).replace(b"\n", b"\r\n")


@lru_cache(maxsize=8)
def _named(name: str, address: str) -> str:
    return formataddr((name, address))


def _base64(content: bytes) -> bytes:
    whole = b2a_base64(content, newline=False)
    return b"\r\n".join([whole[start : start + 76] for start in range(0, len(whole), 76)])


@lru_cache(maxsize=8)
def _sender(sender: str) -> tuple[str, str]:
    """The name and the address of a sender."""
    name, address = parseaddr(sender)
    return one_line(name), envelope_address(address)
