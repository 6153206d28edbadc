"""The faults come in a short form, for every change, and in a long one, for a release: ``make faults``."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import NOW
from tests.faults import figures
from tests.faults.harness import Deadly, Site

# A Postfix of one's own needs Debian's package, and root to start it. What such a one has sent back is kept in
# tests/data and tested everywhere.
if shutil.which("postfix", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None or os.geteuid() != 0:
    collect_ignore = ["test_postfix.py"]


@pytest.fixture(scope="session")
def long() -> bool:
    return os.environ.get("DORMOUSE_FAULTS") == "long"


@pytest.fixture
def smtp() -> Iterator[Deadly]:
    catcher = Deadly()
    catcher.start()
    yield catcher
    catcher.stop()


@pytest.fixture
def site(database_url: str, tmp_path: Path, smtp: Deadly) -> Iterator[Site]:
    found = Site(database_url, tmp_path, smtp, NOW)
    yield found
    found.close()
    figures.note(found.kills, found.duplicates, found.connections)
