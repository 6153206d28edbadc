"""The notice on every signed-in page."""

from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from domain.lifecycle import Answer, Through
from models import Member
from services import campaigns, decisions
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.services.support import case_of, opened
from tests.web.browser import Browser

PAGES = ("/account", "/account/erase", "/come-back")


@pytest.fixture
def settings(app: Flask) -> Settings:
    found: Settings = app.extensions["dormouse"].settings
    return found


@pytest.fixture
def asked(session: Session, settings: Settings, clock: FrozenClock) -> Member:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    session.commit()
    clock.travel(NOW + timedelta(hours=2))
    return member


def shown(browser: Browser) -> bool:
    return "membership-notice" in browser.page.ids


@pytest.mark.parametrize("page", PAGES)
def test_every_signed_in_page_shows_the_notice(browser: Browser, asked: Member, page: str) -> None:
    browser.sign_in_as(asked)
    browser.open(page)
    notice = browser.page.ids["membership-notice"]
    assert notice["role"] == "region"
    assert notice["aria-labelledby"] in browser.page.ids
    assert "You joined on 15 January 2025 and have not used Lumio since" in browser.page.text
    assert "we end your membership on Tuesday, 30 June 2026" in browser.page.text


def test_the_notice_leads_to_the_page_of_the_decision(browser: Browser, asked: Member) -> None:
    browser.sign_in_as(asked)
    browser.open("/account")
    assert "/check-in" in browser.page.links
    browser.open("/check-in")
    assert not shown(browser), "the page says all of it itself"
    browser.press("answer", "keep")
    assert browser.page.h1.strip() == "Your membership continues"


def test_the_notice_in_german(browser: Browser, session: Session, asked: Member) -> None:
    asked.locale = "de"
    session.commit()
    browser.sign_in_as(asked)
    browser.open("/account")
    assert "Mitgliedschaft weiterführen oder beenden?" in browser.page.text
    assert "Wenn wir nichts von Ihnen hören, beenden wir Ihre Mitgliedschaft am Dienstag, 30. Juni 2026." in (
        browser.page.text
    )


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Answer.KEEP, "You told us to keep it. You can change this up to and including 30 June."),
        (Answer.LAPSE, "You told us to end it. You can change this up to and including 30 June."),
    ],
)
def test_an_answered_case_says_what_holds_and_can_be_changed(
    browser: Browser, session: Session, settings: Settings, asked: Member, wish: Answer, said: str
) -> None:
    decisions.answer(session, settings, case_of(session, asked).id, wish, Through.LINK, NOW)
    session.commit()
    browser.sign_in_as(asked)
    browser.open("/account")
    assert said in browser.page.text
    assert "/check-in" in browser.page.links


def test_no_notice_for_strangers_users_and_held_rounds(
    browser: Browser, another_browser: Browser, session: Session, settings: Settings, asked: Member
) -> None:
    browser.open("/sign-in")
    assert not shown(browser)
    using = factories.using(session)
    session.commit()
    browser.sign_in_as(using)
    browser.open("/account")
    assert not shown(browser)
    another_browser.sign_in_as(asked)
    another_browser.open("/account")
    assert shown(another_browser)
    campaigns.hold(session, settings, "2026-06", NOW)
    session.commit()
    another_browser.open("/account")
    assert not shown(another_browser)


def test_using_the_service_takes_the_notice_away(browser: Browser, session: Session, asked: Member) -> None:
    browser.sign_in_as(asked)
    asked.last_used_at = NOW + timedelta(hours=1)
    session.commit()
    browser.open("/account")
    assert not shown(browser)
