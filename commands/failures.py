"""How a command fails: one clear line on stderr, exit code 1, and never a traceback for what a person can put right."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
from flask import Flask
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError

from commands import schema
from domain.errors import DormouseError
from models import db
from settings import SettingsError

OUTDATED = {"42P01", "42703"}
"""PostgreSQL's codes for a table and a column that do not exist."""


@contextmanager
def as_one_line(app: Flask) -> Iterator[None]:
    """Turn what a person can put right into a line; a mistake of ours keeps its traceback."""
    try:
        yield
    except (DormouseError, SettingsError) as error:
        raise click.ClickException(flat(str(error))) from None
    except DBAPIError as error:
        with app.app_context():
            line = of_database(error, db.engine if "sqlalchemy" in app.extensions else None)
        if line is None:
            raise
        raise click.ClickException(line) from None


def flat(text: str) -> str:
    return " ".join(text.split())


def of_database(error: DBAPIError, engine: Engine | None) -> str | None:
    """What is wrong with the database and what to do; None where it is our statement that is wrong."""
    name = "the database" if engine is None else f"the database {engine.url.render_as_string(hide_password=True)}"
    said = flat(str(error.orig).partition("\n")[0])
    if _lacks_something(error):
        found = None if engine is None else schema.state(engine)
        if found is schema.State.NEWER:
            return f"{schema.ADVICE[found]} ({name})"
        return f'{name} does not have the tables of this version ({said}): run "flask db upgrade"'
    if "locked" in said or "deadlock" in said:
        return f"{name} was busy for too long ({said}): try again"
    if "readonly" in said or "read-only" in said:
        return f"{name} cannot be written ({said}): check the rights of the file and of its folder"
    if "not a database" in said:
        return f"the file of {name} holds something else ({said}): check DATABASE_URL"
    if isinstance(error, OperationalError | InterfaceError):
        return f"cannot use {name} ({said}): check DATABASE_URL, and that it is running and can be reached and written"
    return None


def _lacks_something(error: DBAPIError) -> bool:
    if isinstance(error, ProgrammingError):
        return getattr(error.orig, "sqlstate", None) in OUTDATED
    return isinstance(error, OperationalError) and str(error.orig).startswith(("no such table", "no such column"))
