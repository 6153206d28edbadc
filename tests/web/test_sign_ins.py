"""Where a member is signed in: listed in words, ended one by one, all at once, or by time."""

import json
from collections.abc import Callable
from datetime import timedelta
from io import BytesIO
from zipfile import ZipFile

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from blueprints.account.devices import WORDS
from domain.devices import Device
from domain.links import Purpose
from models import Member, SignIn
from services import magic_links, purging
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.web.browser import SITE, Browser

IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Safari/604.1"
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Firefox/142.0"


@pytest.fixture
def mia(session: Session) -> Member:
    member = factories.using(session, email="mia@example.org")
    session.commit()
    return member


@pytest.fixture
def signs_in(app: Flask, session: Session, clock: FrozenClock) -> Callable[..., Browser]:
    """Somebody signs in as a member by a link of a mail, in a browser that says this of itself."""

    def sign_in(member: Member, agent: str, browser: Browser | None = None) -> Browser:
        browser = browser or Browser(app)
        browser.client.environ_base["HTTP_USER_AGENT"] = agent
        now = clock.now()
        assert member.email is not None
        token = magic_links.mint(session, Purpose.SIGN_IN, member.id, member.email, now + timedelta(minutes=15), now)
        session.commit()
        browser.open(f"/sign-in/{token}")
        browser.press()
        assert browser.url == f"{SITE}/account"
        return browser

    return sign_in


def is_signed_in(browser: Browser) -> bool:
    browser.open("/account")
    return browser.url == f"{SITE}/account"


def buttons(browser: Browser) -> list[str]:
    return [value for name, value in browser.page.form.buttons if name == "device"]


def count(session: Session) -> int | None:
    session.commit()
    return session.scalar(select(func.count()).select_from(SignIn))


def test_each_device_is_listed_in_words_with_its_day_and_this_one_is_named(
    mia: Member, signs_in: Callable[..., Browser], clock: FrozenClock
) -> None:
    signs_in(mia, IPHONE)
    clock.tick(days=2)
    here = signs_in(mia, WINDOWS)
    assert is_signed_in(here)
    text = here.page.text
    assert "Windows computer, since 5 June 2026 (this device)" in text
    assert "iPhone, since 3 June 2026 Sign out there" in text
    assert text.index("Windows computer") < text.index("iPhone")


def test_another_device_is_signed_out_from_here_and_stays_so(
    session: Session, mia: Member, signs_in: Callable[..., Browser]
) -> None:
    there, here = signs_in(mia, IPHONE), signs_in(mia, WINDOWS)
    is_signed_in(here)
    here.open("/sign-out/device", "POST", data={**here.page.form.fields, "device": buttons(here)[1]})
    assert here.url == f"{SITE}/account#devices"
    assert "iPhone" not in here.page.text
    assert not is_signed_in(there), "its cookie names a row that is gone"
    assert is_signed_in(here)
    assert count(session) == 1


def test_nobody_ends_the_session_of_somebody_else(
    session: Session, mia: Member, signs_in: Callable[..., Browser]
) -> None:
    other = factories.using(session)
    session.commit()
    theirs, ours = signs_in(other, IPHONE), signs_in(mia, WINDOWS)
    is_signed_in(theirs)
    named = buttons(theirs)[0]
    is_signed_in(ours)
    ours.open("/sign-out/device", "POST", data={**ours.page.form.fields, "device": named})
    assert is_signed_in(theirs)


def test_this_device_is_signed_out_by_its_own_button_and_by_signing_out(
    session: Session, mia: Member, signs_in: Callable[..., Browser]
) -> None:
    here = signs_in(mia, WINDOWS)
    is_signed_in(here)
    here.open("/sign-out/device", "POST", data={**here.page.form.fields, "device": buttons(here)[0]})
    assert here.page.h1 == "You are signed out"
    assert count(session) == 0
    signs_in(mia, WINDOWS, here)
    is_signed_in(here)
    [sign_out] = [form for form in here.page.forms if form.action == "/sign-out"]
    stolen = here.client.get_cookie("dormouse")
    here.press(form=sign_out)
    assert count(session) == 0
    assert stolen is not None
    here.client.set_cookie("dormouse", stolen.value)
    assert not is_signed_in(here), "a copy of the cookie went with it"


def test_signing_out_everywhere_ends_all_of_them(
    session: Session, mia: Member, signs_in: Callable[..., Browser]
) -> None:
    there, here = signs_in(mia, IPHONE), signs_in(mia, WINDOWS)
    is_signed_in(here)
    here.press(form=here.page.form)
    assert not is_signed_in(there)
    assert not is_signed_in(here)
    assert count(session) == 0


def test_signing_in_again_in_the_same_browser_is_one_device(
    session: Session, mia: Member, signs_in: Callable[..., Browser]
) -> None:
    signs_in(mia, WINDOWS, signs_in(mia, WINDOWS))
    assert count(session) == 1


def test_after_a_month_a_session_is_over_and_its_row_goes(
    app: Flask, session: Session, mia: Member, signs_in: Callable[..., Browser], clock: FrozenClock
) -> None:
    here = signs_in(mia, WINDOWS)
    clock.travel(NOW + timedelta(days=30, hours=23))
    assert is_signed_in(here), "each visit renews the cookie"
    clock.travel(NOW + timedelta(days=31))
    assert not is_signed_in(here)
    settings: Settings = app.extensions["dormouse"].settings
    purging.purge(session, settings, clock.now(), session.commit)
    assert count(session) == 0


def test_an_erasure_leaves_no_device(
    app: Flask, session: Session, mia: Member, signs_in: Callable[..., Browser]
) -> None:
    here = signs_in(mia, WINDOWS)
    settings: Settings = app.extensions["dormouse"].settings
    purging.erase(session, settings, mia.id, NOW)
    session.commit()
    assert count(session) == 0
    assert not is_signed_in(here)


def test_the_download_has_them_too(mia: Member, signs_in: Callable[..., Browser]) -> None:
    here = signs_in(mia, IPHONE)
    archive = ZipFile(BytesIO(here.client.get("/account/data").data))
    assert json.loads(archive.read("membership.json"))["sign_ins"] == [
        {"device": "iphone", "at": "2026-06-03T10:00:00+00:00"}
    ]
    assert "iPhone, since 3 June 2026" in archive.read("membership.html").decode()


def test_every_device_has_its_words() -> None:
    assert set(WORDS) == set(Device)
