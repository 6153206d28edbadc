"""Scenario 30: no live token in any log line, row, export or header but the Location of its own page.

One full story over real HTTP, with mistakes and failures in it; then every token that was ever mailed is looked for in
everything that was written.
"""

import io
import json
import logging
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from werkzeug.serving import make_server

from models import Member
from settings import ROOT
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock, SmtpCatcher
from tests.factories import at
from tests.web.browser import SITE, Page
from tests.web.everywhere import contents

LINK = re.compile(rf"{re.escape(SITE)}/((?:[a-z-]+/)+)([A-Za-z0-9_.-]{{20,}})")
SECRET = 20
"""So many characters from a token's end are its signature, or a good part of what is random in it."""


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


@dataclass
class Visitor:
    """Somebody with a browser on the other side of a socket. Remembers the headers of every answer."""

    app: Flask
    port: int
    headers: list[tuple[str, str, str]] = field(default_factory=list)
    """Path that was asked for, name, value; the session cookie opened."""
    page: Page = field(default_factory=lambda: Page(""))
    body: bytes = b""

    def __post_init__(self) -> None:
        self._path = "/"
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()), _Stay())

    def open(self, path: str, method: str = "GET", sent: dict[str, str] | None = None) -> int:
        path = path.removeprefix(SITE)
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if sent is None else urlencode(sent).encode(),
            headers={"Referer": f"{SITE}{self._path}"},
        )
        try:
            answer = self._opener.open(request)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            self.body = answer.read()
            status = int(answer.status)
            for name, value in answer.headers.items():
                self.headers.append((path, name, self._opened(value) if name == "Set-Cookie" else value))
        is_page = "html" in answer.headers.get("Content-Type", "")
        self.page = Page(self.body.decode() if is_page else "")
        self._path = path
        location = answer.headers.get("Location")
        return self.open(location) if location else status

    def press(self, name: str = "", value: str = "", **filled: str) -> int:
        form = self.page.form
        return self.open(
            form.action or self._path, "POST", {**form.fields, **filled, **({name: value} if name else {})}
        )

    def _opened(self, cookie: str) -> str:
        value = cookie.partition("=")[2].partition(";")[0]
        serializer = self.app.session_interface.get_signing_serializer(self.app)  # type: ignore[attr-defined]
        return cookie + (json.dumps(serializer.loads(value), default=str) if value else "")


@pytest.fixture
def visitor(app: Flask) -> Iterator[Callable[[], Visitor]]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield lambda: Visitor(app, server.port)
    server.shutdown()
    thread.join()
    server.server_close()


