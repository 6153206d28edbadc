"""How the schema of a database stands to this program."""

from enum import StrEnum

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from settings import ROOT


class State(StrEnum):
    CURRENT = "current"
    MISSING = "missing"
    BEHIND = "behind"
    NEWER = "newer"


ADVICE = {
    State.CURRENT: "the schema is the one of this version",
    State.MISSING: 'the database has no tables yet: run "flask db upgrade"',
    State.BEHIND: 'the schema is of an earlier version: run "flask db upgrade"',
    State.NEWER: "the schema is of a newer version than this program: install that version, or restore a backup",
}


def state(engine: Engine) -> State:
    """Compare the database's revision with the migrations that came with this program."""
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_heads()
    if not found:
        return State.MISSING
    if set(found) == set(scripts.get_heads()):
        return State.CURRENT
    known = {script.revision for script in scripts.walk_revisions()}
    return State.BEHIND if set(found) <= known else State.NEWER
