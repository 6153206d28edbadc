"""The outbox of events to the service: what goes in, in the transaction of what has happened, for one or for many.

Whatever is written into ``event`` comes by here (services/events.py). What domain/outgoing.py has a word for becomes a
row, in one statement for a whole selection. Only while EVENTS_URL is set: the row of ``event_endpoint`` is a condition
of each of them.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, String, exists, insert, literal, null, select, update
from sqlalchemy import case as when
from sqlalchemy.orm import Session

from domain.outgoing import DETAILS, TOLD, UNFINISHED, State, Type
from models import Case, EventEndpoint, Member, OutgoingEvent, change
from models.base import UTCDateTime

COLUMNS = [
    "type", "at", "due_at", "detail", "member_id", "case_id", "external_id", "deadline_at", "access_ends_at",
    "keep_until",
]  # fmt: skip

WRITTEN_DOWN = exists(select(EventEndpoint.id))
"""There is an address to tell it to."""


def is_told(code: str) -> bool:
    return any(code == known for known, _ in TOLD)


def put_all(session: Session, happened: Select[*tuple[Any, ...]]) -> None:
    """Tell of a selection of events, with the columns that services/events.py gives them."""
    one = happened.subquery()
    at, code, detail, member_id, case_id, *_ = one.c
    told = _type_of(code, detail)
    _put(
        session,
        _row(told, at, when(DETAILS, value=code, else_=detail), case_id)
        .select_from(one)
        .join(Member, Member.id == member_id)
        .outerjoin(Case, Case.id == case_id)
        .where(told.is_not(None)),
    )


def put_opened(session: Session, now: datetime, *which: ColumnElement[bool]) -> None:
    """Tell that these cases are asked from now on; the draft before, which nobody had approved, was not told."""
    _put(
        session,
        _row(literal(Type.CASE_OPENED.value), literal(now, UTCDateTime()), Case.rule, Case.id)
        .select_from(Case)
        .join(Member, Member.id == Case.member_id)
        .where(*which),
    )


def put_purged(session: Session, which: ColumnElement[bool], now: datetime) -> None:
    """Tell that these members are erased; before their rows are, for their ids are what the service is told.

    Of whom is erased nothing else is told any more.
    """
    earlier = OutgoingEvent.member_id.in_(select(Member.id).where(which))
    change(
        session,
        update(OutgoingEvent)
        .where(earlier, OutgoingEvent.state.in_([*UNFINISHED, State.SENT, State.FAILED]))
        .values(state=State.OBSOLETE, lease_token=None, lease_until=None, done_at=now, external_id=None),
    )
    at, none = literal(now, UTCDateTime()), null()
    told = literal(Type.PURGED.value)
    _put(session, select(told, at, at, none, Member.id, none, Member.external_id, none, none, none).where(which))


def _row(told: Any, at: Any, detail: Any, case_id: Any) -> Select[*tuple[Any, ...]]:
    return select(
        told,
        at,
        at,
        detail,
        Member.id,
        case_id,
        null(),
        Case.deadline_at,
        Member.access_ends_at,
        Member.keep_until,
    )


def _put(session: Session, selected: Select[*tuple[Any, ...]]) -> None:
    statement = insert(OutgoingEvent).from_select(COLUMNS, selected.where(WRITTEN_DOWN), include_defaults=False)
    change(session, statement)


def _type_of(code: ColumnElement[str], detail: ColumnElement[str | None]) -> ColumnElement[str | None]:
    """``domain.outgoing.TOLD`` as SQL: what names a detail goes before what names none."""
    exact = [((code == of) & (detail == with_), told.value) for (of, with_), told in TOLD.items() if with_ is not None]
    others = [(code == of, told.value) for (of, with_), told in TOLD.items() if with_ is None]
    return when(*exact, *others, else_=literal(None, String()))
