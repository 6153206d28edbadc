"""A service that bills by itself: commands over real HTTP, answered at once or later."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from adapters.billing.local import LocalBilling
from adapters.billing.webhook import WebhookBilling
from adapters.webhooks.http import HttpSender
from domain import webhooks
from domain.errors import (
    BillingClosed,
    BillingElsewhere,
    BillingGone,
    BillingPending,
    BillingPermanent,
    BillingTemporary,
    BillingUnknown,
)
from domain.lifecycle import OrderKind
from jobs import runner
from models import BillingOrder, db
from services import billing
from services.billing_answers import as_told
from settings import Settings
from tests import factories
from tests.adapters.billing_contract import BillingContract
from tests.conftest import NOW
from tests.doubles import Answering, Called, FrozenClock, WebhookCatcher

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
NETWORKS = "127.0.0.0/8"


class Service:
    """A service that keeps its books as ours are kept, and answers every command at once."""

    def __init__(self) -> None:
        self.books = LocalBilling(db.engine)

    def __call__(self, call: Called) -> Answering:
        given = [call.headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature")]
        sent_at = datetime.fromtimestamp(int(given[1]), UTC)
        assert webhooks.is_signed([SECRET], *given, call.body, sent_at)
        command = json.loads(call.body)
        try:
            said = self._carry_out(command["type"], command["data"])
        except BillingUnknown as error:
            said = {"status": "unknown", "reason": str(error)}
        except BillingGone as error:
            said = {"status": "gone", "reason": str(error)}
        return Answering(200, {"Content-Type": "application/json"}, json.dumps(said).encode())

    def _carry_out(self, what: str, data: dict[str, Any]) -> dict[str, Any]:
        ref, books, later = data.get("subscription", ""), self.books, NOW + timedelta(days=1)
        match what:
            case "billing.read":
                return {"subscription": told(books.read(ref, now=NOW))}
            case "billing.list":
                page = books.list(data["cursor"], limit=data["limit"], now=NOW)
                return {"subscriptions": [told(one) for one in page.subscriptions], "cursor": page.cursor}
            case "billing.stop":
                receipt = books.stop(ref, key=data["order"], now=NOW, at_once=data["at_once"])
            case "billing.undo":
                receipt = books.undo(ref, key=data["order"], now=NOW)
            case "billing.restart":
                price = {name: data[name] for name in ("price_minor", "currency", "interval")}
                receipt = books.restart(ref, key=data["order"], now=later, **price)
            case _:
                raise AssertionError(what)
        following = receipt.next_charge_at
        return {
            "status": "done",
            "reference": receipt.reference,
            "next_charge_at": None if following is None else following.isoformat(),
            "subscription": told(receipt.read_back),
        }


def told(found: Any) -> dict[str, Any]:
    price = {"price_minor": found.price_minor, "currency": found.currency, "interval": found.interval}
    return {**as_told(found), **price}


class WebhookWorld:
    now = NOW

    def __init__(self, url: str, service: Service) -> None:
        self.billing = WebhookBilling(HttpSender(Settings(webhook_networks=NETWORKS).networks), url, [SECRET])
        self._service, self._made = service, 0

    def subscribe(self, *, price_minor: int = 1299, currency: str = "EUR", interval: str = "month") -> str:
        self._made += 1
        ref = f"made-{self._made}"
        self._service.books.restart(
            ref, price_minor=price_minor, currency=currency, interval=interval, key=f"made:{ref}", now=NOW
        )
        return ref


class TestWebhookContract(BillingContract):
    @pytest.fixture
    def world(self, app: Flask, hooked: WebhookCatcher) -> WebhookWorld:
        service = Service()
        hooked.answers = service
        return WebhookWorld(hooked.url, service)


@pytest.fixture
def adapter(hooked: WebhookCatcher) -> WebhookBilling:
    return WebhookBilling(HttpSender(Settings(webhook_networks=NETWORKS).networks), hooked.url, [SECRET])


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        (Answering(204), BillingPending, "awaited"),
        (Answering(200, body=b"thank you"), BillingPending, "awaited"),
        (Answering(200, body=b'{"status": "failed", "reason": "no such thing"}'), BillingPermanent, "no such thing"),
        (Answering(200, body=b'{"status": "elsewhere", "billed_by": "App Store"}'), BillingElsewhere, "elsewhere"),
        (Answering(200, body=b'{"status": "elsewhere"}'), BillingPermanent, "elsewhere"),
        (Answering(200, body=b'{"status": "done", "next_charge_at": "tomorrow"}'), BillingTemporary, "tomorrow"),
        (Answering(200, body=b'{"status": "done", "next_charge_at": "2026-07-01"}'), BillingTemporary, "an offset"),
        (Answering(200, body=b'{"status": "done", "billing_ref": 7}'), BillingTemporary, "billing_ref"),
        (Answering(200, body=b'{"status": "done", "subscription": {}}'), BillingTemporary, "SubscriptionStatus"),
        (Answering(503), BillingTemporary, "503"),
        (Answering(410), BillingClosed, "410"),
        (Answering(400), BillingPermanent, "400"),
    ],
)
def test_what_is_not_done_is_said_to_be_what_it_is(
    adapter: WebhookBilling, hooked: WebhookCatcher, answer: Answering, error: type[Exception], why: str
) -> None:
    hooked.answers = answer
    with pytest.raises(error, match=why) as raised:
        adapter.stop("m-1", key="stop:1", now=NOW)
    assert type(raised.value) is error
    (call,) = hooked.calls
    assert call.headers["webhook-id"] == "stop:1"
    assert json.loads(call.body)["data"] == {"order": "stop:1", "subscription": "m-1", "at_once": False}


@pytest.mark.parametrize(
    "said",
    [
        {"status": "cancelled"},
        {"stopping": True},
        {"status": "active", "price_minor": "12.99"},
        {"status": "active", "price_minor": -1},
        {"status": "active", "currency": "EURO"},
        {"status": "active", "billed_by": "x" * 51},
        {"status": "active", "paid_through": 1780000000},
    ],
)
def test_what_no_subscription_can_be_is_said_and_asked_again(
    adapter: WebhookBilling, hooked: WebhookCatcher, said: dict[str, Any]
) -> None:
    hooked.answers = Answering(200, body=json.dumps({"subscription": said}).encode())
    with pytest.raises(BillingTemporary, match="cannot be read"):
        adapter.read("m-1", now=NOW)
    for listed in ([{**said, "billing_ref": "m-1"}], [{"status": "active"}], ["m-1"]):
        hooked.answers = Answering(200, body=json.dumps({"subscriptions": listed}).encode())
        with pytest.raises(BillingTemporary, match="cannot be read"):
            adapter.list(None, limit=10, now=NOW)


@pytest.mark.parametrize("body", [b"[]", b"7", b"null", b'{"data": "x"}', b"{", b"\xff"])
def test_a_signed_call_that_says_nothing_is_none(adapter: WebhookBilling, body: bytes) -> None:
    with pytest.raises(ValueError):
        adapter.news(body, webhooks.signed([SECRET], "evt-1", body, NOW), now=NOW)


def test_an_address_inside_is_not_called(hooked: WebhookCatcher) -> None:
    guarded = WebhookBilling(HttpSender(), hooked.url, [SECRET])
    with pytest.raises(BillingPermanent):
        guarded.stop("m-1", key="stop:1", now=NOW)
    assert hooked.calls == []


def test_nothing_counts_as_done_until_it_is_acknowledged(
    make_app: Callable[..., Flask], hooked: WebhookCatcher, clock: FrozenClock
) -> None:
    app = make_app(billing="webhook", billing_url=hooked.url, billing_secret=[SECRET], webhook_networks=(NETWORKS,))
    client = app.test_client()

    def acknowledge(status: str, order: str = "stop:1", secret: str = SECRET, **more: str) -> int:
        data = {"order": order, "status": status, **more}
        body = json.dumps({"type": "billing.acknowledged", "data": data}).encode()
        headers = webhooks.signed([secret], "ack-1", body, clock.now())
        return client.post("/hooks/billing", data=body, headers=headers).status_code

    def only(session: Session) -> BillingOrder:
        session.rollback()
        found = session.scalars(select(BillingOrder).execution_options(populate_existing=True)).one()
        session.expunge(found)
        session.rollback()
        return found

    with app.app_context():
        session = db.session()
        member = factories.member(session)
        billing.order(session, kind=OrderKind.STOP, key="stop:1", member=member, now=NOW)
        session.commit()
        # An acknowledgement of what nobody has asked for yet says nothing.
        assert acknowledge("done") == 200
        assert only(session).state == "queued"
        runner.run_queue(app, "settle-billing")
        assert (only(session).state, only(session).attempts) == ("queued", 1)
        assert "awaited" in (only(session).error or "")
        clock.tick(minutes=2)
        runner.run_queue(app, "settle-billing")
        assert [call.headers["webhook-id"] for call in hooked.calls] == ["stop:1", "stop:1"]

        assert acknowledge("done", secret="whsec_" + "A" * 44) == 401
        assert acknowledge("done", order="stop:2") == 200
        assert only(session).state == "queued"
        assert acknowledge("done", reference="INV-7") == 200
        assert (only(session).state, only(session).receipt) == ("done", "INV-7")
        # Said again, or otherwise, it stays what it was.
        assert acknowledge("failed", reason="too late") == 200
        assert (only(session).state, only(session).receipt) == ("done", "INV-7")
        assert client.post("/hooks/billing", data=b"{}").status_code == 401
        deep = b"[" * 100_000
        headers = webhooks.signed([SECRET], "ack-1", deep, clock.now())
        assert client.post("/hooks/billing", data=deep, headers=headers).status_code == 400
