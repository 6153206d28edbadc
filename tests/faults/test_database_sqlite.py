"""SQLite at its worst: locked for too long, full, read-only. Nothing is half-done, and it goes on afterwards."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from adapters.mail.smtp import SmtpMailer
from app import create_app
from domain.notices import Kind
from jobs import runner
from models import Case, JobRun, Message, base, db
from services import outbox
from services.mail import delivery
from settings import Settings
from tests import factories
from tests.conftest import NOW, make_settings
from tests.doubles import FrozenClock, SmtpCatcher
from tests.faults.unkind import Moment, Stage, Unkind
from tests.services.support import opened
from tests.web.browser import Browser
from tests.web.everywhere import contents

MONTH_END = NOW.replace(month=7, day=1)


@pytest.fixture
def database_url(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(base, "BUSY_TIMEOUT_MS", 50)
    return sqlite_url


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
def settings(app: Flask) -> Settings:
    found: Settings = app.extensions["dormouse"].settings
    return found


@pytest.fixture
def path(database_url: str) -> Path:
    return Path(database_url.removeprefix("sqlite:///"))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another writer that does not come to an end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_a_writer_asks_for_the_lock_again_and_again_and_has_it_when_it_is_free(
    session: Session, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "BUSY_TIMEOUT_MS", 10_000)
    waits: list[float] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        def wait(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                other.execute("ROLLBACK")

        monkeypatch.setattr(base, "sleep", wait)
        base.for_writing(session)
    assert waits == [base.ASK_AGAIN_MS / 1000] * 3
    # Whatever else waits in this transaction waits as long as before.
    assert session.connection().exec_driver_sql("PRAGMA busy_timeout").scalar() == 10_000


def test_who_does_not_wait_for_the_lock_is_told_and_can_ask_again(session: Session, path: Path) -> None:
    with locked(path):
        assert not base.for_writing_if_free(session)
        assert not session.in_transaction()
    assert base.for_writing_if_free(session)
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        session.rollback()
        other.execute("BEGIN IMMEDIATE")


def test_what_a_run_has_sent_is_in_the_database_itself_when_it_is_over(
    app: Flask, session: Session, path: Path, smtp: SmtpCatcher, tmp_path: Path
) -> None:
    """A power cut may take back what is in the log only: as many mails would go out again."""
    member = factories.member(session, email="mia@example.org")
    outbox.put(session, kind=Kind.WELCOME_BACK, once_key="w", now=NOW, member=member)
    session.commit()
    here = app.extensions["dormouse"]
    with app.app_context():
        done = delivery.deliver(session, here.settings, here.mailer, here.clock, session.commit, lambda: False)
    assert done.sent == 1
    without_log = shutil.copy(path, tmp_path / "without_log.db")
    with closing(sqlite3.connect(without_log)) as found:
        assert found.execute("SELECT state FROM message").fetchall() == [("sent",)]


def test_while_somebody_reads_the_log_is_on_the_disk(
    session: Session, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)

    base.to_disk(session)
    monkeypatch.setattr(base.os, "fsync", fsync)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM member").fetchone()
        factories.member(session)
        session.commit()
        base.to_disk(session)
        assert synced == [Path(f"{path}-wal").stat().st_ino]


def press(app: Flask, path: str, **filled: str) -> Browser:
    browser = Browser(app)
    browser.open(path)
    browser.press(**filled)
    return browser


@pytest.mark.parametrize(
    "job", ["draft-campaign", "remind", "close", "warn-purge", "purge", "deliver", "settle-billing"]
)
def test_a_job_that_meets_a_lock_changes_nothing_says_so_and_goes_on_later(
    app: Flask, session: Session, path: Path, job: str
) -> None:
    factories.live_feed(session, NOW)
    factories.dormant(session)
    session.commit()
    before = contents(session)
    runner_ = app.test_cli_runner()
    with locked(path):
        result = runner_.invoke(args=["jobs", "run", job])
        assert result.exit_code == 1
        assert "was busy for too long (database is locked): try again" in result.output
        assert result.output.count("\n") == 1
    assert contents(session) == before
    result = runner_.invoke(args=["jobs", "run", job])
    assert result.exit_code == 0, result.output


def test_the_scheduler_outlives_a_lock_and_does_all_that_was_due(app: Flask, session: Session, path: Path) -> None:
    factories.live_feed(session, NOW)
    factories.dormant(session)
    session.commit()
    with locked(path):
        runner.run_due(app)
        with pytest.raises(OperationalError):
            runner.run_queue(app, "deliver")
    session.rollback()
    assert session.scalars(select(JobRun)).all() == []
    runner.run_due(app)
    session.rollback()
    rows = session.scalars(select(JobRun)).all()
    assert {row.job for row in rows} == {"draft-campaign", "remind", "close", "warn-purge", "purge"}
    assert all(row.finished_at is not None and row.error is None for row in rows)


def test_a_press_that_meets_a_lock_is_asked_to_come_again_and_looking_still_works(
    app: Flask, session: Session, path: Path
) -> None:
    factories.member(session, email="mia@example.org")
    session.commit()
    before = contents(session)
    with locked(path):
        browser = press(app, "/sign-in", email="mia@example.org")
        assert browser.response.status_code == 503
        assert browser.response.headers["Retry-After"]
        assert "nothing is lost" in browser.page.text
        assert Browser(app).open("/readyz").status_code in (200, 503)
        assert Browser(app).open("/sign-in").status_code == 200
    assert contents(session) == before
    assert press(app, "/sign-in", email="mia@example.org").response.status_code == 200


def test_a_lock_that_meets_the_record_of_a_mail_doubles_one_message_at_most(
    app: Flask, session: Session, path: Path, clock: FrozenClock
) -> None:
    """The mail is accepted and that cannot be written down: as if the process had died there (design promise 5)."""
    for number in range(20):
        member = factories.member(session, email=f"m{number}@example.org")
        outbox.put(session, kind=Kind.WELCOME_BACK, once_key=f"w:{number}", now=NOW, member=member)
    session.commit()
    blocking = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def lock_after_the_fifth(moment: Moment) -> None:
        if moment.stage == Stage.KEPT and len(server.kept) == 5:
            blocking.execute("BEGIN IMMEDIATE")

    with Unkind(lock_after_the_fifth) as server, closing(blocking):
        app.config.update(MAIL_SERVER="127.0.0.1", MAIL_PORT=server.port)

        def deliver() -> delivery.Delivered:
            with app.app_context():
                here, own = app.extensions["dormouse"], db.session()
                return delivery.deliver(
                    own, here.settings, SmtpMailer(app, timeout=60), here.clock, own.commit, lambda: False
                )

        with pytest.raises(OperationalError, match="locked"):
            deliver()
        blocking.execute("ROLLBACK")
        clock.tick(minutes=11)
        assert deliver().sent == 16
    counted = {f"m{number}@example.org": server.to(f"m{number}@example.org") for number in range(20)}
    assert sorted(counted.values()) == [1] * 19 + [2]
    session.rollback()
    assert set(session.scalars(select(Message.state))) == {"sent"}


# A disk that is full


@contextmanager
def full_disk(app: Flask, path: Path, spare: int) -> Iterator[None]:
    """No page more than the file has now, and a few spare ones."""
    with closing(sqlite3.connect(path)) as connection:
        [pages] = connection.execute("PRAGMA page_count").fetchone()
    with app.app_context():
        engine = db.engine
    engine.dispose()

    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages + spare}")

    event.listen(engine, "connect", limit)
    try:
        yield
    finally:
        event.remove(engine, "connect", limit)
        engine.dispose()


@pytest.mark.parametrize("spare", [0, 3, 10])
def test_a_full_disk_takes_back_the_whole_step_and_the_next_run_does_it(
    app: Flask, session: Session, path: Path, spare: int
) -> None:
    factories.live_feed(session, NOW)
    for _ in range(300):
        factories.dormant(session)
    session.commit()
    before = contents(session)
    session.close()
    shell = app.test_cli_runner()
    with full_disk(app, path, spare):
        result = shell.invoke(args=["jobs", "run", "draft-campaign"])
        assert result.exit_code == 1
        assert "disk is full" in result.output
        assert result.output.count("\n") == 1
        assert press(app, "/sign-in", email="mia@example.org").response.status_code in (200, 503)
    after = contents(session)
    assert after["campaign"] == before["campaign"] == []
    assert after["member_case"] == []
    assert shell.invoke(args=["jobs", "run", "draft-campaign"]).exit_code == 0
    session.rollback()
    assert len(session.scalars(select(Case.id)).all()) == 300


def test_a_close_on_a_full_disk_ends_nobody_by_halves(
    app: Flask, session: Session, settings: Settings, path: Path, clock: FrozenClock
) -> None:
    members = [factories.dormant(session) for _ in range(24)]
    session.commit()
    with app.app_context():
        opened(session, settings, NOW)
    factories.live_feed(session, MONTH_END)
    session.commit()
    clock.travel(MONTH_END)
    shell = app.test_cli_runner()
    session.close()
    with full_disk(app, path, 0):
        result = shell.invoke(args=["jobs", "run", "close"])
        assert result.exit_code == 1
        assert "full" in result.output
    found = contents(session)
    assert found["billing_order"] == []
    assert not [row for row in found["member"] if "lapsed" in row]
    assert shell.invoke(args=["jobs", "run", "close"]).exit_code == 0
    session.expire_all()
    found = contents(session)
    lapsed = [row for row in found["member_case"] if "lapsed" in row]
    assert len(found["billing_order"]) == len(lapsed) == len(members)


# A file that cannot be written


def test_a_read_only_database_is_said_in_one_line_and_pages_can_be_looked_at(
    app: Flask, session: Session, path: Path, tmp_path: Path, smtp: SmtpCatcher
) -> None:
    factories.member(session, email="mia@example.org")
    session.commit()
    read_only = create_app(make_settings(f"sqlite:///file:{path}?mode=ro&uri=true", tmp_path))
    read_only.testing = True
    result = read_only.test_cli_runner().invoke(args=["jobs", "run", "draft-campaign"])
    assert result.exit_code == 1
    assert "cannot be written" in result.output
    assert "check the rights of the file and of its folder" in result.output
    assert Browser(read_only).open("/sign-in").status_code == 200
    assert press(read_only, "/sign-in", email="mia@example.org").response.status_code == 503
    with read_only.app_context():
        db.engine.dispose()
