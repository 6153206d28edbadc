"""What members read whose membership a store bills: who it is, that only they can end it, where; never that it ends."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from services import check_in
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.services.support import case_of, close, opened
from tests.web.browser import SITE, Browser

HOW = "https://support.example.com/end"
ENGLISH = "App Store bills your membership, so we cannot stop the charges: only you can end it, at App Store."
GERMAN = (
    "Ihre Mitgliedschaft wird über App Store abgerechnet, deshalb können wir die Zahlungen nicht beenden: Das können"
    " nur Sie, bei App Store."
)
NEVER = ("not charged any more", "nothing more is charged", "saved until", "nichts mehr", "gespeichert bis")


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app(billed_by=(f"App Store={HOW}",))


@pytest.fixture
def settings(app: Flask) -> Settings:
    found: Settings = app.extensions["dormouse"].settings
    return found


def warned(session: Session, settings: Settings, clock: FrozenClock, locale: str) -> str:
    member = factories.dormant(session, email="mia@example.org", billed_by="App Store", locale=locale)
    session.commit()
    opened(session, settings, NOW)
    clock.travel(NOW + timedelta(hours=2))
    case = case_of(session, member)
    session.commit()
    return f"{SITE}/check-in/{check_in.token(settings, case.public_id, case.address_generation)}"


def told(browser: Browser, sentence: str) -> bool:
    text = browser.page.text
    return sentence in text and HOW in browser.page.links and not any(words in text for words in NEVER)


@pytest.mark.parametrize(("locale", "sentence"), [("en", ENGLISH), ("de", GERMAN)])
def test_the_page_of_the_question_tells_the_truth_before_and_after_the_answer_and_the_month_end(
    session: Session, settings: Settings, app: Flask, clock: FrozenClock, locale: str, sentence: str
) -> None:
    url = warned(session, settings, clock, locale)
    browser = Browser(app, language=locale)
    browser.open(url)
    assert told(browser, sentence)
    assert [value for form in browser.page.forms for _, value in form.buttons] == ["keep", "lapse"]
    browser.press("answer", "lapse")
    assert told(browser, sentence)
    assert browser.page.h1 in (
        "We cannot end this membership for you",
        "Diese Mitgliedschaft können wir nicht für Sie beenden",
    )
    assert [value for form in browser.page.forms for _, value in form.buttons] == ["keep"]
    clock.travel(NOW + timedelta(days=40))
    session.rollback()
    close(session, settings, clock.now())
    session.rollback()
    browser.open(url)
    assert told(browser, sentence)
    assert browser.page.forms == []


def test_the_signed_in_pages_say_the_same(session: Session, app: Flask, browser: Browser) -> None:
    member = factories.using(session, email="mia@example.org", billed_by="App Store")
    session.commit()
    browser.sign_in_as(member)
    for path in ("/account", "/account/end"):
        browser.open(path)
        assert told(browser, ENGLISH)
    assert not any(form.inside_main for form in browser.page.forms)
    browser.open("/account/erase")
    assert "App Store goes on charging you until you end your membership there" in browser.page.text
    assert "nothing more is charged" not in browser.page.text


@pytest.mark.parametrize("path", ["/programme", "/end-membership"])
def test_whoever_may_be_meant_is_told_before(browser: Browser, path: str) -> None:
    browser.open(path)
    assert "only you can end it, there. We tell you how." in browser.page.text
