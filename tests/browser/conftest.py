"""A real browser against the application as it is served: on a free port, by a thread, on SQLite."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from threading import Thread
from typing import Literal
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest
from axe_playwright_python.sync_playwright import Axe
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Frame, Page, Playwright, expect, sync_playwright
from sqlalchemy.orm import Session
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wsgi import ClosingIterator

from models import db

NARROW, WIDE = {"width": 320, "height": 640}, {"width": 1280, "height": 900}

Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")

Looks = Callable[[Page, str], None]

# What a test waits for comes, or the test is red anyway: a busy machine may take its time.
expect.set_options(timeout=60_000)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Pages do not know which database is behind them; tests/web runs them on both."""
    return sqlite_url


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """The machine's Chromium where there is one (or the one CHROMIUM names), else the one Playwright has installed."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=180_000)
    yield browser
    browser.close()


@pytest.fixture
def server() -> Iterator[BaseWSGIServer]:
    """A server that listens on a free port; what it serves is put into it once its address is known."""
    server = make_server("127.0.0.1", 0, lambda _environ, _start: iter(()), threaded=True)
    yield server
    server.server_close()


@pytest.fixture
def app(server: BaseWSGIServer, make_app: Callable[..., Flask]) -> Iterator[Flask]:
    app = make_app(
        public_url=f"http://127.0.0.1:{server.server_port}",
        billed_by=("App Store=https://support.example.com/end",),
        # A tour has more members in the round than a small service would have.
        hold_min_members=100,
    )
    server.app = at_once(app)
    serving = Thread(target=server.serve_forever, daemon=True)
    serving.start()
    yield app
    server.shutdown()
    serving.join()


def at_once(app: Flask) -> WSGIApplication:
    """Has each answer whole, and whatever file it came from closed, before any of it is sent.

    A browser that moves on before it has all of a picture breaks the connection, and then this server, which is not
    the one that serves members, forgets to close the file.
    """

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        answer = app.wsgi_app(environ, start_response)
        with closing(ClosingIterator(answer)):
            return [b"".join(answer)]

    return serve


@pytest.fixture
def site(app: Flask) -> str:
    return str(app.extensions["dormouse"].settings.public_url)


@pytest.fixture
def session(app: Flask) -> Iterator[Session]:
    with app.app_context():
        engine = db.engine
    with Session(engine) as session:
        yield session


@contextmanager
def watched(context: BrowserContext, site: str) -> Iterator[BrowserContext]:
    """No page may fetch anything from elsewhere or do what its policy forbids, whatever the test looks at."""
    elsewhere: list[str] = []
    complaints: list[str] = []
    context.set_default_timeout(60_000)
    context.on("request", lambda one: one.url.startswith(f"{site}/") or elsewhere.append(one.url))
    context.on("console", lambda said: "Content Security Policy" in said.text and complaints.append(said.text))
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    yield context
    context.close()
    assert elsewhere == []
    assert complaints == []


@pytest.fixture
def context(chromium: Browser, site: str, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    """A visitor, with scripts switched off where the fixture is parametrised with False."""
    scripts = getattr(request, "param", True)
    visitor = chromium.new_context(viewport=WIDE, locale="en-GB", java_script_enabled=scripts)
    with watched(visitor, site) as context:
        yield context


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


def flaws(page: Page, themes: Sequence[Theme] = THEMES) -> list[str]:
    """What axe finds. In the dark theme only what is about colours: nothing else differs."""
    page.evaluate(Axe().axe_script)
    found: list[str] = []
    for scheme in themes:
        only = {"runOnly": ["color-contrast", "link-in-text-block"]} if scheme == "dark" else {}
        page.emulate_media(color_scheme=scheme)
        # The library would bring everything that is as it should be as well, which takes longer than to find it.
        looked = page.evaluate("options => axe.run(options).then(({violations}) => violations)", only)
        found += [f"{scheme}: {one['id']}: {one['nodes'][0]['html']}" for one in looked]
    return found


@pytest.fixture
def looks_right(request: pytest.FixtureRequest) -> Looks:
    """``looks_right(page, "Sign in")``: nothing sticks out, on a phone or a desktop; axe finds nothing, in both themes.

    The heading says which page is meant. A click does not wait for what it leads to: without it, what was looked at
    could be the page before, or none yet.

    axe is a script itself: where they are off it cannot look, and has looked at the same page where they are on.
    """
    callspec = getattr(request.node, "callspec", None)
    scripts = callspec is None or callspec.params.get("context", True)

    def check(page: Page, heading: str) -> None:
        expect(page.get_by_role("heading", level=1)).to_have_text(heading)
        page.wait_for_load_state()
        left: list[str] = []

        def leaves(frame: Frame) -> None:
            left.append(frame.url)

        page.on("framenavigated", leaves)
        for viewport in (NARROW, WIDE):
            page.set_viewport_size(viewport)
            overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert overflow <= 0, f"{overflow} px too wide at {viewport['width']} px: {page.url}"
        if scripts:
            assert flaws(page) == []
        page.emulate_media(color_scheme="light")
        page.remove_listener("framenavigated", leaves)
        assert left == [], f"left while it was looked at, for {left}"

    return check
