"""The example service and this site side by side, each a server of its own, in a real browser: the whole story.

`examples/host` runs as a process, knows this site by HTTP alone, and hears of it by signed webhooks. Both read the time
that the test sets.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.serving import BaseWSGIServer

from models import Member
from settings import ROOT
from tests.browser.conftest import Looks
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.ports import held_port
from tests.web.service import PRIVATE, public

HOST = ROOT / "examples" / "host" / "host.py"
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
SCOPES = ("members:write", "activity:write", "library:read", "library:write")
JULY_1 = at("2026-06-30 22:00")


class Lumio:
    """The example service: its commands, and the process that serves it."""

    def __init__(self, port: int, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port, self._folder = port, folder
        self._environment = {
            "PATH": os.environ["PATH"],
            "DORMOUSE_EVENTS_SECRET": SECRET,
            "HOST_SIGNING_KEY": str(folder / "host-key.pem"),
            "HOST_ISSUER": "lumio",
            "HOST_DATABASE": str(folder / "host.db"),
            "HOST_CLOCK": str(folder / "now"),
            "HOST_SECRET_KEY": "a key for tests",
        }
        (folder / "host-key.pem").write_bytes(PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self._process: subprocess.Popen[str] | None = None

    def travel(self, to: datetime) -> None:
        (self._folder / "now").write_text(to.isoformat())

    def knows(self, **environment: str) -> None:
        self._environment |= environment

    def flask(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", str(HOST), *words],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str) -> str:
        process = self.flask(*words)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return said

    def start(self) -> None:
        self._process = self.flask("run", "--port", str(self._port))
        assert self._process.stdout is not None
        said = ""
        for line in self._process.stdout:
            said += line
            if "Running on" in line:
                break
        else:
            pytest.fail(said)
        # Whoever does not listen any more would have it stop at a full pipe.
        Thread(target=self._process.stdout.read, daemon=True).start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            assert self._process.stdout is not None
            self._process.stdout.close()


@pytest.fixture
def lumio(tmp_path: Path) -> Iterator[Lumio]:
    with held_port() as port:
        service = Lumio(port, tmp_path)
        service.travel(NOW)
        yield service
        service.stop()


@pytest.fixture
def app(server: BaseWSGIServer, make_app: Callable[..., Flask], lumio: Lumio) -> Iterator[Flask]:
    site = f"http://127.0.0.1:{server.server_port}"
    app = make_app(
        public_url=site,
        service_keys=(public(PRIVATE),),
        service_issuer="lumio",
        service_origins=(lumio.url,),
        events_url=f"{lumio.url}/hooks/membership",
        events_secret=(SECRET,),
        webhook_networks=("127.0.0.1/32",),
    )
    server.app = app.wsgi_app
    serving = Thread(target=server.serve_forever, daemon=True)
    serving.start()
    words = ["api-key", "create", "host", *(word for scope in SCOPES for word in ("--scope", scope))]
    key = app.test_cli_runner().invoke(args=words).stdout.strip().splitlines()[-1]
    lumio.knows(DORMOUSE_URL=site, DORMOUSE_API_KEY=key)
    lumio.run("init")
    assert "'created': 4" in lumio.run("push")
    lumio.start()
    yield app
    server.shutdown()
    serving.join()


@pytest.fixture
def context(chromium: Browser, app: Flask, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    """A visitor of the service. No page may do what its policy forbids."""
    context = chromium.new_context(
        viewport={"width": 1000, "height": 800}, locale="en-GB", java_script_enabled=getattr(request, "param", True)
    )
    complaints: list[str] = []
    context.set_default_timeout(60_000)
    context.on("console", lambda said: "Content Security Policy" in said.text and complaints.append(said.text))
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    yield context
    context.close()
    assert complaints == []


def job(app: Flask, *names: str) -> None:
    jobs = app.extensions["dormouse_jobs"]
    for name in names:
        jobs.run(name, app.extensions["dormouse"].clock.now())


def open_the_round(app: Flask) -> None:
    job(app, "send-events", "draft-campaign")
    approved = app.test_cli_runner().invoke(args=["campaign", "approve", "2026-06"])
    assert approved.exit_code == 0, approved.output
    job(app, "deliver", "send-events")


def as_member(page: Page, lumio: Lumio, name: str) -> None:
    page.goto(lumio.url)
    if page.get_by_role("button", name="Sign out").is_visible():
        page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name=name, exact=True).click()
    expect(page.get_by_role("heading", name=f"Hello, {name}")).to_be_visible()


def the_notice(page: Page) -> Any:
    return page.get_by_role("region", name="Keep your membership, or end it?")


def test_the_whole_story_inside_the_service(
    page: Page, app: Flask, lumio: Lumio, clock: FrozenClock, session: Session, looks_right: Looks
) -> None:
    open_the_round(app)

    # Ben is asked. He plays something, and nobody asks him any more.
    as_member(page, lumio, "Ben")
    expect(the_notice(page)).to_be_visible()
    with page.expect_response(lambda one: "/api/notice" in one.url) as no_more:
        page.get_by_role("button", name="Play Acorns").click()
    assert no_more.value.status == 204
    expect(page.get_by_role("heading", name="Hello, Ben")).to_be_visible()
    expect(the_notice(page)).to_have_count(0)
    expect(page.locator("dormouse-notice")).to_be_hidden()

    # Mia is asked inside the service, and keeps.
    clock.tick(hours=2)
    lumio.travel(clock.now())
    as_member(page, lumio, "Mia")
    expect(the_notice(page)).to_contain_text("30 June 2026")
    looks_right(page, "Lumio")
    the_notice(page).get_by_role("link").click()
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your membership continues")
    page.goto(lumio.url)
    expect(page.get_by_role("region", name="Your membership continues")).to_be_visible()

    # Ada ends hers, handed over by the service.
    as_member(page, lumio, "Ada")
    page.get_by_role("link", name="About your membership").click()
    expect(page.get_by_text("a…@example.org")).to_be_visible()
    page.get_by_role("button", name="Continue").click()
    expect(page).to_have_url(f"{app.extensions['dormouse'].settings.public_url}/account")
    page.get_by_role("link", name="Answer").click()
    page.get_by_role("button", name="End").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your membership ends on 30 June 2026")
    job(app, "settle-billing", "send-events")
    page.goto(lumio.url)
    expect(page.get_by_role("region", name="Your membership ends")).to_be_visible()
    expect(page.locator("#favourites li")).to_have_count(2)

    # Month end: the service shows it, and lets go of its copy.
    clock.travel(JULY_1)
    lumio.travel(JULY_1)
    lumio.run("push")
    job(app, "close", "settle-billing", "send-events")
    page.goto(lumio.url)
    expect(page.get_by_role("region", name="Your membership has ended")).to_contain_text("30 April 2027")
    expect(page.locator("#favourites")).to_have_text("None yet")
    session.rollback()
    assert dict(session.execute(select(Member.external_id, Member.status)).all()) == {  # type: ignore[arg-type]
        "ada": "lapsed",
        "ben": "active",
        "mia": "active",
        "zoe": "active",
    }

    # She comes back, and her lists are there.
    page.get_by_role("link", name="Come back").click()
    page.get_by_role("button", name="Continue").click()
    page.locator("button[name=order]").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Welcome back")
    job(app, "settle-billing", "send-events")
    page.goto(lumio.url)
    expect(page.locator("#favourites li")).to_have_text(["Acorns", "A Nest of One's Own"])
    expect(page.get_by_role("button", name="Play Acorns")).to_be_visible()
    listed = app.test_cli_runner().invoke(args=["events", "list"])
    assert "no event is open" in listed.output, "her return is acknowledged"


@pytest.mark.parametrize("context", [False], ids=["no-scripts"], indirect=True)
def test_without_scripts_a_link_stays_and_leads_to_the_decision(page: Page, app: Flask, lumio: Lumio) -> None:
    open_the_round(app)
    as_member(page, lumio, "Mia")
    page.get_by_role("link", name="Your membership", exact=True).click()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("region", name="Keep your membership, or end it?")).to_be_visible()


def test_where_the_notice_cannot_be_had_the_link_stays(
    page: Page, app: Flask, lumio: Lumio, clock: FrozenClock
) -> None:
    open_the_round(app)
    # The page of a service whose clock is wrong: the token it made is too old.
    clock.tick(hours=1)
    with page.expect_response(lambda one: "/api/notice" in one.url) as refused:
        as_member(page, lumio, "Mia")
    assert refused.value.status == 401
    expect(page.get_by_role("link", name="Your membership", exact=True)).to_be_visible()


def test_the_notice_speaks_the_language_of_the_page_and_takes_a_new_token(page: Page, app: Flask, lumio: Lumio) -> None:
    open_the_round(app)
    as_member(page, lumio, "Mia")
    expect(the_notice(page)).to_be_visible()
    page.evaluate(
        """document.documentElement.lang = "de";
        const one = document.querySelector("dormouse-notice");
        one.setAttribute("href", "/membership?to=check-in");
        one.setAttribute("token", one.getAttribute("token"))"""
    )
    german = page.get_by_role("region", name="Mitgliedschaft weiterführen oder beenden?")
    expect(german).to_be_visible()
    assert page.evaluate("document.querySelector('dormouse-notice').shadowRoot.querySelectorAll('section').length") == 1
    german.get_by_role("link").click()
    expect(page.get_by_role("button", name="Continue")).to_be_visible()