def test_scenario_30_no_token_of_a_whole_story_is_anywhere_but_in_its_mail_and_its_page(
    app: Flask,
    session: Session,
    clock: FrozenClock,
    smtp: SmtpCatcher,
    visitor: Callable[[], Visitor],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    # Our mail server's own log, and the client's that talks to the test's server, are not of this project.
    for name in ("mail.log", "mail.error", "mail.debug", "asyncio"):
        caplog.set_level(logging.CRITICAL, logger=name)
    caplog.set_level(logging.DEBUG)
    jobs = app.extensions["dormouse_jobs"]
    commands = app.test_cli_runner()
    written: dict[str, str] = {}

    def run(name: str, when: datetime) -> None:
        clock.travel(when)
        written[f"jobs run {name} {when}"] = jobs.run(name, when)

    def command(*words: str) -> None:
        result = commands.invoke(args=list(words))
        written[" ".join(words)] = result.output

    def newest(begin: str) -> str:
        return next(
            f"/{page}{token}"
            for mail in reversed(smtp.mails)
            for page, token in LINK.findall(_text(mail))
            if page == begin
        )

    factories.live_feed(session, NOW)
    mia = factories.dormant(session, external_id="K-1", email="mia@example.org", name="Mia")
    factories.library(session, mia)
    factories.dormant(session, external_id="K-2", email="ada@example.org")
    session.commit()

    # Warned; looked at in every wrong way; answered while the database fails, and again.
    for words in (("campaign", "draft", "2026-06"), ("campaign", "approve", "2026-06")):
        command(*words)
    run("deliver", NOW)
    clock.tick(hours=2)
    mias = newest("check-in/")
    reader = visitor()
    for path in (
        mias,
        mias + "x",
        mias + "/not-mine",
        mias + "/more",
        mias.replace("check-in", "sign-in"),
        mias + "?lang=de",
    ):
        for method in ("GET", "HEAD", "DELETE"):
            reader.open(path, method)
        reader.open(path, "POST", {"answer": "lapse"})
    reader.open(mias)
    reader.press("answer", "perhaps")
    reader.open(mias)
    with _broken(session):
        assert reader.press("answer", "lapse") in (500, 503)
    reader.open(mias)
    assert reader.press("answer", "lapse") == 200
    run("deliver", clock.now())
    run("settle-billing", clock.now())

    # Signs in, by a link that a database failure met first; downloads; asks to be erased.
    reader.open("/sign-in")
    reader.press(email="mia@example.org")
    run("deliver", clock.now())
    link = newest("sign-in/")
    with _broken(session, "magic_link"):
        assert reader.open(link) in (500, 503)
    assert reader.open(link) == 200
    assert reader.press() == 200
    assert reader.open("/account") == 200
    assert reader.open("/account/data") == 200
    archive = zipfile.ZipFile(io.BytesIO(reader.body))
    written |= {f"export: {name}": archive.read(name).decode() for name in archive.namelist()}
    reader.open("/account/erase")
    reader.press()
    run("deliver", clock.now())
    erase = newest("account/erase/")
    assert visitor().open(erase) == 200

    # The month ends; the end can be taken back by its mail.
    after = at("2026-07-01 06:00")
    factories.live_feed(session, after)
    session.commit()
    for job in ("close", "settle-billing", "deliver"):
        run(job, after)
    back = newest("come-back/")
    clock.tick(hours=1)
    comer = visitor()
    for path in (back, back + "/x"):
        comer.open(path)
        comer.open(path, "POST", {"order": "restart"})
    comer.open(back)
    [(_, kind)] = [button for button in comer.page.form.buttons if button[0] == "order"]
    with _broken(session):
        assert comer.press("order", kind) in (500, 503)
    comer.open(back)
    assert comer.press("order", kind) == 200
    for job in ("settle-billing", "deliver"):
        run(job, clock.now())

    for words in (
        ("members", "show", "K-1"), ("members", "show", "K-1", "--json"), ("campaign", "status", "2026-06", "--json"),
        ("campaign", "preview", "--csv", str(tmp_path / "preview.csv")), ("jobs", "list", "--json"), ("doctor",),
        ("billing", "list"), ("library", "export", str(tmp_path / "library.ndjson")),
        ("backup", str(tmp_path / "copy.db")),
    ):  # fmt: skip
        command(*words)
    written |= {path.name: path.read_text() for path in (tmp_path / "preview.csv", tmp_path / "library.ndjson")}
    for path in ("/metrics", "/readyz"):
        comer.open(path)
        written[path] = comer.body.decode()

    mailed = {(page, token) for mail in smtp.mails for page, token in LINK.findall(_text(mail))}
    assert {page for page, _ in mailed} == {"check-in/", "sign-in/", "account/erase/", "come-back/"}
    written["log"] = "\n".join(f"{record.name} {record.getMessage()} {record.exc_text}" for record in caplog.records)
    assert "/check-in/…" in written["log"]
    assert "/sign-in/…" in written["log"]
    written |= {f"table {name}": str(rows) for name, rows in contents(session).items()}
    assert sorted(session.scalars(select(Member.status))) == ["active", "lapsed"]
    for _page, token in mailed:
        for where, what in written.items():
            assert token[-SECRET:] not in what, (where, _around(what, token[-SECRET:]))
        for someone in (reader, comer):
            for path, name, value in someone.headers:
                own = name == "Location" and token in path
                assert own or token[-SECRET:] not in value, (path, name)


def _text(mail: Any) -> str:
    body = mail.message.get_body(("plain",))
    return str(body.get_content())


def _around(what: str, token: str) -> str:
    where = what.index(token)
    return what[max(0, where - 200) : where + 100]


class _broken:
    """Inside, a table is not there, so whatever touches it fails as statements do."""

    def __init__(self, session: Session, table: str = "event") -> None:
        self._session, self._table = session, table

    def __enter__(self) -> None:
        self._rename(self._table, "away")

    def __exit__(self, *_: object) -> None:
        self._rename("away", self._table)

    def _rename(self, old: str, new: str) -> None:
        self._session.rollback()
        self._session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))
        self._session.commit()


def test_gunicorn_masks_tokens_in_whatever_format_it_logs(tmp_path: Path) -> None:
    token = "abcdefghijklmnopqrstuvwxyz.0123456789"
    command = [
        str(Path(sys.executable).parent / "gunicorn"), "--no-control-socket", "--bind", "127.0.0.1:0",
        "--access-logfile", "-", "--access-logformat", "%(r)s | %(U)s | %(f)s", "app:create_app()",
    ]  # fmt: skip
    environment = {"INSTANCE_PATH": str(tmp_path), "SCHEDULER": "off", "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        said: list[str] = []
        try:
            for line in server.stdout:
                said.append(line)
                listening = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", line)
                if listening:
                    break
            else:
                pytest.fail("".join(said))
            request = urllib.request.Request(
                f"http://127.0.0.1:{listening[1]}/check-in/{token}?lang=de",
                headers={"Referer": f"{SITE}/sign-in/{token}"},
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.status == 200
        finally:
            server.terminate()
        said += server.stdout.readlines()
    output = "".join(said)
    assert "GET /check-in/…?lang=de HTTP/1.1 | /check-in/… | http://members.example.org/sign-in/…" in output
    assert token not in output
