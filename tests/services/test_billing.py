"""Billing orders: in their order, once each, whatever the provider answers and whoever else is at work."""

from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Barrier, Thread

import pytest
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from adapters.billing.local import LocalBilling
from domain.errors import BillingError, BillingPermanent, BillingTemporary, NotFound, Refused
from domain.lifecycle import OrderKind, OrderState
from domain.ports import BillingReceipt
from models import BillingOrder, Event, LocalCharge, LocalSubscription, Member, db, for_writing
from services import billing, billing_answers, billing_asking, billing_desk, settling
from services.billing_answers import Settled
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at


class ScriptedProvider:
    """A provider that answers what the test says, and remembers what it was asked."""

    def __init__(self, *answers: BillingError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, str]] = []
        self.while_asked: Callable[[], None] = lambda: None

    def _answer(self, kind: str, ref: str, key: str) -> BillingReceipt:
        self.asked.append((kind, ref, key))
        self.while_asked()
        if self.answers:
            raise self.answers.pop(0)
        return BillingReceipt(f"receipt of {key}")

    def stop(self, billing_ref: str, *, key: str, now: datetime, at_once: bool = False) -> BillingReceipt:
        return self._answer("stop", billing_ref, key)

    def undo(self, billing_ref: str, *, key: str, now: datetime) -> BillingReceipt:
        return self._answer("undo", billing_ref, key)

    def restart(
        self, billing_ref: str, *, price_minor: int, currency: str, interval: str, key: str, now: datetime
    ) -> BillingReceipt:
        return self._answer("restart", billing_ref, key)

    def refund(
        self, billing_ref: str, *, since: datetime, key: str, now: datetime, pro_rata: bool = False
    ) -> BillingReceipt:
        return self._answer("refund", billing_ref, key)


def put(session: Session, member: Member, kind: OrderKind, key: str, **facts: datetime) -> bool:
    return billing.order(session, kind=kind, key=key, member=member, now=NOW, **facts)


def settle(session: Session, provider: object, clock: FrozenClock) -> Settled:
    session.commit()
    return settling.settle(session, provider, clock, session.commit, lambda: False)  # type: ignore[arg-type]


def only_order(session: Session) -> BillingOrder:
    session.rollback()
    return session.scalars(select(BillingOrder).execution_options(populate_existing=True)).one()


def states(session: Session) -> list[str]:
    session.rollback()
    return list(session.scalars(select(BillingOrder.state).order_by(BillingOrder.id)))


def test_an_order_is_carried_out_and_its_receipt_kept(session: Session, clock: FrozenClock) -> None:
    member = factories.member(session)
    put(session, member, OrderKind.STOP, "stop:1")
    assert settle(session, LocalBilling(db.engine), clock) == Settled(done=1)
    row = only_order(session)
    assert (row.state, row.attempts, row.done_at, row.lease_token) == (OrderState.DONE, 1, NOW, None)
    assert row.receipt is not None
    assert row.receipt.startswith("local-")
    assert session.scalars(select(LocalSubscription.stopped_at)).one() == NOW
    event = session.scalars(select(Event).where(Event.code == "billing_done")).one()
    assert (event.detail, event.member_id) == ("stop", member.id)
    assert settle(session, LocalBilling(db.engine), clock) == Settled()


def test_one_key_is_one_order(session: Session) -> None:
    member = factories.member(session)
    assert put(session, member, OrderKind.STOP, "stop:1")
    assert not put(session, member, OrderKind.STOP, "stop:1")
    session.commit()
    assert states(session) == ["queued"]


def test_the_orders_of_a_member_go_out_one_after_another_in_their_order(session: Session, clock: FrozenClock) -> None:
    member, other = factories.member(session), factories.member(session)
    for kind, key in ((OrderKind.STOP, "a"), (OrderKind.UNDO, "b"), (OrderKind.STOP, "c")):
        put(session, member, kind, key)
    put(session, other, OrderKind.STOP, "d")
    provider = ScriptedProvider()
    assert settle(session, provider, clock) == Settled(done=4)
    assert [key for _, ref, key in provider.asked if ref == member.billing_ref] == ["a", "b", "c"]


