"""What operators and the service itself do about events: look at the open ones, acknowledge, send again, let go."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from domain.outgoing import FORGET_AFTER, KEEP_FOR, TELL_AFTER, WANTS_ACKNOWLEDGEMENT, State, Type
from models import Member, OutgoingEvent, change
from services.outgoing import endpoint

PREFIX = "evt_"
OPEN = (State.QUEUED, State.SENDING, State.SENT, State.FAILED)


@dataclass(frozen=True, slots=True)
class Listed:
    """An event as operators see it. ``id`` is the ``webhook-id`` it goes out with."""

    id: str
    type: str
    external_id: str | None
    at: datetime
    state: str
    attempts: int
    said: str | None
    due_at: datetime
    sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands, for the checks: what waits, since when nothing gets through, what is not acknowledged."""

    since: datetime
    refused_at: datetime | None
    failing_since: datetime | None
    waiting: int
    failed: int
    unacknowledged: int
    said: str | None
    """What became of the last attempt that did not get through."""


def listed(session: Session, states: Sequence[State] = OPEN, limit: int = 1000) -> list[Listed]:
    """The events in these states, oldest first."""
    rows = session.execute(
        select(OutgoingEvent, func.coalesce(OutgoingEvent.external_id, Member.external_id))
        .join(Member, Member.id == OutgoingEvent.member_id)
        .where(OutgoingEvent.state.in_(states))
        .order_by(OutgoingEvent.id)
        .limit(limit)
        .execution_options(populate_existing=True)
    )
    return [
        Listed(
            id=PREFIX + row.public_id,
            type=row.type,
            external_id=external_id,
            at=row.at,
            state=row.state,
            attempts=row.attempts,
            said=row.said,
            due_at=row.due_at,
            sent_at=row.sent_at,
        )
        for row, external_id in rows
    ]


def standing(session: Session, now: datetime) -> Standing | None:
    """None where events go nowhere."""
    row = endpoint.present(session)
    if row is None:
        return None
    counts = {
        state: count
        for state, count in session.execute(
            select(OutgoingEvent.state, func.count())
            .where(OutgoingEvent.state.in_([State.QUEUED, State.SENDING, State.FAILED]))
            .group_by(OutgoingEvent.state)
        )
    }
    return Standing(
        row.since,
        row.refused_at,
        row.failing_since,
        counts.get(State.QUEUED, 0) + counts.get(State.SENDING, 0),
        counts.get(State.FAILED, 0),
        session.scalar(select(func.count()).select_from(OutgoingEvent).where(_unheard(now))) or 0,
        session.scalar(
            select(OutgoingEvent.said)
            .where(OutgoingEvent.state == State.QUEUED, OutgoingEvent.said.is_not(None))
            .order_by(OutgoingEvent.id.desc())
            .limit(1)
        ),
    )


def acknowledge(session: Session, event_id: str, now: datetime) -> bool:
    """The service's own copy has followed this event; again changes nothing. False: there is no such event."""
    public_id = event_id.removeprefix(PREFIX)
    change(
        session,
        update(OutgoingEvent)
        .where(
            OutgoingEvent.public_id == public_id,
            OutgoingEvent.type.in_(WANTS_ACKNOWLEDGEMENT),
            OutgoingEvent.state.in_(OPEN),
        )
        .values(
            state=State.DONE,
            done_at=now,
            sent_at=func.coalesce(OutgoingEvent.sent_at, now),
            external_id=None,
            lease_token=None,
            lease_until=None,
        ),
    )
    found = select(OutgoingEvent.id).where(
        OutgoingEvent.public_id == public_id, OutgoingEvent.type.in_(WANTS_ACKNOWLEDGEMENT)
    )
    return session.scalar(found) is not None


def replay(
    session: Session,
    now: datetime,
    *,
    ids: Sequence[str] = (),
    since: datetime | None = None,
    kind: Type | None = None,
    states: Sequence[State] = (State.FAILED, State.SENT, State.DONE),
) -> int:
    """Send events again that have gone out or were given up, under the same ``webhook-id``; how many there are.

    Of erased members there is nothing left to send once the service knows.
    """
    known = select(Member.id).where(Member.id == OutgoingEvent.member_id, Member.external_id.is_not(None)).exists()
    which = [
        OutgoingEvent.state.in_(states),
        or_(OutgoingEvent.external_id.is_not(None), and_(OutgoingEvent.type != Type.PURGED, known)),
    ]
    if ids:
        which.append(OutgoingEvent.public_id.in_([one.removeprefix(PREFIX) for one in ids]))
    if since is not None:
        which.append(OutgoingEvent.at >= since)
    if kind is not None:
        which.append(OutgoingEvent.type == kind)
    return change(
        session,
        update(OutgoingEvent).where(*which).values(state=State.QUEUED, attempts=0, due_at=now, done_at=None),
    )


def forget(session: Session, now: datetime) -> int:
    """Let go of what has been kept long enough, and tell operators of what is not acknowledged. How many rows went.

    An erased member's id is given up after thirty days, acknowledged or not: nothing is kept after (design promise 7).
    """
    too_long = and_(OutgoingEvent.external_id.is_not(None), OutgoingEvent.at <= now - FORGET_AFTER)
    given_up = change(
        session,
        update(OutgoingEvent)
        .where(too_long)
        .values(
            state=State.FAILED,
            done_at=now,
            external_id=None,
            lease_token=None,
            lease_until=None,
            said="never acknowledged; the id is forgotten",
        ),
    )
    gone = change(session, delete(OutgoingEvent).where(OutgoingEvent.at <= now - KEEP_FOR))
    if given_up or session.scalar(select(OutgoingEvent.id).where(_unheard(now)).limit(1)) is not None:
        endpoint.tell_operators(session, now)
    return gone


def _unheard(now: datetime) -> ColumnElement[bool]:
    return and_(OutgoingEvent.state == State.SENT, OutgoingEvent.sent_at <= now - TELL_AFTER)
