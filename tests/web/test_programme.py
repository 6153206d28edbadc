"""The public page, and where the site begins."""

from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from tests import factories
from tests.web.browser import SITE, Browser


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """No page here depends on the database, so one is enough."""
    return sqlite_url


def test_the_programme_is_explained_with_the_numbers_that_hold_here(make_app: Callable[..., Flask]) -> None:
    browser = Browser(make_app(never_used_months=9, stopped_using_months=18, keep_months=7, min_notice_days=21))
    browser.open("/programme")
    for number in ("9 months", "18 months", "7 months", "21 days"):
        assert number in browser.page.text
    assert "Lumio" in browser.page.text
    assert "we end the membership at the end of the month" in browser.page.text


def test_a_programme_that_only_asks_says_that_nothing_ends_by_itself(make_app: Callable[..., Flask]) -> None:
    browser = Browser(make_app(on_silence="keep"))
    browser.open("/programme")
    assert "your membership continues as before" in browser.page.text
    assert "we end the membership" not in browser.page.text


@pytest.mark.parametrize("language", ["en", "de"])
def test_no_sentence_of_the_page_is_left_untranslated(app: Flask, language: str) -> None:
    browser, english = Browser(app, language=language), Browser(app)
    browser.open("/programme")
    english.open("/programme")
    if language == "de":
        assert browser.page.h1 == "Wir möchten kein Geld für nichts"
        assert not {line for line in english.page.text.split(". ")} & {line for line in browser.page.text.split(". ")}
    assert "12" in browser.page.text


def test_the_site_begins_with_the_membership_for_who_is_signed_in(session: Session, browser: Browser) -> None:
    browser.open("/")
    assert browser.url == f"{SITE}/programme"
    member = factories.member(session)
    session.commit()
    browser.sign_in_as(member)
    browser.open("/")
    assert browser.url == f"{SITE}/account"
