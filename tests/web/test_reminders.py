"""The page to decline reminders: beside the question, one button, nothing decided."""

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from domain.lifecycle import Answer, Through
from models import Case, Member
from services import check_in, decisions
from settings import Settings
from tests import factories
from tests.doubles import FrozenClock
from tests.services.support import case_of, opened
from tests.web.browser import SITE, Browser


@pytest.fixture
def settings(app: Flask) -> Settings:
    found: Settings = app.extensions["dormouse"].settings
    return found


@pytest.fixture
def member(session: Session) -> Member:
    row = factories.dormant(session)
    session.commit()
    return row


@pytest.fixture
def warned(session: Session, settings: Settings, member: Member, clock: FrozenClock) -> Case:
    """The member's case, two hours after the mail was accepted."""
    opened(session, settings, clock.now())
    clock.tick(hours=2)
    case = case_of(session, member)
    session.commit()
    return case


@pytest.fixture
def url(session: Session, settings: Settings, warned: Case) -> str:
    found = f"{SITE}/check-in/{check_in.token(settings, warned.public_id, warned.address_generation)}"
    session.commit()
    return found


def declined(session: Session, case: Case) -> bool:
    session.commit()
    found = case.reminders_declined_at is not None
    session.commit()
    return found


def test_reminders_are_declined_and_wanted_again_by_the_mails_link(
    browser: Browser, url: str, session: Session, warned: Case
) -> None:
    browser.open(url)
    assert browser.page.links.count(f"{url.removeprefix(SITE)}/reminders") == 1
    browser.open(f"{url}/reminders")
    assert "You decide nothing by that" in browser.page.text
    assert "your membership still ends on Tuesday, 30 June 2026" in browser.page.text
    assert not declined(session, warned)
    browser.press("reminders", "no")
    assert browser.page.h1 == "You get no more reminders"
    assert declined(session, warned)
    assert warned.answer is None
    session.commit()
    browser.open(url)
    assert "We do not remind you" in browser.page.text
    browser.open(f"{url}/reminders")
    browser.press("reminders", "yes")
    assert browser.page.h1 == "You get reminders again"
    assert not declined(session, warned)


def test_the_page_in_german(app: Flask, url: str) -> None:
    browser = Browser(app, language="de")
    browser.open(f"{url}/reminders?lang=de")
    assert browser.page.h1 == "Keine weiteren Hinweise?"


def test_signed_in_it_goes_without_a_link(browser: Browser, session: Session, member: Member, warned: Case) -> None:
    browser.sign_in_as(member)
    browser.open("/check-in")
    assert "/check-in/reminders" in browser.page.links
    browser.open("/check-in/reminders")
    browser.press("reminders", "no")
    assert declined(session, warned)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_looking_declines_nothing(browser: Browser, url: str, session: Session, warned: Case, method: str) -> None:
    browser.open(f"{url}/reminders", method)
    assert not declined(session, warned)


def test_a_machine_has_to_press_again(
    browser: Browser, url: str, session: Session, warned: Case, clock: FrozenClock
) -> None:
    clock.travel(warned.warned_at)  # type: ignore[arg-type]
    session.commit()
    browser.open(f"{url}/reminders")
    browser.press("reminders", "no")
    assert browser.page.h1 == "Not saved yet: one step left"
    assert not declined(session, warned)
    browser.press("reminders", "no")
    assert declined(session, warned)


def test_without_csrf_token_or_with_another_value_nothing_is_changed(
    browser: Browser, url: str, session: Session, warned: Case
) -> None:
    browser.open(f"{url}/reminders")
    browser.press("reminders", "no", csrf=False)
    assert browser.response.status_code == 400
    assert not declined(session, warned)
    browser.open(f"{url}/reminders", "POST", data={**browser.page.form.fields, "reminders": "maybe"})
    assert not declined(session, warned)


def test_an_answer_leaves_nothing_to_be_reminded_of(
    browser: Browser, url: str, session: Session, warned: Case, settings: Settings, clock: FrozenClock
) -> None:
    decisions.answer(session, settings, warned.id, Answer.KEEP, Through.LINK, clock.now())
    session.commit()
    browser.open(url)
    assert f"{url.removeprefix(SITE)}/reminders" not in browser.page.links
    browser.open(f"{url}/reminders")
    assert browser.page.h1 != "No more reminders?"


def test_a_link_that_is_none_shows_the_general_page(browser: Browser) -> None:
    browser.open("/check-in/none/reminders")
    assert browser.page.h1 == "Let us find your membership"
