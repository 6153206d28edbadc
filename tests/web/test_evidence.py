"""The proof of an end, as the member sees it; and the key, as everybody does."""

import base64
import json
from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from services import signing
from settings import Settings
from tests import factories
from tests.doubles import FrozenClock
from tests.services.test_evidence import MONTH_END, ended
from tests.web.browser import SITE, Browser

SEED = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def app(make_app: Callable[..., Flask], clock: FrozenClock) -> Flask:
    return make_app(evidence_key=SEED)


@pytest.fixture
def settings(app: Flask) -> Settings:
    found: Settings = app.extensions["dormouse"].settings
    return found


def test_from_the_membership_to_the_page_and_the_file(
    app: Flask, settings: Settings, session: Session, browser: Browser, clock: FrozenClock
) -> None:
    with app.app_context():
        member = ended(session, settings, external_id="K-7", email="mia@example.org")
    clock.travel(MONTH_END)
    browser.sign_in_as(member)
    browser.open("/account")
    assert "/account/evidence" in browser.page.links
    browser.open("/account/evidence")
    [page] = [link for link in browser.page.links if link.startswith("/account/evidence/")]
    browser.open(page)
    text = browser.page.text
    for fact in ("30 June 2026", "K-7", "mia@example.org", "250 2.0.0 queued", "28 days before", "sub_stopped_1",
                 "30 April 2027", "no answer came", "24 months"):  # fmt: skip
        assert fact in text, fact
    [key] = signing.keys(settings)
    assert key.fingerprint in text
    assert browser.response.headers["Cache-Control"] == "no-store"
    file = browser.open(f"{page}.json")
    assert file.mimetype == "application/json"
    assert file.headers["Content-Disposition"].startswith("attachment")
    found = signing.verify(file.data)
    assert (found.key, found.record["member"]["customer_number"]) == (key, "K-7")
    assert json.loads(file.data)["signature"]["value"] not in text, "a file that is asked for later is another one"


def test_in_german(app: Flask, settings: Settings, session: Session, clock: FrozenClock) -> None:
    with app.app_context():
        member = ended(session, settings, locale="de")
    clock.travel(MONTH_END)
    browser = Browser(app, "de")
    browser.sign_in_as(member)
    browser.open("/account/evidence")
    [page] = [link for link in browser.page.links if link.startswith("/account/evidence/")]
    browser.open(page)
    assert browser.page.language == "de"
    for words in ("30. Juni 2026", "Nachweis", "Zahlungsanbieter", "Fingerabdruck"):
        assert words in browser.page.text, words


def test_nobody_sees_anothers_record_and_nobody_learns_that_there_is_one(
    app: Flask, settings: Settings, session: Session, browser: Browser, another_browser: Browser, clock: FrozenClock
) -> None:
    with app.app_context():
        member = ended(session, settings)
        other = factories.using(session)
        session.commit()
    clock.travel(MONTH_END)
    browser.sign_in_as(member)
    browser.open("/account/evidence")
    [page] = [link for link in browser.page.links if link.startswith("/account/evidence/")]
    another_browser.open(page)
    assert another_browser.url == f"{SITE}/sign-in"
    another_browser.sign_in_as(other)
    for path in (page, f"{page}.json", "/account/evidence/0"):
        assert another_browser.open(path).status_code == 404
    another_browser.open("/account/evidence")
    assert "nothing to prove" in another_browser.page.text
    another_browser.open("/account")
    assert "/account/evidence" not in another_browser.page.links


def test_everybody_can_look_the_key_up(settings: Settings, browser: Browser) -> None:
    browser.open("/programme/evidence")
    [key] = signing.keys(settings)
    assert key.fingerprint in browser.page.text
    assert "/programme/evidence.pem" in browser.page.links
    assert signing.keys_in(browser.open("/programme/evidence.pem").text) == [key]


def test_without_a_key_the_pages_say_so(make_app: Callable[..., Flask], session: Session, clock: FrozenClock) -> None:
    app = make_app()
    with app.app_context():
        member = ended(session, app.extensions["dormouse"].settings)
    clock.travel(MONTH_END)
    browser = Browser(app)
    assert browser.open("/programme/evidence.pem").status_code == 404
    browser.open("/programme/evidence")
    assert "does not sign records yet" in browser.page.text
    browser.sign_in_as(member)
    browser.open("/account/evidence")
    [page] = [link for link in browser.page.links if link.startswith("/account/evidence/")]
    browser.open(page)
    assert "not signed" in browser.page.text
    assert browser.open(f"{page}.json").get_json()["signature"] is None
