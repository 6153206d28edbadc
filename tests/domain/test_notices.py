"""When the further notices of a case are due, and what goes first."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import notices
from domain.notices import Kind, notice_due

LAST_DAY = date(2026, 6, 30)


@pytest.mark.parametrize(
    ("today", "due"),
    [
        ("2026-06-22", None),
        ("2026-06-23", Kind.REMINDER),
        ("2026-06-27", Kind.REMINDER),
        ("2026-06-28", Kind.LAST_CALL),
        ("2026-06-30", Kind.LAST_CALL),
        ("2026-07-01", None),
        ("2026-07-31", None),
    ],
)
def test_the_reminder_is_due_seven_days_before_and_the_last_call_two(today: str, due: Kind | None) -> None:
    assert notice_due(date.fromisoformat(today), LAST_DAY) is due


@given(st.dates(date(2020, 1, 1), date(2030, 12, 31)), st.integers(-60, 60))
def test_once_due_a_notice_stays_due_until_the_next_or_the_deadline(last_day: date, before: int) -> None:
    """A job that runs late sends late rather than never, and never after the day itself."""
    rank = {None: 0, Kind.REMINDER: 1, Kind.LAST_CALL: 2}
    today, tomorrow = (notice_due(last_day - timedelta(days=before - n), last_day) for n in (0, 1))
    if before >= 1:
        assert rank[today] <= rank[tomorrow]
    elif before < 0:
        assert today is None


def test_the_quiet_days_let_both_notices_out() -> None:
    """A reminder on its day leaves room for the last call on its own; so does the warning for the reminder."""
    assert notices.REMINDER_DAYS - notices.LAST_CALL_DAYS >= notices.QUIET_DAYS


def test_only_the_three_notices_ask_and_no_mail_is_both_a_notice_and_to_operators() -> None:
    assert set(notices.NOTICES) == {Kind.WARNING, Kind.REMINDER, Kind.LAST_CALL}
    assert not set(notices.NOTICES) & set(notices.TO_OPERATORS)


def test_what_somebody_waits_for_goes_before_what_has_days() -> None:
    order = [Kind.SIGN_IN, Kind.RECEIPT_LAPSE, Kind.LAST_CALL, Kind.WARNING]
    priorities = [notices.priority(kind) for kind in order]
    assert priorities == sorted(set(priorities))
    assert notices.priority(Kind.ERASE_CONFIRM) == notices.priority(Kind.SIGN_IN)
    assert notices.priority(Kind.REMINDER) == notices.priority(Kind.WARNING)


def test_every_kind_fits_its_column_and_its_once_key() -> None:
    """message.kind holds 20 characters; a key is the kind, an id and a generation or an instant, in 120."""
    assert max(len(kind) for kind in Kind) <= 20


def test_purge_waits_for_the_last_chance_and_for_those_it_does_not_reach() -> None:
    assert notices.LAST_CHANCE_DAYS > notices.PURGE_AFTER_NOTICE_DAYS
    assert notices.PURGE_ATTEMPT_DAYS >= notices.PURGE_AFTER_NOTICE_DAYS


def test_every_other_mail_goes_before_the_notices() -> None:
    """What looks for other mail ends where the notices begin (services/mail/dispatch.py)."""
    others = {notices.priority(kind) for kind in Kind if kind not in notices.NOTICES}
    assert max(others) < notices.FIRST_OF_NOTICES == notices.priority(Kind.LAST_CALL)
