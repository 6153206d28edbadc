"""The application as it is installed, but for its clock, which a file moves, and for the point at which it has to die.

``DIE_AT=7`` kills the process, by SIGKILL, at the seventh point of its work with the database; ``DIE_AT=20-70`` at one
that differs from death to death. A point is the beginning of a transaction (all before it is committed, and a mail may
have just been accepted), a statement that has changed something, and a commit that is about to happen. Each death
leaves a line in ``<instance>/deaths``. ``TERM_AT_EVENT=case_closed`` asks the process to end, by SIGTERM, when it first
writes that event; ``WINDOW=5`` makes small work of a month end.
"""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any

from flask import Flask
from sqlalchemy import Engine, event

import app as application
from adapters.clock import ShiftedClock
from models import db
from services import closing
from services.installation import Ports
from settings import load

CHANGES = re.compile(r"\s*(INSERT|UPDATE|DELETE|WITH\b.*\b(INSERT|UPDATE|DELETE)\b)", re.I | re.S)


def create_app() -> Flask:
    settings = load()
    app = application.create_app(settings, Ports(clock=ShiftedClock(settings.instance_path / "clock")))
    die_at = os.environ.get("DIE_AT")
    if die_at:
        deaths = settings.instance_path / "deaths"
        with app.app_context():
            _die(db.engine, _which(die_at, deaths), deaths)
    term_at = os.environ.get("TERM_AT_EVENT")
    if term_at:
        with app.app_context():
            _end(db.engine, term_at)
    closing.WINDOW = int(os.environ.get("WINDOW", closing.WINDOW))
    return app


def _which(die_at: str, deaths: Path) -> int:
    first, _, last = die_at.partition("-")
    if not last:
        return int(first)
    # A worker that is put in the place of one that died does not die at the same point.
    died = len(deaths.read_text().splitlines()) if deaths.exists() else 0
    return Random(f"{die_at} {died} {os.getpid() % 2}").randint(int(first), int(last))


def _die(engine: Engine, at: int, deaths: Path) -> None:
    reached = 0
    one_at_a_time = Lock()

    def point(what: str) -> None:
        nonlocal reached
        with one_at_a_time:
            reached += 1
            if reached == at:
                with deaths.open("a") as file:
                    file.write(f"{os.getpid()} {at} {what}\n")
                os.kill(os.getpid(), signal.SIGKILL)

    _listen(engine, point)


def _end(engine: Engine, at: str) -> None:
    @event.listens_for(engine, "after_cursor_execute")
    def _written(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("INSERT INTO event") and at in str(parameters):
            os.kill(os.getpid(), signal.SIGTERM)


def _listen(engine: Engine, point: Callable[[str], None]) -> None:
    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        point("begin")

    @event.listens_for(engine, "after_cursor_execute")
    def _changed(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if CHANGES.match(statement):
            point(" ".join(statement.split())[:60])

    @event.listens_for(engine, "commit")
    def _commit(connection: Any) -> None:
        point("commit")
