"""A window of 1280 by 1024 pixels at 400 % (WCAG 1.4.10): 320 by 256 are left, drawn four times as large.

In German, whose words are the longer ones; what is too wide in English at 320 pixels is for test_every_page.py to find.
"""

from collections.abc import Iterator

import pytest
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page
from sqlalchemy.orm import Session

from tests.browser.conftest import watched
from tests.browser.people import LATER, People
from tests.browser.test_every_page import OVERFLOW
from tests.browser.tour import Tour, failing_pages
from tests.doubles import FrozenClock

ZOOMED = {"width": 320, "height": 256}

FOCUSED = """() => {
    const one = document.activeElement
    if (one === document.body) return null
    const box = one.getBoundingClientRect()
    const left = Math.max(box.left, 0), right = Math.min(box.right, innerWidth)
    const top = Math.max(box.top, 0), bottom = Math.min(box.bottom, innerHeight)
    const there = document.elementFromPoint((left + right) / 2, (top + bottom) / 2)
    return {html: one.outerHTML.slice(0, 90), answer: one.name === 'answer' ? one.value : null,
            first: one.classList.contains('skip'),
            shown: left < right && top < bottom && !!there && (one.contains(there) || there.contains(one))}
}"""
"""What has the focus, and whether some of it is on the screen with nothing over it (WCAG 2.4.11)."""


@pytest.fixture
def app(app: Flask) -> Flask:
    failing_pages(app)
    return app


@pytest.fixture
def context(chromium: Browser, site: str) -> Iterator[BrowserContext]:
    zoomed = chromium.new_context(viewport=ZOOMED, device_scale_factor=4, reduced_motion="reduce")  # type: ignore[arg-type]
    with watched(zoomed, site) as context:
        yield context


def walked(page: Page) -> tuple[set[str], list[str]]:
    """The answers that the keyboard comes by from the top of the page to its end, and what has the focus unseen."""
    answers, hidden = set(), []
    page.locator(".skip").focus()
    while True:
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUSED)
        if found is None or found["first"]:
            return answers, hidden
        if found["answer"]:
            answers.add(found["answer"])
        if not found["shown"]:
            hidden.append(found["html"])


@pytest.mark.parametrize("language", ["de"])
def test_at_four_hundred_per_cent_nothing_is_cut_off_or_hidden(
    app: Flask, session: Session, site: str, context: BrowserContext, clock: FrozenClock, language: str
) -> None:
    people = People(session, app.extensions["dormouse"].settings, language)
    clock.travel(LATER)
    taken, wrong, stops = Tour(context, app, people, site, language), [], 0
    for name in taken.stops():
        page, stops = taken.page, stops + 1
        if (overflow := page.evaluate(OVERFLOW)) > 0:
            wrong.append(f"{name}: {overflow} px to scroll sideways")
        answers, hidden = walked(page)
        wrong += [f"{name}: the focus is out of sight on {one}" for one in hidden]
        there = {button.get_attribute("value") for button in page.locator("button[name=answer]").all()}
        if answers != there:
            wrong.append(f"{name}: the keyboard reaches {answers} of {there}")
    assert wrong == []
    assert stops >= 75
