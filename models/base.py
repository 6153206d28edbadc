"""What all tables share: names of constraints, instants in UTC, ids, and how each database is opened."""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated, Any

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    CursorResult,
    DateTime,
    Dialect,
    Engine,
    Executable,
    Insert,
    Integer,
    MetaData,
    String,
    TypeDecorator,
    bindparam,
    cast,
    event,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Session, mapped_column, registry
from sqlalchemy.sql import functions
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import NullType

BUSY_TIMEOUT_MS = 10_000
ASK_AGAIN_MS = 1
"""How long a writer waits before it asks once more for SQLite's lock."""


LOG_PAGES = 4000
"""So many of 4 kB each SQLite's log may have before it is brought over."""


class UTCDateTime(TypeDecorator[datetime]):
    """An aware instant, kept and given back in UTC.

    SQLite stores no offset and would silently drop it, so a naive value is refused on the way in and every value is
    converted to UTC first; PostgreSQL answers in the session's zone and is converted back.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} is naive: every instant needs an offset")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        # SQLite answers in text, which the standard library reads in a fifth of the time that the usual way takes.
        return _of_text if dialect.name == "sqlite" else _in_utc


def _in_utc(value: datetime | None) -> datetime | None:
    return value if value is None or value.tzinfo is UTC else value.astimezone(UTC)


# Of the instants that a statement reads many are the same: of a round, or as found and as they are.
@lru_cache(maxsize=1024)
def _of_text(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(f"{value}+00:00")


class latest(functions.GenericFunction[datetime]):
    """The latest of several instants, the first of which is never null: GREATEST, which SQLite calls max()."""

    type = UTCDateTime()
    inherit_cache = True


@compiles(latest, "sqlite")
def _latest_sqlite(element: latest, compiler: SQLCompiler, **kw: Any) -> str:
    # max() is null as soon as one argument is; GREATEST of PostgreSQL skips nulls.
    first, *others = [compiler.process(clause, **kw) for clause in element.clauses]
    return f"max({', '.join([first, *(f'coalesce({other}, {first})' for other in others)])})"


@compiles(latest, "postgresql")
def _latest_postgresql(element: latest, compiler: SQLCompiler, **kw: Any) -> str:
    return f"greatest({', '.join(compiler.process(clause, **kw) for clause in element.clauses)})"


class epoch(functions.GenericFunction[int]):
    """An instant as whole seconds since 1970, for keys that name it."""

    type = BigInteger()
    inherit_cache = True


@compiles(epoch, "sqlite")
def _epoch_sqlite(element: epoch, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST(strftime('%s', {compiler.process(element.clauses, **kw)}) AS INTEGER)"


@compiles(epoch, "postgresql")
def _epoch_postgresql(element: epoch, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST(extract(epoch FROM {compiler.process(element.clauses, **kw)}) AS BIGINT)"


class random_id(functions.GenericFunction[str]):
    """A new public_id, made by the database so that a set-based insert gets one for each row."""

    type = String(32)
    inherit_cache = False


@compiles(random_id, "sqlite")
def _random_id_sqlite(element: random_id, compiler: SQLCompiler, **kw: Any) -> str:
    return "(lower(hex(randomblob(16))))"


@compiles(random_id, "postgresql")
def _random_id_postgresql(element: random_id, compiler: SQLCompiler, **kw: Any) -> str:
    return "replace(gen_random_uuid()::text, '-', '')"


def said(code: StrEnum) -> ColumnElement[str]:
    """A code as part of what a statement says, by which both databases know that an index of such rows will do."""
    return literal_column(f"'{code}'")


def is_one_of(column: ColumnElement[Any] | InstrumentedAttribute[Any], codes: Iterable[StrEnum]) -> ColumnElement[bool]:
    """Whether it is one of some codes, which the statement says: as a list of values beside it they would have both
    SQLAlchemy and psycopg write it anew each time it is run, which for a long one takes longer than all else.
    """
    return column.in_([said(code) for code in sorted(codes)])


class among(functions.GenericFunction[Any]):
    """Whether a column is one of the few values of a subquery: ``among(column, select(...).scalar_subquery())``.

    How few they are PostgreSQL does not see, and would rather read the whole of a table that is not very large than
    look for each. Of an array it takes it that there are ten.
    """

    # Of a Boolean SQLAlchemy asks SQLite whether it is 1, and then SQLite looks for none.
    type = NullType()
    inherit_cache = True


@compiles(among, "sqlite")
def _among_sqlite(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    column, values = [compiler.process(clause, **kw) for clause in element.clauses]
    return f"{column} IN {values}"


@compiles(among, "postgresql")
def _among_postgresql(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    column, values = [compiler.process(clause, **kw) for clause in element.clauses]
    return f"{column} = ANY (ARRAY{values})"


class Listed:
    """Rows that a statement on SQLite is given as one value, a list in JSON: it stays the same however many there are.

    Each entry is a number, or a list whose parts are asked for by their places.
    """

    def __init__(self, name: str) -> None:
        self._value = func.json_each(bindparam(name, type_=String())).table_valued("value").c.value

    @property
    def numbers(self) -> ColumnElement[int]:
        return cast(self._value, BigInteger)

    def number(self, place: int) -> ColumnElement[int]:
        return cast(self.word(place), BigInteger)

    def word(self, place: int) -> ColumnElement[str]:
        return func.json_extract(self._value, f"$[{place}]", type_=String())


class Base(DeclarativeBase):
    registry = registry(
        metadata=MetaData(
            naming_convention={
                "ix": "ix_%(table_name)s_%(column_0_N_name)s",
                "uq": "uq_%(table_name)s_%(column_0_N_name)s",
                "ck": "ck_%(table_name)s_%(constraint_name)s",
                "fk": "fk_%(table_name)s_%(column_0_N_name)s",
                "pk": "pk_%(table_name)s",
            }
        ),
        type_annotation_map={datetime: UTCDateTime(), int: BigInteger().with_variant(Integer, "sqlite")},
    )


Id = Annotated[int, mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)]
PublicId = Annotated[str, mapped_column(String(32), server_default=random_id(), unique=True)]

db = SQLAlchemy(model_class=Base)


def one_of(column: str, words: Any) -> CheckConstraint:
    """A CHECK that holds a column to the words of an enumeration of domain/lifecycle.py."""
    listed = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def tune(engine: Engine) -> None:
    """Set up a database as the design asks: on PostgreSQL a session in UTC; on SQLite WAL, foreign keys, a busy
    timeout, and real transactions.

    Python's sqlite3 opens transactions by itself and late; here SQLAlchemy does, so that a write can take its lock
    before its first read (BEGIN IMMEDIATE): a deferred transaction that reads first fails when another has written.
    """
    if engine.dialect.name != "sqlite":

        @event.listens_for(engine, "connect")
        def _use_utc(connection: Any, record: Any) -> None:
            # Whatever the server's zone is: so nothing has to be converted, and no text that it writes depends on it.
            connection.execute("SET TIME ZONE 'UTC'")
            connection.commit()

        return

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
            "secure_delete = ON",
            # Four times as many as usual: what is written again and again goes into the database once. What is in the
            # log only, a power cut may take back, so whoever has written much ends with ``to_disk``.
            f"wal_autocheckpoint = {LOG_PAGES}",
            # In memory, SQLite would also keep there what a statement over many rows may have to take back.
            "temp_store = FILE",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("glance"):
            return
        if options.get("for_writing"):
            _begin_for_writing(connection, 0 if options.get("if_free") else BUSY_TIMEOUT_MS)
        else:
            connection.exec_driver_sql("BEGIN DEFERRED")


def _begin_for_writing(connection: Connection, wait_ms: int) -> None:
    """Take SQLite's lock, asking for it every millisecond, for so many.

    SQLite by itself waits longer each time, up to a tenth of a second, while others take the lock and give it back:
    two processes that write much in short transactions would mostly sleep.
    """
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        if not take_lock(driver, wait_ms):
            # Whatever it is, it is said as SQLAlchemy says it.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        driver.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")


def take_lock(driver: sqlite3.Connection, wait_ms: int) -> bool:
    """Begin a transaction that writes. False: after so many milliseconds another writes still, or it is no use to
    wait. For a connection that does not wait by itself.
    """
    until = monotonic() + wait_ms / 1000
    while True:
        try:
            driver.execute("BEGIN IMMEDIATE")
            return True
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or monotonic() >= until:
                return False
        sleep(ASK_AGAIN_MS / 1000)


def _is_busy(error: BaseException | None) -> bool:
    # The lowest byte: busy may come with a reason, as while another mends the log of one that died.
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def insert(session: Session, table: type[DeclarativeBase]) -> Any:
    """INSERT of the session's own dialect, which knows ON CONFLICT."""
    construct = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    return construct(table)


