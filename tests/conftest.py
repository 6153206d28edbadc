"""What every test builds on: a fresh database on both engines, a clock one sets, a real SMTP server, an application."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from werkzeug.routing import Rule

# Settings of the machine must not reach the tests.
for _name in ("DATABASE_URL", "SECRET_KEY", "PUBLIC_URL", "SERVICE_TIMEZONE", "FLASK_APP", "FLASK_DEBUG"):
    os.environ.pop(_name, None)

# Seconds that aiosmtpd gives its thread to begin to listen; by itself five, which a busy machine may not have.
os.environ["AIOSMTPD_CONTROLLER_TIMEOUT"] = "60"

# Asked for here, before anything imports it: so that what it asserts is told in full, as in a test.
pytest.register_assert_rewrite("tests.faults.harness")

from app import create_app
from models import db
from services.installation import Ports
from settings import Settings
from tests.doubles import FrozenClock, NoDns, SmtpCatcher, WebhookCatcher
from tests.postgres import Lender, named, started

hypothesis_settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
hypothesis_settings.load_profile("repeatable")

NOW = datetime(2026, 6, 3, 10, 0, tzinfo=UTC)


class Compiled(BytecodeCache):
    """Templates as they were compiled for an earlier test's application: a quarter of what a page's test costs."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._code:
            bucket.bytecode_from_string(self._code[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[bucket.key] = bucket.bytecode_to_string()


COMPILED = Compiled()


@pytest.fixture(scope="session")
def postgres() -> str:
    """The address of a real PostgreSQL server, one for the whole run, without a database name."""
    # Not below pytest's own folder: pytest takes away everybody else's access to that whenever a run starts, and the
    # server, where tests run as root, belongs to a user of its own.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    base = Path(tempfile.gettempdir()) / f"dormouse-tests-{run}"
    base.mkdir(mode=0o755, exist_ok=True)
    # The server's library looks for a private folder of this user, which a container may not have.
    runtime = base / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    server = started(base / "postgres")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for line in ("fsync = off", "synchronous_commit = off", "full_page_writes = off"):
            connection.execute(f"ALTER SYSTEM SET {line}")  # type: ignore[call-overload]
        connection.execute("SELECT pg_reload_conf()")
    return str(server.get_uri())


@pytest.fixture(scope="session", autouse=True)
def _routes_known() -> Iterator[None]:
    """What builds the URL of a rule as it was compiled for an earlier application: most of what making one costs.

    It is the same for each rule that reads the same, as all applications know the same converters; Werkzeug binds it to
    its own rule.
    """
    known: dict[tuple[object, ...], Any] = {}
    compiled = Rule._compile_builder

    def compiled_once(rule: Rule, append_unknown: bool = True) -> Any:
        reads = (rule.rule, tuple(rule._trace), repr(rule.defaults), append_unknown)
        if reads not in known:
            known[reads] = compiled(rule, append_unknown)
        return known[reads]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "_compile_builder", compiled_once)
        yield


FIRST: dict[str, Engine] = {}


def _migrated(url: str, folder: Path) -> None:
    app = create_app(make_settings(url, folder))
    with app.app_context():
        upgrade()
        FIRST[db.engine.name] = db.engine
        db.engine.dispose()


def knows_statements(engine: Engine) -> None:
    """Has it find compiled what earlier tests' engines compiled, which costs more than to carry it out.

    SQLAlchemy keeps what it compiled for each engine, by statement and dialect; a process has one engine but here.
    """
    if first := FIRST.get(engine.name):
        engine.dialect, engine._compiled_cache = first.dialect, first._compiled_cache


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite database to copy."""
    folder = tmp_path_factory.mktemp("template")
    path = folder / "template.db"
    _migrated(f"sqlite:///{path}", folder)
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a migrated, empty PostgreSQL database to copy."""
    name = f"template_{uuid.uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    _migrated(named(postgres, name), tmp_path_factory.mktemp("pg"))
    return name


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    path = tmp_path / "dormouse.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def postgres_lender(postgres: str, postgres_template: str) -> Iterator[Lender]:
    """``with postgres_lender.one() as url``: an empty, migrated database that nobody else uses."""
    lender = Lender(postgres, postgres_template)
    yield lender
    lender.drop_all()


@pytest.fixture
def postgres_url(postgres_lender: Lender) -> Iterator[str]:
    with postgres_lender.one() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh, migrated database; a test that uses it, or what is built on it, runs on both engines."""
    fixture = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return str(request.getfixturevalue(fixture))


def make_settings(database_url: str, folder: Path, **changes: object) -> Settings:
    """Settings for a test: a service in Berlin, nothing from the environment, no scheduler."""
    values: dict[str, object] = {
        "instance_path": folder,
        "database_url": database_url,
        "secret_key": "a key for tests, long enough to sign with",
        "public_url": "http://members.example.org",
        "service_name": "Lumio",
        "service_timezone": "Europe/Berlin",
        "scheduler": False,
        "mail_default_sender": "membership@lumio.example",
        # What goes out goes out in order, unless a test is about doing it at once.
        "mail_connections": 1,
        **changes,
    }
    return Settings.model_validate(values)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(NOW)


@pytest.fixture
def smtp() -> Iterator[SmtpCatcher]:
    """A real SMTP server on a free port of this machine; ``smtp.mails`` holds what it accepted."""
    catcher = SmtpCatcher()
    catcher.start()
    yield catcher
    catcher.stop()


@pytest.fixture
def hooked() -> Iterator[WebhookCatcher]:
    """A real HTTP server on a free port of this machine; ``hooked.calls`` holds what was posted to it."""
    catcher = WebhookCatcher()
    catcher.start()
    yield catcher
    catcher.stop()


@pytest.fixture
def make_app(
    database_url: str, tmp_path: Path, clock: FrozenClock, smtp: SmtpCatcher
) -> Iterator[Callable[..., Flask]]:
    """``make_app(max_dormant_percent=100, …)``: the application with settings changed, on this test's database."""
    made: list[Flask] = []

    def make(**changes: object) -> Flask:
        settings = make_settings(
            database_url, tmp_path, **{"mail_server": smtp.host, "mail_port": smtp.port, **changes}
        )
        app = create_app(settings, Ports(clock=clock, dns=NoDns()))
        app.testing = True
        app.jinja_env.bytecode_cache = COMPILED
        with app.app_context():
            knows_statements(db.engine)
        made.append(app)
        return app

    yield make
    for app in made:
        with app.app_context():
            db.session.remove()
            db.engine.dispose()


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Iterator[Flask]:
    """The application, its context pushed."""
    app = make_app()
    with app.app_context():
        yield app


@pytest.fixture
def session(app: Flask) -> Session:
    return db.session()


@pytest.fixture
def settings(app: Flask) -> Settings:
    found: Settings = app.extensions["dormouse"].settings
    return found


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
