"""The real library of Stripe over real HTTP, against localstripe with a proxy in front (stripe_world.py)."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from adapters.billing.stripe.client import StripeBilling
from domain.errors import BillingPermanent, BillingRefused, BillingTemporary, BillingUnknown, NotSigned
from tests.adapters.billing_contract import DAY, RefundingContract
from tests.adapters.stripe_world import (
    BREAKS,
    BREAKS_AFTER,
    DECLINED_CARD,
    GOOD_CARD,
    KEY,
    WEBHOOK_SECRET,
    Fault,
    StripeProxy,
    StripeWorld,
    event,
)
from tests.conftest import NOW


@pytest.fixture
def world(stripe_world: StripeWorld) -> StripeWorld:
    return stripe_world


class TestStripeContract(RefundingContract):
    pass


def fails(proxy: StripeProxy, method: str, part: str, *answers: Fault) -> None:
    """The next calls of this kind fail like this; after that Stripe is well again."""
    left = list(answers)

    def fault(called: str, path: str) -> Fault | None:
        return left.pop(0) if left and called == method and part in path else None

    proxy.faults = fault


def ended(world: StripeWorld, **facts: Any) -> str:
    ref = world.subscribe(**facts)
    world.billing.stop(ref, key="stop", now=world.now, at_once=True)
    return ref


def restart(world: StripeWorld, ref: str, key: str = "restart:1", price: int = 1299) -> str:
    receipt = world.billing.restart(ref, price_minor=price, currency="EUR", interval="month", key=key, now=world.now)
    assert receipt.billing_ref is not None
    return receipt.billing_ref


def subscriptions(world: StripeWorld, ref: str) -> list[str]:
    params: Any = {"customer": world.customer_of(ref)}
    return [one.id for one in world.api.subscriptions.list(params).data]


# What Stripe has that other providers do not


@pytest.mark.parametrize(
    ("theirs", "status"),
    [
        ("trialing", "trial"),
        ("paused", "paused"),
        ("past_due", "past_due"),
        ("unpaid", "past_due"),
        ("incomplete_expired", "ended"),
    ],
)
def test_every_status_of_theirs_is_one_of_ours(world: StripeWorld, theirs: str, status: str) -> None:
    ref = world.subscribe()
    world.overlay(ref, status=theirs)
    assert world.billing.read(ref, now=world.now).status == status


def test_collection_that_is_paused_is_a_pause(world: StripeWorld) -> None:
    ref = world.subscribe()
    world.overlay(ref, pause_collection={"behavior": "void"})
    assert world.billing.read(ref, now=world.now).status == "paused"


def test_several_items_are_one_price_where_they_are_charged_together(world: StripeWorld) -> None:
    def item(amount: int, interval: str, quantity: int = 1, **more: Any) -> dict[str, Any]:
        price = {"id": "p", "unit_amount": amount, "currency": "eur", "recurring": {"interval": interval}, **more}
        return {"price": price, "quantity": quantity, "current_period_start": 1_800_000_000, "current_period_end": end}

    end = 1_802_000_000
    ref = world.subscribe()
    world.overlay(ref, items={"data": [item(1000, "month"), item(150, "month", 2), item(9900, "year")]})
    found = world.billing.read(ref, now=world.now)
    assert (found.price_minor, found.currency, found.interval) == (1300, "EUR", "month")
    # What is charged by use is not known before.
    world.overlay(ref, items={"data": [item(1000, "month"), item(0, "month", billing_scheme="tiered")]})
    assert world.billing.read(ref, now=world.now).price_minor is None


def test_a_schedule_is_released_before_its_subscription_is_stopped(world: StripeWorld) -> None:
    ref = world.subscribe()
    world.overlay(ref, schedule="sub_sched_1")
    world.billing.stop(ref, key="stop:1", now=world.now)
    assert [path for _, path in world.proxy.writes()][-2:] == [
        "/v1/subscription_schedules/sub_sched_1/release",
        f"/v1/subscriptions/{ref}",
    ]
    assert world.billing.read(ref, now=world.now).stopping


def test_an_end_on_a_day_of_its_own_is_a_stop_and_can_be_taken_back(world: StripeWorld) -> None:
    ref = world.subscribe()
    world.api.subscriptions.update(ref, {"cancel_at": int((world.now + 9 * DAY).timestamp())})
    assert world.billing.read(ref, now=world.now).stopping
    world.overlay(ref, cancel_at=None)
    world.billing.undo(ref, key="undo:1", now=world.now)
    assert world.billing.read(ref, now=world.now).charges_on


# Coming back


def test_a_restart_keeps_price_and_card_and_says_what_it_continues(world: StripeWorld) -> None:
    ref = ended(world)
    new = restart(world, ref)
    assert new != ref
    assert world.api.subscriptions.retrieve(new).to_dict()["metadata"] == {
        "dormouse_key": "restart:1",
        "dormouse_continues": ref,
    }


def test_a_restart_is_found_again_after_stripe_has_forgotten_its_key(world: StripeWorld) -> None:
    ref = ended(world)
    new = restart(world, ref)
    world.proxy.answered.clear()
    assert restart(world, ref) == new
    # Also by another order of the same member: who has come back once is not charged twice.
    assert restart(world, ref, key="restart:2") == new
    assert subscriptions(world, ref) == [new]


def test_what_was_never_stopped_is_not_begun_a_second_time(world: StripeWorld) -> None:
    ref = world.subscribe()
    assert restart(world, ref) == ref
    assert subscriptions(world, ref) == [ref]


def test_a_restart_waits_while_the_old_one_is_about_to_end(world: StripeWorld) -> None:
    ref = world.subscribe()
    world.billing.stop(ref, key="stop:1", now=world.now)
    with pytest.raises(BillingTemporary, match="about to end"):
        restart(world, ref)


def test_another_price_than_agreed_is_not_charged(world: StripeWorld) -> None:
    ref = ended(world)
    with pytest.raises(BillingPermanent, match="costs 1299 EUR"):
        restart(world, ref, price=999)
    assert subscriptions(world, ref) == []


def test_scenario_32_a_declined_card_pays_at_checkout_or_by_another_attempt(world: StripeWorld) -> None:
    ref = ended(world)
    world.use_card(world.customer_of(ref), DECLINED_CARD)
    with pytest.raises(BillingRefused, match="declined") as refused:
        restart(world, ref)
    assert refused.value.pay_at == "https://checkout.example.org/cs_1"
    assert subscriptions(world, ref) == []
    world.use_card(world.customer_of(ref), GOOD_CARD)
    # The declined key stays declined, so another attempt takes another one.
    with pytest.raises(BillingRefused):
        restart(world, ref)
    new = restart(world, ref, key="restart:1:1")
    assert subscriptions(world, ref) == [new]


# When Stripe is not well


@pytest.mark.parametrize("fault", [500, 503, BREAKS, BREAKS_AFTER])
def test_an_answer_that_does_not_come_leaves_the_order_to_be_asked_again(world: StripeWorld, fault: Fault) -> None:
    ref = ended(world)
    # A broken line is tried again at once, under the same key; a server that says no is not.
    fails(world.proxy, "POST", "/subscriptions", *([fault] if isinstance(fault, int) else [fault, fault]))
    with pytest.raises(BillingTemporary):
        restart(world, ref)
    new = restart(world, ref)
    assert subscriptions(world, ref) == [new]


@pytest.mark.parametrize("step", ["stop", "undo", "refund"])
def test_a_line_that_breaks_after_the_effect_does_it_once(world: StripeWorld, step: str) -> None:
    ref = world.subscribe()
    before = world.billing.read(ref, now=world.now)
    if step == "undo":
        world.billing.stop(ref, key="stop:0", now=world.now)
    fails(world.proxy, "POST", "/v1/", BREAKS_AFTER, BREAKS_AFTER)
    ask: Any = {
        "stop": lambda: world.billing.stop(ref, key="k", now=world.now),
        "undo": lambda: world.billing.undo(ref, key="k", now=world.now),
        "refund": lambda: world.billing.refund(ref, since=world.now - DAY, key="k", now=world.now),
    }[step]
    with pytest.raises(BillingTemporary):
        ask()
    world.proxy.answered.clear()
    ask()
    found = world.billing.read(ref, now=world.now)
    assert found.stopping == (step == "stop")
    assert found.paid_through == before.paid_through
    charges = world.billing.charges(ref, since=world.now - DAY)
    assert [one.refunded_minor for one in charges or ()] == [1299 if step == "refund" else 0]


def test_too_many_requests_are_slowed_down_and_given_up_for_now(world: StripeWorld) -> None:
    ref = world.subscribe()
    fails(world.proxy, "GET", "/subscriptions", 429, 429)
    assert world.billing.read(ref, now=world.now).charges_on
    assert len(world.pauses) == 2
    assert 0.5 <= world.pauses[0] <= 1 <= world.pauses[1] <= 2
    fails(world.proxy, "GET", "/subscriptions", 429, 429, 429, 429)
    with pytest.raises(BillingTemporary, match="too often"):
        world.billing.read(ref, now=world.now)


def test_a_key_that_is_not_accepted_is_for_an_operator(world: StripeWorld) -> None:
    ref = world.subscribe()
    fails(world.proxy, "GET", "/subscriptions", 401)
    with pytest.raises(BillingPermanent, match="STRIPE_KEY"):
        world.billing.read(ref, now=world.now)


def test_what_is_in_the_other_mode_is_not_touched(world: StripeWorld) -> None:
    ref = world.subscribe()
    live = world.connected(live=True)
    for ask in (live.stop, live.undo):
        with pytest.raises(BillingPermanent, match="test mode"):
            ask(ref, key="k", now=world.now)
    with pytest.raises(BillingPermanent, match="live mode"):
        live.list(None, limit=10, now=world.now)
    assert world.billing.read(ref, now=world.now).charges_on


# Money


def test_a_trial_was_not_charged_and_gives_nothing_back(world: StripeWorld) -> None:
    ref = world.subscribe(price_minor=0)
    assert world.billing.charges(ref, since=world.now - DAY) == []
    world.billing.refund(ref, since=world.now - DAY, key="refund:1", now=world.now)


@pytest.mark.parametrize(
    ("currency", "amount", "ours"), [("isk", 150000, 1500), ("eur", 1500, 1500), ("jpy", 1500, 1500)]
)
def test_amounts_are_in_our_minor_units(world: StripeWorld, currency: str, amount: int, ours: int) -> None:
    ref = world.subscribe(price_minor=amount, currency=currency)
    found = world.billing.read(ref, now=world.now)
    assert (found.price_minor, found.currency) == (ours, currency.upper())
    (charge,) = world.billing.charges(ref, since=world.now - DAY) or ()
    assert charge.amount_minor == ours


def test_what_somebody_refunded_at_stripe_is_not_refunded_again(world: StripeWorld) -> None:
    ref = world.subscribe()
    params: Any = {"subscription": ref}
    payment = world.api.invoices.list(params).data[0].to_dict()["payment_intent"]
    world.api.refunds.create({"payment_intent": payment, "amount": 1000})
    world.billing.refund(ref, since=world.now - timedelta(days=2), key="refund:1", now=world.now)
    (charge,) = world.billing.charges(ref, since=world.now - DAY) or ()
    assert charge.refunded_minor == 1299


def test_a_subscription_nobody_knows_can_neither_be_stopped_nor_begun(world: StripeWorld) -> None:
    for ask in (world.billing.stop, world.billing.undo):
        with pytest.raises(BillingUnknown):
            ask("sub_nobody", key="k", now=world.now)
    with pytest.raises(BillingUnknown):
        restart(world, "sub_nobody")


# Webhooks


@pytest.mark.parametrize(
    ("kind", "about", "refs"),
    [
        ("customer.subscription.updated", {"id": "sub_1"}, ("sub_1",)),
        ("customer.subscription.deleted", {"id": "sub_1"}, ("sub_1",)),
        ("invoice.paid", {"id": "in_1", "subscription": "sub_1"}, ("sub_1",)),
        ("invoice.paid", {"parent": {"subscription_details": {"subscription": "sub_1"}}}, ("sub_1",)),
        ("invoice.payment_failed", {"id": "in_1"}, ()),
        ("checkout.session.completed", {"subscription": "sub_2"}, ("sub_2",)),
        ("customer.created", {"id": "cus_1"}, ()),
        ("something.new", {"id": "sub_1"}, ()),
    ],
)
def test_of_a_webhook_only_whom_it_is_about_is_taken(kind: str, about: dict[str, Any], refs: tuple[str, ...]) -> None:
    body, headers = event(kind, about, NOW)
    assert offline().news(body, headers, now=NOW) == refs


def test_a_webhook_is_signed_with_our_secret_over_every_byte_and_lately() -> None:
    body, headers = event("invoice.paid", {"subscription": "sub_1"}, NOW)
    wrong: list[tuple[bytes, dict[str, str], datetime]] = [
        (body + b" ", headers, NOW),
        (body, {}, NOW),
        (body, {"Stripe-Signature": "t=now,v1="}, NOW),
        (b"\xff", headers, NOW),
        (body, headers, NOW + timedelta(minutes=6)),
        (body, headers, NOW - timedelta(minutes=6)),
    ]
    for one, given, now in wrong:
        with pytest.raises(NotSigned):
            offline().news(one, given, now=now)
    with pytest.raises(NotSigned):
        offline(webhook_secrets=["whsec_another"]).news(body, headers, now=NOW)
    # While the secret is being replaced there are two.
    assert offline(webhook_secrets=["whsec_another", WEBHOOK_SECRET]).news(body, headers, now=NOW) == ("sub_1",)


def test_a_webhook_of_the_other_mode_is_about_nobody() -> None:
    body, headers = event("invoice.paid", {"subscription": "sub_1"}, NOW, livemode=True)
    assert offline().news(body, headers, now=NOW) == ()
    assert offline(live=True).news(body, headers, now=NOW) == ("sub_1",)


def offline(**changes: Any) -> StripeBilling:
    options: dict[str, Any] = {"live": False, "webhook_secrets": [WEBHOOK_SECRET], "come_back_at": "", "pause": id}
    return StripeBilling(KEY, **{**options, **changes})
