"""How fast notices go out: MAIL_RATE, MAIL_DAILY and MAIL_WINDOW, shared by all processes. Nothing else is held back.

The rate is a GCRA: one row says from when on the next batch may be claimed, and a claim moves that on by what the batch
costs, in the claim's own transaction. So a process that dies after its claim has spent, and none can spend twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from domain.dates import local_day, start_of_day
from domain.lifecycle import MessageState
from domain.notices import NOTICES
from models import MailPace, Message, change, insert
from settings import Settings

LONGEST_WAIT = timedelta(seconds=1)
"""A sign-in mail that comes while a run waits for its rate is not kept longer than this."""

CLOCKS_APART = timedelta(minutes=1)
"""By so much the clocks of two machines may differ."""

FARTHEST = 400
"""Days an estimate looks ahead."""

_ROW = 1


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many notices may be claimed now. If none, ``wait`` is after how long to ask again; None: not in this run."""

    notices: int
    wait: timedelta | None = None


def allowance(session: Session, settings: Settings, now: datetime, most: int) -> Allowance:
    """To be asked in the transaction of the claim, which keeps the others waiting until what it took is written."""
    if not _in_window(settings, now):
        return Allowance(0)
    if not settings.mail_rate and not settings.mail_daily:
        return Allowance(most)
    row = _row(session)
    if settings.mail_daily:
        row.spent, row.day = _spent(session, row, settings, now), _day(settings, now)
        session.flush()
        most = min(most, settings.mail_daily - row.spent)
        if most <= 0:
            return Allowance(0)
    if settings.mail_rate:
        # A batch is what one second allows, so that no more than that goes out in one go.
        most = min(most, max(1, int(settings.mail_rate)))
        next_at = _next_at(row, settings, now)
        if next_at > now:
            return Allowance(0, min(next_at - now, LONGEST_WAIT))
    return Allowance(most)


def _next_at(row: MailPace, settings: Settings, now: datetime) -> datetime:
    """When more may be claimed. What is later than any claim can have put it comes of a clock that was ahead, or of a
    rate that was lower, and binds nobody: else nothing would go out until it is that late."""
    farthest = now + timedelta(seconds=max(1, 1 / settings.mail_rate)) + CLOCKS_APART
    return now if row.next_at is None or row.next_at > farthest else max(row.next_at, now)


def spend(session: Session, settings: Settings, now: datetime, notices: int) -> None:
    """Write down, in the transaction of the claim, how many notices it took."""
    if not notices or not (settings.mail_rate or settings.mail_daily):
        return
    row = _row(session)
    if settings.mail_rate:
        row.next_at = _next_at(row, settings, now) + timedelta(seconds=notices / settings.mail_rate)
    if settings.mail_daily:
        row.spent += notices
    session.flush()


def give_back(session: Session, settings: Settings, now: datetime, notices: int) -> None:
    """Notices that were claimed and not tried do not count for the day."""
    if not notices or not settings.mail_daily:
        return
    row = _row(session)
    if row.day == _day(settings, now):
        row.spent = max(0, row.spent - notices)
        session.flush()


def spent_today(session: Session, settings: Settings, now: datetime) -> int:
    """How many notices count for the day; 0 where it has no cap."""
    return _spent(session, session.get(MailPace, _ROW), settings, now) if settings.mail_daily else 0


def done_at(settings: Settings, now: datetime, notices: int, spent: int, observed: float = 0) -> datetime | None:
    """When so many notices will have gone out; None where nothing tells.

    ``spent`` is what has gone out today, ``observed`` the rate of the last hour in messages a second.
    """
    rate = min(settings.mail_rate or observed, observed or settings.mail_rate)
    if not notices:
        return now
    if not rate and not settings.mail_daily:
        return None
    day = local_day(now, settings.zone)
    for ahead in range(FARTHEST):
        left = settings.mail_daily - (spent if ahead == 0 else 0) if settings.mail_daily else notices
        for opens, closes in _open(settings, day + timedelta(days=ahead)):
            begins = max(opens, now)
            if begins >= closes or left <= 0:
                continue
            possible = int((closes - begins).total_seconds() * rate) if rate else left
            taken = min(left, possible, notices)
            if taken == notices:
                return begins + timedelta(seconds=notices / rate if rate else 0)
            notices, left = notices - taken, left - taken
    return None


def _open(settings: Settings, day: date) -> Iterator[tuple[datetime, datetime]]:
    """When notices may go out on a local day, in order."""
    begin, end = start_of_day(day, settings.zone), start_of_day(day + timedelta(days=1), settings.zone)
    if settings.window is None:
        yield begin, end
        return
    opens, closes = (_at(day, of_day, settings) for of_day in settings.window)
    if opens < closes:
        yield opens, closes
    else:
        yield begin, closes
        yield opens, end


def _at(day: date, of_day: time, settings: Settings) -> datetime:
    return datetime.combine(day, of_day, tzinfo=settings.zone).astimezone(UTC)


def _in_window(settings: Settings, now: datetime) -> bool:
    return any(opens <= now < closes for opens, closes in _open(settings, local_day(now, settings.zone)))


def _spent(session: Session, row: MailPace | None, settings: Settings, now: datetime) -> int:
    """How many notices have gone out today: what was claimed since the cap holds, and what had been sent before."""
    if row is not None and row.day == _day(settings, now):
        return row.spent
    begin = start_of_day(local_day(now, settings.zone), settings.zone)
    sent = (Message.state == MessageState.SENT, Message.sent_at >= begin, Message.kind.in_(NOTICES))
    return session.scalar(select(func.count()).select_from(Message).where(*sent)) or 0


def forget_the_day(session: Session, settings: Settings) -> None:
    """For a run without a cap, which counts nothing: one that has a cap again counts anew what has gone out today."""
    if not settings.mail_daily:
        change(session, update(MailPace).where(MailPace.day.is_not(None)).values(day=None))


def _day(settings: Settings, now: datetime) -> str:
    return str(local_day(now, settings.zone))


def _row(session: Session) -> MailPace:
    """The one row, locked where the database locks rows, and read anew."""
    locked = select(MailPace).where(MailPace.id == _ROW).with_for_update().execution_options(populate_existing=True)
    row = session.scalar(locked)
    if row is None:
        change(session, insert(session, MailPace).values(id=_ROW).on_conflict_do_nothing())
        row = session.scalars(locked).one()
    return row
