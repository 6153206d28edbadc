"""A clock that was set while a process ran: written down, and believed again only when an operator says so.

A wrong clock would end memberships, erase data and draft a round before their time, and setting it right takes none of
that back. So from the jump on ``close``, ``purge`` and ``draft-campaign`` wait, and so do the notices of cases, whose
instants a month end relies on (services/mail/dispatch.py); everything else goes on.
"""

from datetime import datetime, timedelta, tzinfo

from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy import delete as remove
from sqlalchemy.orm import Session

from domain.links import LIFETIME
from domain.outgoing import WAITS
from models import (
    ApiKey,
    BillingNews,
    BillingOrder,
    BillingPace,
    ClockJump,
    Erasure,
    EventEndpoint,
    JobRun,
    MagicLink,
    MailPace,
    Message,
    OutgoingEvent,
    change,
)
from services import billing_answers, billing_asking, events, provider_news
from services.mail import dispatch, recording
from services.outgoing import sending

SAME = timedelta(minutes=10)
"""Several processes on one machine notice one jump, each at its own next look: it is written down once. One that looks
only after an operator has confirmed the time has nothing to add."""


def doubt(session: Session) -> ClockJump | None:
    """The earliest jump that nobody has confirmed; None while the clock can be believed."""
    return session.scalars(
        select(ClockJump).where(ClockJump.confirmed_at.is_(None)).order_by(ClockJump.id).limit(1)
    ).first()


def sentence(jump: ClockJump, zone: tzinfo) -> str:
    """What operators read, everywhere the same."""
    found, expected = (f"{instant.astimezone(zone):%Y-%m-%d %H:%M}" for instant in (jump.noticed_at, jump.expected_at))
    return (
        f"the system clock jumped from {expected} to {found}; draft-campaign, close and purge wait:"
        " set it right, then run `flask jobs confirm-time`"
    )


def note_jump(session: Session, expected: datetime, found: datetime) -> bool:
    """Write a jump down, unless another process of this machine has."""
    known = select(
        exists().where(
            or_(
                ClockJump.confirmed_at.between(found - SAME, found + SAME),
                and_(
                    ClockJump.noticed_at.between(found - SAME, found + SAME),
                    ClockJump.expected_at.between(expected - SAME, expected + SAME),
                ),
            )
        )
    )
    if session.scalar(known):
        return False
    session.add(ClockJump(noticed_at=found, expected_at=expected))
    session.flush()
    events.record(session, "clock_jumped", found)
    return True


def confirm(session: Session, now: datetime) -> int:
    """An operator says that ``now`` is right. Returns how many jumps that settles; 0: there was no doubt.

    What the wrong clock has put off into the future is due now: leases, waits and next tries that lie further ahead
    than any of ours can. Days that have not come yet count as not worked on.
    """
    confirmed = change(session, update(ClockJump).where(ClockJump.confirmed_at.is_(None)).values(confirmed_at=now))
    if not confirmed:
        return 0
    for table, longest_lease, longest_wait in (
        (Message, dispatch.LEASE, recording.LONGEST_RETRY),
        (BillingOrder, billing_asking.LEASE, billing_answers.LONGEST_BACKOFF),
        (BillingNews, provider_news.LEASE, billing_answers.LONGEST_BACKOFF),
        (OutgoingEvent, sending.LEASE, 2 * max(WAITS)),
    ):
        change(session, update(table).where(table.lease_until > now + longest_lease).values(lease_until=now))
        change(session, update(table).where(table.due_at > now + longest_wait).values(due_at=now))
    _let_go_of_the_pace(session, now)
    _end_links(session, now)
    # Whoever joins again after today would still be taken for erased, and later erasures for written down.
    change(session, update(Erasure).where(Erasure.purged_at > now).values(purged_at=now))
    # A job of the calendar that waited for this, and one whose lease or wait was written by the wrong clock.
    change(
        session,
        update(JobRun)
        .where(JobRun.finished_at.is_(None), JobRun.lease_token.is_(None))
        .values(lease_until=None, result=None),
    )
    change(session, update(JobRun).where(JobRun.lease_until > now + timedelta(hours=1)).values(lease_until=None))
    change(session, remove(JobRun).where(or_(JobRun.due_at > now, JobRun.started_at > now)))
    events.record(session, "time_confirmed", now)
    return confirmed


def _let_go_of_the_pace(session: Session, now: datetime) -> None:
    """What says from when on the next mail, order, event or request may go: until then, none would."""
    for table in (MailPace, BillingPace):
        change(session, update(table).where(table.next_at > now).values(next_at=None))
    change(session, update(EventEndpoint).where(EventEndpoint.paused_until > now).values(paused_until=None))
    change(session, update(ApiKey).where(ApiKey.window_at > now).values(window_at=None))


def _end_links(session: Session, now: datetime) -> None:
    """Links that were asked for ahead of time would be good for long after it, and count against their address."""
    ahead = and_(MagicLink.created_at > now, MagicLink.purpose.in_(list(LIFETIME)))
    change(session, update(MagicLink).where(ahead).values(created_at=now, expires_at=now))