def change(session: Session, statement: Executable) -> int:
    """Run one INSERT, UPDATE or DELETE over any number of rows; returns how many it changed.

    Objects that are loaded already are not brought up to date. An INSERT is kept from returning its keys, which would
    fetch every row and leave the count unknown.
    """
    if isinstance(statement, Insert):
        statement = statement.inline()
    result = session.execute(statement, execution_options={"synchronize_session": False, "preserve_rowcount": True})
    assert isinstance(result, CursorResult)
    assert result.rowcount >= 0
    return result.rowcount


@lru_cache(maxsize=8)
def glancing(engine: Engine) -> Engine:
    """The engine for looks of one statement each, without a transaction around it, which would cost as much again."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(glance=True)
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def for_writing(session: Session) -> None:
    """Begin a transaction that will write. Call it before the session's first query."""
    session.connection(execution_options={"for_writing": True})


def for_writing_if_free(session: Session) -> bool:
    """The same, for who has something else to do while another writes, as only one can on SQLite. False: one does."""
    try:
        session.connection(execution_options={"for_writing": True, "if_free": True})
    except OperationalError as error:
        session.rollback()
        if _is_busy(error.orig):
            return False
        raise
    return True


@contextmanager
def planned_without(session: Session, *ways: str) -> Iterator[None]:
    """Statements that PostgreSQL plans without these ways (``seqscan``, ``hashjoin``) where there are others.

    For what it cannot know: how large a table is, or will be by the end of the statement.
    """
    connection = session.connection()
    if connection.dialect.name != "postgresql":
        yield
        return
    for way in ways:
        connection.execute(text(f"SET LOCAL enable_{way} = off"))
    yield
    # Whoever goes on after an error goes on without them, until the transaction ends.
    for way in ways:
        connection.execute(text(f"SET LOCAL enable_{way} TO DEFAULT"))


def to_disk(session: Session) -> None:
    """Outside of a transaction: whatever was committed outlasts a power cut. On PostgreSQL it does as soon as it is."""
    engine = session.get_bind()
    assert isinstance(engine, Engine)
    if engine.dialect.name != "sqlite":
        return
    bring_over(engine)
    # While somebody reads, it may have to stay in the log, which counts as long as it is whole.
    with suppress(FileNotFoundError), Path(f"{engine.url.database}-wal").open("rb") as log:
        os.fsync(log.fileno())


def bring_over(engine: Engine) -> None:
    """Have as much of SQLite's log brought over into the database as can be without anybody's waiting for it."""
    with glancing(engine).connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
