"""Days, month ends and months back, held against brute force and the zones that behave oddly."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import dates

BERLIN = ZoneInfo("Europe/Berlin")
ODD_ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/Sao_Paulo",  # skipped midnight until 2018
    "Asia/Beirut",  # skips midnight
    "Africa/Cairo",  # skips midnight
    "America/St_Johns",  # once changed a minute past midnight, so that midnight came twice
    "America/Havana",  # goes back over midnight
    "Pacific/Kiritimati",  # UTC+14
    "Pacific/Pago_Pago",  # UTC-11
    "Pacific/Apia",  # had no 30 December 2011
    "Asia/Kathmandu",  # UTC+5:45
]
zones = st.sampled_from(ODD_ZONES).map(ZoneInfo)
days = st.dates(date(1996, 1, 1), date(2040, 12, 31))
month_ends = st.builds(
    lambda year, month: dates.add_months(date(year, month, 1), 1) - timedelta(days=1),
    st.integers(1996, 2039),
    st.integers(1, 12),
)
any_days = st.one_of(days, month_ends)
instants = st.datetimes(datetime(1996, 1, 1), datetime(2040, 12, 31), timezones=st.just(UTC))
counts = st.integers(1, 120)


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


# Local days


def test_the_local_day_is_the_one_people_in_the_zone_have() -> None:
    instant = datetime(2026, 6, 30, 22, 30, tzinfo=UTC)
    assert dates.local_day(instant, BERLIN) == date(2026, 7, 1)
    assert dates.local_day(instant, ZoneInfo("Pacific/Pago_Pago")) == date(2026, 6, 30)


@given(any_days, zones)
def test_a_day_starts_at_its_first_instant(day: date, zone: ZoneInfo) -> None:
    start = dates.start_of_day(day, zone)
    assert start.tzinfo is UTC
    assert dates.local_day(start - timedelta(microseconds=1), zone) < day <= dates.local_day(start, zone)


@given(any_days, zones)
def test_days_follow_one_another_without_gap(day: date, zone: ZoneInfo) -> None:
    """Only a day that the zone skipped has no instant at all."""
    start, end = (dates.start_of_day(each, zone) for each in (day, day + timedelta(days=1)))
    assert start < end or (zone.key, day) == ("Pacific/Apia", date(2011, 12, 30))
    assert timedelta(0) <= end - start <= timedelta(hours=25)


@pytest.mark.parametrize(
    ("zone", "day", "starts"),
    [
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04 03:00"),  # 00:00 to 01:00 does not exist
        ("Asia/Beirut", "2026-03-29", "2026-03-28 22:00"),
        ("Africa/Cairo", "2026-04-24", "2026-04-23 22:00"),
        ("America/Havana", "2026-11-01", "2026-11-01 04:00"),  # midnight comes twice: the first
        ("Pacific/Kiritimati", "2026-07-01", "2026-06-30 10:00"),
        ("Pacific/Pago_Pago", "2026-07-01", "2026-07-01 11:00"),
        ("Europe/Berlin", "2027-10-31", "2027-10-30 22:00"),
        ("Europe/Berlin", "2027-11-01", "2027-10-31 23:00"),  # the day of the change has 25 hours
        ("Pacific/Apia", "2011-12-30", "2011-12-30 10:00"),  # a day without an instant starts where the next does
        ("Pacific/Apia", "2011-12-31", "2011-12-30 10:00"),
    ],
)
def test_days_start_at_known_instants(zone: str, day: str, starts: str) -> None:
    expected = datetime.fromisoformat(starts).replace(tzinfo=UTC)
    assert dates.start_of_day(date.fromisoformat(day), ZoneInfo(zone)) == expected


@given(any_days, zones)
def test_a_bound_is_named_by_the_day_before_it(day: date, zone: ZoneInfo) -> None:
    bound = dates.start_of_day(day + timedelta(days=1), zone)
    skipped = (zone.key, day) == ("Pacific/Apia", date(2011, 12, 30))
    assert dates.named_day(bound, zone) == (date(2011, 12, 29) if skipped else day)


def test_access_that_ends_within_a_day_is_named_by_that_day() -> None:
    assert dates.named_day(berlin("2026-05-15 14:00"), BERLIN) == date(2026, 5, 15)


# Counting months


def test_a_month_later_is_the_same_day_or_the_last_of_the_month() -> None:
    assert dates.add_months(date(2026, 1, 15), 1) == date(2026, 2, 15)
    assert dates.add_months(date(2026, 1, 31), 1) == date(2026, 2, 28)
    assert dates.add_months(date(2024, 1, 31), 1) == date(2024, 2, 29)
    assert dates.add_months(date(2026, 11, 30), 3) == date(2027, 2, 28)
    assert dates.add_months(date(2026, 3, 31), -1) == date(2026, 2, 28)
    assert dates.add_months(date(2026, 1, 1), -1) == date(2025, 12, 1)


@given(any_days, counts)
def test_the_cutoff_is_the_latest_day_that_is_due(today: date, months: int) -> None:
    """Brute force: every day around it is tried."""
    cutoff = dates.months_back(today, months)
    around = [dates.add_months(today, -months) + timedelta(days=n) for n in range(-35, 36)]
    assert cutoff == max(day for day in around if dates.add_months(day, months) <= today)


def test_scenario_05_who_joined_on_29_february_is_due_a_year_later_on_the_28th() -> None:
    assert dates.months_back(date(2025, 2, 27), 12) == date(2024, 2, 27)
    assert dates.months_back(date(2025, 2, 28), 12) == date(2024, 2, 29)
    assert dates.months_back(date(2028, 2, 29), 24) == date(2026, 2, 28)


def test_scenario_05_who_joined_on_the_31st_is_due_at_the_end_of_a_shorter_month() -> None:
    assert dates.months_back(date(2026, 6, 29), 1) == date(2026, 5, 29)
    assert dates.months_back(date(2026, 6, 30), 1) == date(2026, 5, 31)


@given(any_days, any_days, counts)
def test_whole_months_between_agree_with_the_cutoff(one: date, other: date, months: int) -> None:
    earlier, later = sorted((one, other))
    assert (dates.months_between(earlier, later) >= months) == (earlier <= dates.months_back(later, months))


def test_31_january_to_28_february_counts_as_one_month() -> None:
    assert dates.months_between(date(2026, 1, 31), date(2026, 2, 28)) == 1
    assert dates.months_between(date(2026, 1, 31), date(2026, 2, 27)) == 0
    assert dates.months_between(date(2026, 1, 31), date(2026, 1, 31)) == 0


def test_a_month_is_named_in_the_zone() -> None:
    new_year = datetime(2026, 12, 31, 23, 30, tzinfo=UTC)
    assert dates.month_of(new_year, BERLIN) == "2027-01"
    assert dates.month_of(new_year, ZoneInfo("UTC")) == "2026-12"


# Month ends and notice


@given(instants, zones)
def test_the_next_month_end_is_the_start_of_the_next_month(now: datetime, zone: ZoneInfo) -> None:
    end = dates.next_month_end(now, zone)
    assert now < end
    assert dates.local_day(end, zone).day == 1
    assert dates.month_of(end - timedelta(microseconds=1), zone) == dates.month_of(now, zone)


@given(instants, st.integers(1, 60), zones)
def test_a_warning_today_leaves_the_notice_and_a_day(now: datetime, notice: int, zone: ZoneInfo) -> None:
    deadline = dates.month_end_with_notice(now, notice, zone)
    bound, today = dates.local_day(deadline, zone), dates.local_day(now, zone)
    assert bound.day == 1
    assert (bound - today).days >= notice + 1
    earlier = dates.add_months(bound, -1)
    assert (earlier - today).days < notice + 1, "an earlier month end would have left enough"


@pytest.mark.parametrize(
    ("day", "named"),
    [
        ("2026-06-01", "2026-06-30"),
        ("2026-06-16", "2026-06-30"),
        ("2026-06-17", "2026-07-31"),
        ("2026-02-14", "2026-02-28"),
        ("2026-02-15", "2026-03-31"),
        ("2028-02-15", "2028-02-29"),
        ("2026-12-18", "2027-01-31"),
    ],
)
def test_fourteen_days_of_notice_name_these_days(day: str, named: str) -> None:
    for hour in ("00:00", "23:59"):
        deadline = dates.month_end_with_notice(berlin(f"{day} {hour}"), 14, BERLIN)
        assert dates.named_day(deadline, BERLIN) == date.fromisoformat(named)


@given(instants, st.integers(1, 60), zones)
def test_the_last_day_to_open_has_the_same_month_end_and_the_next_has_not(
    now: datetime, notice: int, zone: ZoneInfo
) -> None:
    deadline = dates.month_end_with_notice(now, notice, zone)
    last = dates.last_day_to_open(now, notice, zone)
    noon = timedelta(hours=12)
    assert dates.month_end_with_notice(dates.start_of_day(last, zone) + noon, notice, zone) == deadline
    after = dates.start_of_day(last + timedelta(days=1), zone) + noon
    assert dates.month_end_with_notice(after, notice, zone) > deadline


def test_approve_by_16_june_to_end_on_30_june() -> None:
    assert dates.last_day_to_open(berlin("2026-06-01 09:00"), 14, BERLIN) == date(2026, 6, 16)
    assert dates.last_day_to_open(berlin("2026-06-17 09:00"), 14, BERLIN) == date(2026, 7, 17)


@given(instants, st.integers(1, 60), zones, st.integers(0, 26 * 60))
def test_a_warning_is_in_time_when_it_is_so_many_local_days_older(
    deadline: datetime, notice: int, zone: ZoneInfo, minutes: int
) -> None:
    bound = dates.start_of_day(dates.local_day(deadline, zone), zone)
    must = dates.warned_by(bound, notice, zone)
    for warned in (must - timedelta(minutes=minutes, microseconds=1), must + timedelta(minutes=minutes)):
        age = (dates.local_day(bound, zone) - dates.local_day(warned, zone)).days
        # A day that a zone skipped is a day on the calendar that nobody lived through.
        if zone.key == "Pacific/Apia" and warned.year == 2011 and bound > datetime(2011, 12, 30, tzinfo=UTC):
            continue
        assert (warned < must) == (age >= notice)


@given(instants, st.integers(1, 60), zones)
def test_a_warning_that_goes_out_today_is_in_time_if_accepted_by_tomorrow(
    now: datetime, notice: int, zone: ZoneInfo
) -> None:
    deadline = dates.month_end_with_notice(now, notice, zone)
    tomorrow = dates.start_of_day(dates.local_day(now, zone) + timedelta(days=2), zone)
    assert tomorrow <= dates.warned_by(deadline, notice, zone)


def test_scenario_10_accepted_on_17_june_counts_for_30_june_and_on_the_18th_it_does_not() -> None:
    must = dates.warned_by(berlin("2026-07-01 00:00"), 14, BERLIN)
    assert berlin("2026-06-17 23:59") < must
    assert must == berlin("2026-06-18 00:00")


def test_notice_counts_local_days_over_a_change_of_clocks() -> None:
    """31 October 2027 has 25 hours in Berlin; fourteen days before it is still a local midnight."""
    assert dates.warned_by(berlin("2027-11-01 00:00"), 14, BERLIN) == berlin("2027-10-19 00:00")


# Keep-until


def test_scenario_24_access_that_ends_with_june_is_saved_until_30_april() -> None:
    bound = dates.keep_until(berlin("2026-07-01 00:00"), 10, BERLIN)
    assert bound == berlin("2027-05-01 00:00")
    assert dates.named_day(bound, BERLIN) == date(2027, 4, 30)


def test_scenario_24_access_that_ends_with_february_is_saved_until_31_december() -> None:
    bound = dates.keep_until(berlin("2027-03-01 00:00"), 10, BERLIN)
    assert dates.named_day(bound, BERLIN) == date(2027, 12, 31)


def test_scenario_25_access_paid_until_mid_may_is_saved_from_then() -> None:
    bound = dates.keep_until(berlin("2027-05-15 00:00"), 10, BERLIN)
    assert dates.named_day(bound, BERLIN) == date(2028, 3, 31)


@given(instants, st.integers(1, 24), zones)
def test_what_is_saved_is_saved_for_so_many_whole_months_and_ends_with_a_month(
    access_ends: datetime, months: int, zone: ZoneInfo
) -> None:
    bound = dates.keep_until(access_ends, months, zone)
    last_day = dates.named_day(access_ends, zone)
    assert dates.local_day(bound, zone).day == 1
    assert dates.add_months(last_day, months) < dates.local_day(bound, zone)
    assert dates.add_months(dates.first_of_month(last_day), months + 1) == dates.local_day(bound, zone)
