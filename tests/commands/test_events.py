"""`flask events` and the checks: what is open is listed, acknowledged and sent again; the address can be tried."""

import json
from collections.abc import Callable

import pytest
from flask import Flask

from models import db
from services import own_settings, purging
from services.installation import installed
from tests import factories
from tests.conftest import NOW
from tests.doubles import Answering, FrozenClock, WebhookCatcher

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def test_an_operator_sees_what_is_open_and_closes_it(make_app: Callable[..., Flask], hooked: WebhookCatcher) -> None:
    app = make_app(events_url=hooked.url, events_secret=(SECRET,), webhook_networks=("127.0.0.1",))
    runner = app.test_cli_runner()

    def flask(*words: str) -> str:
        return runner.invoke(args=list(words)).output

    assert "0 delivered" in flask("jobs", "run", "send-events")
    assert "no event is open" in flask("events", "list")
    assert "accepted: answered 204" in flask("events", "test")
    assert json.loads(hooked.calls.pop().body)["type"] == "test"
    with app.app_context():
        session, settings = db.session(), installed().settings
        own_settings.choose_language(session, factories.using(session).id, "de", NOW)
        erased = factories.using(session, external_id="customer-4711", price_minor=None, billing_ref=None)
        session.commit()
        assert purging.erase(session, settings, erased.id, NOW)
        session.commit()
    assert "2 delivered" in flask("jobs", "run", "send-events")
    listed = flask("events", "list")
    assert "member.purged  customer-4711" in listed
    assert "not acknowledged" in listed
    assert "member.changed" not in listed
    [open_] = json.loads(flask("events", "list", "--json"))
    assert "1 events queued" in flask("events", "replay", "--unacknowledged")
    hooked.answers = Answering(410)
    flask("jobs", "run", "send-events")
    assert "410" in flask("doctor")
    assert "sent again" in flask("events", "resume")
    assert "nothing was in the way" in flask("events", "resume")
    assert "is acknowledged" in flask("events", "acknowledge", open_["id"])
    assert "no event is open" in flask("events", "list")
    assert "events wait to be sent" in flask("doctor")
    assert "done" in flask("events", "list", "--all")
    assert "1 events queued" in flask("events", "replay", "--since", "2026-01-01", "--type", "member.changed")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["events", "replay"], "say which"),
        (["events", "replay", "--since", "soon"], "no instant"),
        (["events", "acknowledge", "evt_0"], "no event evt_0"),
        (["events", "test"], "EVENTS_URL is not set"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(make_app: Callable[..., Flask], words: list[str], said: str) -> None:
    result = make_app().test_cli_runner().invoke(args=words)
    assert (result.exit_code, said in result.output) == (1, True)
    assert "EVENTS_URL is not set" in make_app().test_cli_runner().invoke(args=["events", "list"]).output


def test_an_address_that_must_not_be_called_loses_no_event(
    make_app: Callable[..., Flask], hooked: WebhookCatcher, clock: FrozenClock
) -> None:
    app = make_app(events_url=hooked.url, events_secret=(SECRET,))
    run = app.extensions["dormouse_jobs"].run
    run("send-events", NOW)
    with app.app_context():
        own_settings.choose_language(db.session(), factories.using(db.session()).id, "de", NOW)
        db.session.commit()
    for _ in range(20):
        run("send-events", clock.now())
        clock.tick(hours=7)
    said = app.test_cli_runner().invoke(args=["doctor"]).output
    assert "nothing gets through to EVENTS_URL since 2026-06-03 12:00: the address is not https" in said
    assert "1 wait" in said
    mended = make_app(events_url=hooked.url, events_secret=(SECRET,), webhook_networks=("127.0.0.1",))
    assert "1 delivered" in mended.extensions["dormouse_jobs"].run("send-events", clock.now())
