"""A mail as bytes: a Flask-Mail message that is written so that every server on its way takes it unchanged.

Flask-Mail leaves UTF-8 text in lines as long as they come and sends what is over 998 bytes, which servers refuse; it
also writes the local part of an address as an encoded word, which is no address any more. Both are put right here.
"""

import re
from email.charset import QP, Charset
from email.encoders import encode_base64
from email.header import Header
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTPUTF8, Compat32
from email.utils import formataddr, parseaddr
from typing import Self

import flask_mail
import idna

from domain.ports import Mail

WIRE = Compat32(linesep="\r\n", max_line_length=76)

QUOTED_PRINTABLE = Charset("utf-8")
QUOTED_PRINTABLE.body_encoding = QP

_BREAKS_A_HEADER = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+")
_NOT_IN_AN_ADDRESS = re.compile(r"[\s\x00-\x1f\x7f<>(),;:\\\"]")


class NoAddress(ValueError):
    """What should be an address is none that SMTP can name."""


def one_line(value: str) -> str:
    """A header's value without anything that would end it or begin another."""
    return _BREAKS_A_HEADER.sub(" ", value).strip()


def envelope_address(address: str) -> str:
    """An address as SMTP names it: the host in its ASCII form (IDNA 2008, which is what the registries use)."""
    local, at, host = address.rpartition("@")
    if not (local and at and host) or _NOT_IN_AN_ADDRESS.search(address):
        raise NoAddress("this is not an address that mail can be sent to")
    if host.isascii():
        return address
    try:
        return f"{local}@{idna.encode(host, uts46=True).decode('ascii')}"
    except idna.IDNAError:
        raise NoAddress("the host of this address cannot exist") from None


class Letter(flask_mail.Message):
    """One mail to one address. Who has the bytes already, overrides ``as_bytes``: the connection asks for no more."""

    def __init__(self, mail: Mail, sender: str) -> None:
        self.recipient = envelope_address(mail.to)
        name, address = parseaddr(sender)
        self.from_address = envelope_address(address)
        self.envelope_sender = envelope_address(mail.return_path) if mail.return_path else self.from_address
        self.sender_name = one_line(name)
        self.calendar = mail.calendar
        super().__init__(
            subject=one_line(mail.subject),
            recipients=[self.recipient],
            body=mail.text,
            html=mail.html,
            sender=self.from_address,
            extra_headers={name: one_line(value) for name, value in mail.headers.items()},
        )
        self.msgId = one_line(mail.message_id)

    @classmethod
    def of(cls, mail: Mail, sender: str) -> Self:
        return cls(mail, sender)

    @property
    def needs_smtputf8(self) -> bool:
        """Whether an address has letters beyond ASCII before its @: only a server with SMTPUTF8 can take it."""
        return not (self.recipient + self.from_address + self.envelope_sender).isascii()

    def as_bytes(self) -> bytes:
        letter = self._text_and_html() if self.calendar is None else self._with_calendar(self.calendar)
        headers = {
            "Subject": self.subject,
            "From": self._from(),
            "To": self.recipient,
            "Message-ID": self.msgId,
            # Answering machines leave it alone (RFC 3834; the second is what Exchange reads).
            "Auto-Submitted": "auto-generated",
            "X-Auto-Response-Suppress": "OOF, AutoReply",
            **(self.extra_headers or {}),
        }
        if self.needs_smtputf8:
            for name, value in headers.items():
                letter[name] = value
            return letter.as_bytes(policy=SMTPUTF8)
        for name, value in headers.items():
            encoded = value if value.isascii() else Header(value, "utf-8", header_name=name, maxlinelen=76).encode()
            letter[name] = encoded
        return letter.as_bytes()

    def _text_and_html(self) -> MIMEMultipart:
        both = MIMEMultipart("alternative", policy=WIRE)
        both.attach(MIMEText(self.body or "", "plain", QUOTED_PRINTABLE, policy=WIRE))  # type: ignore[arg-type]
        both.attach(MIMEText(self.html or "", "html", QUOTED_PRINTABLE, policy=WIRE))  # type: ignore[arg-type]
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
        return formataddr((self.sender_name, self.from_address))
