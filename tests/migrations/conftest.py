"""Databases without any table, to migrate or to create a schema in."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

EmptyDatabases = Callable[[], str]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmptyDatabases]:
    """``empty_database()`` is the address of a new one; a test that asks for it runs on both engines."""
    if request.param == "sqlite":
        yield lambda: f"sqlite:///{tmp_path / uuid.uuid4().hex}.db"
        return
    server: str = request.getfixturevalue("postgres")
    made: list[str] = []

    def make() -> str:
        made.append(f"empty_{uuid.uuid4().hex}")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {made[-1]}")
        return server.replace("/postgres?", f"/{made[-1]}?").replace("postgresql://", "postgresql+psycopg://")

    yield make
    with psycopg.connect(server, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
