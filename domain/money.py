"""Money: an integer of minor units and an ISO 4217 code. No floats, no rounding but where it is said."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from domain.errors import BadValue


@dataclass(frozen=True, slots=True)
class Money:
    minor: int
    currency: str

    def times(self, count: int) -> "Money":
        return Money(self.minor * count, self.currency)

    def plus(self, minor: int, currency: str) -> "Money":
        """Nothing has no currency yet."""
        return Money(self.minor + minor, currency)


def known(minor: int | None, currency: str | None) -> Money | None:
    """An amount from two columns, None where it is not on record."""
    return None if minor is None or currency is None else Money(minor, currency)


_PLAIN = re.compile(r"(-?)(\d*)(?:\.(\d*))?", re.ASCII)
_LARGEST_DIGITS = 12


def to_minor(amount: str, digits: int) -> int:
    """A decimal as written (``12.99``) in minor units, for a currency with so many digits after the point.

    Raises BadValue for what is no plain decimal, for a negative amount and for more digits than the currency has. It
    reads digits, because a decimal context rounds what is too long for it without a word.
    """
    written = amount.strip()
    quoted = f"price {written[:40] + ('…' if len(written) > 40 else '')!r}"
    found = _PLAIN.fullmatch(written)
    if found is None or not any(character.isdigit() for character in written):
        raise BadValue(f"{quoted} is not a decimal such as 12.99")
    sign, whole, fraction = found[1], found[2].lstrip("0"), (found[3] or "").rstrip("0")
    if sign and (whole or fraction):
        raise BadValue(f"{quoted} is negative")
    if len(fraction) > digits:
        raise BadValue(f"{quoted} has more than {digits} digits after the point")
    if len(whole) > _LARGEST_DIGITS - digits:
        raise BadValue(f"{quoted} is larger than any membership costs")
    return int(whole + fraction.ljust(digits, "0") or "0")


def to_decimal(minor: int, digits: int) -> Decimal:
    return Decimal(minor).scaleb(-digits)


def pro_rata(minor: int, start: datetime, end: datetime, since: datetime) -> int:
    """The share of what was paid for a period that falls to its part from ``since`` on, to the minor unit.

    By the time, not by days or months; half a unit goes to the member. All of it for ``since`` at the start or before,
    nothing at the end or after.
    """
    whole = (end - start) // timedelta(microseconds=1)
    rest = (end - since) // timedelta(microseconds=1)
    if whole <= 0 or rest <= 0:
        return 0
    return (2 * minor * min(rest, whole) + whole) // (2 * whole)
