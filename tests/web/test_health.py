"""What machines ask: alive, ready, and how much is waiting."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from app import create_app
from models import JobRun, Message, db
from services.installation import Ports
from tests import factories
from tests.conftest import make_settings
from tests.doubles import FrozenClock


def figures(app: Flask) -> dict[str, str]:
    response = app.test_client().get("/metrics")
    assert response.status_code == 200
    assert response.content_type.startswith("text/plain; version=0.0.4")
    assert response.text.endswith("\n")
    return dict(line.rsplit(" ", 1) for line in response.text.splitlines() if not line.startswith("#"))  # type: ignore[misc]


def queue_run(session: Session, clock: FrozenClock) -> None:
    session.merge(JobRun(job="deliver", period="queue", started_at=clock.now(), attempts=0))
    session.commit()


@pytest.fixture
def without_database(tmp_path: Path, clock: FrozenClock) -> Flask:
    return create_app(make_settings(f"sqlite:///{tmp_path / 'none' / 'x.db'}", tmp_path), Ports(clock=clock))


def test_alive_needs_no_database(without_database: Flask) -> None:
    app = without_database
    assert app.test_client().get("/healthz").status_code == 200


def test_ready_when_the_database_has_the_schema(app: Flask) -> None:
    response = app.test_client().get("/readyz")
    assert (response.status_code, response.text) == (200, "ok\n")


def test_not_ready_without_a_database(without_database: Flask) -> None:
    app = without_database
    response = app.test_client().get("/readyz")
    assert (response.status_code, response.text) == (503, "database: does not answer\n")


@pytest.mark.parametrize("statement", ["UPDATE alembic_version SET version_num = 'old'", "DELETE FROM alembic_version"])
def test_not_ready_with_another_schema(app: Flask, session: Session, statement: str) -> None:
    session.execute(text(statement))
    session.commit()
    response = app.test_client().get("/readyz")
    assert response.status_code == 503
    assert "run flask db upgrade" in response.text


def test_with_the_scheduler_on_ready_means_that_it_ticks(
    make_app: Callable[..., Flask], app: Flask, session: Session, clock: FrozenClock
) -> None:
    client = make_app(scheduler=True).test_client()
    assert client.get("/readyz").text == "scheduler: no tick yet\n"
    queue_run(session, clock)
    assert client.get("/readyz").status_code == 200
    clock.tick(minutes=11)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.text == "scheduler: last tick at 2026-06-03 10:00 UTC\n"


def test_what_is_waiting_is_counted(app: Flask, session: Session, clock: FrozenClock) -> None:
    assert set(figures(app).values()) == {"0"}
    member = factories.member(session)
    for number, state in enumerate(("queued", "queued", "failed", "obsolete")):
        session.add(
            Message(
                once_key=f"k{number}", member_id=member.id, kind="sign_in", to_address="a@example.org", priority=0,
                created_at=clock.now(), due_at=clock.now(), state=state,
            )
        )  # fmt: skip
    session.add(JobRun(job="close", period="2026-05", due_at=clock.now(), attempts=0))
    session.commit()
    clock.tick(seconds=90)
    seen = figures(app)
    assert seen['dormouse_messages{state="queued"}'] == "2"
    assert seen['dormouse_messages{state="failed"}'] == "1"
    assert 'dormouse_messages{state="obsolete"}' not in seen
    assert seen["dormouse_oldest_due_message_seconds"] == "90"
    assert seen["dormouse_due_jobs"] == "1"
    assert seen["dormouse_live_cases"] == "0"


def test_nothing_about_anybody_is_told(app: Flask, session: Session) -> None:
    member = factories.member(session, email="mia@example.org", external_id="m-77")
    session.commit()
    for path in ("/healthz", "/readyz", "/metrics"):
        body = app.test_client().get(path).text
        assert "mia" not in body
        assert "m-77" not in body
    assert member.id
    with app.app_context():
        assert db.engine.url.render_as_string() not in app.test_client().get("/readyz").text
