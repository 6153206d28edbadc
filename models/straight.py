"""Transactions of a few statements each, again and again, on SQLite: by the driver alone.

To have one run by SQLAlchemy takes twenty times as long as SQLite needs for it. Here each is compiled once, and run on
a connection of its own. Most of what they have written into SQLite's log is brought over by a thread meanwhile; else a
commit now and then would bring over all of it, and take as long as a hundred others.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import ClauseElement, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoneIsFree

from models.base import BUSY_TIMEOUT_MS, LOG_PAGES, bring_over, take_lock

Done = TypeVar("Done")

ROWS_IN_LOG = LOG_PAGES // 4
"""After so many rows the log is brought over by the thread. Beyond LOG_PAGES a commit does so as on any connection, for
only who writes can begin the log anew; of what the thread has left it has little to do."""


class Straight:
    """``statements`` are those that will be run. Raises DBAPIError where there is no connection."""

    def __init__(self, engine: Engine, statements: Sequence[ClauseElement]) -> None:
        self._statements = {statement: _Compiled(engine, statement) for statement in statements}
        self._connection = engine.connect()
        driver = self._connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        self._driver = driver
        # It leaves the pool: nobody else waits for the lock as it does.
        self._connection.detach()
        driver.execute("PRAGMA busy_timeout = 0")
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, "dormouse log")
        self._bringing: Future[None] | None = None
        self._brought = driver.total_changes

    def close(self) -> None:
        # First what others may wait for.
        self._connection.close()
        self._thread.shutdown()

    def begin_if_free(self) -> bool:
        """Begin a transaction, for ``transaction`` to end it. False: another process writes."""
        return self._driver.in_transaction or take_lock(self._driver, 0)

    def transaction(self, work: Callable[["Straight"], Done | None]) -> Done | None:
        """What ``work`` gives, once it is committed. None: that is what it gives, or something has failed, and nothing
        is written. Waits for the lock.
        """
        done: Done | None = None
        try:
            with suppress(sqlite3.Error):
                if self._driver.in_transaction or take_lock(self._driver, BUSY_TIMEOUT_MS):
                    wanted = work(self)
                    if wanted is not None:
                        self._driver.execute("COMMIT")
                        done = wanted
        finally:
            self.take_back()
        self._look_at_the_log()
        return done

    def take_back(self) -> None:
        """Whatever has begun."""
        if self._driver.in_transaction:
            self._driver.execute("ROLLBACK")

    def _look_at_the_log(self) -> None:
        written = self._driver.total_changes
        if written - self._brought >= ROWS_IN_LOG and (self._bringing is None or self._bringing.done()):
            self._brought = written
            self._bringing = self._thread.submit(_bring_over, self._engine)

    def execute(self, statement: ClauseElement, values: Mapping[str, Any]) -> sqlite3.Cursor:
        """Run one of the statements; ``values`` are by the names of its parameters."""
        compiled = self._statements[statement]
        return self._driver.execute(compiled.text, compiled.given(values))


def _bring_over(engine: Engine) -> None:
    # What cannot be brought over now stays in the log, which is as good, for whoever comes next.
    with suppress(DBAPIError, NoneIsFree):
        bring_over(engine)


class _Compiled:
    def __init__(self, engine: Engine, statement: ClauseElement) -> None:
        compiled: Any = statement.compile(dialect=engine.dialect)
        self.text = str(compiled)
        self._usual = {name: value for name, value in compiled.params.items() if not compiled.binds[name].required}
        self._places = [
            (name, compiled.binds[name].type.dialect_impl(engine.dialect).bind_processor(engine.dialect))
            for name in compiled.positiontup
        ]

    def given(self, values: Mapping[str, Any]) -> list[Any]:
        everything = {**self._usual, **values}
        return [everything[name] if written is None else written(everything[name]) for name, written in self._places]
