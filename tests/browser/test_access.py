"""What axe cannot see: the order of the keyboard, a focus that shows, buttons that make sense by their name alone."""

import re

import pytest
from flask import Flask
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from tests import factories
from tests.browser.conftest import NARROW
from tests.browser.test_answering import asked, sign_in, url

__all__ = ["asked", "url"]

FOCUSED = """() => {
    const one = document.activeElement, box = one.getBoundingClientRect(), style = getComputedStyle(one)
    const all = [...document.querySelectorAll('a[href], button, input:not([type=hidden]), summary')]
    const middle = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2)
    return {place: all.indexOf(one), last: all.length - 1, outline: style.outlineStyle !== 'none' && style.outlineWidth,
            inside: box.left > -2 && box.right < innerWidth + 2 && box.top > -2 && box.bottom < innerHeight + 2,
            box: [box.left, box.top, box.right, box.bottom],
            uncovered: one.contains(middle) || !!middle && middle.contains(one)}
}"""


def walk(page: Page) -> None:
    """Tab from the first to the last: in the order of the page, each with an outline, on the screen and not covered."""
    place, last = -1, 0
    while place < last:
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUSED)
        assert found["place"] == place + 1, "in the order of the page, and nothing is left out"
        assert found["outline"] == "3px", found
        assert found["inside"], found
        assert found["uncovered"], found
        place, last = found["place"], found["last"]


@pytest.mark.parametrize("forced", [None, "active"], ids=["own-colours", "forced-colours"])
def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(page: Page, url: str, forced: None) -> None:
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    page.emulate_media(forced_colors=forced, reduced_motion="reduce")
    page.goto(url)
    walk(page)
    assert page.evaluate("document.getAnimations().length") == 0
    for button in page.locator("button[name=answer]").all():
        assert button.evaluate("one => getComputedStyle(one).borderTopStyle") == "solid"


def test_the_keyboard_walks_the_account(page: Page, app: Flask, session: Session, site: str) -> None:
    member = factories.using(session)
    factories.library(session, member, items=9)
    session.commit()
    sign_in(page, app, site, member)
    session.commit()
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    page.goto(f"{site}/account")
    walk(page)


def test_a_screen_reader_hears_two_answers_and_an_address(page: Page, url: str) -> None:
    page.goto(url)
    for name, means in (("Keep my membership", "It continues as before"), ("End my membership", "It ends on Tuesday")):
        button = page.get_by_role("button", name=name, exact=True)
        described = button.evaluate("one => document.getElementById(one.getAttribute('aria-describedby')).innerText")
        assert described.startswith(means)
    assert page.get_by_role("img", name="an address at example.org that begins with m").count() == 1
    assert page.get_by_role("main").count() == page.get_by_role("banner").count() == 1


def test_what_is_wrong_with_a_form_is_where_the_reader_is_and_leads_to_its_field(page: Page, site: str) -> None:
    page.goto(f"{site}/end-membership")
    page.locator("main form").evaluate("form => { form.noValidate = true }")
    page.get_by_label("Your e-mail address").fill("mia@")
    page.get_by_role("button", name="End it now").click()
    expect(page).to_have_title(re.compile(r"^Nothing was sent yet\."))
    summary = page.get_by_role("alert")
    expect(summary).to_be_focused()
    assert summary.get_by_role("link").all_inner_texts() == ["Your name or your customer number", "Your e-mail address"]
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    field = page.get_by_label("Your e-mail address")
    expect(field).to_be_focused()
    described = field.evaluate("one => one.getAttribute('aria-describedby').split(' ')[0]")
    assert "not a complete e-mail address" in page.locator(f"#{described}").inner_text()