def test_a_later_order_waits_while_an_earlier_one_is_tried_again(session: Session, clock: FrozenClock) -> None:
    member, other = factories.member(session), factories.member(session)
    put(session, member, OrderKind.STOP, "a")
    put(session, member, OrderKind.UNDO, "b")
    put(session, other, OrderKind.STOP, "c")
    provider = ScriptedProvider(BillingTemporary("try later"))
    assert settle(session, provider, clock) == Settled(done=1, again=1)
    assert states(session) == ["queued", "queued", "done"]
    clock.tick(minutes=1)
    assert settle(session, provider, clock) == Settled(done=2)
    assert [key for *_, key in provider.asked] == ["a", "c", "a", "b"]


def test_scenario_32_what_is_unclear_is_asked_again_with_the_same_key_and_growing_waits(
    session: Session, clock: FrozenClock
) -> None:
    put(session, factories.member(session), OrderKind.STOP, "stop:1")
    provider = ScriptedProvider(*[BillingTemporary("timeout")] * 12)
    waits = []
    for _ in range(12):
        assert settle(session, provider, clock) == Settled(again=1)
        row = only_order(session)
        assert (row.state, row.error) == (OrderState.QUEUED, "timeout")
        waits.append((row.due_at - clock.now()) // timedelta(minutes=1))
        clock.travel(row.due_at)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360]
    assert settle(session, provider, clock) == Settled(done=1)
    assert {key for *_, key in provider.asked} == {"stop:1"}
    assert only_order(session).error is None
    codes = session.scalars(select(Event.code).order_by(Event.id)).all()
    assert codes == ["billing_delayed", "billing_done"]


def test_scenario_32_a_refusal_for_good_waits_for_an_operator_and_is_then_asked_with_a_new_key(
    session: Session, clock: FrozenClock
) -> None:
    put(session, factories.member(session), OrderKind.RESTART, "restart:1")
    provider = ScriptedProvider(BillingPermanent("card declined"))
    assert settle(session, provider, clock) == Settled(failed=1)
    row = only_order(session)
    assert (row.state, row.error) == (OrderState.FAILED, "card declined")
    clock.tick(days=10)
    assert settle(session, provider, clock) == Settled()

    billing_desk.retry(session, row.id, clock.now())
    assert settle(session, provider, clock) == Settled(done=1)
    assert [key for *_, key in provider.asked] == ["restart:1", "restart:1:1"]


def test_only_a_failed_order_that_nothing_followed_can_be_tried_again(session: Session, clock: FrozenClock) -> None:
    member = factories.member(session)
    put(session, member, OrderKind.STOP, "a")
    settle(session, ScriptedProvider(BillingPermanent("no")), clock)
    failed = only_order(session).id
    put(session, member, OrderKind.UNDO, "b")
    settle(session, ScriptedProvider(), clock)
    with pytest.raises(Refused, match="out of date"):
        billing_desk.retry(session, failed, NOW)
    with pytest.raises(Refused, match="is done"):
        billing_desk.retry(session, failed + 1, NOW)
    with pytest.raises(NotFound):
        billing_desk.retry(session, 999, NOW)


def test_an_order_without_a_reference_waits_for_an_operator(session: Session, clock: FrozenClock) -> None:
    put(session, factories.member(session), OrderKind.STOP, "stop:1")
    session.execute(update(BillingOrder).values(billing_ref=None))
    assert settle(session, LocalBilling(db.engine), clock) == Settled(failed=1)
    assert "no reference" in str(only_order(session).error)


def test_a_member_without_a_reference_is_known_to_the_provider_by_a_random_one(
    session: Session, clock: FrozenClock
) -> None:
    member = factories.member(session, billing_ref=None)
    put(session, member, OrderKind.STOP, "stop:1")
    provider = ScriptedProvider()
    settle(session, provider, clock)
    assert provider.asked == [("stop", member.public_id, "stop:1")]


