"""A member answers in a browser: by the link of the mail, and signed in."""

from datetime import timedelta

import pytest
from flask import Flask
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from models import Case, Member
from services import check_in
from tests import factories
from tests.browser.conftest import Looks
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.services.support import case_of, opened

pytestmark = pytest.mark.parametrize("context", [True, False], ids=["scripts", "no-scripts"], indirect=True)
"""No flow needs a script."""


@pytest.fixture
def asked(app: Flask, session: Session, clock: FrozenClock) -> Case:
    member = factories.dormant(session, external_id="K-1001", email="mia@example.org")
    session.commit()
    opened(session, app.extensions["dormouse"].settings, NOW)
    clock.travel(NOW + timedelta(hours=2))
    case = case_of(session, member)
    session.commit()
    return case


@pytest.fixture
def url(app: Flask, session: Session, site: str, asked: Case) -> str:
    token = check_in.token(app.extensions["dormouse"].settings, asked.public_id, asked.address_generation)
    session.commit()
    return f"{site}/check-in/{token}"


def answer_of(session: Session, case: Case) -> str | None:
    session.commit()
    found = case.answer
    session.commit()
    return found


def sign_in(page: Page, app: Flask, site: str, member: Member) -> None:
    """Give the browser the session that signing in gives."""
    with app.test_client() as client:
        with client.session_transaction() as session:
            session["_user_id"] = f"{member.public_id}.{member.session_generation}"
        cookie = client.get_cookie("dormouse")
    assert cookie is not None
    page.context.add_cookies([{"name": "dormouse", "value": cookie.value, "url": site}])


def test_keep_then_changed_to_end(page: Page, session: Session, asked: Case, url: str, looks_right: Looks) -> None:
    page.goto(url)
    looks_right(page, "Keep your membership, or end it?")
    page.get_by_role("button", name="Keep my membership").click()
    expect(page.get_by_text("The receipt is on its way by e-mail")).to_be_visible()
    looks_right(page, "Your membership continues")
    assert answer_of(session, asked) == "keep"
    page.get_by_role("button", name="End my membership").click()
    looks_right(page, "Your membership ends on 30 June 2026")
    assert answer_of(session, asked) == "lapse"


def test_by_the_keyboard_alone(page: Page, session: Session, asked: Case, url: str) -> None:
    page.goto(url)
    for _tab in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.value") == "lapse":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Your membership ends on 30 June 2026")
    assert answer_of(session, asked) == "lapse"


def test_the_two_answers_are_equal_to_the_eye(page: Page, url: str) -> None:
    page.goto(url)
    looks = [
        button.evaluate(
            """element => { const style = getComputedStyle(element), box = element.getBoundingClientRect();
            return [box.width, box.height, style.color, style.backgroundColor, style.borderColor, style.fontWeight] }"""
        )
        for button in page.locator("button[name=answer]").all()
    ]
    assert len(looks) == 2
    assert looks[0] == looks[1]


def test_in_german(page: Page, app: Flask, session: Session, asked: Case, url: str, looks_right: Looks) -> None:
    asked.member.locale = "de"
    session.commit()
    page.goto(url)
    looks_right(page, "Mitgliedschaft weiterführen oder beenden?")
    page.get_by_role("button", name="Mitgliedschaft beenden").click()
    looks_right(page, "Ihre Mitgliedschaft endet zum 30. Juni 2026")


def test_from_the_notice_after_signing_in(
    page: Page, app: Flask, session: Session, site: str, asked: Case, looks_right: Looks
) -> None:
    sign_in(page, app, site, asked.member)
    session.commit()
    page.goto(f"{site}/account")
    notice = page.get_by_role("region", name="Keep your membership, or end it?")
    expect(notice).to_be_visible()
    looks_right(page, "Your membership")
    notice.get_by_role("link", name="Answer").click()
    looks_right(page, "Keep your membership, or end it?")
    page.get_by_role("button", name="Keep my membership").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your membership continues")
    assert answer_of(session, asked) == "keep"


def test_general_and_not_mine_pages_look_right(page: Page, site: str, url: str, looks_right: Looks) -> None:
    pages = {
        f"{site}/check-in/broken": "Let us find your membership",
        f"{url}/not-mine": "Not yours, or the member has died?",
        f"{site}/come-back/broken": "Let us see what is waiting for you",
    }
    for address, heading in pages.items():
        page.goto(address)
        looks_right(page, heading)
