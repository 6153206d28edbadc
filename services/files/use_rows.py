"""Rows of files of uses, and events that may be uses: each as it is staged, or why it is not."""

from collections.abc import Callable, Iterator

from domain.errors import BadValue
from services.files import cells, columns, reading
from services.files.member_rows import cleaner_of_ids
from services.files.reading import Unreadable

COLUMNS = ("external_id", "used_at")

Read = tuple[int, str, str | None, str | None, str | None]
"""Line, text, external_id, used_at as stored; else why the row cannot be taken, or no reason where it is no use."""


def of_csv(lines: reading.Numbered, instants: cells.Instants) -> Iterator[Read]:
    header, delimiter = reading.csv_header(lines, COLUMNS)
    found = columns.resolve(header, COLUMNS, {}, ignore_unknown=False)
    for name in COLUMNS:
        if name not in found:
            raise BadValue(f"the column {name} is missing; required are {', '.join(COLUMNS)}")
    id_at, used_at = found.index("external_id"), found.index("used_at")
    clean = _cleaner(instants)
    for line, text, row in reading.csv_records(lines, delimiter, len(found)):
        if isinstance(row, Unreadable):
            yield line, text, None, None, row.reason
        else:
            yield line, text, *clean(row[id_at], row[used_at])


def of_records(
    records: Iterator[reading.JsonRecord], instants: cells.Instants, types: tuple[str, ...], *, typed: bool
) -> Iterator[Read]:
    """``typed``: an event without a type is none of the declared ones; a line of a file of uses is one without it."""
    clean = _cleaner(instants)
    for line, text, record in records:
        if isinstance(record, Unreadable):
            yield line, text, None, None, record.reason
            continue
        if types and (typed or "type" in record) and record.get("type") not in types:
            yield line, text, None, None, None
            continue
        external_id, used_at = record.get("external_id"), record.get("used_at")
        if isinstance(external_id, str) and isinstance(used_at, str):
            yield line, text, *clean(external_id, used_at)
        else:
            yield line, text, None, None, 'external_id and used_at must both be there as text, such as "2026-05-30"'


def _cleaner(instants: cells.Instants) -> Callable[[str, str], tuple[str | None, str | None, str | None]]:
    clean_id, clean_instant = cleaner_of_ids(), instants.cleaner("used_at")

    def clean(external_id: str, used_at: str) -> tuple[str | None, str | None, str | None]:
        found = None
        try:
            found = clean_id(external_id)
            used = clean_instant(used_at)
        except BadValue as error:
            return found, None, str(error)
        if found is None:
            return None, None, "external_id is empty"
        return found, used, None if used else "used_at is empty"

    return clean
