"""The address that events go to, as it has behaved lately. Where nobody answers, all wait and nothing is counted.

The setting is the setting; the row says whether events are written down, and since when nothing gets through.
"""

from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from domain.notices import Kind
from domain.outgoing import TELL_AFTER, pause
from models import EventEndpoint, change, for_writing, insert
from services import outbox
from settings import Settings


def present(session: Session) -> EventEndpoint | None:
    return session.scalar(select(EventEndpoint).execution_options(populate_existing=True))


def follow(session: Session, settings: Settings, now: datetime) -> bool:
    """Bring the row in line with EVENTS_URL; True when something has changed. Writes only then.

    Another address is a new beginning, also after a 410.
    """
    digest = None if settings.events_url is None else sha256(settings.events_url.encode()).hexdigest()
    known = session.scalar(select(EventEndpoint.url_digest))
    # Looking has begun a transaction that only reads.
    session.rollback()
    if known == digest:
        return False
    for_writing(session)
    if digest is None:
        change(session, delete(EventEndpoint))
        return True
    anew = {"url_digest": digest, "since": now, "refused_at": None, "failures": 0, "failing_since": None}
    change(
        session,
        insert(session, EventEndpoint)
        .values(id=1, **anew)
        .on_conflict_do_update(index_elements=["id"], set_={**anew, "paused_until": None}),
    )
    return True


def resume(session: Session) -> bool:
    """Send again after a 410, or at once after nobody had answered; False when nothing was in the way."""
    return bool(
        change(
            session,
            update(EventEndpoint)
            .where(or_(EventEndpoint.refused_at.is_not(None), EventEndpoint.paused_until.is_not(None)))
            .values(refused_at=None, failures=0, failing_since=None, paused_until=None),
        )
    )


def answered(session: Session) -> None:
    change(
        session,
        update(EventEndpoint)
        .where(EventEndpoint.failures > 0)
        .values(failures=0, failing_since=None, paused_until=None),
    )


def nobody_there(session: Session, settings: Settings, seconds: int | None, now: datetime) -> None:
    """Leave the address alone for a while; those who had no answer at the same time count once."""
    row = session.scalar(select(EventEndpoint).with_for_update().execution_options(populate_existing=True))
    if row is None or (row.paused_until is not None and row.paused_until > now):
        return
    row.failures += 1
    row.failing_since = row.failing_since or now
    wait = pause(row.failures, row.url_digest)
    row.paused_until = now + max(wait, timedelta(seconds=seconds or 0))
    session.flush()
    if now - row.failing_since >= TELL_AFTER:
        tell_operators(session, now)


def gone(session: Session, now: datetime) -> None:
    """It wants no more (410): nothing is sent until an operator says so or names another address."""
    if change(session, update(EventEndpoint).where(EventEndpoint.refused_at.is_(None)).values(refused_at=now)):
        tell_operators(session, now)


def tell_operators(session: Session, now: datetime) -> None:
    """One mail a day, whatever the matter is: the checks say."""
    outbox.put_to_operators(session, Kind.NEEDS_ATTENTION, f"needs_attention:events:{now:%Y-%m-%d}", now)
