"""What a file calls its columns, and what they are called here."""

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from domain.errors import BadValue
from services import reading

IGNORED = ""
"""What a map gives for a column that is to be left out."""


def read_map(path: Path, known: tuple[str, ...]) -> dict[str, str]:
    """A map from a file's names to ours: a JSON object, or a CSV of two columns (theirs, ours). Ours may be empty."""
    with reading.opened(path) as file:
        lines = reading.numbered_lines(file, lambda done: None)
        found = _json_map(path, lines) if reading.is_json(path) else _csv_map(path, lines)
    for theirs, ours in found.items():
        if ours not in (*known, IGNORED):
            raise BadValue(f"{path} maps {theirs!r} to {ours!r}, which is no column{did_you_mean(ours, known)}")
    return found


def resolve(
    names: Iterable[str], known: tuple[str, ...], mapped: Mapping[str, str], *, ignore_unknown: bool
) -> list[str | None]:
    """Our name for each of a file's columns, or None for one that is left out. Raises BadValue for an unknown one."""
    found: list[str | None] = []
    for position, theirs in enumerate(names, 1):
        ours = mapped.get(theirs, theirs)
        if ours in known:
            if ours in found:
                raise BadValue(f"the column {ours} is there twice")
            found.append(ours)
        elif (ours == IGNORED and theirs != IGNORED) or ignore_unknown:
            found.append(None)
        elif not theirs:
            raise BadValue(f"column {position} has no name; name it, or leave it out with --ignore-unknown")
        else:
            raise BadValue(
                f"unknown column {theirs!r}{did_you_mean(theirs, known)}; name it in --map, or use --ignore-unknown"
            )
    return found


def did_you_mean(name: str, known: tuple[str, ...]) -> str:
    plain = name.strip().casefold().replace(" ", "_").replace("-", "_")
    close = get_close_matches(plain, known, 1)
    return f": did you mean {close[0]}?" if close else f" (there are {', '.join(known)})"


def _json_map(path: Path, lines: reading.Numbered) -> dict[str, str]:
    try:
        found = json.loads("\n".join(text for _, text in lines))
    except json.JSONDecodeError as error:
        raise BadValue(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(ours, str | None) for ours in found.values()):
        raise BadValue(f'{path} must be one JSON object such as {{"Customer No": "external_id"}}')
    return {str(theirs): (ours or IGNORED).strip() for theirs, ours in found.items()}


def _csv_map(path: Path, lines: reading.Numbered) -> dict[str, str]:
    found: dict[str, str] = {}
    for line, text in lines:
        delimiter = ";" if text.count(";") > text.count(",") else ","
        for _, _, cells in reading.csv_records(iter([(line, text)]), delimiter, 2):
            if isinstance(cells, reading.Unreadable):
                raise BadValue(
                    f"{path}, line {line}: write the file's column and ours, such as Customer No,external_id"
                )
            found[cells[0].strip()] = cells[1].strip()
    return found
