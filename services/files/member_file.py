"""Member files: which columns there are, and one row after the other, good or with the reason why not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from domain.errors import BadValue
from services.files import columns, reading
from services.files.member_rows import COLUMNS, Row, Rows, check_columns, cleaner_of_ids
from services.files.reading import JsonRecord, Numbered, Unreadable

LAYOUTS = 1_000


@dataclass(frozen=True, slots=True)
class Naming:
    """How a file's names become ours."""

    mapped: Mapping[str, str] = field(default_factory=dict)
    ignore_unknown: bool = False

    def resolve(self, names: Sequence[str]) -> list[str | None]:
        return columns.resolve(names, COLUMNS, self.mapped, ignore_unknown=self.ignore_unknown)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that cannot be taken; ``external_id`` where the row can be read that far."""

    reason: str
    external_id: str | None = None


Names = tuple[str, ...]
Read = tuple[int, str, Names, "Row | Refusal"]
"""Line, text of the row, the columns it has, and the row."""


def read(path: Path, file: BufferedReader, naming: Naming, rows: Rows, progress: reading.Progress) -> Iterator[Read]:
    """The rows of a CSV or NDJSON file. Raises BadValue, before the first row, where the columns are wrong."""
    lines = reading.numbered_lines(file, progress)
    if reading.is_json(path):
        return of_records(reading.json_records(lines), naming, rows, headed=True)
    return _of_csv(lines, naming, rows)


def _of_csv(lines: Numbered, naming: Naming, rows: Rows) -> Iterator[Read]:
    header, delimiter = reading.csv_header(lines, (*COLUMNS, *naming.mapped))
    found = naming.resolve(header)
    names = tuple(name for name in found if name is not None)
    check_columns(names)
    make, at = rows.maker(found), found.index("external_id")
    for line, text, cells in reading.csv_records(lines, delimiter, len(found)):
        if isinstance(cells, Unreadable):
            yield line, text, names, Refusal(cells.reason)
        else:
            yield line, text, names, _made(make, line, cells, at)


def of_records(records: Iterator[JsonRecord], naming: Naming, rows: Rows, *, headed: bool) -> Iterator[Read]:
    """Objects may have different names: a name that one lacks leaves that value as it is.

    ``headed``: the first stands for a header, a name in it that is unknown is wrong in all, and nothing is imported.
    """
    layouts: dict[Names, tuple[Names, Callable[[int, Sequence[str]], Row], int]] = {}
    first = headed
    for line, text, record in records:
        if isinstance(record, Unreadable):
            yield line, text, (), Refusal(record.reason)
            continue
        keys = tuple(sorted(record))
        try:
            if keys not in layouts:
                found = naming.resolve(keys)
                first = False
                names = tuple(name for name in found if name is not None)
                check_columns(names)
                if len(layouts) >= LAYOUTS:
                    layouts.clear()
                layouts[keys] = names, rows.maker(found), found.index("external_id")
            names, make, at = layouts[keys]
            cells = [_text(key, record[key]) for key in keys]
        except BadValue as error:
            if first:
                raise
            yield line, text, (), Refusal(str(error), _id(record.get("external_id")))
        else:
            yield line, text, names, _made(make, line, cells, at)


def _made(make: Callable[[int, Sequence[str]], Row], line: int, cells: Sequence[str], at: int) -> Row | Refusal:
    try:
        return make(line, cells)
    except BadValue as error:
        return Refusal(str(error), _id(cells[at]))


def _text(key: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        kind = "true or false" if isinstance(value, bool) else "a list or an object"
        raise BadValue(f"{key} must be text, not {kind}")
    return value


_clean_id = cleaner_of_ids()


def _id(value: Any) -> str | None:
    try:
        return _clean_id(value) if isinstance(value, str) else None
    except BadValue:
        return None
