"""Files in streams: lines with their numbers, records of CSV and NDJSON, and what cannot be read, line by line.

Memory does not grow with the file: a block of it is held at a time, and never more of one line than may be used. A line
that cannot be read is a ``Reject`` and stops nothing; a file that cannot be read at all raises BadValue.
"""

import csv
import json
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from domain.errors import BadValue

BLOCK = 256 * 1024
LONGEST_ROW = 1_000_000
LONGEST_RECORD_LINES = 20
SHOWN_OF_A_ROW = 2_000
DELIMITERS = ",;\t|"
JSON_ENDINGS = (".ndjson", ".jsonl", ".json")

Progress = Callable[[int], None]
"""Is told how many more bytes of the file are done."""

Numbered = Iterator[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was not taken: where, whose if that can be told, why and what would be right, and the row."""

    line: int
    external_id: str | None
    reason: str
    row: str


@dataclass(frozen=True, slots=True)
class Counts:
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    ignored: int = 0
    """Events that are no use, see USE_TYPES."""

    def plus(self, other: "Counts") -> "Counts":
        return Counts(
            self.created + other.created,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.rejected + other.rejected,
            self.ignored + other.ignored,
        )


def is_json(path: Path) -> bool:
    return path.suffix.lower() in JSON_ENDINGS


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """The file as bytes. Raises BadValue with the reason of the system when that is not possible."""
    try:
        with path.open("rb") as file:
            if file.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise BadValue(f"{path} is UTF-16; save it as UTF-8")
            yield file
    except OSError as error:
        raise BadValue(f"{path} cannot be read: {error.strerror}") from None


def numbered_lines(file: BufferedReader, progress: Progress, longest: int = LONGEST_ROW) -> Numbered:
    """The lines with their numbers, without their ends. A longer one than ``longest`` is given cut, one too long.

    A byte that is not UTF-8 becomes a lone surrogate, which ``complaint`` finds: one bad name must not stop a file.
    """
    if file.peek(len(BOM_UTF8)).startswith(BOM_UTF8):
        file.read(len(BOM_UTF8))
    line, rest = 0, b""
    while chunk := file.read(BLOCK):
        end = chunk.rfind(b"\n") + 1
        if not end:
            rest = (rest + chunk)[: longest + 4]
        else:
            for line, text in enumerate(_split(rest + chunk[:end]), line + 1):  # noqa: B020
                yield line, text if len(text) <= longest else text[: longest + 1]
            rest = chunk[end:]
        progress(len(chunk))
    if rest:
        yield line + 1, _decode(rest)[: longest + 1].rstrip("\r")


def _split(block: bytes) -> list[str]:
    lines = _decode(block).replace("\r\n", "\n").split("\n")
    lines.pop()
    return lines


def _decode(block: bytes) -> str:
    return block.decode("utf-8", "surrogateescape")


# CSV


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What stands in the place of a record's cells when there are none."""

    reason: str


CsvRecord = tuple[int, str, "list[str] | Unreadable"]


def csv_header(lines: Numbered, known: tuple[str, ...]) -> tuple[list[str], str]:
    """The names of the columns, and the delimiter: the one that finds most of the known names."""
    _, header = next(lines, (0, ""))
    if not header.strip():
        raise BadValue("the file is empty: its first line must name the columns, such as " + ",".join(known[:3]))
    if "\r" in header:
        raise BadValue("the lines end with CR alone; save the file with LF or CRLF")

    def names(delimiter: str) -> list[str]:
        cells = _cells(header, delimiter)
        return [] if isinstance(cells, Unreadable) else [cell.strip() for cell in cells]

    delimiter = max(DELIMITERS, key=lambda one: (len(set(names(one)) & set(known)), len(names(one))))
    return names(delimiter), delimiter


def csv_records(lines: Numbered, delimiter: str, width: int) -> Iterator[CsvRecord]:
    """Each record: its line, its text, and its ``width`` cells or why there are none.

    A record may run over several lines inside quotes. A quotation mark that is left open must not swallow the rows
    after it: where no sound record comes of joining lines, only the first of them is unreadable.
    """
    ahead: deque[tuple[int, str]] = deque()
    while True:
        line, text = ahead.popleft() if ahead else next(lines, (0, ""))
        if not line:
            return
        if '"' not in text:
            cells: list[str] | Unreadable = text.split(delimiter)
        elif text.count('"') % 2 == 0:
            cells = _cells(text, delimiter)
        else:
            cells = _cells(text, delimiter)
            if not _sound(cells, width):
                joined = _joined(text, lines, ahead)
                cells = _cells(joined, delimiter)
                if _sound(cells, width):
                    text = joined
                    for _ in range(joined.count("\n")):
                        ahead.popleft()
                else:
                    cells = Unreadable("a quotation mark is left open")
        if len(text) > LONGEST_ROW:
            cells = Unreadable(f"the row is longer than {LONGEST_ROW:,} characters")
        elif not isinstance(cells, Unreadable):
            if not cells[0] and not any(map(str.strip, cells)):
                continue
            if len(cells) != width:
                cells = Unreadable(f"the row has {len(cells)} cells and the header {width}")
        yield line, text, cells


def _joined(text: str, lines: Numbered, ahead: deque[tuple[int, str]]) -> str:
    """The line and those after it, up to the one that closes its quotation mark; ``ahead`` then holds the latter."""
    position = 0
    while text.count('"') % 2 and position < LONGEST_RECORD_LINES and len(text) <= LONGEST_ROW:
        if position == len(ahead):
            following = next(lines, None)
            if following is None:
                break
            ahead.append(following)
        text = f"{text}\n{ahead[position][1]}"
        position += 1
    return text


def _sound(cells: "list[str] | Unreadable", width: int) -> bool:
    return not isinstance(cells, Unreadable) and len(cells) == width


def _cells(text: str, delimiter: str) -> list[str] | Unreadable:
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        return Unreadable(f"the row is no CSV: {error}")


# NDJSON


JsonRecord = tuple[int, str, "dict[str, Any] | Unreadable"]


def json_records(lines: Numbered, longest: int = LONGEST_ROW, *, numbers: bool = False) -> Iterator[JsonRecord]:
    """Each line's object. Without ``numbers`` these are left as they are written: no price goes through a float."""
    parsing: dict[str, Any] = {} if numbers else {"parse_float": str, "parse_int": str, "parse_constant": str}
    for line, text in lines:
        if text and not text.isspace():
            yield line, text, _object(text, longest, parsing)


def _object(text: str, longest: int, parsing: dict[str, Any]) -> dict[str, Any] | Unreadable:
    if len(text) > longest:
        return Unreadable(f"the line is longer than {longest:,} characters")
    try:
        found = json.loads(text, **parsing)
    except json.JSONDecodeError as error:
        return Unreadable(f"the line is no JSON: {error.msg} at character {error.pos + 1}")
    except (RecursionError, ValueError):
        # Python also refuses a number of thousands of digits.
        return Unreadable("the line is nested too deeply, or holds a number that is too long")
    if not isinstance(found, dict):
        return Unreadable('the line is no JSON object such as {"external_id": "…"}')
    return found


# Text that may be stored


def complaint(name: str, value: str) -> str | None:
    """What is wrong with a text that is not printable as a whole; None where it is only unusual, as a hard space."""
    for position, character in enumerate(value, 1):
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:
            return f"{name} holds a byte that is not UTF-8 (0x{code - 0xDC00:02X}, character {position}); save as UTF-8"
        if 0xD800 <= code <= 0xDFFF:
            return f"{name} holds half a character (U+{code:04X}, character {position})"
        if character in "\r\n":
            return f"{name} holds a line break (character {position}); it must be one line"
        if code < 0x20 or 0x7F <= code < 0xA0:
            return f"{name} holds a control character (U+{code:04X}, character {position})"
    return None


def shown(row: str) -> str:
    """A row as it goes into a list of rejects: what is not UTF-8 is replaced, and a very long one is cut."""
    cut = row if len(row) <= SHOWN_OF_A_ROW else f"{row[:SHOWN_OF_A_ROW]}…"
    return cut.encode("utf-8", "replace").decode("utf-8")
