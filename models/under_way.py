"""Statements that PostgreSQL works at while who asked them does something else, and waits for many things at once.

SQLAlchemy and psycopg wait for each answer, or want a thread or a loop of their own. Here the caller watches
``fileno`` beside whatever else it watches. Each statement is a transaction of its own, and is prepared once.
"""

import select as system
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

from psycopg import OperationalError, pq
from sqlalchemy import ClauseElement, Dialect, Engine, func, select
from sqlalchemy.exc import DBAPIError

Rows = list[tuple[str | None, ...]]
"""As PostgreSQL writes them, in text."""


class UnderWay:
    """A connection for a few statements, which are always asked together, one after the other.

    It comes from the pool and goes back there with its statements prepared, for whoever asks the same again: to begin
    another, and have the statements read and planned, takes as long as to write down hundreds of rows. ``name`` is
    what it is called meanwhile in PostgreSQL's list of connections (pg_stat_activity). Raises DBAPIError where there is
    none.
    """

    def __init__(self, engine: Engine, name: str, statements: Sequence[ClauseElement]) -> None:
        self._statements = [_read(statement, engine.dialect) for statement in statements]
        self._connection = connection = engine.connect()
        try:
            # A plan is kept as well, however much longer the tables are by the time it is used: it goes by indexes.
            mine = {"application_name": name, "enable_seqscan": "off"}
            connection.execute(select(*(func.set_config(setting, value, False) for setting, value in mine.items())))
            # Asked, not remembered: psycopg may have all that a connection has prepared forgotten where it rolls back.
            known = set(connection.exec_driver_sql("SELECT name FROM pg_prepared_statements").scalars())
            for one in self._statements:
                if one.name not in known:
                    connection.exec_driver_sql(f"PREPARE {one.name} AS {one.text}")
            connection.commit()
            self._driver: Any = connection.connection.driver_connection
            self._line: pq.PGconn = self._driver.pgconn
            self._waited_not = self._line.nonblocking
            self._line.nonblocking = 1
            self._line.enter_pipeline_mode()
        except BaseException:
            # To nobody else in that state.
            connection.invalidate()
            connection.close()
            raise
        self._fileno = self._line.socket
        self.answers: list[Rows | None] = []
        """What each statement has given, once all is over; None of one that has failed, and changed nothing."""
        self._answer: Rows | None = None
        self._is_under_way = self._has_failed = False
        self.is_lost = False
        """Whether it is of no use any more."""

    def close(self) -> None:
        """Whatever is under way: PostgreSQL ends it by itself."""
        # Why one has failed may be that what is prepared does not fit the tables any more.
        if self._is_under_way or self.is_lost or self._has_failed or not self._goes_back():
            self._driver.close()
            # There is nothing to be put back as it was, and in pipeline mode it could not be.
            self._connection.invalidate()
        self._connection.close()

    def _goes_back(self) -> bool:
        """As it came, but for what is prepared. False: it cannot."""
        try:
            self._line.exit_pipeline_mode()
            self._line.nonblocking = self._waited_not
            self._connection.exec_driver_sql("RESET application_name")
            self._connection.exec_driver_sql("RESET enable_seqscan")
            self._connection.commit()
        except (OperationalError, DBAPIError):
            return False
        return True

    def fileno(self) -> int:
        return self._fileno

    def ask(self, values: Mapping[str, Any]) -> None:
        """Ask all statements; what one of them needs of ``values`` has its parameter's name. Returns at once."""
        self.answers = []
        self._is_under_way = True
        try:
            for one in self._statements:
                given = [_text(values[name]) if name in values else usual for name, usual in one.parameters]
                self._line.send_query_prepared(one.name.encode(), given)
                # By itself: that one fails keeps none of the others from being done.
                self._line.pipeline_sync()
            while self._line.flush():
                ready = system.poll()
                ready.register(self._fileno, system.POLLIN | system.POLLOUT)
                ready.poll()
                self._line.consume_input()
        except OperationalError:
            self._give_up()

    def is_over(self) -> bool:
        """Whether all have been answered, or nothing can be answered any more: see ``is_lost``."""
        try:
            self._line.consume_input()
            while len(self.answers) < len(self._statements) and not self._line.is_busy():
                result = self._line.get_result()
                if result is None:
                    if self._line.status == pq.ConnStatus.BAD:
                        self._give_up()
                elif result.status == pq.ExecStatus.PIPELINE_SYNC:
                    self.answers.append(self._answer)
                    self._has_failed = self._has_failed or self._answer is None
                    self._answer = None
                else:
                    # It may fail after it has answered: when what it has done is to be committed.
                    self._answer = _rows(result) if result.status == pq.ExecStatus.TUPLES_OK else None
        except OperationalError:
            self._give_up()
        self._is_under_way = len(self.answers) < len(self._statements)
        return not self._is_under_way

    def _give_up(self) -> None:
        self.is_lost = True
        self.answers += [None] * (len(self._statements) - len(self.answers))


class _Statement(NamedTuple):
    """``name`` is that of one text only. The parameters are in PostgreSQL's order, each with what it usually is."""

    name: str
    text: str
    parameters: list[tuple[str, bytes | None]]


@lru_cache(maxsize=16)
def _read(statement: ClauseElement, dialect: Dialect) -> _Statement:
    compiled = statement.compile(dialect=dialect)
    text = str(compiled) % {parameter: f"${place}" for place, parameter in enumerate(compiled.params, 1)}
    name = f"dormouse_{sha256(text.encode()).hexdigest()[:16]}"
    return _Statement(name, text, [(parameter, _text(value)) for parameter, value in compiled.params.items()])


def _text(value: Any) -> bytes | None:
    if value is None:
        return None
    return (value.isoformat() if isinstance(value, datetime) else str(value)).encode()


def _rows(result: pq.PGresult) -> Rows:
    cells = range(result.nfields)
    return [
        tuple([None if (cell := result.get_value(row, at)) is None else cell.decode() for at in cells])
        for row in range(result.ntuples)
    ]
