"""What only the demo asks: the money in one figure, where to travel in time, what the made-up service does meanwhile.

The clock and the jobs of a journey are driven by jobs/travelling.py.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import FromClause, and_, func, or_, select
from sqlalchemy.orm import Session

from domain.dates import (
    MONTHS_OF,
    add_months,
    first_of_month,
    following_charge,
    keep_until,
    local_day,
    named_day,
    next_month_end,
)
from domain.lifecycle import Answer, MemberStatus
from domain.money import Money
from domain.notices import LAST_CALL_DAYS, LAST_CHANCE_DAYS, REMINDER_DAYS
from models import Case, Member
from services.activity import import_activity
from services.files.reading import Reject
from services.selection import dormant
from settings import Settings

MORNING = time(8, 5)
"""When a day of the journey is lived: after midnight's close and the nightly files, before people read their mail."""

HABIT, PAUSE = timedelta(days=60), timedelta(days=20)
"""Who used the service within the first goes on using it while time flies: after the second, and a few every night."""


@dataclass(frozen=True, slots=True)
class Unused:
    """How many people pay for what they do not use, and about how much a month in the sample's one currency."""

    members: int
    a_month: Money


def unused(session: Session, settings: Settings, now: datetime) -> Unused:
    """The dormant, asked or not, and what they pay."""
    return _sum(
        session,
        dormant(settings.policy, now, [Member.price_minor, Member.billing_interval, Member.currency]).subquery(),
    )


def ended(session: Session) -> Unused:
    """The memberships this programme has ended and still keeps, and what their owners no longer pay."""
    return _sum(
        session,
        select(Member.price_minor, Member.billing_interval, Member.currency)
        .where(Member.status == MemberStatus.LAPSED)
        .subquery(),
    )


def asked(session: Session) -> int:
    """How many have been asked and have not answered."""
    silent = select(func.count()).where(Case.closed_at.is_(None), Case.warned_at.is_not(None), Case.answer.is_(None))
    return session.scalar(silent) or 0


