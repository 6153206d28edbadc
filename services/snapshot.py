"""Whole copies of an SQLite database: made while it is in use, consistent, and verified before they get their name."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from domain.errors import Refused

SIDE_FILES = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Copied:
    """What a verified copy holds: rows by table, and its size."""

    rows: dict[str, int]
    size: int


def copy(source: Path, target: Path) -> Copied:
    """Copy a database into a new file, as it is at one instant; writers go on meanwhile.

    The file is mode 0600 and gets its name when its pages are sound, it has as many rows in each table as the source
    had at that instant, and all of it is on the disk. Raises Refused, and leaves no file, when it is not.
    """
    with unfinished(target) as draft:
        with closing(_open(source)) as from_:
            # Everything that follows reads the one state that this transaction sees.
            from_.execute("BEGIN")
            expected = _rows(from_)
            with closing(sqlite3.connect(draft)) as to:
                try:
                    from_.backup(to)
                    # One file, which a reader needs no other for.
                    to.execute("PRAGMA journal_mode = DELETE")
                except sqlite3.OperationalError as error:
                    raise Refused(f"{target} cannot be written: {error}") from None
        found = verify(draft)
        if found.rows != expected:
            different = sorted(name for name in expected if expected[name] != found.rows.get(name))
            raise Refused(f"the copy of {source} does not have the same rows in {', '.join(different)}")
        sync(draft)
        draft.replace(target)
    sync(target.parent)
    return found


def verify(path: Path) -> Copied:
    """Look at each page and each reference of a file that nobody uses. Raises Refused with what is wrong."""
    try:
        # As a file that nobody writes, so that looking at it leaves nothing beside it.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            [(said,), *_] = connection.execute("PRAGMA integrity_check(1)").fetchall()
            if said != "ok":
                raise Refused(f"{path} is damaged: {' '.join(said.split())}")
            dangling = connection.execute("PRAGMA foreign_key_check").fetchone()
            if dangling is not None:
                raise Refused(f"{path} is damaged: a row of {dangling[0]} belongs to a {dangling[2]} that is not there")
            return Copied(_rows(connection), path.stat().st_size)
    except sqlite3.DatabaseError as error:
        raise Refused(f"{path} is no sound database: {error}") from None


def _open(source: Path) -> sqlite3.Connection:
    if not source.is_file():
        raise Refused(f"there is no file {source}")
    connection = sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
    try:
        connection.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise Refused(f"{source} is no sound database: {error}") from None
    return connection


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """A name beside ``target`` for a file in the making, which only its owner may read; gone if it comes to nothing."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield draft
    finally:
        for left in (draft, *side_files(draft)):
            left.unlink(missing_ok=True)


def side_files(path: Path) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in SIDE_FILES]


def leave_wal(path: Path) -> None:
    """Bring what is in the write-ahead log into the file. Raises Refused where another process has it open.

    A file that is damaged is left as it is: nobody can use it, and nothing can be brought into it.
    """
    try:
        with closing(sqlite3.connect(path, timeout=1, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise Refused(f"{path} is in use: stop every server and scheduler first") from None
        raise
    except sqlite3.DatabaseError:
        pass


def sync(path: Path) -> None:
    """Have the disk hold it, whatever happens next."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rows(connection: sqlite3.Connection) -> dict[str, int]:
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
    ).fetchall()
    return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in tables}
