"""Days, month ends and counting months, in the service's time zone.

Instants are aware datetimes in UTC. A *deadline* and a *keep-until* are exclusive bounds: the first instant after the
day that is named to people (1 July 00:00 local stands for "30 June"). ``now`` always comes in from outside.
"""

from calendar import monthrange
from datetime import UTC, date, datetime, time, timedelta, tzinfo


def local_day(instant: datetime, zone: tzinfo) -> date:
    """The calendar day of an instant, as people in the zone name it."""
    return instant.astimezone(zone).date()


def start_of_day(day: date, zone: tzinfo) -> datetime:
    """The first instant of a local day, in UTC.

    Where clocks skip midnight the day starts at the instant of the change; where midnight comes twice, at the first.
    ``fold=0`` gives both (PEP 495).
    """
    return datetime.combine(day, time(0), tzinfo=zone).astimezone(UTC)


def named_day(bound: datetime, zone: tzinfo) -> date:
    """The day that is named to people for an exclusive bound: the one of the instant before."""
    return local_day(bound - timedelta(microseconds=1), zone)


def add_months(day: date, months: int) -> date:
    """The same day of the month, ``months`` later (or earlier, when negative), or that month's last day."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def months_back(today: date, months: int) -> date:
    """The latest day d with ``add_months(d, months) <= today``.

    The direction matters at month ends: twelve months after 29 February 2024 fall on 28 February 2025, so on that day
    the cutoff must be the 29th, which plain subtraction would miss.
    """
    earlier = add_months(today, -months)
    if today.day == monthrange(today.year, today.month)[1]:
        return earlier.replace(day=monthrange(earlier.year, earlier.month)[1])
    return earlier


def months_between(earlier: date, later: date) -> int:
    """Whole months from one day to a later one; 31 January to 28 February counts as one."""
    months = (later.year - earlier.year) * 12 + later.month - earlier.month
    return months if add_months(earlier, months) <= later else months - 1


def first_of_month(day: date) -> date:
    return day.replace(day=1)


def month_of(instant: datetime, zone: tzinfo) -> str:
    """The month of an instant as ``YYYY-MM``."""
    return f"{local_day(instant, zone):%Y-%m}"


def next_month_end(now: datetime, zone: tzinfo) -> datetime:
    """The end of the present month: the first instant of the next one."""
    return start_of_day(add_months(first_of_month(local_day(now, zone)), 1), zone)


def month_end_with_notice(now: datetime, notice_days: int, zone: tzinfo) -> datetime:
    """The first month end that leaves a warning the notice and a day.

    With 14 days, a warning that goes out by 16 June can end a membership on 30 June; one of 17 June on 31 July.
    """
    today = local_day(now, zone)
    bound = add_months(first_of_month(today), 1)
    while (bound - today).days < notice_days + 1:
        bound = add_months(bound, 1)
    return start_of_day(bound, zone)


def last_day_to_open(now: datetime, notice_days: int, zone: tzinfo) -> date:
    """The last day on which opening still ends memberships at the month end it would have today."""
    return local_day(month_end_with_notice(now, notice_days, zone), zone) - timedelta(days=notice_days + 1)


def warned_by(deadline: datetime, notice_days: int, zone: tzinfo) -> datetime:
    """The exclusive bound before which a warning must have been accepted to be ``notice_days`` local days old."""
    return start_of_day(local_day(deadline, zone) - timedelta(days=notice_days - 1), zone)


def keep_until(access_ends: datetime, months: int, zone: tzinfo) -> datetime:
    """The end of the ``months``-th month after the month in which access ends.

    Access that ends with 30 June (bound 1 July) is kept for ten months until 30 April, the bound being 1 May.
    """
    month = first_of_month(named_day(access_ends, zone))
    return start_of_day(add_months(month, months + 1), zone)


MONTHS_OF = {"month": 1, "quarter": 3, "year": 12}
WEEK = "week"
INTERVALS = (WEEK, *MONTHS_OF)
"""How often a membership can be charged."""


def access_ends(ends_at: datetime, paid_through: datetime | None, *, refunded: bool) -> datetime:
    """Until when the service can be used after an end: what is paid stays the member's, unless the rest goes back."""
    return ends_at if refunded or paid_through is None else max(ends_at, paid_through)


def following_charge(anchor: datetime, interval: str, after: datetime, zone: tzinfo) -> datetime:
    """The first charge after an instant of a membership whose charges are counted from ``anchor``.

    On the anchor's day of the month, or on that month's last day where it has none, at the anchor's time of day in the
    service's time zone: who joined on the 31st pays on 30 June and on 31 July again.
    """
    local = anchor.astimezone(zone)
    step = 0
    while True:
        step += 1
        day = (
            local.date() + timedelta(days=7 * step)
            if interval == WEEK
            else add_months(local.date(), MONTHS_OF[interval] * step)
        )
        found = datetime.combine(day, local.time(), tzinfo=zone).astimezone(UTC)
        if found > after:
            return found
