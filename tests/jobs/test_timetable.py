"""One test for each sentence of the timetable, and the days on which clocks play tricks."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from domain.dates import local_day, start_of_day
from jobs import timetable
from jobs.timetable import CLOSE, DRAFT, PURGE, REMIND, WARN_PURGE, due, missed_months, next_due
from tests.factories import at

BERLIN = ZoneInfo("Europe/Berlin")


def periods(now: datetime, zone: ZoneInfo, day: int = 1) -> list[tuple[str, str]]:
    return [(one.job, one.period) for one in due(now, zone, day)]


def test_each_job_has_its_period_and_month_end_comes_first() -> None:
    assert periods(at("2026-06-03 10:00"), BERLIN) == [
        (CLOSE, "2026-05"),
        (CLOSE, "2026-06-03"),
        (DRAFT, "2026-06"),
        (REMIND, "2026-06-03"),
        (WARN_PURGE, "2026-06-03"),
        (PURGE, "2026-06-03"),
    ]


def test_the_close_of_the_first_of_a_month_is_the_month_end_and_no_other() -> None:
    first = [one for one in due(at("2026-06-30 22:00"), BERLIN, 1) if one.job == CLOSE]
    assert [(one.period, one.at, one.month_end) for one in first] == [("2026-06", at("2026-06-30 22:00"), True)]


def test_a_month_end_is_due_from_the_first_instant_after_it() -> None:
    before = at("2026-06-30 22:00") - timedelta(microseconds=1)
    assert (CLOSE, "2026-06") not in periods(before, BERLIN)
    assert next_due(CLOSE, before, BERLIN, 1) == at("2026-06-30 22:00")


def test_a_month_end_that_nobody_ran_stays_due() -> None:
    assert (CLOSE, "2026-06") in periods(at("2026-07-03 12:00"), BERLIN)
    assert (CLOSE, "2026-06") in periods(at("2026-07-31 12:00"), BERLIN)


def test_the_draft_is_due_from_its_day_on() -> None:
    assert (DRAFT, "2026-06") not in periods(at("2026-06-09 12:00"), BERLIN, day=10)
    assert (DRAFT, "2026-06") in periods(at("2026-06-10 12:00"), BERLIN, day=10)
    assert (DRAFT, "2026-06") in periods(at("2026-06-29 12:00"), BERLIN, day=10)
    assert next_due(DRAFT, at("2026-06-09 12:00"), BERLIN, 10) == start_of_day(at("2026-06-10").date(), BERLIN)
    assert next_due(DRAFT, at("2026-12-10 12:00"), BERLIN, 10) == start_of_day(at("2027-01-10").date(), BERLIN)


def test_a_downtime_leaves_one_period_of_each_daily_job() -> None:
    assert [one for one in periods(at("2026-06-20 10:00"), BERLIN) if one[0] == PURGE] == [(PURGE, "2026-06-20")]


def test_scenario_09_only_the_months_between_are_missed() -> None:
    now = at("2026-06-20 10:00")
    assert missed_months(None, now, BERLIN) == []
    assert missed_months("2026-06", now, BERLIN) == []
    assert missed_months("2026-05", now, BERLIN) == []
    assert missed_months("2026-02", now, BERLIN) == ["2026-03", "2026-04", "2026-05"]
    assert missed_months("2025-11", now, BERLIN) == ["2025-12", "2026-01", "2026-02", "2026-03", "2026-04", "2026-05"]


@pytest.mark.parametrize(
    ("zone", "around"),
    [
        ("Europe/Berlin", "2027-10-31"),  # 02:30 comes twice, on the last day of a month
        ("Europe/Berlin", "2027-03-28"),  # 02:30 does not come
        ("Africa/Cairo", "2023-04-28"),  # the day begins at 01:00
        ("America/Havana", "2026-11-01"),  # midnight to one comes twice, on the first of a month
        ("Pacific/Kiritimati", "2026-06-30"),  # UTC+14
        ("Pacific/Pago_Pago", "2026-06-30"),  # UTC-11
        ("Australia/Lord_Howe", "2026-04-05"),  # half an hour comes twice
    ],
)
def test_every_period_begins_once_and_is_there_all_its_day(zone: str, around: str) -> None:
    """Asked every quarter of an hour over five days, no period is lost, comes back, or begins before its day."""
    place = ZoneInfo(zone)
    now = at(around) - timedelta(days=2)
    seen: list[timetable.Due] = []
    while now < at(around) + timedelta(days=3):
        for one in due(now, place, 1):
            assert one.at <= now
            if one not in seen:
                assert not [other for other in seen if (other.job, other.period) == (one.job, one.period)]
                assert now - one.at < timedelta(minutes=15) or now < at(around) - timedelta(days=1, hours=23)
                seen.append(one)
            if one.job == REMIND:
                assert one.period == f"{local_day(now, place)}"
        assert len({one.job for one in due(now, place, 1)}) == len(timetable.CALENDAR)
        now += timedelta(minutes=15)
    days = [one.period for one in seen if one.job == REMIND]
    assert days == sorted(days)
    assert len(days) in (5, 6)
    ends = [one for one in seen if one.month_end]
    assert len({one.period for one in ends}) == len(ends)


def test_31_october_2027_ends_once_in_berlin() -> None:
    """The day has 25 hours; its end is midnight by winter time."""
    hours = [datetime(2027, 10, 30, 20, tzinfo=UTC) + timedelta(minutes=30 * n) for n in range(80)]
    ends = {one.at for now in hours for one in due(now, BERLIN, 1) if one.period == "2027-10" and one.job == CLOSE}
    assert ends == {datetime(2027, 10, 31, 23, tzinfo=UTC)}


@pytest.mark.parametrize("job", timetable.CALENDAR)
def test_the_next_time_is_later_and_then_it_is_due(job: str) -> None:
    for now in (at("2026-06-30 21:59"), at("2026-06-30 22:00"), at("2026-12-31 23:30"), at("2027-10-31 01:00")):
        following = next_due(job, now, BERLIN, 1)
        assert following > now
        assert [one for one in due(following, BERLIN, 1) if one.job == job and one.at == following]
