"""Which language a page is in: chosen, the member's, the browser's, the service's, in this order."""

from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from tests import factories
from tests.web.browser import Browser


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """No page here depends on the database, so one is enough."""
    return sqlite_url


def spoken(browser: Browser, path: str = "/programme") -> str:
    browser.open(path)
    assert browser.response.headers["Content-Language"] == browser.page.language
    return browser.page.language


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("de", "de"), ("de-AT,de;q=0.9,en;q=0.8", "de"), ("en-GB", "en"), ("fr,de;q=0.5", "de"), ("fr", "en"), ("", "en")],
)
def test_the_browser_says_what_its_owner_reads(app: Flask, accepted: str, language: str) -> None:
    assert spoken(Browser(app, language=accepted)) == language


def test_a_service_has_a_language_of_its_own(make_app: Callable[..., Flask]) -> None:
    app = make_app(default_locale="de")
    assert spoken(Browser(app, language="fr")) == "de"
    assert spoken(Browser(app, language="en")) == "en"


@pytest.mark.parametrize(
    ("locale", "language"),
    [("de", "de"), ("de-CH", "de"), ("de_AT", "de"), ("en-US", "en"), ("fr", "en"), (None, "en")],
)
def test_a_member_is_answered_in_the_language_on_record(
    app: Flask, session: Session, locale: str | None, language: str
) -> None:
    member = factories.member(session, locale=locale)
    session.commit()
    browser = Browser(app, language="de" if language == "en" else "en")
    browser.sign_in_as(member)
    assert spoken(browser, "/account") == language


def test_a_choice_holds_on_every_page_and_goes_before_everything(app: Flask, session: Session) -> None:
    member = factories.member(session, locale="en")
    session.commit()
    browser = Browser(app, language="en")
    browser.open("/sign-in?next=/account/erase")
    assert "?next=%2Faccount%2Ferase&lang=de" in browser.page.links
    browser.open("/sign-in?next=/account/erase&lang=de")
    assert browser.page.language == "de"
    assert spoken(browser) == "de"
    browser.sign_in_as(member)
    assert spoken(browser, "/account") == "de"
    assert "?lang=en" in browser.page.links
    assert spoken(browser, "/account?lang=en") == "en"
    assert spoken(browser, "/nothing-here?lang=de") == "de"


def test_a_language_we_do_not_have_changes_nothing(app: Flask) -> None:
    browser = Browser(app, language="de")
    assert spoken(browser, "/programme?lang=xx") == "de"
    assert spoken(browser, "/programme?lang=<script>") == "de"


def test_caches_are_told_that_the_language_varies(app: Flask) -> None:
    browser = Browser(app)
    browser.open("/programme")
    assert {"Accept-Language", "Cookie"} <= set(browser.response.vary)
