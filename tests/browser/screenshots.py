"""`make screenshots`: every stop of the tour as a picture, in both languages, on a phone and on a desktop.

A test only in how it is run: it is not collected by itself, and asserts nothing. SCREENSHOTS names the folder.
On a phone each page is taken in the light and in the dark theme; on a desktop in the light one.
"""

import os
from pathlib import Path

import pytest
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page
from sqlalchemy.orm import Session

from settings import ROOT
from tests.browser.conftest import NARROW, WIDE
from tests.browser.people import LATER, People
from tests.browser.tour import Tour, failing_pages
from tests.doubles import FrozenClock

FOLDER = Path(os.environ.get("SCREENSHOTS", ROOT / "instance" / "screenshots"))
LOOKS = (("320", NARROW, "light"), ("320-dark", NARROW, "dark"), ("1280", WIDE, "light"))

DOCUMENTED = {
    "check-in-en": (
        "en-320",
        ("check-in-open", "check-in-kept", "check-in-one-step-left", "check-in-lapsing", "check-in-lapsed",
         "check-in-broken"),
    ),
    "check-in-de-dark": (
        "de-320-dark",
        ("check-in-open", "check-in-used-since", "check-in-asked-anew", "check-in-overdue", "check-in-withdrawn",
         "check-in-purged"),
    ),
    "elsewhere-en": (
        "en-320",
        ("check-in-billed-elsewhere", "check-in-to-end-elsewhere", "check-in-told", "account-billed-elsewhere",
         "account-end-billed-elsewhere", "account-erase-billed-elsewhere"),
    ),
    "account-and-back-de": (
        "de-320",
        ("account-open", "account-email-wrong", "come-back-hello", "come-back", "come-back-welcome", "sign-in-which"),
    ),
    "address-de": (
        "de-320",
        ("account-email", "account-email-link", "account-email-half", "account-email-second-link",
         "account-email-changed", "account-email-refused"),
    ),
    "other-en": (
        "en-320",
        ("programme", "end-without-signing-in", "end-without-signing-in-received", "account-erase",
         "check-in-reminders", "error-404"),
    ),
    "desktop-en": ("en-1280", ("check-in-open", "account-open", "come-back")),
}  # fmt: skip
"""Names in docs/pages.md: the look, and the stops."""


@pytest.fixture
def app(app: Flask) -> Flask:
    failing_pages(app)
    return app


@pytest.mark.parametrize("language", ["en", "de"])
def test_take(
    app: Flask, session: Session, site: str, context: BrowserContext, clock: FrozenClock, language: str
) -> None:
    people = People(session, app.extensions["dormouse"].settings, language)
    clock.travel(LATER)
    tour = Tour(context, app, people, site, language)
    for number, name in enumerate(tour.stops(), 1):
        for look, viewport, scheme in LOOKS:
            tour.page.set_viewport_size(viewport)  # type: ignore[arg-type]
            tour.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            path = FOLDER / f"{language}-{look}" / f"{number:02}-{name}.png"
            tour.page.screenshot(path=path, full_page=True)
        tour.page.emulate_media(color_scheme="light")


def test_put_together(chromium: Browser) -> None:
    """Contact sheets: the pictures of each folder side by side, so that all can be looked at, and compared."""
    page = chromium.new_page()
    for folder in sorted(path for path in FOLDER.iterdir() if path.is_dir()):
        pictures = sorted(folder.glob("*.png"))
        width = 640 if "1280" in folder.name else 320
        for start in range(0, len(pictures), 12):
            sheet(page, pictures[start : start + 12], width, FOLDER / f"{folder.name}-{start // 12 + 1}.jpg")


def test_put_together_for_the_documentation(chromium: Browser) -> None:
    """What docs/pages.md shows of them, in ``docs`` beside them: copy it to docs/pictures/pages."""
    page = chromium.new_page()
    (FOLDER / "docs").mkdir(exist_ok=True)
    for name, (folder, stops) in DOCUMENTED.items():
        taken = {one.stem.partition("-")[2]: one for one in (FOLDER / folder).glob("*.png")}
        sheet(
            page,
            [taken[stop] for stop in stops],
            400 if "1280" in folder else 200,
            FOLDER / "docs" / f"{name}.jpg",
        )


def sheet(page: Page, pictures: list[Path], width: int, to: Path, columns: int = 6, quality: int = 60) -> None:
    columns = min(columns, len(pictures))
    figures = "".join(
        f"<figure><figcaption>{one.stem}</figcaption><img src='{one.as_uri()}'></figure>" for one in pictures
    )
    html = to.with_suffix(".html")
    html.write_text(
        f"<!doctype html><meta charset=utf-8><style>body{{margin:8px;background:#888;display:grid;gap:8px;"
        f"grid-template-columns:repeat({columns},{width}px);align-items:start;font:12px sans-serif}}"
        f"figure{{margin:0}}img{{width:100%;display:block}}</style>{figures}"
    )
    page.set_viewport_size({"width": columns * (width + 8) + 8, "height": 600})
    page.goto(html.as_uri(), wait_until="networkidle")
    page.screenshot(path=to, full_page=True, type="jpeg", quality=quality)
    html.unlink()
