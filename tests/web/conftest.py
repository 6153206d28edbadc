"""Pages are tested as they are served: each request has a context, a session and a transaction of its own.

So here ``app`` is not pushed, and ``session`` is a connection of the test's: what it writes is seen by the application
once it is committed, and ``session.commit()`` also lets it see what the application wrote.
"""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from models import db
from tests.web.browser import Browser


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
def browser(app: Flask) -> Browser:
    """Somebody with a browser, who is not signed in and reads English."""
    return Browser(app)


@pytest.fixture
def another_browser(app: Flask) -> Browser:
    return Browser(app)
