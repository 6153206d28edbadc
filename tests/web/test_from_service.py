"""A member who is signed in at the service is handed over: by one press, once, in time, and never to another site."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from urllib.parse import urlencode

import jwt
import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from blueprints.auth.service import GO_ON
from models import Member, UsedAssertion
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.web.browser import SITE, Browser
from tests.web.everywhere import contents
from tests.web.service import ISSUER, PRIVATE, SETTINGS, SHARED, STRANGER, public, signed


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app(**SETTINGS)


@pytest.fixture
def member(session: Session) -> Member:
    found = factories.using(session, external_id="K-1001", email="mia@example.org")
    session.commit()
    return found


def post(browser: Browser, token: str, to: str | None = None, origin: str | None = ISSUER) -> int:
    """What a form on a page of the service does."""
    data = {"assertion": token, **({"to": to} if to is not None else {})}
    headers = {} if origin is None else {"Origin": origin}
    answer = browser.client.post("/sign-in/service", data=data, headers=headers)
    browser.response = answer
    return answer.status_code


def is_in(browser: Browser) -> bool:
    browser.open("/account")
    return browser.page.h1 != "Sign in" and browser.response.request.path == "/account"


def test_a_form_of_the_service_signs_in_by_one_press(app: Flask, member: Member) -> None:
    browser = Browser(app)
    assert post(browser, signed("K-1001", NOW)) == 303
    assert browser.response.headers["Location"] == "/account"
    assert is_in(browser)


def test_a_link_of_the_service_leads_to_a_page_with_one_button(app: Flask, member: Member, session: Session) -> None:
    browser = Browser(app)
    before = contents(session)
    for method in ("GET", "HEAD", "OPTIONS", "GET"):
        browser.open(f"/sign-in/service/{signed('K-1001', NOW)}?to=check-in", method)
    token = signed("K-1001", NOW)
    browser.open(f"/sign-in/service/{token}?to=check-in")
    assert contents(session) == before, "looking changes nothing"
    assert "m…@example.org" in browser.page.text
    browser.press(follow=False)
    assert (browser.response.status_code, browser.response.headers["Location"]) == (303, "/check-in")
    assert is_in(browser)
    assert Browser(app).open(f"/sign-in/service/{token}").status_code == 403


@pytest.mark.parametrize("way", ["form", "link"])
def test_an_assertion_is_good_once(app: Flask, member: Member, way: str) -> None:
    token = signed("K-1001", NOW)
    assert post(Browser(app), token) == 303
    other = Browser(app)
    if way == "form":
        assert post(other, token) == 403
    else:
        # Its page was open before the other press.
        fresh = signed("K-1001", NOW)
        other.open(f"/sign-in/service/{fresh}")
        assert post(Browser(app), fresh) == 303
        assert other.press().status_code == 403
    assert not is_in(other)


def test_two_assertions_of_one_id_are_one(app: Flask, member: Member, clock: FrozenClock) -> None:
    assert post(Browser(app), signed("K-1001", NOW, jti="once")) == 303
    clock.tick(seconds=30)
    assert post(Browser(app), signed("K-1001", clock.now(), jti="once")) == 403


def test_what_was_used_is_remembered_longer_than_it_is_good(
    app: Flask, member: Member, session: Session, clock: FrozenClock
) -> None:
    token = signed("K-1001", NOW)
    assert post(Browser(app), token) == 303
    clock.tick(hours=23)
    post(Browser(app), signed("K-1001", clock.now()))
    clock.travel(NOW)
    assert post(Browser(app), token) == 403, "somebody has set the clock back"
    clock.tick(hours=26)
    post(Browser(app), signed("K-1001", clock.now()))
    session.rollback()
    assert len(session.scalars(select(UsedAssertion.digest)).all()) == 2


REFUSED: dict[str, Callable[[], str]] = {
    "late": lambda: signed("K-1001", NOW - timedelta(seconds=61)),
    "at its end": lambda: signed("K-1001", NOW - timedelta(seconds=60)),
    "too early": lambda: signed("K-1001", NOW + timedelta(seconds=11)),
    "not yet": lambda: signed("K-1001", NOW, nbf=(NOW + timedelta(seconds=20)).timestamp()),
    "good for too long": lambda: signed("K-1001", NOW, seconds=61),
    "issued at the end of time": lambda: signed("K-1001", NOW, iat=1e300, exp=1e301),
    "no end": lambda: signed("K-1001", NOW, exp=None),
    "no beginning": lambda: signed("K-1001", NOW, iat=None),
    "no id": lambda: signed("K-1001", NOW, jti=None),
    "an empty id": lambda: signed("K-1001", NOW, jti=""),
    "a very long id": lambda: signed("K-1001", NOW, jti="x" * 5000),
    "nobody": lambda: signed(None, NOW),
    "somebody unknown": lambda: signed("K-9999", NOW),
    "a name no database takes": lambda: signed("K-1001\0", NOW),
    "half a letter": lambda: signed("\ud800", NOW),
    "another site": lambda: signed("K-1001", NOW, aud="https://elsewhere.example/sign-in/service"),
    "another purpose": lambda: signed("K-1001", NOW, purpose="/api/notice"),
    "no audience": lambda: signed("K-1001", NOW, aud=None),
    "another issuer": lambda: signed("K-1001", NOW, iss="https://elsewhere.example"),
    "another key": lambda: signed("K-1001", NOW, key=STRANGER),
    "the public key as a secret": lambda: signed("K-1001", NOW, key=public(PRIVATE), algorithm="HS256"),
    "no signature": lambda: jwt.encode({"sub": "K-1001"}, None, "none"),
    "no token": lambda: "x",
    "nothing": lambda: "",
    "not ASCII": lambda: "é.é.é",
}


def test_what_the_service_did_not_vouch_for_signs_nobody_in(app: Flask, member: Member) -> None:
    for what, made in REFUSED.items():
        browser = Browser(app)
        assert post(browser, made()) == 403, what
        assert "Set-Cookie" not in browser.response.headers, what
        browser.open(f"/sign-in/service/{made() or 'x'}")
        assert (browser.response.status_code, browser.page.form.fields.get("email")) == (403, ""), what
        assert not is_in(browser), what


def test_a_refusal_of_a_known_assertion_uses_nothing_up(app: Flask, session: Session) -> None:
    token = signed("K-1001", NOW)
    assert post(Browser(app), token) == 403, "the member has not arrived yet"
    factories.using(session, external_id="K-1001")
    session.commit()
    assert post(Browser(app), token) == 303


def test_a_page_of_somebody_else_signs_no_visitor_in(app: Flask, member: Member) -> None:
    token = signed("K-1001", NOW)
    for origin in (None, "null", "https://elsewhere.example", f"{ISSUER}.elsewhere.example", SITE):
        browser = Browser(app)
        assert post(browser, token, origin=origin) == 403, origin
        assert not is_in(browser), origin
    assert post(Browser(app), token) == 303, "nothing was used up"


def test_it_leads_to_one_of_a_few_pages_here_and_never_elsewhere(app: Flask, member: Member) -> None:
    for to in ("https://a.example/", "//a.example", "/\\a.example", "account.show", "javascript:1", "", "x"):
        browser = Browser(app)
        assert post(browser, signed("K-1001", NOW), to) == 303
        assert browser.response.headers["Location"] == "/account", to
        browser.open(f"/sign-in/service/{signed('K-1001', NOW)}?{urlencode({'to': to})}")
        browser.press(follow=False)
        assert browser.response.headers["Location"] == "/account", to


def test_each_place_it_leads_to_is_there(app: Flask, member: Member) -> None:
    for to in GO_ON:
        browser = Browser(app)
        post(browser, signed("K-1001", NOW), to)
        assert browser.open(browser.response.headers["Location"]).status_code == 200, to


def test_a_session_begins_from_nothing(app: Flask, member: Member, session: Session) -> None:
    other = factories.using(session, external_id="K-1002")
    session.commit()
    browser = Browser(app)
    browser.sign_in_as(other)
    with browser.client.session_transaction() as before:
        before["planted"] = True
    assert post(browser, signed("K-1001", NOW)) == 303
    with browser.client.session_transaction() as after:
        assert "planted" not in after
        assert after["_user_id"].startswith(member.public_id)


def test_keys_are_rotated_and_may_be_shared(make_app: Callable[..., Flask], member: Member) -> None:
    both = make_app(**{**SETTINGS, "service_keys": (public(STRANGER), public(PRIVATE))})
    for key in (PRIVATE, STRANGER):
        assert post(Browser(both), signed("K-1001", NOW, key=key)) == 303
    shared = make_app(**{**SETTINGS, "service_key_algorithm": "HS256", "service_keys": (SHARED,)})
    assert post(Browser(shared), signed("K-1001", NOW, key=SHARED, algorithm="HS256")) == 303
    assert post(Browser(shared), signed("K-1001", NOW)) == 403


def test_without_a_key_nobody_is_handed_over(make_app: Callable[..., Flask], member: Member) -> None:
    app = make_app(**{**SETTINGS, "service_keys": ()})
    assert post(Browser(app), signed("K-1001", NOW)) == 403
    assert Browser(app).open("/sign-in/service").request.path == "/sign-in"


def test_of_two_who_use_an_assertion_at_once_one_gets_in(app: Flask, member: Member) -> None:
    token = signed("K-1001", NOW)
    together = Barrier(4)

    def press(_: int) -> int:
        browser = Browser(app)
        together.wait()
        return post(browser, token)

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(press, range(4))) == [303, 403, 403, 403]
