"""`flask backup` and `flask restore`: whole, verified copies of a database in use, and the way back, on SQLite."""

import resource
import signal
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import create_app
from domain.errors import Refused
from models import Case, Member, Message, db
from services import campaigns, check_in, erasure_log, snapshot
from services.installation import Ports
from settings import Settings
from tests import factories
from tests.conftest import NOW, make_settings
from tests.doubles import FrozenClock
from tests.services.support import accept_mails, case_of, opened


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def database(database_url: str) -> Path:
    return Path(database_url.removeprefix("sqlite:///"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "backups"
    path.mkdir()
    return path


@pytest.fixture
def shell(app: Flask, session: Session) -> Callable[..., Result]:
    runner = app.test_cli_runner()

    def run(*words: object) -> Result:
        session.close()
        db.session.remove()
        return runner.invoke(args=[str(word) for word in words])

    return run


Shell = Callable[..., Result]


def names(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return [name for (name,) in connection.execute("SELECT external_id FROM member ORDER BY id")]


def test_a_backup_is_whole_readable_by_its_owner_only_and_one_file(
    shell: Shell, session: Session, folder: Path
) -> None:
    for name in ("a", "b"):
        factories.member(session, external_id=name)
    session.commit()
    result = shell("backup", folder / "monday.db")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{folder / 'monday.db'}: 2 members, ")
    assert "verified" in result.output
    assert stat.S_IMODE((folder / "monday.db").stat().st_mode) == 0o600
    assert names(folder / "monday.db") == ["a", "b"]
    assert [file.name for file in folder.iterdir()] == ["monday.db"]


def test_a_backup_is_of_one_instant_while_others_write(app: Flask, database: Path, folder: Path) -> None:
    """Rows come in pairs, each a transaction: a copy that mixed two instants would hold half a pair."""
    begun, stop = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("PRAGMA busy_timeout = 300000")
            number = 0
            while not stop.is_set():
                number += 1
                connection.execute("BEGIN IMMEDIATE")
                for half in ("left", "right"):
                    connection.execute("INSERT INTO use_feed (source) VALUES (?)", (f"{half}{number}",))
                connection.execute("COMMIT")
                begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(300)
        copies = [snapshot.copy(database, folder / f"{number}.db") for number in range(8)]
    finally:
        stop.set()
        writer.join()
    assert all(copied.rows["use_feed"] % 2 == 0 for copied in copies)
    assert copies[-1].rows["use_feed"] > 0


def test_a_backup_replaces_nothing_unless_told_to(shell: Shell, folder: Path, database: Path) -> None:
    file = folder / "monday.db"
    file.write_text("precious")
    result = shell("backup", file)
    assert (result.exit_code, file.read_text()) == (1, "precious")
    assert "--force" in result.output
    assert shell("backup", file, "--force").exit_code == 0
    assert names(file) == []
    assert shell("backup", database, "--force").exit_code == 1
    assert shell("backup", folder / "no" / "such.db").output.strip().endswith(f"there is no folder {folder / 'no'}")


def test_a_damaged_copy_gets_no_name(folder: Path, database: Path) -> None:
    """A page that is not what it was: found by the check, and nothing is left behind that looks like a backup."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        [size] = connection.execute("PRAGMA page_size").fetchone()
    content = bytearray(database.read_bytes())
    for page in range(2, len(content) // size):
        content[page * size : page * size + 16] = b"\xff" * 16
    database.write_bytes(content)
    with pytest.raises(Refused, match=r"damaged|no sound database"):
        snapshot.copy(database, folder / "monday.db")
    assert not list(folder.iterdir())


def test_a_full_disk_is_one_line_and_leaves_the_last_backup_as_it_was(shell: Shell, folder: Path) -> None:
    """The limit on the size of files, which the system keeps, cuts the copy off as a full disk does."""
    file = folder / "monday.db"
    assert shell("backup", file).exit_code == 0
    before = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
        result = shell("backup", file, "--force")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {file} cannot be written: ")
    assert result.output.count("\n") == 1
    assert file.read_bytes() == before
    assert [file.name for file in folder.iterdir()] == ["monday.db"]


def test_a_restore_brings_yesterday_back_and_keeps_today_aside(
    shell: Shell, session: Session, folder: Path, database: Path, clock: FrozenClock
) -> None:
    factories.member(session, external_id="yesterday")
    session.commit()
    assert shell("backup", folder / "monday.db").exit_code == 0
    factories.member(session, external_id="today")
    session.commit()
    clock.tick(days=1)

    refused = shell("restore", folder / "monday.db")
    assert refused.exit_code == 1
    assert "--yes" in refused.output
    result = shell("restore", folder / "monday.db", "--yes")
    assert result.exit_code == 0, result.output
    assert names(database) == ["yesterday"]
    [aside] = database.parent.glob("dormouse.db.replaced-*")
    assert names(aside) == ["yesterday", "today"]
    assert str(aside) in result.output
    assert not list(database.parent.glob(".dormouse.db*"))
    assert db.session.scalars(select(Member.external_id)).all() == ["yesterday"]


def test_a_restore_where_there_is_no_database_needs_no_yes(shell: Shell, folder: Path, database: Path) -> None:
    assert shell("backup", folder / "monday.db").exit_code == 0
    db.engine.dispose()
    for file in (database, *snapshot.side_files(database)):
        file.unlink(missing_ok=True)
    result = shell("restore", folder / "monday.db")
    assert result.exit_code == 0, result.output
    assert names(database) == []


@pytest.mark.parametrize("what", ["nothing", "text", "cut", "another", "newer", "itself"])
def test_what_cannot_be_restored_is_said_and_changes_nothing(
    shell: Shell, session: Session, folder: Path, database: Path, what: str
) -> None:
    factories.member(session, external_id="here")
    session.commit()
    file = folder / "monday.db"
    assert shell("backup", file).exit_code == 0
    if what == "nothing":
        file.unlink()
    elif what == "text":
        file.write_text("external_id,email\n" * 100)
    elif what == "cut":
        file.write_bytes(file.read_bytes()[:-5000])
    elif what == "itself":
        file = database
    else:
        with closing(sqlite3.connect(file)) as connection, connection:
            statement = (
                "DROP TABLE alembic_version" if what == "another" else "UPDATE alembic_version SET version_num='x'"
            )
            connection.execute(statement)
    result = shell("restore", file, "--yes")
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
    assert names(database) == ["here"]
    assert not list(database.parent.glob("*replaced*"))
    assert not list(database.parent.glob(".dormouse.db*"))


def test_a_restore_waits_for_nobody_who_still_uses_the_database(
    shell: Shell, session: Session, folder: Path, database: Path
) -> None:
    factories.member(session, external_id="here")
    session.commit()
    assert shell("backup", folder / "monday.db").exit_code == 0
    with closing(sqlite3.connect(database)) as server:
        server.execute("SELECT count(*) FROM member").fetchone()
        result = shell("restore", folder / "monday.db", "--yes")
    assert result.exit_code == 1
    assert "is in use: stop every server and scheduler first" in result.output
    assert names(database) == ["here"]


def test_a_damaged_database_can_be_replaced(shell: Shell, session: Session, folder: Path, database: Path) -> None:
    factories.member(session, external_id="here")
    session.commit()
    assert shell("backup", folder / "monday.db").exit_code == 0
    db.session.remove()
    db.engine.dispose()
    for file in snapshot.side_files(database):
        file.unlink(missing_ok=True)
    database.write_bytes(b"not a database any more " * 1000)
    result = shell("restore", folder / "monday.db", "--yes")
    assert result.exit_code == 0, result.output
    assert "cannot be asked for its latest erasures" in result.output
    assert names(database) == ["here"]


@pytest.mark.parametrize("known_by", ["the log", "the log beside the backup", "the database that goes"])
def test_scenario_43_erasures_since_the_backup_are_replayed(
    shell: Shell, session: Session, settings: Settings, folder: Path, clock: FrozenClock, database: Path, known_by: str
) -> None:
    factories.member(session, external_id="gone", email="gone@example.org", status="ended")
    factories.member(session, external_id="stays")
    session.commit()
    assert shell("backup", folder / "monday.db").exit_code == 0
    clock.tick(days=1)
    assert shell("members", "erase", "gone", "--yes").output.startswith("gone was erased")
    log = erasure_log.path_of(settings)
    if known_by == "the log beside the backup":
        # The next backup went to the same folder; then machine and disk were lost.
        assert shell("backup", folder / "tuesday.db").exit_code == 0
        log.unlink()
        db.session.remove()
        db.engine.dispose()
        for file in (database, *snapshot.side_files(database)):
            file.unlink(missing_ok=True)
    elif known_by == "the database that goes":
        log.unlink()
    result = shell("restore", folder / "monday.db", "--yes")
    assert "1 members erased again" in result.output, result.output
    assert {row.external_id: row.status for row in db.session.scalars(select(Member))} == {
        None: "purged",
        "stays": "active",
    }
    assert b"gone@example.org" not in database.read_bytes()
    assert len(erasure_log.read(log)) == 1


def test_scenario_29_ids_come_again_after_a_restore_and_no_old_link_meets_another_member(
    shell: Shell, session: Session, settings: Settings, folder: Path
) -> None:
    """The link, the bounce and the billing key of somebody who was added after the backup, and whose ids come again."""
    factories.live_feed(session, NOW)
    session.commit()
    assert shell("backup", folder / "monday.db").exit_code == 0

    first = factories.dormant(session, external_id="first", email="first@example.org")
    session.commit()
    opened(session, settings, NOW)
    case = case_of(session, first)
    link = check_in.token(settings, case.public_id, case.address_generation)
    mail = session.scalars(select(Message).where(Message.case_id == case.id)).one()
    old = (first.id, case.id, mail.id, mail.message_id, f"stop:{case.public_id}:1")

    assert shell("restore", folder / "monday.db", "--yes").exit_code == 0
    second = factories.dormant(session, external_id="second", email="second@example.org")
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.release(session, settings, "2026-06", NOW)
    session.commit()
    accept_mails(session, settings, NOW)
    case = case_of(session, second)
    mail = session.scalars(select(Message).where(Message.case_id == case.id)).one()
    # The very danger: all ids are the same.
    assert (second.id, case.id, mail.id) == old[:3]
    assert mail.message_id != old[3]
    assert f"stop:{case.public_id}:1" != old[4]
    public_id, _ = check_in.read(settings, link) or ("", 0)
    assert session.scalar(select(Case).where(Case.public_id == public_id)) is None


def test_on_postgresql_one_is_told_what_to_do_instead_and_settles_the_same(
    postgres_url: str, tmp_path: Path, folder: Path
) -> None:
    app = create_app(make_settings(postgres_url, tmp_path), Ports(clock=FrozenClock(NOW)))
    runner = app.test_cli_runner()
    for words in (["backup", str(folder / "x")], ["restore", str(folder / "x"), "--yes"]):
        result = runner.invoke(args=words)
        assert result.exit_code == 1
        assert "pg_dump" in result.output
    with app.app_context():
        factories.member(db.session(), external_id="here")
        db.session.commit()
        assert runner.invoke(args=["restore", "--settle"]).exit_code == 1
        result = runner.invoke(args=["restore", "--settle", "--yes"])
        assert result.exit_code == 0, result.output
        assert "rounds held: none was open" in result.output
        assert db.session.scalar(select(Member.session_generation)) == 1001
        db.session.remove()
        db.engine.dispose()
