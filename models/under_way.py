"""Statements that PostgreSQL works at while who asked them does something else, and waits for many things at once.

SQLAlchemy and psycopg wait for each answer, or want a thread or a loop of their own. Here the caller watches
``fileno`` beside whatever else it watches. Each statement is a transaction of its own, and is prepared once.
"""

import select as system
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import OperationalError, pq
from sqlalchemy import ClauseElement, Engine, func, select

Rows = list[tuple[str | None, ...]]
"""As PostgreSQL writes them, in text."""


class UnderWay:
    """A connection of its own for a few statements, which are always asked together, one after the other.

    ``name`` is what the connection is called in PostgreSQL's list of them (pg_stat_activity). Raises DBAPIError
    where there is no connection.
    """

    def __init__(self, engine: Engine, name: str, statements: Sequence[ClauseElement]) -> None:
        connection = engine.connect()
        connection.execute(select(func.set_config("application_name", name, False)))
        self._parameters: list[list[tuple[str, bytes | None]]] = []
        for number, statement in enumerate(statements):
            compiled = statement.compile(dialect=engine.dialect)
            places = {parameter: f"${place}" for place, parameter in enumerate(compiled.params, 1)}
            connection.exec_driver_sql(f"PREPARE {_name(number)} AS {str(compiled) % places}")
            self._parameters.append([(parameter, _text(value)) for parameter, value in compiled.params.items()])
        connection.commit()
        driver: Any = connection.connection.driver_connection
        # It leaves the pool: to nobody else are its prepared statements known.
        connection.detach()
        self._connection, self._driver = connection, driver
        self._line: pq.PGconn = driver.pgconn
        self._fileno = self._line.socket
        self._line.nonblocking = 1
        self._line.enter_pipeline_mode()
        self.answers: list[Rows | None] = []
        """What each statement has given, once all is over; None of one that has failed, and changed nothing."""
        self._answer: Rows | None = None
        self.is_lost = False
        """Whether it is of no use any more."""

    def close(self) -> None:
        """Whatever is under way: PostgreSQL ends it by itself."""
        self._driver.close()
        # There is nothing to be put back as it was, and in pipeline mode it could not be.
        self._connection.invalidate()
        self._connection.close()

    def fileno(self) -> int:
        return self._fileno

    def ask(self, values: Mapping[str, Any]) -> None:
        """Ask all statements; what one of them needs of ``values`` has its parameter's name. Returns at once."""
        self.answers = []
        try:
            for number, parameters in enumerate(self._parameters):
                given = [_text(values[name]) if name in values else usual for name, usual in parameters]
                self._line.send_query_prepared(_name(number).encode(), given)
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
            while len(self.answers) < len(self._parameters) and not self._line.is_busy():
                result = self._line.get_result()
                if result is None:
                    if self._line.status == pq.ConnStatus.BAD:
                        self._give_up()
                elif result.status == pq.ExecStatus.PIPELINE_SYNC:
                    self.answers.append(self._answer)
                    self._answer = None
                else:
                    # It may fail after it has answered: when what it has done is to be committed.
                    self._answer = _rows(result) if result.status == pq.ExecStatus.TUPLES_OK else None
        except OperationalError:
            self._give_up()
        return len(self.answers) == len(self._parameters)

    def _give_up(self) -> None:
        self.is_lost = True
        self.answers += [None] * (len(self._parameters) - len(self.answers))


def _name(number: int) -> str:
    return f"dormouse_{number}"


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
