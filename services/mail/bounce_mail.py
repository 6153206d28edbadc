"""What a bounce or a complaint says, read from the raw mail: RFC 3464 (with RFC 6533), and ARF (RFC 5965).

Nothing here is believed beyond which message it is about and what became of it. What is no report, such
as an answering machine's, says nothing.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.errors import MessageError
from email.message import Message
from email.parser import HeaderParser
from email.utils import parsedate_to_datetime
from enum import IntEnum

COMPLAINTS = frozenset({"abuse", "fraud", "virus", "opt-out", "other"})
"""The Feedback-Types that say: I do not want this. ``not-spam`` says the contrary, ``auth-failure`` nothing of us."""

ADDRESSED_TO = ("X-Original-To", "Delivered-To", "Envelope-To", "To")
STATUS = ("message/delivery-status", "message/global-delivery-status")
ORIGINAL = ("message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers")
LONGEST_REASON = 300


class Verdict(IntEnum):
    """What became of a message; of several, the highest counts."""

    NOTHING = 0
    DELAYED = 1  # is still being tried
    RETURNED = 2  # given up, for a reason that may pass: a full mailbox, a host that does not answer
    HARD = 3  # there is no such mailbox, or it will not have us
    COMPLAINT = 4


@dataclass(frozen=True, slots=True)
class Report:
    """``return_paths`` and ``message_ids`` are where the message it is about may be named, most telling first."""

    verdict: Verdict
    return_paths: tuple[str, ...] = ()
    message_ids: tuple[str, ...] = ()
    reason: str = ""
    arrived_at: datetime | None = None
    """When the server that reports had got the message, as it says."""


class _Part(Message):
    """What is a mail or a report within this mail is left as the text it came as.

    The standard library would take it apart without decoding it, and cannot put together whatever it has taken apart.
    """

    @property
    def kind(self) -> str:
        return super().get_content_type()

    def get_content_type(self) -> str:
        return "text/plain" if self.kind.startswith("message/") else self.kind

    @property
    def text(self) -> bytes:
        payload = None if self.is_multipart() else self.get_payload(decode=True)
        return payload if isinstance(payload, bytes) else b""


NO_REPORT = (RecursionError, MessageError, LookupError, TypeError, ValueError)
"""What reading something may end with that nobody would write for a report, such as parts in parts in parts."""


def read(raw: bytes, recipient: str | None = None) -> Report:
    """``recipient`` is the address it came to, where the server that hands it over says so. Never raises."""
    try:
        return _read(message_from_bytes(raw, _Part), recipient)
    except NO_REPORT:
        return Report(Verdict.NOTHING)


def _read(mail: _Part, recipient: str | None) -> Report:
    verdict, reason, arrived_at = Verdict.NOTHING, "", None
    paths = [recipient] if recipient else []
    for name in ADDRESSED_TO:
        paths += _addresses(mail, name)
    message_ids: list[str] = []
    # Also where a gateway has wrapped the report with words of its own.
    for part in mail.walk() if mail.is_multipart() else ():
        if part.kind in STATUS:
            for fields in _blocks(part.text):
                arrived_at = arrived_at or instant(_value(fields, "Arrival-Date"))
                found = _delivery(fields)
                if found > verdict:
                    verdict, reason = found, _reason(fields)
        elif part.kind == "message/feedback-report":
            fields = _fields(part.text)
            if _word(fields, "Feedback-Type") in COMPLAINTS:
                verdict, reason = Verdict.COMPLAINT, f"complaint: {_value(fields, 'Feedback-Type')}"
            paths += _addresses(fields, "Original-Mail-From")
        elif part.kind in ORIGINAL:
            original = _fields(part.text)
            paths += _addresses(original, "Return-Path")
            message_ids += [_value(original, "Message-ID")] if original["Message-ID"] else []
    return Report(verdict, tuple(dict.fromkeys(paths)), tuple(message_ids), reason, arrived_at)


def instant(said: str) -> datetime | None:
    """Of a date as mails or events write it; None for what is none, or is of no time zone."""
    for read_as in (parsedate_to_datetime, datetime.fromisoformat):
        with suppress(ValueError, OverflowError):
            found = read_as(said)
            return found.astimezone(UTC) if found.tzinfo is not None else None
    return None


def _delivery(fields: Message) -> Verdict:
    """Of one recipient's fields. Without a status the reply of the other server decides; unknown counts as passing."""
    action = _word(fields, "Action")
    if action == "delayed":
        return Verdict.DELAYED
    if action != "failed":
        return Verdict.NOTHING
    status = _word(fields, "Status") or _value(fields, "Diagnostic-Code").partition(";")[2].strip()
    return Verdict.HARD if status.startswith("5") else Verdict.RETURNED


def _reason(fields: Message) -> str:
    said = _value(fields, "Diagnostic-Code").partition(";")[2].strip()
    return (said or _value(fields, "Status"))[:LONGEST_REASON]


def _blocks(text: bytes) -> Iterator[Message]:
    """The groups of fields of a status, with an empty line between them."""
    return map(_fields, re.split(rb"(?:\r?\n){2,}", text.strip()))


def _fields(text: bytes) -> Message:
    return _HEADERS.parsestr(text.decode(errors="replace"))


_HEADERS = HeaderParser()


def _word(fields: Message, name: str) -> str:
    """The first word of a field, without the comments in parentheses that it may have."""
    return next(iter(re.sub(r"\([^()]*\)", " ", _value(fields, name)).casefold().split()), "")


def _value(fields: Message, name: str) -> str:
    return " ".join(str(fields.get(name) or "").split())


def _addresses(fields: Message, name: str) -> list[str]:
    """Everything in the fields of this name that may be an address; what it is not, will match nothing."""
    text = " ".join(str(value) for value in fields.get_all(name) or [])
    return [word for word in text.replace("<", " ").replace(">", " ").replace(",", " ").split() if "@" in word]
