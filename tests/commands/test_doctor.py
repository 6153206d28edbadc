"""The doctor: one line a check, what to do where something is bad, and exit code 1 then."""

import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import text

from app import create_app
from models import JobRun, db
from services.installation import Ports
from tests import factories
from tests.conftest import make_settings
from tests.doubles import FrozenClock, NoDns, SmtpCatcher
from tests.factories import at


def doctor(app: Flask) -> Result:
    with app.app_context():
        result: Result = app.test_cli_runner().invoke(args=["doctor"])
        db.session.rollback()
    return result


def bad(result: Result) -> list[str]:
    return [line.removeprefix("BAD  ") for line in result.stdout.splitlines() if line.startswith("BAD")]


@pytest.fixture
def healthy(make_app: Callable[..., Flask]) -> Callable[..., Flask]:
    """An application with nothing to complain about, its settings changed."""

    def make(**changes: object) -> Flask:
        app = make_app(**{"public_url": "https://members.example.org", **changes})
        with app.app_context():
            factories.live_feed(db.session(), at("2026-06-02"))
            db.session.commit()
        return app

    return make


def test_all_is_well(healthy: Callable[..., Flask]) -> None:
    result = doctor(healthy())
    assert (result.exit_code, bad(result)) == (0, [])
    names = [line.split(":")[0].removeprefix("ok   ") for line in result.stdout.splitlines()]
    assert names == [
        "settings", "secret key", "evidence", "instance", "public URL", "time zone", "mail server", "mail sender",
        "DNS", "database", "schema", "use feed", "jobs",
    ]  # fmt: skip
    assert "secret key: set" in result.stdout
    assert "Europe/Berlin, where it is 2026-06-03 12:00" in result.stdout


def test_a_url_without_tls_is_bad_unless_it_is_this_machine(healthy: Callable[..., Flask]) -> None:
    result = doctor(healthy(public_url="http://members.example.org"))
    assert result.exit_code == 1
    assert bad(result) == [
        "public URL: http://members.example.org is not https: links in mails could be read on the way"
    ]
    assert bad(doctor(healthy(public_url="http://localhost:5000"))) == []


def test_a_secret_that_others_may_read_or_guess(healthy: Callable[..., Flask], tmp_path: Path) -> None:
    key = tmp_path / "secret_key"
    key.write_text("kept kept kept kept kept")
    key.chmod(0o644)
    assert bad(doctor(healthy())) == [f"secret key: others on this machine may read {key}: chmod 600 {key}"]
    key.chmod(0o600)
    assert "kept in" in doctor(healthy(secret_key=key.read_text())).stdout
    assert bad(doctor(healthy(secret_key="short"))) == [
        "secret key: SECRET_KEY is shorter than 16 characters: links could be forged"
    ]


def test_a_mail_server_that_is_away(healthy: Callable[..., Flask]) -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        port = nobody_listens.getsockname()[1]
        (line,) = bad(doctor(healthy(mail_port=port)))
    assert line.startswith(f"mail server: 127.0.0.1:{port}: ")


def test_a_mail_server_without_the_encryption_that_is_asked_for(healthy: Callable[..., Flask]) -> None:
    (line,) = bad(doctor(healthy(mail_use_tls=True)))
    assert "STARTTLS extension not supported" in line


def test_a_silent_feed(healthy: Callable[..., Flask], clock: FrozenClock) -> None:
    app = healthy()
    clock.tick(days=4)
    (line,) = bad(doctor(app))
    assert line.startswith("use feed: No use has been recorded since 2026-06-02")


def test_scenario_04_use_known_since_is_explained(healthy: Callable[..., Flask]) -> None:
    result = doctor(healthy(use_known_since="2026-01-10"))
    assert result.exit_code == 0
    assert "before 10 January 2027 nobody is dormant for never having used it" in result.stdout


def test_a_draft_that_waits_and_a_round_that_is_held(healthy: Callable[..., Flask]) -> None:
    app = healthy()
    with app.app_context():
        app.test_cli_runner().invoke(args=["campaign", "draft", "2026-06"])
        db.session.rollback()
    result = doctor(app)
    assert result.exit_code == 0
    assert "campaign 2026-06: waits for approval by 1" in result.stdout
    with app.app_context():
        app.test_cli_runner().invoke(args=["campaign", "hold", "2026-06"])
        db.session.rollback()
    (line,) = bad(doctor(app))
    assert line.startswith("campaign 2026-06: held: An operator has held it.")


def test_jobs_that_failed_or_are_late(healthy: Callable[..., Flask], clock: FrozenClock) -> None:
    app = healthy()
    for name in ("close", "draft-campaign", "remind", "warn-purge", "purge"):
        with app.app_context():
            assert app.test_cli_runner().invoke(args=["jobs", "run", name]).exit_code == 0
    with app.app_context():
        app.test_cli_runner().invoke(args=["campaign", "cancel", "2026-06"])
    assert bad(doctor(app)) == []
    clock.tick(hours=14)
    (line,) = bad(doctor(app))
    assert line.startswith("jobs: late: remind, close, warn-purge, purge: is a server")
    with app.app_context():
        db.session.add(
            JobRun(job="purge", period="2026-06-04", started_at=clock.now(), error="no good",
                   lease_until=clock.now() + timedelta(minutes=1))
        )  # fmt: skip
        db.session.commit()
    assert "jobs: purge failed at 2026-06-04 02:00: no good" in bad(doctor(app))


def test_a_database_without_its_tables(healthy: Callable[..., Flask]) -> None:
    app = healthy()
    with app.app_context():
        db.session.execute(text("DELETE FROM alembic_version"))
        db.session.commit()
    assert bad(doctor(app)) == ['schema: the database has no tables yet: run "flask db upgrade"']


def test_a_database_that_is_away(tmp_path: Path, smtp: SmtpCatcher) -> None:
    settings = make_settings(
        "postgresql+psycopg://u:secret@127.0.0.1:1/x",
        tmp_path,
        public_url="https://members.example.org",
        mail_server=smtp.host,
        mail_port=smtp.port,
    )
    (line,) = bad(doctor(create_app(settings, Ports(dns=NoDns()))))
    assert line.startswith("database: cannot use the database postgresql+psycopg://u:***@127.0.0.1:1/x")
