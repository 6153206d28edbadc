"""What a page costs: few queries, whoever looks, and no more for a larger library or a longer history."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flask import Flask
from sqlalchemy import event, update
from sqlalchemy.orm import Session

from domain.links import Purpose
from models import MagicLink, Member, db
from services import magic_links
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.services.support import opened
from tests.web.browser import Browser

BEHIND_LINKS = {"/sign-in": Purpose.SIGN_IN, "/account/erase": Purpose.ERASE, "/account/email": Purpose.NEW_ADDRESS}


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


def pages(app: Flask) -> list[str]:
    """Every page of whoever is signed in: all addresses but those behind a link of a mail, and machines' own."""
    return sorted(
        rule.rule
        for rule in app.url_map.iter_rules()
        if "GET" in (rule.methods or set())
        and not rule.arguments
        and rule.endpoint.partition(".")[0] not in ("health", "hooks", "static")
    )


def test_a_page_without_a_case_costs_two_queries(
    app: Flask, browser: Browser, session: Session, member: Member
) -> None:
    browser.sign_in_as(member)
    session.commit()
    costs = {path: cost(app, browser, path) for path in pages(app)}
    assert {"/account", "/account/data", "/check-in", "/come-back"} <= costs.keys()
    assert {path: count for path, count in costs.items() if count > 2} == {}


def test_a_page_with_the_banner_costs_three_queries(
    app: Flask, browser: Browser, session: Session, settings: Settings, member: Member
) -> None:
    opened(session, settings, NOW)
    browser.sign_in_as(member)
    session.commit()
    costs, shown = {}, set()
    for path in pages(app):
        costs[path] = cost(app, browser, path)
        shown |= {path} if "membership-notice" in browser.page.ids else set()
    assert {"/account", "/programme"} <= shown
    assert {path: count for path, count in costs.items() if count > 3} == {}


def test_who_has_gone_costs_two_queries(app: Flask, browser: Browser, session: Session) -> None:
    gone = factories.lapsed(session)
    factories.library(session, gone)
    assert gone.email is not None
    token = magic_links.mint(session, Purpose.COME_BACK, gone.id, gone.email, gone.keep_until, NOW)
    session.commit()
    assert cost(app, browser, f"/come-back/{token}") == 2
    browser.sign_in_as(gone)
    session.commit()
    for path in ("/come-back", "/account"):
        assert cost(app, browser, path) == 2
        assert "Title 2" in browser.page.text


@pytest.mark.parametrize(("begin", "purpose"), sorted(BEHIND_LINKS.items()))
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_a_page_behind_a_link_costs_no_more(
    app: Flask,
    browser: Browser,
    session: Session,
    settings: Settings,
    member: Member,
    begin: str,
    purpose: Purpose,
    known: bool,
) -> None:
    browser.sign_in_as(member)
    assert member.email is not None
    token = magic_links.mint(session, purpose, member.id, member.email, NOW.replace(year=2027), NOW)
    session.execute(update(MagicLink).values(new_address="new@example.org"))
    session.commit()
    path = f"{begin}/{token if known else 'none'}"
    assert cost(app, browser, path) <= 2
    opened(session, settings, NOW)
    session.commit()
    assert cost(app, browser, path) <= 3


@pytest.mark.parametrize("path", ["/programme", "/sign-in", "/end-membership"])
def test_strangers_cost_none(app: Flask, browser: Browser, path: str) -> None:
    assert cost(app, browser, path) == 0


def test_the_account_costs_as_much_for_a_full_library_as_for_none(
    app: Flask, session: Session, browser: Browser, another_browser: Browser
) -> None:
    full, empty = factories.using(session), factories.using(session)
    factories.library(session, full, items=50)
    session.commit()
    browser.sign_in_as(full)
    another_browser.sign_in_as(empty)
    session.commit()
    assert cost(app, another_browser, "/account") == cost(app, browser, "/account") == 2
