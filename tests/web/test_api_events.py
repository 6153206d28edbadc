"""The service acknowledges by the API what it was told by webhook, and hears of nothing it was not told."""

from collections.abc import Callable

import pytest
from flask import Flask

from domain.scopes import Scope
from models import db
from services import purging
from services.installation import installed
from services.outgoing import desk
from tests import factories
from tests.conftest import NOW
from tests.doubles import WebhookCatcher
from tests.web.api import Program, make_key


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """The statement is tried on both databases in tests/services/test_outgoing.py."""
    return sqlite_url


def test_an_erasure_is_acknowledged_later(make_app: Callable[..., Flask], hooked: WebhookCatcher) -> None:
    app = make_app(
        events_url=hooked.url,
        events_secret=("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",),
        webhook_networks=("127.0.0.1",),
    )
    app.extensions["dormouse_jobs"].run("send-events", NOW)
    with app.app_context():
        member = factories.using(db.session(), price_minor=None, billing_ref=None)
        db.session.commit()
        purging.erase(db.session(), installed().settings, member.id, NOW)
        db.session.commit()
    app.extensions["dormouse_jobs"].run("send-events", NOW)
    event_id = hooked.calls[-1].headers["webhook-id"]
    program, path = Program(app), f"/events/{event_id}/acknowledgement"
    assert Program(app, make_key(app, Scope.MEMBERS_READ)).call("POST", path).status_code == 403
    for _ in range(2):
        assert program.call("POST", path).status_code == 204
    with app.app_context():
        assert desk.listed(db.session()) == []
    for nothing in ("evt_" + "0" * 32, "evt_", "%00", "evt_" + "0" * 31 + "%20"):
        assert program.call("POST", f"/events/{nothing}/acknowledgement").status_code == 404
