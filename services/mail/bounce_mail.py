"""What a bounce or a complaint says, read from the raw mail: RFC 3464 (with RFC 6533), and ARF (RFC 5965).

Nothing here is believed beyond which message it is about and what became of it. What is no report, such
as an answering machine's, says nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from enum import IntEnum

COMPLAINTS = frozenset({"abuse", "fraud", "virus", "opt-out", "other"})
"""The Feedback-Types that say: I do not want this. ``not-spam`` says the contrary, ``auth-failure`` nothing of us."""

ADDRESSED_TO = ("X-Original-To", "Delivered-To", "Envelope-To", "To")
STATUS = ("message/delivery-status", "message/global-delivery-status")
ORIGINAL = ("message/rfc822", "message/global")
ORIGINAL_HEADERS = ("text/rfc822-headers", "message/global-headers")
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


def read(raw: bytes, recipient: str | None = None) -> Report:
    """``recipient`` is the address it came to, where the server that hands it over says so. Never raises."""
    try:
        return _read(message_from_bytes(raw), recipient)
    except RecursionError:
        # Parts within parts within parts: no report is made like that.
        return Report(Verdict.NOTHING)


def _read(mail: Message, recipient: str | None) -> Report:
    verdict, reason = Verdict.NOTHING, ""
    paths = [recipient] if recipient else []
    for name in ADDRESSED_TO:
        paths += _addresses(mail, name)
    message_ids: list[str] = []
    for part in _parts(mail):
        kind = part.get_content_type()
        if kind in STATUS:
            for fields in _blocks(part, kind):
                found = _delivery(fields)
                if found > verdict:
                    verdict, reason = found, _reason(fields)
        elif kind == "message/feedback-report":
            for fields in _nested(part):
                if _value(fields, "Feedback-Type").casefold() in COMPLAINTS:
                    verdict, reason = Verdict.COMPLAINT, f"complaint: {_value(fields, 'Feedback-Type')}"
                paths += _addresses(fields, "Original-Mail-From")
        elif kind in ORIGINAL or kind in ORIGINAL_HEADERS:
            for original in _nested(part) if kind in ORIGINAL else [_headers(part)]:
                paths += _addresses(original, "Return-Path")
                message_ids += [_value(original, "Message-ID")] if original["Message-ID"] else []
    return Report(verdict, tuple(dict.fromkeys(paths)), tuple(message_ids), reason)


def _delivery(fields: Message) -> Verdict:
    """Of one recipient's fields. Without a status the reply of the other server decides; unknown counts as passing."""
    action = _value(fields, "Action").casefold()
    if action == "delayed":
        return Verdict.DELAYED
    if action != "failed":
        return Verdict.NOTHING
    status = _value(fields, "Status") or _value(fields, "Diagnostic-Code").partition(";")[2].strip()
    return Verdict.HARD if status.startswith("5") else Verdict.RETURNED


def _reason(fields: Message) -> str:
    said = _value(fields, "Diagnostic-Code").partition(";")[2].strip()
    return (said or _value(fields, "Status"))[:LONGEST_REASON]


def _parts(mail: Message) -> list[Message]:
    return [part for part in mail.get_payload() if isinstance(part, Message)] if mail.is_multipart() else []


def _nested(part: Message) -> list[Message]:
    payload = part.get_payload()
    return [inner for inner in payload if isinstance(inner, Message)][:1] if isinstance(payload, list) else []


def _blocks(part: Message, kind: str) -> Iterator[Message]:
    """The groups of fields of a status: the standard library takes them apart for one of the two types only."""
    if kind != STATUS[0]:
        text = b"\n\n".join(inner.as_bytes() for inner in _nested(part))
        part = message_from_bytes(b"Content-Type: message/delivery-status\n\n" + text)
    payload = part.get_payload()
    if isinstance(payload, list):
        yield from (fields for fields in payload if isinstance(fields, Message))


def _headers(part: Message) -> Message:
    if part.is_multipart():
        return next(iter(_nested(part)), Message())
    payload = part.get_payload(decode=True)
    return message_from_bytes(payload if isinstance(payload, bytes) else b"")


def _value(fields: Message, name: str) -> str:
    return " ".join(str(fields.get(name) or "").split())


def _addresses(fields: Message, name: str) -> list[str]:
    """Everything in the fields of this name that may be an address; what it is not, will match nothing."""
    text = " ".join(str(value) for value in fields.get_all(name) or [])
    return [word for word in text.replace("<", " ").replace(">", " ").replace(",", " ").split() if "@" in word]