def _sum(session: Session, chosen: FromClause) -> Unused:
    columns = chosen.c
    rows = session.execute(
        select(
            columns.billing_interval, func.count(), func.sum(columns.price_minor), func.max(columns.currency)
        ).group_by(columns.billing_interval)
    ).all()
    currency = rows[0][3] if rows else None
    minor = sum(int(amount or 0) // MONTHS_OF.get(interval or "", 1) for interval, _count, amount, _currency in rows)
    return Unused(sum(count for _interval, count, _amount, _currency in rows), Money(minor, currency or "EUR"))


class Stop(StrEnum):
    TOMORROW = "tomorrow"
    REMINDER = "reminder"
    MONTH_END = "month_end"
    NINE_MONTHS = "nine_months"
    PAST_KEEP_UNTIL = "past_keep_until"


@dataclass(frozen=True, slots=True)
class Destination:
    """A stop and the instant it stands for."""

    stop: Stop
    at: datetime


def destinations(session: Session, settings: Settings, now: datetime) -> list[Destination]:
    """Every stop there is something to see at, as seen from ``now``, the nearest first."""
    zone = settings.zone
    today = local_day(now, zone)
    deadlines = select(func.min(Case.deadline_at)).where(Case.closed_at.is_(None), Case.warned_at.is_not(None))
    further = now + timedelta(days=REMINDER_DAYS + 1)
    next_asked = session.scalar(deadlines.where(Case.deadline_at > further, Case.answer.is_(None)))
    next_end = session.scalar(deadlines.where(Case.deadline_at > now)) or next_month_end(now, zone)
    kept_until = _most_kept_until(session, settings, now)

    def morning(day: date) -> datetime:
        return datetime.combine(day, MORNING, tzinfo=zone)

    found = {
        Stop.TOMORROW: today + timedelta(days=1),
        Stop.REMINDER: next_asked and named_day(next_asked, zone) - timedelta(days=REMINDER_DAYS),
        Stop.MONTH_END: local_day(next_end, zone),
        Stop.NINE_MONTHS: add_months(today, 9),
        Stop.PAST_KEEP_UNTIL: kept_until and local_day(kept_until, zone),
    }
    places = [Destination(stop, morning(day)) for stop, day in found.items() if day is not None]
    return sorted(places, key=lambda place: place.at)


def _most_kept_until(session: Session, settings: Settings, now: datetime) -> datetime | None:
    """Until when the data of most are saved who pay by the month and have ended, or are asked and will if they stay
    silent; None where there is nobody. Those who pay by the year are saved for longer, and would move the stop.
    """
    by_the_month = func.coalesce(Member.billing_interval, "month") == "month"
    lapsed = session.execute(
        select(Member.keep_until, func.count())
        .where(Member.status == MemberStatus.LAPSED, Member.keep_until > now, by_the_month)
        .group_by(Member.keep_until)
    )
    found = Counter({bound: count for bound, count in lapsed if bound is not None})
    asked = session.execute(
        select(Case.deadline_at, Case.answer, Member.paid_through)
        .join(Member)
        .where(Case.closed_at.is_(None), Case.warned_at.is_not(None), by_the_month)
    )
    for deadline, answer, paid_through in asked:
        if deadline is not None and answer != Answer.KEEP:
            paid = paid_through or deadline
            while answer is None and paid < deadline:
                paid = following_charge(paid, "month", paid, settings.zone)
            found[keep_until(max(deadline, paid), settings.keep_months, settings.zone)] += 1
    return min(found, key=lambda bound: (-found[bound], bound), default=None)


def uses_of_last_night(session: Session, now: datetime) -> list[tuple[str, datetime]]:
    """What the service would report of last night: of the members who used it lately, some used it again.

    Without this a journey of months would look, rightly, like a feed that died, and hold every campaign.
    """
    evening = now - timedelta(hours=11)
    rows = session.scalars(
        select(Member.external_id).where(
            Member.status == MemberStatus.ACTIVE,
            Member.last_used_at >= now - HABIT,
            or_(Member.last_used_at < evening - PAUSE, and_(Member.last_used_at < evening, Member.id % 10 == 0)),
        )
    )
    return [(external_id, evening) for external_id in rows if external_id is not None]


def next_morning(session: Session, settings: Settings, now: datetime, to: datetime) -> datetime:
    """The next morning of a journey to ``to`` that has to be lived through: the first on which the programme has
    something to do by its calendar, and one a week at least; or ``to`` itself when nothing comes before it.

    Between these nothing falls due, so that a journey of months takes seconds and skips nothing.
    """
    zone = settings.zone
    today = local_day(now, zone)
    live = select(Case.deadline_at).where(Case.closed_at.is_(None), Case.deadline_at.is_not(None)).distinct()
    kept = select(Member.keep_until).where(Member.status == MemberStatus.LAPSED).distinct()
    deadlines = [named_day(bound, zone) for bound in session.scalars(live) if bound is not None]
    keeps = [local_day(bound, zone) for bound in session.scalars(kept) if bound is not None]
    days = {
        add_months(first_of_month(today), 1),
        today + timedelta(days=7),
        *(day - timedelta(days=before) for day in deadlines for before in (REMINDER_DAYS, LAST_CALL_DAYS)),
        *(day - timedelta(days=before) for day in keeps for before in (LAST_CHANCE_DAYS, 0)),
    }
    mornings = (datetime.combine(day, MORNING, tzinfo=zone) for day in sorted(days))
    return min(next(morning for morning in mornings if morning > now), to)


def report_uses(
    session: Session,
    settings: Settings,
    uses: Iterable[tuple[str, datetime]],
    now: datetime,
    commit: Callable[[], None],
) -> None:
    """Bring uses in as the service would: as a file of activity."""
    rows = ((external_id, used_at.isoformat()) for external_id, used_at in uses)
    with _file(("external_id", "used_at"), rows) as path:
        import_activity(session, settings, path, now, commit=commit, rejected=must_not_be)


@contextmanager
def _file(header: Iterable[str], rows: Iterable[Iterable[str | None]]) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "nightly.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)
        yield path


def must_not_be(reject: Reject) -> None:
    """What the demo makes up is never rejected; were it, the demo would not be what it says."""
    raise AssertionError(f"line {reject.line}: {reject.reason}")
