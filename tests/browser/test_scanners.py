"""Scenario 26 with a real browser: a scanner opens a link, runs scripts, scrolls, waits, follows what it finds."""

from datetime import timedelta

import pytest
from flask import Flask
from playwright.sync_api import BrowserContext, Page, expect
from sqlalchemy.orm import Session

from domain.links import Purpose
from domain.notices import Kind
from models import for_writing
from services import check_in, magic_links
from services.mail import dispatch, recording
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import ACCEPTED, case_of, opened
from tests.web.everywhere import contents


def everything(session: Session) -> dict[str, list[tuple[object, ...]]]:
    found = contents(session)
    # The next one is to see what the application writes meanwhile.
    session.commit()
    return found


def accepted(session: Session, settings: Settings) -> dict[Kind, str]:
    """The links of the mails that are due, as their claim makes them; a server takes the mails at this instant."""
    for_writing(session)
    claimed = dispatch.claim(session, settings, NOW, 50)
    session.commit()
    for one in claimed:
        recording.record(session, settings, one, ACCEPTED, NOW)
    session.commit()
    return {one.kind: one.link for one in claimed if one.link is not None}


@pytest.fixture
def links(app: Flask, session: Session, site: str, clock: FrozenClock) -> dict[Kind, str]:
    """A link of every kind, by the mail it comes with, seconds after these mails were accepted."""
    settings = app.extensions["dormouse"].settings
    ended, keep_until = at("2026-04-30 22:00"), at("2027-02-28 23:00")
    asked = factories.dormant(session, email="mia@example.org")
    gone = factories.member(
        session, status="lapsed", lapsed_at=ended, access_ends_at=ended, keep_until=keep_until, email="ada@example.org"
    )
    factories.library(session, gone)
    session.commit()
    opened(session, settings, NOW)
    token = check_in.token(settings, case_of(session, asked).public_id, 1)
    found = {Kind.WARNING: f"{site}/check-in/{token}"}
    token = magic_links.mint(session, Purpose.COME_BACK, gone.id, "ada@example.org", keep_until, NOW)
    found[Kind.LAPSED] = f"{site}/come-back/{token}"
    magic_links.request_sign_in(session, settings, "mia@example.org", "127.0.0.1", NOW)
    magic_links.request_erase(session, asked, NOW)
    magic_links.request_new_address(session, asked, "mia@new.example", NOW)
    magic_links.ask_the_present_address(session, asked, "mia@new.example", NOW)
    session.commit()
    found |= accepted(session, settings)
    assert found.keys() == {
        Kind.WARNING, Kind.LAPSED, Kind.SIGN_IN, Kind.ERASE_CONFIRM, Kind.NEW_ADDRESS, Kind.OLD_ADDRESS
    }  # fmt: skip
    clock.travel(NOW + timedelta(seconds=22))
    return found


def test_scenario_26_opening_scrolling_and_following_changes_nothing(
    page: Page, session: Session, site: str, links: dict[Kind, str]
) -> None:
    before = everything(session)
    for link in links.values():
        page.goto(link, wait_until="networkidle")
        expect(page.locator("main form button").first).to_be_visible()
        page.mouse.wheel(0, 4000)
        page.evaluate("document.querySelectorAll('*').forEach(one => one.dispatchEvent(new Event('mouseover')))")
        for href in page.eval_on_selector_all("a[href]", "found => found.map(one => one.href)"):
            if href.startswith(site):
                page.goto(href, wait_until="networkidle")
        page.goto(link)
        page.reload()
        page.go_back()
    for link in links.values():
        for method in ("HEAD", "OPTIONS"):
            assert page.request.fetch(link, method=method).ok
        # What browsers and mail programs fetch before anybody has asked for it.
        for sign in ({"Sec-Purpose": "prefetch;prerender"}, {"Purpose": "prefetch"}, {"X-Purpose": "preview"}):
            assert page.request.fetch(link, headers=sign).ok
    assert everything(session) == before


def test_scenario_26_pages_run_no_script_at_all(context: BrowserContext, links: dict[Kind, str]) -> None:
    page = context.new_page()
    for link in links.values():
        answer = page.goto(link)
        assert answer is not None
        assert "script-src" in answer.headers["content-security-policy"] or (
            "default-src 'none'" in answer.headers["content-security-policy"]
        )
        assert page.locator("script, [onclick], [onload], meta[http-equiv=refresh]").count() == 0


@pytest.mark.parametrize(
    ("mail", "button"),
    [
        (Kind.WARNING, "Keep my membership"),
        (Kind.WARNING, "End my membership"),
        (Kind.OLD_ADDRESS, "Use the new address"),
        (Kind.OLD_ADDRESS, "That was not me"),
    ],
)
def test_scenario_26_a_scanner_that_presses_right_after_the_mail_changes_nothing(
    page: Page, session: Session, links: dict[Kind, str], mail: Kind, button: str
) -> None:
    before = everything(session)
    page.goto(links[mail])
    page.get_by_role("button", name=button).click()
    expect(page.locator("h1")).to_have_text("Not saved yet: one step left")
    assert everything(session) == before
