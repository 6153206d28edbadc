"""Prices as they are written, in minor units and back."""

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import BadValue
from domain.money import Money, to_decimal, to_minor


@pytest.mark.parametrize(
    ("written", "digits", "minor"),
    [
        ("12.99", 2, 1299),
        (" 12.99 ", 2, 1299),
        ("12.9", 2, 1290),
        ("12", 2, 1200),
        ("12.", 2, 1200),
        (".5", 2, 50),
        ("0", 2, 0),
        ("-0", 2, 0),
        ("0.00", 2, 0),
        ("007.50", 2, 750),
        ("980", 0, 980),
        ("980.00", 0, 980),
        ("1.234", 3, 1234),
        ("1.2340000", 3, 1234),
        ("9999999999.99", 2, 999999999999),
    ],
)
def test_a_plain_decimal_becomes_minor_units(written: str, digits: int, minor: int) -> None:
    assert to_minor(written, digits) == minor


@pytest.mark.parametrize(
    "written",
    [
        *[
            "",
            " ",
            ".",
            "-",
            "12,99",
            "€12.99",
            "12.99 EUR",
            "1 299",
            "1_299",
            "1e2",
            "0x10",
            "NaN",
            "sNaN",
            "Infinity",
        ],
        *["1.2.3", "--1", "+5", "１２", "twelve", "12.99\n13.99", "\x00"],
    ],
)
def test_what_is_no_plain_decimal_is_refused_by_name(written: str) -> None:
    with pytest.raises(BadValue, match=r"is not a decimal such as 12\.99"):
        to_minor(written, 2)


def test_a_negative_price_is_refused() -> None:
    with pytest.raises(BadValue, match=r"price '-1\.00' is negative"):
        to_minor("-1.00", 2)


@pytest.mark.parametrize(
    ("written", "digits"), [("12.999", 2), ("0.5", 0), ("1.2345", 3), ("12.99" + "0" * 40 + "1", 2)]
)
def test_more_digits_than_the_currency_has_are_refused_and_never_rounded(written: str, digits: int) -> None:
    with pytest.raises(BadValue, match=f"more than {digits} digits after the point"):
        to_minor(written, digits)


@pytest.mark.parametrize("written", ["10000000000.00", "9" * 30, "9" * 10_000])
def test_what_no_membership_costs_is_refused(written: str) -> None:
    with pytest.raises(BadValue, match="larger than any membership costs"):
        to_minor(written, 2)


def test_a_refusal_quotes_a_long_value_in_part() -> None:
    with pytest.raises(BadValue) as refused:
        to_minor("9" * 10_000, 2)
    assert len(str(refused.value)) < 200


@given(st.integers(0, 10**12 - 1), st.sampled_from([0, 2, 3]))
def test_minor_units_survive_being_written_and_read(minor: int, digits: int) -> None:
    written = to_decimal(minor, digits)
    assert isinstance(written, Decimal)
    assert to_minor(f"{written:f}", digits) == minor


@given(st.text(max_size=30))
def test_any_text_is_a_price_or_refused(written: str) -> None:
    with suppress(BadValue):
        assert 0 <= to_minor(written, 2) < 10**12


def test_so_many_months_cost_so_much() -> None:
    assert Money(1299, "EUR").times(20) == Money(25980, "EUR")
