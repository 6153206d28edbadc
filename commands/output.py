"""What commands print: tables a person can read, JSON a program can, CSV a spreadsheet can without running it."""

import csv
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, tzinfo
from decimal import Decimal
from typing import IO, Any

import click

FORMULA = ("=", "+", "-", "@", "\t", "\n")
"""What a spreadsheet takes for the beginning of a formula."""


def echo_json(value: Any) -> None:
    """Print one JSON value. Dataclasses become objects, instants ISO 8601 with offset, decimals strings."""
    click.echo(json.dumps(value, default=_plain, ensure_ascii=False, indent=2))


def echo_table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> None:
    """Print rows under their headers in columns as wide as needed; the columns in ``right`` are aligned to it."""
    cells = [list(headers), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    to_the_right = set(right)
    for row in cells:
        aligned = (
            cell.rjust(width) if column in to_the_right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join(aligned).rstrip())


def echo_pairs(pairs: Mapping[str, object]) -> None:
    """Print names and values, one pair a line; what is None is left out."""
    shown = {name: value for name, value in pairs.items() if value is not None}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        click.echo(f"{name.ljust(width)}  {_cell(value)}".rstrip())


def write_csv(stream: IO[str], headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows for a spreadsheet: text that it would run as a formula gets an apostrophe in front."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows([_safe(value) for value in row] for row in rows)


def instant(value: datetime | None, zone: tzinfo) -> str:
    """An instant for people: day and minute in the service's time zone, or a dash."""
    return "-" if value is None else f"{value.astimezone(zone):%Y-%m-%d %H:%M}"


def _cell(value: object) -> str:
    return "-" if value is None else " ".join(str(value).split())


def disarmed(text: str) -> str:
    """A cell that no spreadsheet runs. A bare carriage return would begin a row, and Python's csv does not quote it."""
    text = text.replace("\r", "\n")
    return f"'{text}" if text.startswith(FORMULA) else text


def _safe(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return disarmed(value) if isinstance(value, str) else value


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
