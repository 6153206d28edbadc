"""The page behind „Verträge hier kündigen“: no sign-in, one button, a confirmation to keep, and nothing given away."""

from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from models import Case, Member
from tests import factories
from tests.doubles import FrozenClock
from tests.web.browser import SITE, Browser


@pytest.fixture
def mia(session: Session) -> Member:
    row = factories.member(session, email="mia@example.org", external_id="C-7", name="Mia Öztürk")
    session.commit()
    return row


def ask(browser: Browser, who: str, email: str) -> None:
    browser.open("/end-membership")
    browser.press(who=who, email=email)


def answer_of(session: Session) -> str | None:
    session.rollback()
    return session.scalar(select(Case.answer))


@pytest.mark.parametrize("path", ["/programme", "/sign-in", "/no-such-page", "/check-in/cut-off", "/end-membership"])
def test_the_foot_of_every_page_leads_to_it(app: Flask, path: str) -> None:
    browser = Browser(app, language="de")
    browser.open(path)
    assert "/end-membership" in browser.page.links
    assert "Verträge hier kündigen" in browser.response.text


def test_an_end_is_confirmed_at_once_with_date_and_time(session: Session, mia: Member, app: Flask) -> None:
    browser = Browser(app, language="de")
    browser.open("/end-membership")
    assert browser.page.h1 == "Verträge hier kündigen"
    assert "jetzt kündigen" in browser.page.text
    browser.press(who="Mia Öztürk", email="mia@example.org")
    assert browser.url == f"{SITE}/end-membership/received"
    assert browser.page.h1 == "Wir haben Ihre Kündigung erhalten"
    assert "Mittwoch, 3. Juni 2026, 12:00 Uhr (Mitteleuropäische Sommerzeit)" in browser.page.text
    assert answer_of(session) == "lapse"


@pytest.mark.parametrize(("form", "kind"), [("txt", "text/plain"), ("html", "text/html")])
def test_the_confirmation_can_be_stored(browser: Browser, mia: Member, form: str, kind: str) -> None:
    ask(browser, "Mia <b>Öztürk", "mia@example.org")
    answer = browser.open(f"/end-membership/received.{form}")
    assert answer.mimetype == kind
    assert answer.headers["Content-Disposition"] == f'attachment; filename="confirmation.{form}"'
    assert ("Mia <b>Öztürk" if form == "txt" else "Mia &lt;b&gt;Öztürk") in answer.text
    assert "Wednesday, 3 June 2026, 12:00" in answer.text
    assert "mia@example.org" in answer.text
    assert "stylesheet" not in answer.text


def test_strangers_members_and_mistakes_see_the_same(app: Flask, session: Session, mia: Member) -> None:
    answers = []
    for who, email in (("C-7", "mia@example.org"), ("C-8", "mia@example.org"), ("C-7", "nil@example.org")):
        browser = Browser(app)
        ask(browser, who, email)
        answers.append(
            (browser.url, browser.response.status_code, browser.page.text.replace(email, "").replace(who, ""))
        )
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize(
    ("who", "email", "marked"),
    [("", "mia@example.org", ["who"]), ("C-7", "mia", ["email"]), ("x" * 101, "", ["who", "email"])],
)
def test_what_is_missing_is_named_and_led_to(
    browser: Browser, session: Session, mia: Member, who: str, email: str, marked: list[str]
) -> None:
    ask(browser, who, email)
    assert browser.response.status_code == 400
    for field in ("who", "email"):
        assert (f"#{field}" in browser.page.links) == (field in marked)
        assert (browser.page.ids[field].get("aria-invalid") == "true") == (field in marked)
    assert browser.page.form.fields["who"] == who
    assert answer_of(session) is None


def test_without_its_token_nothing_happens_and_what_was_typed_stays(
    browser: Browser, session: Session, mia: Member
) -> None:
    browser.open("/end-membership")
    browser.press(csrf=False, who="C-7", email="mia@example.org")
    assert browser.response.status_code == 400
    assert browser.page.form.fields["who"] == "C-7"
    assert answer_of(session) is None
    browser.press()
    assert answer_of(session) == "lapse"


def test_looking_changes_nothing(browser: Browser, session: Session, mia: Member) -> None:
    for method in ("GET", "HEAD", "OPTIONS"):
        browser.open("/end-membership?who=C-7&email=mia@example.org", method)
    assert answer_of(session) is None


def test_the_confirmation_is_its_visitors_alone_and_for_an_hour(
    browser: Browser, another_browser: Browser, mia: Member, clock: FrozenClock
) -> None:
    ask(browser, "C-7", "mia@example.org")
    another_browser.open("/end-membership/received")
    assert another_browser.url == f"{SITE}/end-membership"
    clock.tick(minutes=59)
    browser.open("/end-membership/received")
    assert browser.url == f"{SITE}/end-membership/received"
    clock.tick(minutes=1)
    for path in ("/end-membership/received", "/end-membership/received.txt"):
        browser.open(path)
        assert browser.url == f"{SITE}/end-membership"


def test_whoever_is_signed_in_finds_the_form_filled_in(browser: Browser, session: Session, mia: Member) -> None:
    browser.sign_in_as(mia)
    browser.open("/end-membership")
    assert browser.page.form.fields["who"] == "C-7"
    browser.press()
    assert answer_of(session) == "lapse"


def test_too_many_requests_are_refused_alike(make_app: Callable[..., Flask], app: Flask, mia: Member) -> None:
    for email in ("mia@example.org", "nil@example.org"):
        browser = Browser(app)
        for _ in range(5):
            ask(browser, "who", email)
        ask(browser, "who", email)
        assert browser.response.status_code == 429


def test_a_long_name_in_any_script_fits_into_the_session(browser: Browser, mia: Member) -> None:
    ask(browser, "ẞ" * 100, "ü" * 250 + "@example.org")
    assert browser.url == f"{SITE}/end-membership/received"
    assert "ẞ" * 100 in browser.page.text
