"""What a page costs: few queries, whoever looks, and no more for a larger library or a longer history."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flask import Flask
from sqlalchemy import event
from sqlalchemy.orm import Session

from models import Member, db
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.services.support import opened
from tests.web.browser import Browser

PLAIN = ("/programme", "/account/end", "/account/erase", "/account/email", "/account/language", "/end-membership")
"""What is signed in and shows nothing of its own beside what every page shows."""


@contextmanager
def counted(app: Flask) -> Iterator[list[str]]:
    seen: list[str] = []

    def count(connection, cursor, statement, *rest):  # type: ignore[no-untyped-def]
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", count)
    yield seen
    event.remove(engine, "before_cursor_execute", count)


def cost(app: Flask, browser: Browser, path: str) -> int:
    with counted(app) as seen:
        browser.open(path, follow=False)
    return len(seen)


@pytest.fixture
def member(session: Session) -> Member:
    row = factories.dormant(session)
    factories.library(session, row)
    session.commit()
    return row


@pytest.fixture
def settings(app: Flask) -> Settings:
    found: Settings = app.extensions["dormouse"].settings
    return found


@pytest.mark.parametrize("path", [*PLAIN, "/check-in", "/check-in/reminders"])
def test_a_page_without_a_case_costs_two_queries(app: Flask, browser: Browser, member: Member, path: str) -> None:
    browser.sign_in_as(member)
    assert cost(app, browser, path) <= 2


@pytest.mark.parametrize("path", [*PLAIN, "/check-in", "/check-in/reminders"])
def test_a_page_with_the_banner_costs_three_queries(
    app: Flask, browser: Browser, session: Session, settings: Settings, member: Member, path: str
) -> None:
    opened(session, settings, NOW)
    browser.sign_in_as(member)
    session.commit()
    assert cost(app, browser, path) <= 3
    if path == "/programme":
        assert "membership-notice" in browser.page.ids


@pytest.mark.parametrize("path", ["/programme", "/sign-in", "/end-membership"])
def test_strangers_cost_none(app: Flask, browser: Browser, path: str) -> None:
    assert cost(app, browser, path) == 0


def test_the_account_costs_as_much_for_a_full_library_as_for_none(
    app: Flask, session: Session, browser: Browser, another_browser: Browser
) -> None:
    """Beside the two of every page: four for the library, one for the history."""
    full, empty = factories.using(session), factories.using(session)
    factories.library(session, full, items=50)
    session.commit()
    browser.sign_in_as(full)
    another_browser.sign_in_as(empty)
    session.commit()
    assert cost(app, another_browser, "/account") == cost(app, browser, "/account") <= 7
