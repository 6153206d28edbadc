"""Money: an integer of minor units and an ISO 4217 code. No floats, no rounding but where it is said."""

from dataclasses import dataclass
from decimal import Decimal

from domain.errors import BadValue


@dataclass(frozen=True, slots=True)
class Money:
    minor: int
    currency: str

    def times(self, count: int) -> "Money":
        return Money(self.minor * count, self.currency)


def to_minor(amount: str, digits: int) -> int:
    """A decimal as written (``12.99``) in minor units, for a currency with so many digits after the point.

    Raises BadValue for what is no plain decimal, for a negative amount and for more digits than the currency has.
    """
    try:
        value = Decimal(amount.strip())
        scaled = value.scaleb(digits)
    except ArithmeticError:
        raise BadValue(f"price {amount!r} is not a decimal such as 12.99") from None
    if not value.is_finite():
        raise BadValue(f"price {amount!r} is not a decimal such as 12.99")
    if value < 0:
        raise BadValue(f"price {amount!r} is negative")
    if scaled != scaled.to_integral_value():
        raise BadValue(f"price {amount!r} has more than {digits} digits after the point")
    if scaled >= 10**12:
        raise BadValue(f"price {amount!r} is larger than any membership costs")
    return int(scaled)


def to_decimal(minor: int, digits: int) -> Decimal:
    return Decimal(minor).scaleb(-digits)
