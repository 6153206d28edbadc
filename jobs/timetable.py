"""Which calendar jobs are due, and for which period. Pure: the instant and what has been recorded come in.

Periods are days and months of the service's time zone, named by the calendar and not by a clock time: an hour that
comes twice, a midnight that is skipped and a day of 23 hours change nothing. A period becomes due at the first instant
of its day and stays due until it is done, or until the next one takes its place: after a downtime each job catches up
once.

- ``close`` has a period each day, because rolled deadlines and late runs end on any day. That of the first of a month
  is the month end itself: it bears the name of the month that ended ("2026-06"), and stays due until it is done.
- ``draft-campaign`` has one a month, from CAMPAIGN_DAY on; months that went by undrafted are ``skipped``, not made up
  for.
- ``remind`` (which also opens what needs no approval, and tells operators by when to approve), ``warn-purge`` and
  ``purge`` have one a day.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo

from domain.dates import add_months, first_of_month, local_day, start_of_day

CLOSE = "close"
DRAFT = "draft-campaign"
REMIND = "remind"
WARN_PURGE = "warn-purge"
PURGE = "purge"

CALENDAR = (CLOSE, DRAFT, REMIND, WARN_PURGE, PURGE)
"""In the order in which they run on one day: month end comes first, so that whom it frees can be drafted anew."""

FINAL = (DRAFT, CLOSE, PURGE)
"""What these do cannot be taken back: they wait while the time is in doubt (services/timekeeping.py)."""

DELIVER = "deliver"
SETTLE = "settle-billing"
SEND = "send-events"
QUEUE = (DELIVER, SETTLE, SEND)
"""These have no periods: they run on every process, whenever there is something in their queue."""

COLLECT = "collect-bounces"
EVERY = {COLLECT: timedelta(minutes=1)}
"""These look at something outside, one process at a time, so long after the end of the last look."""

ALL = (DRAFT, DELIVER, COLLECT, REMIND, CLOSE, SETTLE, SEND, WARN_PURGE, PURGE)


@dataclass(frozen=True, slots=True)
class Due:
    """A period of a job, due since ``at``. A ``month_end`` period is the month's whose last day has passed."""

    job: str
    period: str
    at: datetime
    month_end: bool = False


def due(now: datetime, zone: tzinfo, campaign_day: int) -> list[Due]:
    """The present period of every calendar job, done or not, in the order in which they are to run."""
    today = local_day(now, zone)
    return [one for job in CALENDAR for one in _periods(job, today, zone, campaign_day) if one.at <= now]


def next_due(job: str, now: datetime, zone: tzinfo, campaign_day: int) -> datetime:
    """When a calendar job is due next, after ``now``."""
    today = local_day(now, zone)
    days = [today + timedelta(days=1), *(add_months(first_of_month(today), months) for months in (0, 1))]
    return min(one.at for day in days for one in _periods(job, day, zone, campaign_day) if one.at > now)


def missed_months(last: str | None, now: datetime, zone: tzinfo) -> list[str]:
    """The months after the last one on record and before the present one: nobody was asked in them.

    Before the first campaign nothing is on record, and nothing was missed.
    """
    if last is None:
        return []
    current = first_of_month(local_day(now, zone))
    month = add_months(date.fromisoformat(f"{last}-01"), 1)
    missed = []
    while month < current:
        missed.append(f"{month:%Y-%m}")
        month = add_months(month, 1)
    return missed


def _periods(job: str, day: date, zone: tzinfo, campaign_day: int) -> Iterator[Due]:
    first = first_of_month(day)
    if job == DRAFT:
        yield Due(job, f"{first:%Y-%m}", start_of_day(first.replace(day=campaign_day), zone))
        return
    if job == CLOSE:
        yield Due(job, f"{add_months(first, -1):%Y-%m}", start_of_day(first, zone), month_end=True)
        if day == first:
            return
    yield Due(job, f"{day:%Y-%m-%d}", start_of_day(day, zone))
