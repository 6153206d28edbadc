"""What part of a paid period goes back."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from domain.money import pro_rata
from tests.factories import at

START, END = at("2026-06-01"), at("2026-07-01")


def test_the_share_is_by_time_and_half_a_unit_goes_to_the_member() -> None:
    assert pro_rata(1299, START, END, START) == 1299
    assert pro_rata(1299, START, END, START - timedelta(days=1)) == 1299
    assert pro_rata(1299, START, END, END) == 0
    assert pro_rata(1299, START, END, END + timedelta(days=1)) == 0
    assert pro_rata(1299, START, END, at("2026-06-16")) == 650
    assert pro_rata(1300, START, END, at("2026-06-11")) == 867
    assert pro_rata(1299, START, START, START) == 0


@given(st.integers(0, 10**9), st.integers(0, 10**12), st.integers(0, 10**12))
def test_two_parts_of_a_period_make_the_whole(minor: int, first: int, second: int) -> None:
    end = START + timedelta(microseconds=first + second + 1)
    middle = START + timedelta(microseconds=first)
    after = pro_rata(minor, START, end, middle)
    before = pro_rata(minor, -(end - START) + START, START, START - (middle - START))
    assert 0 <= after <= minor
    assert abs(after + before - minor) <= 1
