"""What the commands that read a file share: a progress bar, a list of rejects, and what is said about them."""

import csv
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO

import click

from commands.output import disarmed
from domain.errors import BadValue
from services.files.reading import Counts, Progress, Reject

SAID = 10
"""So many rejects are printed where there is no file for them."""


class Rejects:
    """Takes rejects one by one: into a file where there is one, else the first of them onto stderr."""

    def __init__(self, stream: IO[str] | None, path: Path | None) -> None:
        self.count = 0
        self._path = path
        self._first: list[Reject] = []
        self._writer = None if stream is None else csv.writer(stream, lineterminator="\n")
        if self._writer is not None:
            self._writer.writerow(["line", "external_id", "reason", "row"])

    def __call__(self, reject: Reject) -> None:
        self.count += 1
        if self._writer is not None:
            cells = (reject.external_id or "", reject.reason, reject.row)
            self._writer.writerow([reject.line, *(disarmed(cell) for cell in cells)])
        elif self.count <= SAID:
            self._first.append(reject)

    def say(self) -> None:
        """On stderr: how many there were, and which, or where they are."""
        if not self.count:
            return
        rows = "1 row was rejected" if self.count == 1 else f"{self.count:,} rows were rejected"
        if self._path is not None:
            click.echo(f"{rows}; see {self._path}", err=True)
            return
        click.echo(f"{rows}:", err=True)
        for reject in self._first:
            whose = "" if reject.external_id is None else f" ({reject.external_id})"
            click.echo(f"  line {reject.line}{whose}: {reject.reason}", err=True)
        if self.count > len(self._first):
            click.echo("  …; --rejects FILE lists all of them", err=True)


@contextmanager
def rejects_to(path: Path | None, source: Path) -> Iterator[Rejects]:
    """The rejects of ``source``; their file holds personal data, so that only its owner may read it."""
    if path is None:
        yield Rejects(None, None)
        return
    if path.exists() and source.exists() and path.samefile(source):
        raise BadValue(f"{path} is the file that is imported; name another one for the rejects")
    with written(path) as stream:
        yield Rejects(stream, path)


@contextmanager
def written(path: Path) -> Iterator[IO[str]]:
    """A new file for personal data (mode 0600). Raises BadValue with the system's reason where there can be none."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise BadValue(f"{path} cannot be written: {error.strerror}") from None
    with open(descriptor, "w", encoding="utf-8", newline="") as stream:  # noqa: PTH123
        yield stream


def written_or_shown(path: Path) -> AbstractContextManager[IO[str]]:
    """Such a file, or standard output where ``path`` is a dash."""
    return nullcontext(sys.stdout) if str(path) == "-" else written(path)


@contextmanager
def progress_of(path: Path) -> Iterator[Progress]:
    """A bar on a terminal, by the bytes of the file that are done; nothing anywhere else."""
    if not sys.stderr.isatty() or not path.is_file():
        yield lambda done: None
        return
    with click.progressbar(length=path.stat().st_size, label=path.name, file=sys.stderr) as bar:
        yield bar.update


def say_counts(counts: Counts, *names: str) -> None:
    """The last line: ``created 3, updated 2, unchanged 0, rejected 1``, or those of its parts that are named."""
    click.echo(", ".join(f"{name} {getattr(counts, name)}" for name in names))
