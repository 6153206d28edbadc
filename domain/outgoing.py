"""What the service is told by webhook: which happenings, in which words, how often it is tried, what counts as heard.

An event out is thin: who (the service's own id), what, when, and the few instants that belong to it. Everything else is
asked for. ``webhook-id`` is the same at every attempt, so that a service can drop what comes twice.
"""

import json
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Any

from domain.dates import named_day


class Type(StrEnum):
    CASE_OPENED = "case.opened"  # asked: the notice is shown, a mail goes out
    CASE_CLOSED = "case.closed"  # no longer asked; ``outcome`` says how it ended, with the membership running on
    KEPT = "member.kept"
    ENDING = "member.ending"  # an end of one's own wish; it takes effect at ``deadline_at``
    LAPSED = "member.lapsed"
    RETURNED = "member.returned"
    CHANGED = "member.changed"  # the member has changed here what the service has a copy of
    ERASING = "member.erasing"  # ended at once by the member's wish to be erased; ``member.purged`` follows
    PURGED = "member.purged"


WANTS_ACKNOWLEDGEMENT = (Type.RETURNED, Type.PURGED)
"""The service's own copy has to follow these. What is only received counts as open until it says that it has."""


class State(StrEnum):
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"  # received, and not acknowledged yet
    DONE = "done"
    FAILED = "failed"  # given up; an operator was told
    OBSOLETE = "obsolete"  # of a member who was erased before it went out


UNFINISHED = (State.QUEUED, State.SENDING)

TOLD: dict[tuple[str, str | None], Type] = {
    ("answered_keep", None): Type.KEPT,
    ("kept_unasked", None): Type.KEPT,
    ("answered_lapse", None): Type.ENDING,
    ("keep_voided", None): Type.CASE_OPENED,
    ("case_closed", "lapsed"): Type.LAPSED,
    ("case_closed", None): Type.CASE_CLOSED,
    ("came_back", None): Type.RETURNED,
    ("lapse_reversed", None): Type.RETURNED,
    ("returned_elsewhere", None): Type.RETURNED,
    ("payment_declined", None): Type.LAPSED,
    ("email_changed", None): Type.CHANGED,
    ("language_chosen", None): Type.CHANGED,
    ("erasure_requested", None): Type.ERASING,
}
"""Code and detail of an event → what the service is told; None stands for any other detail. The rest stays here."""

DETAIL_NAMES = {
    Type.CASE_OPENED: "rule",
    Type.CASE_CLOSED: "outcome",
    Type.KEPT: "through",
    Type.ENDING: "through",
    Type.RETURNED: "how",
    Type.CHANGED: "what",
}
DETAILS = {
    "email_changed": "email",
    "language_chosen": "locale",
    "returned_elsewhere": "elsewhere",
    "lapse_reversed": "reversed",
}
"""Where the detail of an event would say something else to the service, or nothing: what it is told instead."""

NAMED_DAYS = {"deadline_at": "deadline", "access_ends_at": "access_until", "keep_until": "saved_until"}
"""Beside each instant goes the day that people are told: the last one before it, in the service's time zone."""

INSTANTS = {
    Type.CASE_OPENED: ("deadline_at",),
    Type.KEPT: ("deadline_at",),
    Type.ENDING: ("deadline_at",),
    Type.LAPSED: ("deadline_at", "access_ends_at", "keep_until"),
}
"""Which instants an event carries: until when an answer counts, there is access, and what was there is saved."""

WAITS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""Between the attempts of one event that the service answers with a failure: over three days in all."""

FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(hours=1)
"""Where nobody answers at all, no event is to blame: all of them wait, and no attempt is counted."""

FORGET_AFTER = timedelta(days=30)
"""An erased member's id is kept until the service has acknowledged the erasure, and no longer than this."""
KEEP_FOR = timedelta(days=90)
"""What is over is kept so long, to be sent again where a service asks for it."""

TELL_AFTER = timedelta(days=1)
"""Nobody answers, or a receipt is not acknowledged: after so long operators are told."""


@dataclass(frozen=True, slots=True)
class Happening:
    """What one event out tells. Bounds are exclusive: the first instant after the day that people are told."""

    type: Type
    at: datetime
    external_id: str
    detail: str | None = None
    case_id: str | None = None
    month: str | None = None
    deadline_at: datetime | None = None
    access_ends_at: datetime | None = None
    keep_until: datetime | None = None


def body(happening: Happening, zone: tzinfo) -> bytes:
    """The JSON that goes out; the same bytes at every attempt."""
    data: dict[str, Any] = {"external_id": happening.external_id}
    name = DETAIL_NAMES.get(happening.type)
    if name is not None and happening.detail is not None:
        data[name] = happening.detail
    if happening.case_id is not None:
        data["case"] = {"id": happening.case_id, "month": happening.month}
    for key in INSTANTS.get(happening.type, ()):
        instant = getattr(happening, key)
        if instant is not None:
            data[NAMED_DAYS[key]] = named_day(instant, zone).isoformat()
            data[key] = instant.isoformat()
    told = {"type": happening.type, "timestamp": happening.at.isoformat(), "data": data}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def acknowledges(answer: bytes) -> bool:
    """Whether the body of a positive answer says that the service's own copy has followed."""
    try:
        said = json.loads(answer)
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("acknowledged") is True


def wait(attempts: int, key: str) -> timedelta | None:
    """How long to wait after so many attempts, a fifth more or less by ``key``; None: it is given up."""
    if attempts > len(WAITS):
        return None
    return WAITS[max(attempts, 1) - 1] * _jitter(f"{key}:{attempts}")


def pause(failures: int, key: str) -> timedelta:
    """How long to leave an address alone where nobody has answered so many times in a row."""
    return min(FIRST_PAUSE * (1 << min(failures - 1, 20)), LONGEST_PAUSE) * _jitter(f"{key}:{failures}")


def _jitter(key: str) -> float:
    """0.8 to 1.2, the same for the same key: what failed together is not tried together again."""
    return 0.8 + 0.4 * zlib.crc32(key.encode()) / 0xFFFFFFFF
