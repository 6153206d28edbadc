"""Every page and state in a real browser: what axe finds, what is too wide, too heavy, moves, or is in a wrong order.

Three tours: English, each page in both themes, German, and English without scripts, which none of it needs. A page
comes at the width of a desktop in English and of a phone in German, where words are longer, and must not move while it
does; then it is looked at at the other width, too.

``tests/data/tour/<language>.txt`` has the name, the status and the heading of every stop, to which scripts make no
difference. ``TOUR=renew .venv/bin/python -m pytest tests/browser/test_every_page.py`` renews the files; read the
difference before you commit it.
"""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from html5lib.html5parser import ParseError
from playwright.sync_api import BrowserContext, ViewportSize
from sqlalchemy.orm import Session

from settings import ROOT
from tests.browser.conftest import NARROW, THEMES, WIDE, flaws
from tests.browser.people import LATER, People
from tests.browser.tour import Tour, failing_pages
from tests.doubles import FrozenClock
from tests.web.browser import well_formed

HEAVIEST = 60_000
"""Bytes of a page with all it loads, uncompressed, also what the browser had already."""

FOLDER = Path(__file__).parents[1] / "data" / "tour"

WATCH_FOR_SHIFTS = """
window.shifts = []
window.watching = new PerformanceObserver(list => window.shifts.push(...list.getEntries()))
window.watching.observe({type: 'layout-shift', buffered: true})
"""
SHIFTED = """async () => {
    for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame)
    window.shifts.push(...window.watching.takeRecords())
    const [painted] = performance.getEntriesByName('first-paint')
    const [come] = performance.getEntriesByType('navigation')
    const byHalves = painted && painted.startTime < come.domInteractive
    const element = node => node?.nodeType === Node.TEXT_NODE ? node.parentElement : node
    const around = ({node}) => element(node)?.closest('body > header, body > footer')
    const place = box => [box.x, box.y, box.width, box.height].join(' ')
    const moved = ({node, previousRect, currentRect}) =>
        `${node?.nodeName} ${node?.textContent.trim().slice(0, 40)}: ${place(previousRect)} to ${place(currentRect)}`
    return window.shifts.filter(one => !(byHalves && one.sources.every(around)))
        .map(one => `${one.value}, ${one.sources.map(moved).join('; ')}`)
}"""
"""What has moved, once what has come is drawn, which may be after all of it has come.

On a busy machine a page may be drawn before all of it is read: then the links of its head and foot make room for those
that follow, and that is no fault.
"""

LOADED = "[...new Set(performance.getEntriesByType('resource').map(one => new URL(one.name).pathname))]"
HEADINGS = "[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(one => Number(one.tagName[1]))"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def app(app: Flask) -> Flask:
    failing_pages(app)
    return app


@pytest.fixture
def tour(
    app: Flask, session: Session, site: str, context: BrowserContext, clock: FrozenClock, language: str
) -> Callable[[], Tour]:
    people = People(session, app.extensions["dormouse"].settings, language)
    clock.travel(LATER)
    return lambda: Tour(context, app, people, site, language)


def kept(language: str) -> list[str]:
    return (FOLDER / f"{language}.txt").read_text(encoding="utf-8").splitlines()


def renew(language: str, stops: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{language}.txt").write_text("".join(f"{stop}\n" for stop in stops), encoding="utf-8")


def stop(name: str, taken: Tour) -> str:
    """Where the tour is, in a line."""
    return f"{name} {taken.status} {' '.join(taken.page.locator('h1').inner_text().split())}"


def weight(sent: str, files: list[str]) -> int:
    """Of the page and the files it has loaded; a file that is not one of ours is an error."""
    return len(sent.encode()) + sum((ROOT / file.removeprefix("/")).stat().st_size for file in files)


def in_order(levels: list[int]) -> bool:
    """One h1, which comes first but for the notice before it, and no level left out on the way down."""
    return levels.count(1) == 1 and all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize(("language", "comes_at", "then_at"), [("en", WIDE, NARROW), ("de", NARROW, WIDE)])
def test_every_page_is_sound(
    context: BrowserContext, tour: Callable[[], Tour], language: str, comes_at: ViewportSize, then_at: ViewportSize
) -> None:
    context.add_init_script(WATCH_FOR_SHIFTS)
    taken, wrong, stops = tour(), [], []
    taken.page.set_viewport_size(comes_at)
    for name in taken.stops():
        page = taken.page
        stops.append(stop(name, taken))
        try:
            well_formed(taken.sent)
        except ParseError as error:
            wrong.append(f"{name}: {error}")
        # Before anything is resized, which moves things rightly.
        wrong += [f"{name}: the layout shifts by {shift}" for shift in page.evaluate(SHIFTED)]
        # The next page comes at the width that is the last here.
        for viewport in (then_at, comes_at):
            page.set_viewport_size(viewport)
            if (overflow := page.evaluate(OVERFLOW)) > 0:
                wrong.append(f"{name}: {overflow} px too wide at {viewport['width']} px")
        # No colour is another in another language.
        wrong += [f"{name}, {flaw}" for flaw in flaws(page, THEMES if language == "en" else THEMES[:1])]
        if not in_order(page.evaluate(HEADINGS)):
            wrong.append(f"{name}: headings {page.evaluate(HEADINGS)}")
        files = page.evaluate(LOADED)
        if "/static/dormouse.css" not in files or weight(taken.sent, files) > HEAVIEST:
            wrong.append(f"{name}: {weight(taken.sent, files)} bytes with {files}")
    if os.environ.get("TOUR") == "renew":
        renew(language, stops)
    assert wrong == []
    assert stops == kept(language), "where this is meant, TOUR=renew writes it down"


@pytest.mark.parametrize("language", ["en"])
@pytest.mark.parametrize("context", [False], ids=["no-scripts"], indirect=True)
def test_every_page_comes_without_scripts(tour: Callable[[], Tour], language: str) -> None:
    taken = tour()
    assert [stop(name, taken) for name in taken.stops()] == kept(language)
