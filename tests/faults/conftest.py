"""The faults come in a short form, for every change, and in a long one, for a release: ``make faults``."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import NOW
from tests.doubles import SmtpCatcher
from tests.faults.harness import Site


@pytest.fixture(scope="session")
def long() -> bool:
    return os.environ.get("DORMOUSE_FAULTS") == "long"


@pytest.fixture
def site(database_url: str, tmp_path: Path, smtp: SmtpCatcher) -> Iterator[Site]:
    found = Site(database_url, tmp_path, smtp, NOW)
    yield found
    found.close()
