"""A month with Stripe: members from there, stops and starts there, and word from there, over real HTTP."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.dates import month_of, next_month_end
from domain.lifecycle import Answer, Through
from jobs import runner
from models import BillingNews, BillingOrder, ImportCursor, Member, db
from services import decisions, provider_import, returning
from tests import factories
from tests.adapters.stripe_world import KEY, WEBHOOK_SECRET, StripeWorld, event
from tests.doubles import FrozenClock
from tests.services.support import case_of, close, opened, orders_of

TWO_YEARS = timedelta(days=730)


@pytest.fixture
def app(make_app: Callable[..., Flask], stripe_world: StripeWorld, clock: FrozenClock) -> Flask:
    clock.travel(datetime.now(UTC).replace(microsecond=0))
    return make_app(
        billing="stripe",
        stripe_key=KEY,
        stripe_api=stripe_world.proxy.address,
        stripe_webhook_secret=[WEBHOOK_SECRET],
        max_dormant_percent=100,
        min_notice_days=1,
    )


def joined(world: StripeWorld, name: str) -> str:
    """Somebody who joined two years ago; the reference of the subscription."""
    customer = world.customer(email=f"{name}@example.org", name=name, metadata={"external_id": name})
    world.overlay(customer, created=int((world.now - TWO_YEARS).timestamp()))
    return world.subscribe(customer=customer)


def imported(app: Flask, *options: str) -> str:
    result = app.test_cli_runner().invoke(args=["members", "import", "--from", "stripe", *options])
    assert result.exit_code == 0, result.output
    return str(result.stdout).splitlines()[-1]


def member(session: Session, name: str) -> Member:
    session.rollback()
    return session.scalars(
        select(Member).where(Member.external_id == name).execution_options(populate_existing=True)
    ).one()


def settle(app: Flask) -> str:
    return runner.run_queue(app, "settle-billing")


def test_a_round_with_stripe(app: Flask, stripe_world: StripeWorld, clock: FrozenClock) -> None:
    world = stripe_world
    refs = {name: joined(world, name) for name in ("silent", "changes", "returns")}
    assert imported(app) == "created 3, updated 0, unchanged 0, rejected 0"
    assert imported(app) == "created 0, updated 0, unchanged 3, rejected 0"

    def charges_on(name: str) -> bool:
        return world.billing.read(refs[name], now=clock.now()).charges_on

    with app.app_context():
        session, settings = db.session(), app.extensions["dormouse"].settings
        found = member(session, "silent")
        assert (found.billing_ref, found.price_minor, found.currency) == (refs["silent"], 1299, "EUR")
        assert found.paid_through is not None
        now = clock.now()
        factories.live_feed(session, now)
        opened(session, settings, now, month_of(now, settings.zone))
        for wish, stops in ((Answer.LAPSE, True), (Answer.KEEP, False)):
            case = case_of(session, member(session, "changes"))
            decisions.answer(session, settings, case.id, wish, Through.LINK, clock.now())
            session.commit()
            settle(app)
            assert charges_on("changes") == (not stops)

        deadline = next_month_end(now, settings.zone)
        while case_of(session, member(session, "silent")).state != "lapsed":
            clock.travel(deadline + timedelta(hours=2))
            close(session, settings, clock.now())
            deadline = next_month_end(clock.now(), settings.zone)
        settle(app)
        assert [charges_on(name) for name in ("silent", "changes", "returns")] == [False, True, False]
        # In the first hour of some months a new period has begun by then, and is given back: an order of its own.
        silent = member(session, "silent").id
        order = session.scalars(
            select(BillingOrder).where(BillingOrder.member_id == silent, BillingOrder.kind == "stop")
        ).one()
        assert (order.state, order.receipt) == ("done", refs["silent"])
        assert order.read_back is not None
        assert order.read_back["stopping"] is True

        # Over at Stripe: a new subscription on the same card.
        world.api.subscriptions.cancel(refs["returns"])
        back = member(session, "returns")
        clock.travel(max(clock.now(), back.access_ends_at or clock.now()))
        quoted = returning.quote(back, settings, clock.now())
        assert quoted.kind == "restart"
        returning.order(session, settings, back.id, quoted, clock.now())
        session.commit()
        settle(app)
        settle(app)
        back = member(session, "returns")
        assert (back.status, back.billing_ref == refs["returns"]) == ("active", False)
        refs["returns"] = back.billing_ref or ""
        assert charges_on("returns")
        assert ("restart", "done") in orders_of(session, back)


def test_word_from_stripe_is_asked_about_and_repeated_word_changes_nothing(
    app: Flask, stripe_world: StripeWorld, clock: FrozenClock
) -> None:
    world = stripe_world
    ref = joined(world, "mia")
    imported(app)
    client = app.test_client()

    def heard(kind: str = "customer.subscription.updated", about: str = ref) -> int:
        body, headers = event(kind, {"id": about}, clock.now())
        db.session.rollback()
        return client.post("/hooks/billing", data=body, headers=headers).status_code

    with app.app_context():
        session = db.session()
        world.overlay(ref, status="past_due")
        assert [heard(), heard(), heard("customer.subscription.created")] == [200, 200, 200]
        assert session.scalars(select(BillingNews.heard)).one() == 3
        session.rollback()
        calls = len(world.proxy.calls)
        assert "looked at 1" in settle(app)
        assert len(world.proxy.calls) == calls + 1
        assert member(session, "mia").subscription_status == "past_due"
        # What holds now counts, in whatever order the word of it comes.
        world.overlay(ref, status="active")
        heard("customer.subscription.deleted")
        settle(app)
        assert member(session, "mia").subscription_status == "active"
        assert heard("customer.subscription.updated", "sub_nobody") == 200
        assert "looked at 1" in settle(app)
        assert "looked" not in settle(app)
        assert heard("price.updated") == 200
        db.session.rollback()
        assert client.post("/hooks/billing", data=b"{}").status_code == 401
        # Stripe is away: asked again later.
        heard()
        world.proxy.faults = lambda method, path: 500
        settle(app)
        world.proxy.faults = lambda method, path: None
        assert "looked" not in settle(app)
        clock.tick(minutes=2)
        assert "looked at 1" in settle(app)


def test_who_pays_again_at_stripe_has_come_back(app: Flask, stripe_world: StripeWorld, clock: FrozenClock) -> None:
    """Checkout after a declined card: a new subscription that says which one it continues."""
    world = stripe_world
    ref = joined(world, "mia")
    imported(app)
    with app.app_context():
        session = db.session()
        mia = member(session, "mia")
        ended = clock.now() - timedelta(days=1)
        mia.status, mia.lapsed_at, mia.access_ends_at, mia.paid_through = "lapsed", ended, ended, ended
        mia.keep_until = clock.now() + timedelta(days=300)
        session.commit()
        world.billing.stop(ref, key="stop", now=clock.now(), at_once=True)
        again = world.subscribe(customer=world.customer_of(ref))
        world.overlay(again, metadata={"dormouse_continues": ref})
        body, headers = event("checkout.session.completed", {"subscription": again}, clock.now())
        assert app.test_client().post("/hooks/billing", data=body, headers=headers).status_code == 200
        settle(app)
        mia = member(session, "mia")
        assert (mia.status, mia.billing_ref) == ("active", again)


def test_an_import_that_was_interrupted_goes_on_where_it_was(
    app: Flask, stripe_world: StripeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_import, "PAGE", 2)
    for name in ("a", "b", "c", "d", "e"):
        joined(stripe_world, name)
    left = [None, 500]
    stripe_world.proxy.faults = lambda method, path: left.pop(0) if left and path == "/v1/subscriptions" else None
    result = app.test_cli_runner().invoke(args=["members", "import", "--from", "stripe"])
    assert result.exit_code == 1
    assert "Stripe did not answer" in result.output
    with app.app_context():
        assert len(db.session.scalars(select(Member.id)).all()) == 2
        assert db.session.scalars(select(ImportCursor.source)).all() == ["stripe"]
    assert imported(app) == "created 3, updated 0, unchanged 0, rejected 0"
    with app.app_context():
        assert db.session.scalars(select(ImportCursor.source)).all() == []
    assert imported(app, "--dry-run") == "created 0, updated 0, unchanged 5, rejected 0"
    said = app.test_cli_runner().invoke(args=["doctor"]).output
    assert "stripe answers (test mode: nobody is charged)" in said


def test_who_has_no_address_or_a_second_subscription_is_a_reject(
    app: Flask, stripe_world: StripeWorld, clock: FrozenClock
) -> None:
    world = stripe_world
    clock.tick(minutes=5)
    customer = world.customer(metadata={"external_id": "twice"})
    world.subscribe(customer=customer)
    world.subscribe(customer=customer)
    world.overlay(world.customer_of(joined(world, "nobody")), email=None)
    result = app.test_cli_runner().invoke(args=["members", "import", "--from", "stripe"])
    assert result.stdout.splitlines()[-1] == "created 1, updated 0, unchanged 0, rejected 2"
    assert "has another subscription" in result.output
    assert "email is empty" in result.output