def test_a_stop_that_nobody_has_seen_is_taken_back(session: Session, clock: FrozenClock) -> None:
    member = factories.member(session)
    put(session, member, OrderKind.STOP, "stop:1")
    assert billing.supersede_untried_stop(session, member.id, NOW)
    assert not billing.supersede_untried_stop(session, member.id, NOW)
    provider = ScriptedProvider()
    assert settle(session, provider, clock) == Settled()
    assert states(session) == ["superseded"]
    assert provider.asked == []


def test_scenario_34_a_stop_that_may_have_been_seen_is_not_taken_back(session: Session, clock: FrozenClock) -> None:
    member = factories.member(session)
    put(session, member, OrderKind.STOP, "stop:1")
    settle(session, ScriptedProvider(BillingTemporary("timeout")), clock)
    assert not billing.supersede_untried_stop(session, member.id, NOW)
    assert states(session) == ["queued"]


def test_an_expired_lease_is_taken_over_with_the_same_key_and_the_late_answer_ignored(
    session: Session, clock: FrozenClock
) -> None:
    put(session, factories.member(session), OrderKind.RESTART, "restart:1")
    session.commit()
    (slow,) = billing_asking.claim(session, NOW, 10)
    session.commit()
    assert billing_asking.claim(session, NOW + billing_asking.LEASE - timedelta(seconds=1), 10) == []
    later = NOW + billing_asking.LEASE
    (second,) = billing_asking.claim(session, later, 10)
    assert (second.key, second.attempts) == (slow.key, 2)
    assert not billing_answers.record(session, slow, BillingPermanent("too slow"), later)
    assert billing_answers.record(session, second, BillingReceipt("r"), later)
    session.commit()
    assert only_order(session).receipt == "r"


def test_no_transaction_is_open_while_the_provider_is_asked(session: Session, clock: FrozenClock) -> None:
    put(session, factories.member(session), OrderKind.STOP, "stop:1")
    provider, seen = ScriptedProvider(), []
    provider.while_asked = lambda: seen.append(session.in_transaction())
    settle(session, provider, clock)
    assert seen == [False]


def test_a_return_is_paid_through_its_first_period(session: Session, clock: FrozenClock) -> None:
    member = factories.member(session, billing_interval="year")
    put(session, member, OrderKind.RESTART, "restart:1")
    settle(session, LocalBilling(db.engine), clock)
    session.refresh(member)
    assert member.paid_through == at("2027-06-03 10:00")


def test_a_refund_says_since_when(session: Session, clock: FrozenClock) -> None:
    member = factories.member(session)
    put(session, member, OrderKind.RESTART, "restart:1")
    put(session, member, OrderKind.REFUND, "refund:1", since=NOW)
    put(session, member, OrderKind.REFUND, "refund:2")
    assert settle(session, LocalBilling(db.engine), clock) == Settled(done=2, failed=1)
    assert session.scalars(select(LocalCharge.refunded_at)).all() == [NOW]


def test_scenario_42_four_settlers_ask_for_each_order_once_and_in_order(
    make_app: Callable[..., Flask], clock: FrozenClock
) -> None:
    app = make_app()
    with app.app_context():
        session = db.session()
        for_writing(session)
        for number in range(15):
            member = factories.member(session)
            for kind, step in ((OrderKind.STOP, "a"), (OrderKind.UNDO, "b")):
                put(session, member, kind, f"{number}:{step}")
        session.commit()
    provider, together = ScriptedProvider(), Barrier(4)

    def work() -> None:
        with app.app_context():
            together.wait()
            for _ in range(10):
                settle(db.session(), provider, clock)

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with app.app_context():
        assert set(states(db.session())) == {"done"}
    keys = [key for *_, key in provider.asked]
    assert sorted(keys) == sorted(set(keys))
    assert all(keys.index(f"{number}:a") < keys.index(f"{number}:b") for number in range(15))
