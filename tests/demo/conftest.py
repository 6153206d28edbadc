"""The demo as it opens its doors: prepared once, and copied for each test that lives in it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from flask import Flask

from app import create_app
from blueprints.demo import mailbox
from commands.demo import demo_settings, story
from commands.demo.catcher import Catcher
from models import db
from services.installation import Installation
from tests.web.browser import SITE, Browser


@dataclass
class Demo:
    app: Flask
    folder: Path

    @property
    def now(self) -> datetime:
        installation: Installation = self.app.extensions["dormouse"]
        return installation.clock.now()

    def browser(self) -> Browser:
        return Browser(self.app)

    def mails(self, to: str) -> list[mailbox.Mail]:
        """The mails to an address, newest first."""
        return mailbox.received(self.folder / "mail", to=to)


def _app(folder: Path, catcher: Catcher) -> Flask:
    settings = demo_settings(folder, 5000, catcher.host, catcher.port)
    app = create_app(settings.model_copy(update={"public_url": SITE}))
    app.testing = True
    return app


def _close(app: Flask) -> None:
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    with Catcher(folder / "mail") as catcher:
        app = _app(folder, catcher)
        story.prepare(app)
        _close(app)
    return folder


@pytest.fixture
def demo(prepared: Path, tmp_path: Path) -> Iterator[Demo]:
    folder = tmp_path / "demo"
    shutil.copytree(prepared, folder)
    with Catcher(folder / "mail") as catcher:
        app = _app(folder, catcher)
        yield Demo(app, folder)
        _close(app)
