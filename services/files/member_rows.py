"""A row of a member file, from its cells to what is staged. The format is described in docs/importing.md."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from domain.errors import BadValue
from domain.policy import SubscriptionStatus
from services.addresses import checked
from services.files import cells
from settings import Settings

COLUMNS = (
    "external_id", "email", "name", "locale", "joined_at", "last_used_at", "plan", "price", "currency",
    "billing_interval", "subscription_status", "paid_through", "billing_ref", "billed_by",
    "exempt_reason",
)  # fmt: skip
REQUIRED = ("external_id", "email", "joined_at")

INTERVALS = {
    **dict.fromkeys(("month", "monthly", "months", "m", "1m", "p1m", "monat", "monatlich"), "month"),
    **dict.fromkeys(
        ("year", "yearly", "annual", "annually", "y", "1y", "p1y", "p12m", "12m", "jahr", "jährlich"), "year"
    ),
    **dict.fromkeys(("quarter", "quarterly", "3m", "p3m", "quartal", "vierteljährlich"), "quarter"),
    **dict.fromkeys(("week", "weekly", "w", "1w", "p1w", "woche", "wöchentlich"), "week"),
}
STATUSES = {str(status): str(status) for status in SubscriptionStatus}


def _stores(settings: Settings) -> dict[str, str]:
    return {cells.folded(name): name for name in settings.where_to_end}


Row = tuple[Any, ...]
"""line, external_id, email, email_key, then the values of the other columns as ``staged_columns`` names them."""


def check_columns(names: Sequence[str]) -> None:
    """Raises BadValue where a file with these columns could not be imported at all."""
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise BadValue(f"the column {missing[0]} is missing; required are {', '.join(REQUIRED)}")
    if ("price" in names) != ("currency" in names):
        raise BadValue("the columns price and currency need one another")


def staged_columns(names: Sequence[str]) -> list[str]:
    """The columns of the member that these columns of a file fill, in the order of ``Row`` after the line."""
    others = ["price_minor" if name == "price" else name for name in COLUMNS if name in names and name not in FIRST]
    return ["external_id", "email", "email_key", *others]


FIRST = ("external_id", "email")


def cleaner_of_ids() -> Callable[[str], str | None]:
    return cells.text("external_id", 200)


class Rows:
    """Makes rows of cells; one for a whole import."""

    def __init__(self, settings: Settings, now: datetime, dialect: str) -> None:
        self._instants = instants = cells.Instants(settings.zone, now, dialect)
        self._price = cells.price()
        self._clean: dict[str, Callable[[str], Any]] = {
            "external_id": cleaner_of_ids(),
            "email": cells.text("email", 320),
            "name": cells.text("name", 200),
            "locale": cells.locale(),
            "joined_at": instants.cleaner("joined_at"),
            "last_used_at": instants.cleaner("last_used_at"),
            "plan": cells.Remembered(cells.text("plan", 100)).__getitem__,
            "billing_interval": cells.word("billing_interval", INTERVALS),
            "subscription_status": cells.word("subscription_status", STATUSES, SubscriptionStatus.ACTIVE.value),
            "paid_through": instants.cleaner("paid_through", future=True),
            "billing_ref": cells.text("billing_ref", 200),
            "billed_by": cells.word("billed_by", _stores(settings)),
            "exempt_reason": cells.Remembered(cells.text("exempt_reason", 200)).__getitem__,
        }

    def maker(self, names: Sequence[str | None]) -> Callable[[int, Sequence[str]], Row]:
        """``make(line, cells)`` for cells in the order of ``names``; None is a column that is left out.

        ``make`` raises BadValue with a reason that names the column and what would be right.
        """
        at = {name: position for position, name in enumerate(names) if name is not None}
        plan = [
            (at[name], self._clean[name])
            for name in COLUMNS
            if name in at and name in self._clean and name not in FIRST
        ]
        order = [name for name in COLUMNS if name in at and name not in FIRST]
        joined = order.index("joined_at")
        used = order.index("last_used_at") if "last_used_at" in at else None
        priced = order.index("price") if "price" in at else None
        id_at, email_at = at["external_id"], at["email"]
        clean_id, clean_email = self._clean["external_id"], self._clean["email"]
        price_at, currency_at = at.get("price", 0), at.get("currency", 0)

        def make(line: int, row: Sequence[str]) -> Row:
            external_id = clean_id(row[id_at])
            if external_id is None:
                raise BadValue("external_id is empty")
            email = clean_email(row[email_at])
            if email is None:
                raise BadValue("email is empty")
            address, key = checked(email)
            values = [clean(row[position]) for position, clean in plan]
            if priced is not None:
                values[priced:priced] = self._price[row[price_at], row[currency_at]]
            if values[joined] is None:
                raise BadValue("joined_at is empty")
            if used is not None and values[used] is not None and values[used] < values[joined]:
                values[used] = self._used_on_the_day(values[joined], values[used], row[at["last_used_at"]])
            return (line, external_id, address, key, *values)

        return make

    def _used_on_the_day(self, joined: str, used: str, cell: str) -> str:
        """A use is never before joining; but a use told as a date may be of the day of joining, after that instant."""
        if used != self._instants.day_of(joined):
            raise BadValue(f"last_used_at {cell.strip()} is before joined_at; it must be at or after it")
        return joined
