"""How rows of a file get to the database: a batch into a temporary table, then statements over that table.

The rows go in the fastest way each database has: executemany on SQLite, COPY on PostgreSQL. A batch is one transaction.
"""

import csv
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from io import StringIO
from typing import Any

from sqlalchemy import Column, MetaData, Table
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable

from models.base import planned_without

BATCH = 10_000
"""So many members at a time: what is written at once, and what is held in memory."""


def temporary(name: str, columns: Iterable[tuple[str, Any]], *, indexed: str | None = None) -> Table:
    """A table for staging, of names and types."""
    return Table(
        name,
        MetaData(),
        *(Column(column, kind, index=column == indexed) for column, kind in columns),
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DROP",
    )


@contextmanager
def staged(session: Session, table: Table, rows: Sequence[tuple[Any, ...]] = ()) -> Iterator[None]:
    """The table with these rows in it, in the session's transaction. An error leaves it to the rollback."""
    connection = session.connection()
    connection.execute(CreateTable(table))
    for index in table.indexes:
        connection.execute(CreateIndex(index))
    if rows and connection.dialect.name == "sqlite":
        places = ", ".join("?" * len(table.columns))
        connection.exec_driver_sql(f"INSERT INTO {table.name} VALUES ({places})", rows)
    elif rows:
        block = StringIO()
        csv.writer(block).writerows(rows)
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} FROM STDIN (FORMAT csv)") as copy:
            copy.write(block.getvalue())
    yield
    connection.execute(DropTable(table))


def by_key(session: Session) -> AbstractContextManager[None]:
    """Statements that join a staged batch with a large table look its rows up by their keys.

    PostgreSQL knows nothing of a table that is a moment old, and would rather read a million members than look up ten
    thousand of them.
    """
    return planned_without(session, "hashjoin", "mergejoin")


class Seen:
    """The ids a file has had so far, in a private file on disk, so that memory does not grow with them."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "PRAGMA cache_size = -8000",
            "CREATE TABLE seen (external_id TEXT PRIMARY KEY, line INTEGER) WITHOUT ROWID",
        ):
            self._database.execute(statement)

    def __enter__(self) -> "Seen":
        return self

    def __exit__(self, *exc: object) -> None:
        self._database.close()

    def add(self, found: Sequence[tuple[str, int]]) -> dict[int, int]:
        """Add ids with their lines; answers which lines repeat an id, and the line that had it first."""
        before = self._database.total_changes
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", found)
        self._database.execute("COMMIT")
        if self._database.total_changes - before == len(found):
            return {}
        first = {external_id: self.line_of(external_id) for external_id, _ in found}
        return {line: had for external_id, line in found if (had := first[external_id]) is not None and had != line}

    def line_of(self, external_id: str) -> int | None:
        row = self._database.execute("SELECT line FROM seen WHERE external_id = ?", (external_id,)).fetchone()
        return None if row is None else int(row[0])

    def absent(self, rows: Iterable[tuple[int, str]]) -> list[int]:
        """The keys of those (key, external_id) whose id the file did not have."""
        return [key for key, external_id in rows if self.line_of(external_id) is None]
