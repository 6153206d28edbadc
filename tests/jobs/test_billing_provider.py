"""What settle-billing leaves alone: an address that wants no more, what nobody acknowledges, a key of another mode."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from domain.errors import BillingPermanent
from domain.lifecycle import OrderKind
from domain.scopes import Scope
from jobs import runner
from models import BillingOrder, Message, db
from services import billing, billing_desk, billing_provider
from tests import factories
from tests.conftest import NOW
from tests.doubles import Answering, FrozenClock, WebhookCatcher
from tests.web.api import Program, make_key

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


@pytest.fixture
def app(make_app: Callable[..., Flask], hooked: WebhookCatcher) -> Flask:
    """A service that takes every command and says nothing of it."""
    hooked.answers = lambda call: Answering(204)
    return make_app(
        billing="webhook", billing_url=hooked.url, billing_secret=[SECRET], webhook_networks=("127.0.0.0/8",)
    )


def ordered(app: Flask, *keys: str) -> None:
    with app.app_context():
        for key in keys:
            member = factories.member(db.session())
            billing.order(db.session(), kind=OrderKind.STOP, key=key, member=member, now=NOW)
        factories.operator(db.session())
        db.session.commit()


def settle(app: Flask) -> dict[str, tuple[str, str | None]]:
    with app.app_context():
        runner.run_queue(app, "settle-billing")
        return states()


def states() -> dict[str, tuple[str, str | None]]:
    rows = db.session.execute(select(BillingOrder.key, BillingOrder.state, BillingOrder.error)).all()
    db.session.rollback()
    return {key: (state, error) for key, state, error in rows}


def told(app: Flask) -> list[str]:
    with app.app_context():
        return list(db.session.scalars(select(Message.kind)))


def test_an_address_that_answers_410_is_sent_nothing_more_until_an_operator_says_so(
    app: Flask, hooked: WebhookCatcher, clock: FrozenClock
) -> None:
    ordered(app, "stop:1", "stop:2", "stop:3")
    hooked.answers = lambda call: Answering(410)
    found = settle(app)
    assert {state for state, _ in found.values()} == {"queued"}, "nothing has failed: nobody has refused an order"
    called = len(hooked.calls)
    clock.tick(hours=7)
    settle(app)
    assert len(hooked.calls) == called
    assert told(app) == ["needs_attention"]
    cli = app.test_cli_runner()
    assert "answered 410" in cli.invoke(args=["doctor"]).output
    assert "sent again" in cli.invoke(args=["billing", "resume"]).output
    hooked.answers = lambda call: Answering(200, body=b'{"status": "done"}')
    assert {state for state, _ in settle(app).values()} == {"done"}


def test_an_order_that_nobody_acknowledges_for_a_week_waits_for_an_operator(
    app: Flask, hooked: WebhookCatcher, clock: FrozenClock
) -> None:
    ordered(app, "stop:1")
    settle(app)
    clock.tick(days=6)
    assert settle(app)["stop:1"][0] == "queued"
    clock.tick(days=2)
    state, error = settle(app)["stop:1"]
    assert (state, (error or "")[:20]) == ("failed", "given up after 7 day")
    assert told(app) == ["needs_attention"]
    with app.app_context():
        billing_desk.retry(db.session(), 1, clock.now())
        db.session.commit()
    [(state, _)] = settle(app).values()
    assert state == "queued", "the week begins anew"


def test_the_service_acknowledges_by_the_api(app: Flask) -> None:
    ordered(app, "stop:1", "stop:2")
    program = Program(app, make_key(app, Scope.BILLING_WRITE))
    path = "/billing/orders/stop:1/acknowledgement"
    done: dict[str, Any] = {
        "status": "done", "reference": "INV-7", "subscription": {"status": "active", "stopping": True},
    }  # fmt: skip
    assert program.call("POST", path, json=done).status_code == 404, "nobody has asked for it yet"
    settle(app)
    assert Program(app, make_key(app, Scope.MEMBERS_WRITE)).call("POST", path, json=done).status_code == 403
    assert program.call("POST", path, json={"status": "carried out"}).status_code == 422
    assert program.call("POST", path, json={**done, "next_charge_at": "soon"}).status_code == 422
    for _ in range(2):
        assert program.call("POST", path, json=done).status_code == 204
    # Said otherwise, it stays what it was.
    assert program.call("POST", path, json={"status": "failed"}).status_code == 204
    with app.app_context():
        row = db.session.scalars(select(BillingOrder).where(BillingOrder.key == "stop:1")).one()
        assert (row.state, row.receipt) == ("done", "INV-7")
        assert (row.read_back or {})["stopping"] is True
        assert states()["stop:2"][0] == "queued"
    for unknown in ("stop:3", "%00", "x" * 200, "%C3%A9"):
        assert program.call("POST", f"/billing/orders/{unknown}/acknowledgement", json=done).status_code == 404


def test_the_mode_of_the_first_use_is_remembered(make_app: Callable[..., Flask], clock: FrozenClock) -> None:
    test = make_app(billing="stripe", stripe_key="sk_test_1", stripe_api="http://127.0.0.1:9")
    settings = test.extensions["dormouse"].settings
    live = settings.model_copy(update={"stripe_key": "sk_live_1", "stripe_live": True})
    with test.app_context():
        session = db.session()
        for found in (settings, settings):
            billing_provider.hold_to_mode(session, found, NOW)
        with pytest.raises(BillingPermanent, match="test mode since 2026-06-03"):
            billing_provider.hold_to_mode(session, live, NOW + timedelta(days=1))
        session.commit()
        assert "the next use decides" in test.test_cli_runner().invoke(args=["billing", "forget-mode"]).output
        session.rollback()
        billing_provider.hold_to_mode(session, live, NOW)
        with pytest.raises(BillingPermanent, match="live mode"):
            billing_provider.look_at_mode(session, settings)
