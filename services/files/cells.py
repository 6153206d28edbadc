"""From cells of a file to values of a row: each text is checked and brought into the form the database keeps.

Files of a million rows pass through here, so what repeats is remembered, and an instant stays the text the database
stores: both databases keep instants in one fixed form, which also sorts.
"""

import re
from collections.abc import Callable, Hashable
from datetime import UTC, date, datetime, tzinfo
from typing import Any, Generic, TypeVar

from babel.numbers import get_currency_precision, list_currencies

from domain.dates import start_of_day
from domain.errors import BadValue
from domain.money import to_minor
from services.files.reading import complaint

REMEMBERED = 5_000
YEARS_AHEAD = 100

Cell = TypeVar("Cell", bound=Hashable)
Value = TypeVar("Value")


class Remembered(dict[Cell, Value], Generic[Cell, Value]):
    """A cleaner that remembers its answers. ``remembered[cell]`` raises what the cleaner raises."""

    def __init__(self, clean: Callable[[Cell], Value]) -> None:
        super().__init__()
        self._clean = clean

    def __missing__(self, cell: Cell) -> Value:
        value = self._clean(cell)
        if len(self) >= REMEMBERED:
            self.clear()
        self[cell] = value
        return value


def text(name: str, longest: int) -> Callable[[str], str | None]:
    """A cleaner of text of one line; an empty cell is None."""

    def clean(cell: str) -> str | None:
        value = cell.strip()
        if not value:
            return None
        if len(value) > longest:
            raise BadValue(f"{name} is longer than {longest} characters")
        if not value.isprintable():
            wrong = complaint(name, value)
            if wrong is not None:
                raise BadValue(wrong)
        return value

    return clean


def word(name: str, words: dict[str, str], default: str | None = None) -> Callable[[str], str | None]:
    """A cleaner for one of a few words, with the spellings they are known by."""

    def clean(cell: str) -> str | None:
        value = cell.strip()
        if not value:
            return default
        found = words.get(folded(value))
        if found is None:
            known = ", ".join(dict.fromkeys(words.values())) or f"those in {name.upper()}, which is not set"
            raise BadValue(f"{name} {quoted(value)} is none of {known}")
        return found

    return Remembered(clean).__getitem__


def folded(value: str) -> str:
    """A word as the keys of ``word`` spell it."""
    return value.casefold().replace(" ", "_").replace("-", "_")


LOCALE = re.compile(
    r"(?P<language>[a-z]{2,3})(?:-(?P<script>[a-z]{4}))?(?:-(?P<region>[a-z]{2}|[0-9]{3}))?"
    r"(?P<rest>(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*(?:-[a-z0-9](?:-[a-z0-9]{2,8})+)*)",
    re.IGNORECASE | re.ASCII,
)


def _locale(cell: str) -> str | None:
    value = cell.strip().replace("_", "-")
    if not value:
        return None
    found = LOCALE.fullmatch(value)
    if found is None or len(value) > 35:
        raise BadValue(f"locale {quoted(value)} is no language tag such as de or de-AT")
    language, script, region, rest = found.group("language", "script", "region", "rest")
    parts = (language.lower(), script and script.title(), region and region.upper())
    return "-".join(part for part in parts if part) + rest


def locale() -> Callable[[str], str | None]:
    return Remembered(_locale).__getitem__


def price() -> Remembered[tuple[str, str], tuple[int | None, str | None]]:
    """A cleaner of a price with its currency, such as ("12.99", "EUR"), into minor units and the code."""
    currencies = list_currencies()

    def clean(cells: tuple[str, str]) -> tuple[int | None, str | None]:
        amount, currency = cells[0].strip(), cells[1].strip().upper()
        if currency and currency not in currencies:
            raise BadValue(f"currency {quoted(currency)} is no ISO 4217 code such as EUR")
        if not amount:
            return None, currency or None
        if not currency:
            raise BadValue(f"price {quoted(amount)} has no currency beside it")
        return to_minor(amount, get_currency_precision(currency)), currency

    return Remembered(clean)


class Instants:
    """Cleaners of instants: ISO 8601 with an offset, or a date, which is the start of that day in the service's zone.

    They answer in the form the database stores; ``None`` for an empty cell.
    """

    def __init__(self, zone: tzinfo, now: datetime, dialect: str) -> None:
        self._zone = zone
        self._dialect = dialect
        self._now = self.stored(now)
        self._latest = self.stored(datetime(min(now.year + YEARS_AHEAD, 9999), 1, 1, tzinfo=UTC))
        self._earliest = self.stored(datetime(1900, 1, 1, tzinfo=UTC))
        self._days: Remembered[str, str] = Remembered(self._day)

    def stored(self, instant: datetime) -> str:
        found = instant.astimezone(UTC).isoformat(" ", "microseconds")
        return found[:26] if self._dialect == "sqlite" else found

    def read(self, cell: str) -> str:
        """Raises ValueError or OverflowError, without a text, for what is no instant."""
        if len(cell) == 10:
            return self._days[cell]
        instant = datetime.fromisoformat(cell)
        if instant.tzinfo is None:
            raise ValueError
        return self.stored(instant)

    def cleaner(self, name: str, *, future: bool = False) -> Callable[[str], str | None]:
        read, now, earliest, latest = self.read, self._now, self._earliest, self._latest

        def clean(cell: str) -> str | None:
            if not cell:
                return None
            try:
                found = read(cell)
            except (ValueError, OverflowError):
                if not cell.isspace() and cell == cell.strip():
                    raise BadValue(_no_instant(name, cell)) from None
                return clean(cell.strip())
            if found > now and not future:
                raise BadValue(f"{name} {cell} is in the future")
            if found > latest:
                raise BadValue(f"{name} {cell} is too far ahead; leave it empty where there is no end")
            if found < earliest:
                raise BadValue(f"{name} {cell} is before 1900")
            return found

        return clean

    def day_of(self, stored: str) -> str:
        """The start, in the stored form, of the local day that an instant in the stored form lies in."""
        local = from_stored(stored).astimezone(self._zone).date()
        return self.stored(start_of_day(local, self._zone))

    def _day(self, cell: str) -> str:
        if cell[4] != "-" or cell[7] != "-":
            raise ValueError
        return self.stored(start_of_day(date.fromisoformat(cell), self._zone))


def from_stored(stored: str) -> datetime:
    return datetime.fromisoformat(stored[:26]).replace(tzinfo=UTC)


def _no_instant(name: str, cell: str) -> str:
    wrong = complaint(name, cell)
    if wrong is not None:
        return wrong
    try:
        datetime.fromisoformat(cell)
    except ValueError:
        return f"{name} {quoted(cell)} is no date such as 2025-03-03 and no instant such as 2025-03-03T18:30:00+01:00"
    return f"{name} {quoted(cell)} has no offset; write {cell[:40]}+01:00, or Z for UTC"


def quoted(value: Any) -> str:
    """A value as it is shown in a reason: short, and without what a terminal would act on."""
    return repr(value if len(value) <= 60 else f"{value[:60]}…")
