"""The migrations and the models describe one schema, and upgrading is safe to repeat and to race."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from flask_migrate import upgrade
from sqlalchemy import create_engine, text

from app import create_app
from models import Base, db
from models.base import tune
from settings import ROOT
from tests.conftest import make_settings
from tests.migrations import catalogue
from tests.migrations.conftest import EmptyDatabases

REVISIONS = ScriptDirectory(str(ROOT / "migrations"))


def upgraded(url: str, folder: Path) -> str:
    app = create_app(make_settings(url, folder))
    with app.app_context():
        upgrade()
        db.engine.dispose()
    return url


def created(url: str) -> str:
    engine = create_engine(url)
    tune(engine)
    with engine.execution_options(for_writing=True).begin() as connection:
        Base.metadata.create_all(connection)
    engine.dispose()
    return url


def flask(url: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A real ``flask …`` in a process of its own."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": url,
        "INSTANCE_PATH": str(folder),
        "SECRET_KEY": "a key for tests",
        "SCHEDULER": "off",
    }
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "flask", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_upgrading_from_nothing_gives_the_schema_of_the_models(empty_database: EmptyDatabases, tmp_path: Path) -> None:
    """Tables, columns, keys, indexes with their WHERE, checks, triggers: as the database itself tells them."""
    migrated = catalogue.of(upgraded(empty_database(), tmp_path))
    expected = catalogue.of(created(empty_database()))
    assert migrated.keys() == expected.keys()
    for part in expected:
        assert migrated[part] == expected[part], part


def test_the_comparison_sees_a_missing_trigger_and_an_index_without_its_condition(
    empty_database: EmptyDatabases,
) -> None:
    url = created(empty_database())
    before = catalogue.of(url)
    engine = create_engine(url)
    guard = {"sqlite": "event_no_delete", "postgresql": "event_no_truncate ON event"}[engine.dialect.name]
    with engine.begin() as connection:
        connection.execute(text(f"DROP TRIGGER {guard}"))
        connection.execute(text("DROP INDEX uq_member_case_live"))
        connection.execute(text("CREATE UNIQUE INDEX uq_member_case_live ON member_case (member_id)"))
    engine.dispose()
    after = catalogue.of(url)
    assert {part for part in before if before[part] != after[part]} == {"indexes", "triggers"}


def test_alembic_itself_finds_no_difference(empty_database: EmptyDatabases, tmp_path: Path) -> None:
    app = create_app(make_settings(upgraded(empty_database(), tmp_path), tmp_path))
    with app.app_context():
        command.check(app.extensions["migrate"].migrate.get_config())
        db.engine.dispose()


def test_there_is_one_line_of_revisions() -> None:
    assert len(REVISIONS.get_heads()) == 1
    assert [revision.down_revision for revision in REVISIONS.walk_revisions()][-1] is None


def test_upgrading_twice_changes_nothing(empty_database: EmptyDatabases, tmp_path: Path) -> None:
    url = upgraded(empty_database(), tmp_path)
    once = catalogue.of(url)
    assert catalogue.of(upgraded(url, tmp_path)) == once


def test_four_processes_may_upgrade_at_once(empty_database: EmptyDatabases, tmp_path: Path) -> None:
    """A deployment that starts several machines at the same instant, each with ``flask db upgrade`` first."""
    url = empty_database()
    processes = [flask(url, tmp_path, "db", "upgrade") for _ in range(4)]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], said
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT version_num FROM alembic_version")).all() == REVISIONS.get_heads()
    engine.dispose()
    assert catalogue.of(url) == catalogue.of(created(empty_database()))


@pytest.mark.parametrize("guarded", ["event"])
def test_no_migration_recreates_a_guarded_table(guarded: str) -> None:
    """Alembic's batch mode copies and renames a table on SQLite; its triggers would stay behind in silence."""
    for revision in (ROOT / "migrations" / "versions").glob("*.py"):
        source = revision.read_text()
        assert f"batch_alter_table('{guarded}'" not in source
        assert f'batch_alter_table("{guarded}"' not in source
