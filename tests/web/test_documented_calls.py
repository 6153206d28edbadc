"""Every `curl` of the documents works as it stands there: the status that it names, the answer that it shows."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from flask import Flask
from sqlalchemy import update

from domain.lifecycle import OrderKind
from models import BillingOrder, OutgoingEvent, db
from services import billing, purging
from services.installation import installed
from tests import factories
from tests.conftest import NOW
from tests.web.api import BASE, Program

DOCS = Path(__file__).parents[2] / "docs"
API = "https://members.example.org/api/v1"


class Call(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: str
    says: str
    """What the comments beside and below it say of the answer."""


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What the calls do is tried on both databases elsewhere."""
    return sqlite_url


def calls(page: str) -> list[Call]:
    text = (DOCS / page).read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    found = [
        _call(command, says)
        for block in blocks
        # A command goes on in a quoted text and behind a backslash; comments follow it.
        for command, says in re.findall(r"^(curl (?:'[^']*'|\\\n|[^\n'#])*)((?:#[^\n]*\n?)*)", block, re.MULTILINE)
    ]
    assert len(found) == len(re.findall(r"^curl ", text, re.MULTILINE)), "each of them was understood"
    return found


def _call(command: str, says: str) -> Call:
    words = iter(shlex.split(command.replace("\\\n", " ").replace("$API", API).replace("$KEY", "KEY"))[1:])
    method, url, body, headers = "", "", "", {}
    for word in words:
        match word:
            case "-X":
                method = next(words)
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-d" | "--data-binary":
                body = next(words)
            case "--json":
                body, headers["Content-Type"] = next(words), "application/json"
            case _:
                url = word
    assert headers.pop("Authorization") == "Bearer KEY"
    return Call(method or ("POST" if body else "GET"), url.removeprefix(API), headers, body, says)


def run(program: Program, call: Call) -> None:
    body = call.body
    if body.startswith("@"):
        body = '{"external_id": "10042", "used_at": "2026-05-31T20:15:00+02:00", "type": "play"}\n'
    response = program.client.open(
        BASE + call.path,
        method=call.method,
        headers={"Authorization": f"Bearer {program.key}", **call.headers},
        data=body or None,
    )
    assert response.status_code < 300, (call, response.text)
    statuses = re.findall(r"\b(20\d)\b", call.says)
    assert not statuses or str(response.status_code) in statuses, (call, response.text)
    shown = re.search(r"# 20\d (\{.*\})\n?$", call.says)
    if shown is not None:
        # An ellipsis stands for any text, and at an end for what else there is.
        pattern = re.escape(shown[1]).replace("…", ".*")
        assert re.fullmatch(pattern, json.dumps(response.get_json(), separators=(",", ":"), ensure_ascii=False)), call


def test_a_service_that_does_what_the_page_says_is_integrated(make_app: Callable[..., Flask]) -> None:
    app = make_app(events_url="https://lumio.example/hooks", events_secret=("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",))
    app.extensions["dormouse_jobs"].run("send-events", NOW)
    program = Program(app)
    wanted = calls("integration.md")
    assert {call.path.split("?")[0].split("/")[1] for call in wanted} == {"members", "activity", "events"}
    for call in wanted:
        if call.path.startswith("/events"):
            with app.app_context():
                gone = factories.using(db.session(), price_minor=None, billing_ref=None)
                db.session.commit()
                purging.erase(db.session(), installed().settings, gone.id, NOW)
                named = call.path.split("evt_")[1].split("/")[0]
                purged = update(OutgoingEvent).where(OutgoingEvent.type == "member.purged")
                db.session.execute(purged.values(public_id=named, state="sent", sent_at=NOW))
                db.session.commit()
    # What is erased comes last.
    for call in sorted(wanted, key=lambda call: call.method == "DELETE"):
        run(program, call)


def test_an_order_is_acknowledged_as_the_page_says(make_app: Callable[..., Flask]) -> None:
    app = make_app(billing="webhook", billing_url="https://lumio.example/b", billing_secret=["whsec_" + "A" * 44])
    [call] = calls("billing.md")
    key = "stop:3f0c6e6ad0b54fb6a2d0a4a8a2f6f0f1:2"
    with app.app_context():
        member = factories.member(db.session())
        billing.order(db.session(), kind=OrderKind.STOP, key=key, member=member, now=NOW)
        db.session.execute(update(BillingOrder).values(attempts=1))
        db.session.commit()
    run(Program(app), call._replace(path=call.path.replace("stop:…", key)))
    with app.app_context():
        assert db.session.scalars(db.select(BillingOrder.receipt)).one() == "INV-7"
