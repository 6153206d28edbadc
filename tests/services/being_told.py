"""Being told, in tests: an application with an address for events, and what has arrived there."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from models import OutgoingEvent, db
from services.installation import installed
from services.outgoing import sending
from tests.doubles import Answering, WebhookCatcher

OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
ACKNOWLEDGED = Answering(200, body=b'{"acknowledged": true}')


@pytest.fixture
def app(make_app: Callable[..., Flask], hooked: WebhookCatcher) -> Any:
    app = make_app(events_url=hooked.url, events_secret=(OLD, NEW), webhook_networks=("127.0.0.1/32",))
    with app.app_context():
        here = installed()
        # The first tick after the start finds the new setting; what happens from then on is told.
        assert send(here.webhooks)() == sending.Sent()
        yield app


def send(sender: Any) -> Callable[[], sending.Sent]:
    here = installed()
    session = db.session()
    return lambda: sending.send(session, here.settings, sender, here.clock, session.commit, lambda: False)


@pytest.fixture
def told(app: Flask, session: Session, hooked: WebhookCatcher) -> Callable[[], list[tuple[str, dict[str, Any]]]]:
    """Send what is due; what has arrived since the last look, as type and data."""

    def look() -> list[tuple[str, dict[str, Any]]]:
        session.commit()
        send(installed().webhooks)()
        arrived = [json.loads(call.body) for call in hooked.calls]
        hooked.calls.clear()
        return [(one["type"], one["data"]) for one in arrived]

    return look


def types(told: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [kind for kind, _ in told]


def states(session: Session) -> list[tuple[str, str]]:
    session.rollback()
    rows = session.execute(select(OutgoingEvent.type, OutgoingEvent.state).order_by(OutgoingEvent.id))
    return [(kind, state) for kind, state in rows]
