"""Scenario 26 with a real browser: a scanner opens a link, runs scripts, scrolls, waits, follows what it finds."""

from datetime import timedelta

import pytest
from flask import Flask
from playwright.sync_api import BrowserContext, Page, expect
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain.links import Purpose
from models import Case, Event, MagicLink, Member, Message
from services import check_in, magic_links
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import case_of, opened


def everything(session: Session) -> tuple[object, ...]:
    session.commit()
    found = (
        session.execute(select(Case.id, Case.answer, Case.generation, Case.not_mine_at)).all(),
        session.execute(select(Member.id, Member.status, Member.last_sign_of_life_at)).all(),
        session.execute(select(MagicLink.id, MagicLink.used_at)).all(),
        session.scalar(select(func.count()).select_from(Message)),
        session.scalar(select(func.count()).select_from(Event)),
    )
    session.commit()
    return found


@pytest.fixture
def links(app: Flask, session: Session, site: str, clock: FrozenClock) -> list[str]:
    """A check-in link and a come-back link, seconds after their mails were accepted."""
    ended = at("2026-04-30 22:00")
    asked = factories.dormant(session)
    gone = factories.member(
        session, status="lapsed", lapsed_at=ended, access_ends_at=ended, keep_until=at("2027-02-28 23:00")
    )
    session.commit()
    settings = app.extensions["dormouse"].settings
    opened(session, settings, NOW)
    clock.travel(NOW + timedelta(seconds=22))
    case = case_of(session, asked)
    assert gone.email is not None
    token = magic_links.mint(session, Purpose.COME_BACK, gone.id, gone.email, at("2027-02-28 23:00"), NOW)
    found = [f"{site}/check-in/{check_in.token(settings, case.public_id, 1)}", f"{site}/come-back/{token}"]
    session.commit()
    return found


def test_scenario_26_opening_scrolling_and_following_changes_nothing(
    page: Page, session: Session, site: str, links: list[str]
) -> None:
    before = everything(session)
    for link in links:
        page.goto(link, wait_until="networkidle")
        page.mouse.wheel(0, 4000)
        page.evaluate("document.querySelectorAll('*').forEach(one => one.dispatchEvent(new Event('mouseover')))")
        for href in page.eval_on_selector_all("a[href]", "found => found.map(one => one.href)"):
            if href.startswith(site):
                page.goto(href, wait_until="networkidle")
        page.goto(link)
        page.reload()
        page.go_back()
    for link in links:
        for method in ("HEAD", "OPTIONS"):
            assert page.request.fetch(link, method=method).ok
        # What browsers and mail programs fetch before anybody has asked for it.
        for sign in ({"Sec-Purpose": "prefetch;prerender"}, {"Purpose": "prefetch"}, {"X-Purpose": "preview"}):
            assert page.request.fetch(link, headers=sign).ok
    assert everything(session) == before


def test_scenario_26_pages_run_no_script_at_all(context: BrowserContext, links: list[str]) -> None:
    page = context.new_page()
    for link in links:
        answer = page.goto(link)
        assert answer is not None
        assert "script-src" in answer.headers["content-security-policy"] or (
            "default-src 'none'" in answer.headers["content-security-policy"]
        )
        assert page.locator("script, [onclick], [onload], meta[http-equiv=refresh]").count() == 0


def test_scenario_26_a_scanner_that_presses_right_after_the_mail_changes_nothing(
    page: Page, session: Session, links: list[str]
) -> None:
    before = everything(session)
    page.goto(links[0])
    page.locator("button[name=answer]").first.click()
    expect(page.locator("h1")).to_have_text("Not saved yet: one step left")
    assert everything(session) == before
