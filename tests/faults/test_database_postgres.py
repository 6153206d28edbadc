"""PostgreSQL at its worst: restarted in mid-close, lines cut, deadlocks, serialisation failures. All is done once."""

import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import event, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app import create_app
from jobs import runner
from models import BillingOrder, Case, JobRun, Member, Message, db
from services import closing
from services.installation import Ports
from settings import Settings
from tests import factories
from tests.conftest import NOW, make_settings
from tests.doubles import FrozenClock
from tests.postgres import started
from tests.services.support import opened
from tests.web.browser import Browser

AFTER = NOW.replace(month=7, day=1)
MEMBERS = 24


@pytest.fixture
def database_url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app()


@pytest.fixture
def session(app: Flask) -> Iterator[Session]:
    with app.app_context():
        engine = db.engine
    with Session(engine) as session:
        yield session


@pytest.fixture
def due(app: Flask, session: Session, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two dozen members whose month end has come, closed in windows of ten; their ids."""
    monkeypatch.setattr(closing, "WINDOW", 10)
    ids = warned(app, session)
    clock.travel(AFTER)
    return ids


def warned(app: Flask, session: Session) -> list[int]:
    settings: Settings = app.extensions["dormouse"].settings
    # The ids are read before the commit: to read them afterwards would begin another transaction, and leave it open.
    ids = [factories.dormant(session).id for _ in range(MEMBERS)]
    session.commit()
    with app.app_context():
        opened(session, settings, NOW)
    factories.live_feed(session, AFTER)
    session.commit()
    return ids


def driver_url(url: str) -> str:
    return url.replace("+psycopg", "")


@contextmanager
def at_statement(app: Flask, number: int, do: Callable[[object], None]) -> Iterator[None]:
    """Before its so-and-so-many-th statement, something happens to the connection that is about to run it."""
    count = 0

    def look(connection: object, cursor: psycopg.Cursor, *_: object) -> None:
        nonlocal count
        count += 1
        if count == number:
            do(cursor.connection)

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", look)


def all_is_decided_once(session: Session) -> None:
    session.rollback()
    assert session.scalars(select(Member.status).distinct()).all() == ["lapsed"]
    assert session.scalars(select(Case.state).distinct()).all() == ["lapsed"]
    for what in (
        select(func.count()).select_from(BillingOrder).where(BillingOrder.kind == "stop"),
        select(func.count()).select_from(Message).where(Message.kind == "lapsed"),
        select(func.count(func.distinct(BillingOrder.member_id))),
    ):
        assert session.scalar(what) == MEMBERS


def nothing_is_half_done(session: Session) -> None:
    """Whoever has lapsed has a closed case, a stop and a mail; nobody else has any of these."""
    session.rollback()
    lapsed = set(session.scalars(select(Member.id).where(Member.status == "lapsed")))
    assert set(session.scalars(select(Case.member_id).where(Case.state == "lapsed"))) == lapsed
    assert set(session.scalars(select(BillingOrder.member_id))) == lapsed
    assert set(session.scalars(select(Message.member_id).where(Message.kind == "lapsed"))) == lapsed


@pytest.mark.parametrize("number", [2, 9, 16, 24, 33, 47])
def test_a_line_that_is_cut_in_mid_close_leaves_nothing_half_done(
    app: Flask, session: Session, database_url: str, due: list[int], number: int
) -> None:
    """As an administrator, a proxy or a failing switch cuts it: at this statement, whatever it is."""

    def cut(connection: psycopg.Connection) -> None:
        with psycopg.connect(driver_url(database_url), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])

    with at_statement(app, number, cut), pytest.raises(DBAPIError):  # type: ignore[arg-type]
        app.extensions["dormouse_jobs"].run("close", AFTER)
    nothing_is_half_done(session)
    app.extensions["dormouse_jobs"].run("close", AFTER)
    all_is_decided_once(session)


def test_the_scheduler_takes_a_close_up_again_whose_line_was_cut(
    app: Flask, session: Session, database_url: str, due: list[int], clock: FrozenClock
) -> None:
    def cut_all(_: object) -> None:
        with psycopg.connect(driver_url(database_url), autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    session.close()
    with at_statement(app, 40, cut_all):
        runner.run_due(app)
    nothing_is_half_done(session)
    clock.tick(hours=1)
    runner.run_due(app)
    all_is_decided_once(session)
    rows = session.scalars(select(JobRun).where(JobRun.job == "close")).all()
    assert all(row.error is None and row.finished_at is not None for row in rows)
    assert max(row.attempts for row in rows) == 2, "it was another job that was cut"


def test_a_deadlock_is_told_to_nobody_and_the_close_begins_anew(
    app: Flask, session: Session, database_url: str, due: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger's transaction locks the last member of a window first and the first one last: a true deadlock."""
    with psycopg.connect(driver_url(database_url), autocommit=True) as admin:
        # Whose patience ends first is the one that is told to begin anew: ours, here. It looks for a deadlock once,
        # when its patience ends: by then the stranger has to wait for it, also on a machine with much else to do.
        admin.execute(f"ALTER DATABASE {admin.info.dbname} SET deadlock_timeout = '5s'")  # type: ignore[call-overload]
    _forget_connections(app)
    caplog.set_level("INFO", logger="dormouse.jobs")
    with psycopg.connect(driver_url(database_url)) as stranger:
        stranger.execute("SET deadlock_timeout = '60s'")
        stranger.execute("SELECT 1 FROM member WHERE id = %s FOR UPDATE", [due[8]])
        closes = threading.Thread(target=lambda: app.extensions["dormouse_jobs"].run("close", AFTER))
        closes.start()
        # It holds the first ones as soon as it waits for the ninth; then this waits for it, and it is the victim.
        _until_somebody_waits(database_url)
        stranger.execute("SELECT 1 FROM member WHERE id = %s FOR UPDATE", [due[0]])
        stranger.commit()
        closes.join(300)
        assert not closes.is_alive()
    assert "close begins anew: DeadlockDetected" in caplog.text
    all_is_decided_once(session)


def test_a_serialisation_failure_begins_the_close_anew(
    app: Flask, session: Session, database_url: str, due: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Where an administrator has made the strictest isolation the default."""
    with psycopg.connect(driver_url(database_url), autocommit=True) as admin:
        admin.execute(  # type: ignore[call-overload]
            f"ALTER DATABASE {admin.info.dbname} SET default_transaction_isolation = 'repeatable read'"
        )
    _forget_connections(app)
    caplog.set_level("INFO", logger="dormouse.jobs")
    with psycopg.connect(driver_url(database_url)) as stranger:
        stranger.execute("UPDATE member SET name = 'Another' WHERE id = %s", [due[3]])
        closes = threading.Thread(target=lambda: app.extensions["dormouse_jobs"].run("close", AFTER))
        closes.start()
        _until_somebody_waits(database_url)
        stranger.commit()
        closes.join(300)
        assert not closes.is_alive()
    assert "close begins anew: SerializationFailure" in caplog.text
    all_is_decided_once(session)


def test_a_press_while_every_line_is_cut_is_answered_and_the_next_one_works(
    app: Flask, session: Session, database_url: str
) -> None:
    factories.member(session, email="mia@example.org")
    session.commit()
    session.close()
    browser = Browser(app)
    browser.open("/sign-in")
    with psycopg.connect(driver_url(database_url), autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    # A line that was cut while nobody used it is found out before it is used.
    assert browser.press(email="mia@example.org").status_code == 200


@pytest.fixture
def own_server(postgres: str) -> Iterator[Any]:
    """A server that may be stopped, because nobody else uses it."""
    folder = Path(tempfile.gettempdir()) / f"dormouse-own-{uuid.uuid4().hex}"
    folder.mkdir(mode=0o755)
    server = started(folder / "postgres")
    yield server
    server.cleanup()


def test_a_server_that_is_restarted_in_mid_close(
    own_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "WINDOW", 10)
    clock = FrozenClock(NOW)
    url = own_server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    app = create_app(make_settings(url, tmp_path), Ports(clock=clock))
    app.testing = True
    with app.app_context():
        upgrade()
        engine = db.engine
    with Session(engine) as session:
        warned(app, session)
        clock.travel(AFTER)

    def restart(_: object) -> None:
        own_server.stop()
        own_server.ensure_postgres_running()

    with at_statement(app, 30, restart):
        runner.run_due(app)
    with Session(engine) as session:
        nothing_is_half_done(session)
        clock.tick(hours=1)
        runner.run_due(app)
        all_is_decided_once(session)
        attempts = select(func.max(JobRun.attempts)).where(JobRun.job == "close")
        assert session.scalar(attempts) == 2, "it was another job that was cut"
    engine.dispose()


def _forget_connections(app: Flask) -> None:
    with app.app_context():
        db.engine.dispose()


def _until_somebody_waits(url: str) -> None:
    """Until a transaction of this database waits for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(driver_url(url), autocommit=True) as other:
        for _ in range(30_000):
            row = other.execute(waiting).fetchone()
            if row is not None and row[0]:
                return
            other.execute("SELECT pg_sleep(0.01)")
    pytest.fail("nobody waits for a lock")
