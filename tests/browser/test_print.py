"""On paper: what a page says, in black on white, all of it, and nothing that can only be pressed."""

import pytest
from flask import Flask
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from tests import factories
from tests.browser.test_answering import asked, sign_in, url

__all__ = ["asked", "url"]

ON_PAPER = """() => [...document.querySelectorAll('main *')]
    .filter(one => one.checkVisibility({contentVisibilityAuto: true}) && one.innerText && one.children.length === 0)
    .map(one => [one.innerText, getComputedStyle(one).color])"""


def ink(page: Page) -> set[str]:
    """The colours of all texts, and of what is behind the page."""
    found = page.evaluate(ON_PAPER)
    assert found
    return {colour for _text, colour in found} | {page.evaluate("getComputedStyle(document.body).backgroundColor")}


BLACK_ON_WHITE = {"rgb(0, 0, 0)", "rgb(51, 51, 51)", "rgb(255, 255, 255)"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_check_in_page_has_the_answers_with_what_they_mean(page: Page, url: str, scheme: str) -> None:
    page.emulate_media(media="print", color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(url)
    for words in ("Keep my membership", "End my membership", "It ends on Tuesday, 30 June 2026"):
        expect(page.get_by_text(words).first).to_be_visible()
    for away in ("nav", "footer", ".skip"):
        expect(page.locator(away).first).to_be_hidden()
    assert ink(page) <= BLACK_ON_WHITE


def test_a_whole_library_is_on_paper_though_it_is_folded_on_the_screen(
    page: Page, app: Flask, session: Session, site: str
) -> None:
    member = factories.using(session)
    factories.library(session, member, items=9)
    session.commit()
    sign_in(page, app, site, member)
    session.commit()
    page.goto(f"{site}/account")
    expect(page.get_by_text("Title 8").first).to_be_hidden()
    page.emulate_media(media="print")
    expect(page.get_by_text("Title 8").first).to_be_visible()
    expect(page.get_by_role("button", name="Sign out on all devices")).to_be_hidden()
    for pressed in page.locator("main a").all():
        expect(pressed).to_be_hidden()
    assert ink(page) <= BLACK_ON_WHITE


def test_the_confirmation_of_an_end_fits_on_one_sheet(page: Page, session: Session, site: str) -> None:
    page.goto(f"{site}/end-membership")
    page.get_by_label("Your name or your customer number").fill("Mia Öztürk")
    page.get_by_label("Your e-mail address").fill("mia@example.org")
    page.get_by_role("button", name="End it now").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("We have your request to end a membership")
    paper = page.pdf(format="A4")
    assert paper.count(b"/Type /Page\n") == 1
    page.emulate_media(media="print")
    expect(page.get_by_text("Wednesday, 3 June 2026, 12:00")).to_be_visible()
    assert ink(page) <= BLACK_ON_WHITE
