"""Several orders at once, at the provider's pace; and what people are told before it has answered."""

from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Event, Lock
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from adapters.billing.local import LocalBilling
from domain.errors import BillingError, BillingPermanent, BillingRefused, BillingTemporary
from domain.lifecycle import OrderKind
from domain.notices import Kind
from domain.ports import BillingReceipt
from models import BillingOrder, BillingPace, LocalCharge, Member, Message, db
from models import Event as HappenedEvent
from services import account, billing, billing_desk, returning, settling
from services.billing_answers import Settled
from services.settling import Pace
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import accept_mails, close, kinds_to, opened, orders_of

JULY_1 = at("2026-07-01 06:00")


class SlowProvider:
    """Each answer takes a moment, or is what ``answer`` raises for its key."""

    def __init__(self, seconds: float = 0.0, answer: Callable[[str], BillingError | None] = lambda key: None) -> None:
        self.begun: list[float] = []
        self.most_at_once = 0
        self._seconds, self._answer, self._lock, self._busy = seconds, answer, Lock(), 0

    def stop(self, billing_ref: str, *, key: str, now: datetime, at_once: bool = False) -> BillingReceipt:
        with self._lock:
            self.begun.append(monotonic())
            self._busy += 1
            self.most_at_once = max(self.most_at_once, self._busy)
        Event().wait(self._seconds)
        with self._lock:
            self._busy -= 1
        error = self._answer(key)
        if error is not None:
            raise error
        return BillingReceipt(key)


class DecliningBooks(LocalBilling):
    def restart(self, billing_ref: str, **order: Any) -> BillingReceipt:
        raise BillingRefused("the card was declined", "https://pay.example.org/1")


def stops(session: Session, count: int) -> None:
    for number in range(count):
        member = factories.member(session)
        billing.order(session, kind=OrderKind.STOP, key=f"stop:{number}", member=member, now=NOW)
    session.commit()


def settle(session: Session, provider: Any, clock: FrozenClock, pace: Pace) -> Settled:
    session.commit()
    return settling.settle(session, provider, clock, session.commit, lambda: False, pace)


def test_slow_answers_are_waited_for_together_and_never_more_than_allowed(session: Session, clock: FrozenClock) -> None:
    stops(session, 24)
    provider = SlowProvider(0.05)
    assert settle(session, provider, clock, Pace(connections=6)) == Settled(done=24)
    assert 2 <= provider.most_at_once <= 6


def test_no_more_are_begun_than_the_rate_allows(session: Session, clock: FrozenClock) -> None:
    stops(session, 20)
    provider = SlowProvider(0.02)
    before = monotonic()
    assert settle(session, provider, clock, Pace(connections=8, rate=40)) == Settled(done=20)
    # Whatever else the machine does: it can make the last one later, and not earlier.
    assert provider.begun[-1] - before >= 19 / 40
    # The next process begins where this one has left off.
    assert session.scalars(select(BillingPace.next_at)).one() == NOW + timedelta(seconds=20 / 40)


def test_each_failure_is_its_own(session: Session, clock: FrozenClock) -> None:
    stops(session, 9)
    outcomes = {"stop:2": BillingTemporary("busy"), "stop:5": BillingPermanent("unknown")}
    provider = SlowProvider(answer=outcomes.get)
    assert settle(session, provider, clock, Pace(connections=4)) == Settled(done=7, again=1, failed=1)


def test_an_adapter_that_breaks_over_one_order_keeps_none_of_the_others(session: Session, clock: FrozenClock) -> None:
    stops(session, 4)

    def broken(key: str) -> None:
        if key == "stop:1":
            raise KeyError("items")

    assert settle(session, SlowProvider(answer=broken), clock, Pace(connections=2)) == Settled(done=3, again=1)
    [order] = session.scalars(select(BillingOrder).where(BillingOrder.state == "queued"))
    assert (order.key, order.lease_token) == ("stop:1", None)
    assert "KeyError" in (order.error or "")


def test_a_provider_that_is_away_is_left_alone_and_the_rest_was_no_attempt(
    session: Session, clock: FrozenClock
) -> None:
    stops(session, settling.GIVES_UP_AFTER + 30)
    provider = SlowProvider(answer=lambda key: BillingTemporary("no answer"))
    done = settle(session, provider, clock, Pace(connections=4))
    assert settling.GIVES_UP_AFTER <= done.again <= settling.GIVES_UP_AFTER + 4
    untried = session.scalars(select(BillingOrder).where(BillingOrder.attempts == 0)).all()
    assert len(untried) == settling.GIVES_UP_AFTER + 30 - done.again
    assert {order.state for order in untried} == {"queued"}


# What people are told


def test_nobody_is_told_that_charges_have_ended_before_the_provider_says_so(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    assert accept_mails(session, settings, JULY_1) == []
    clock.travel(JULY_1)
    away = SlowProvider(answer=lambda key: BillingPermanent("unknown"))
    settle(session, away, clock, Pace())
    assert accept_mails(session, settings, JULY_1) == []
    billing_desk.retry(session, session.scalars(select(BillingOrder.id)).one(), JULY_1)
    settle(session, LocalBilling(db.engine), clock, Pace())
    assert accept_mails(session, settings, JULY_1) == [Kind.LAPSED]
    assert orders_of(session, member) == [("stop", "done")]


def came_back(session: Session, settings: Settings, clock: FrozenClock) -> Member:
    """A member who has lapsed and orders a restart."""
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    clock.travel(JULY_1)
    close(session, settings, JULY_1)
    settle(session, LocalBilling(db.engine), clock, Pace())
    accept_mails(session, settings, JULY_1)
    order_again(session, settings, clock, member)
    return member


def order_again(session: Session, settings: Settings, clock: FrozenClock, member: Member) -> None:
    clock.tick(days=1)
    session.refresh(member)
    quoted = returning.quote(member, settings, clock.now())
    returning.order(session, settings, member.id, quoted, clock.now())
    session.commit()


def test_scenario_32_a_declined_payment_leaves_the_end_as_it_was_and_the_next_try_has_a_new_key(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    member = came_back(session, settings, clock)
    # What was charged before the stop was heard goes back first.
    assert settle(session, DecliningBooks(db.engine), clock, Pace()) == Settled(done=1, failed=1)
    session.refresh(member)
    assert (member.status, member.lapsed_at, member.access_ends_at) == ("lapsed",) + (at("2026-06-30 22:00"),) * 2
    assert member.keep_until == at("2027-04-30 22:00")
    assert session.scalars(select(LocalCharge)).all() == []
    _, declined = account.waiting(session, member)
    assert declined is not None
    assert declined.pay_at == "https://pay.example.org/1"
    session.rollback()
    assert session.scalars(select(HappenedEvent.code).order_by(HappenedEvent.id.desc())).first() == "payment_declined"
    session.rollback()
    # Told so, and never welcomed back.
    assert accept_mails(session, settings, clock.now()) == [Kind.LAPSED]
    assert [kind for kind in kinds_to(session, member) if kind == "welcome_back"] == ["welcome_back"]
    assert session.scalars(select(Message.state).where(Message.kind == "welcome_back")).all() == ["obsolete"]
    # Nobody has to mend anything, and nothing keeps the purge waiting.
    assert billing_desk.failed_orders(session) == []

    order_again(session, settings, clock, member)
    assert settle(session, LocalBilling(db.engine), clock, Pace()) == Settled(done=1)
    session.refresh(member)
    assert member.status == "active"
    keys = session.scalars(
        select(BillingOrder.key).where(BillingOrder.kind == "restart").order_by(BillingOrder.id)
    ).all()
    assert keys[1] == f"{keys[0]}:1"
    assert len(session.scalars(select(LocalCharge)).all()) == 1
    assert accept_mails(session, settings, clock.now()) == [Kind.WELCOME_BACK]


def test_scenario_32_who_has_come_back_otherwise_meanwhile_is_not_ended_by_a_late_refusal(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    member = came_back(session, settings, clock)
    member.returned_at = clock.now() + timedelta(hours=1)
    settle(session, DecliningBooks(db.engine), clock, Pace())
    session.refresh(member)
    assert member.status == "active"


@pytest.mark.parametrize("kind", ["stop", "restart"])
def test_what_to_do_is_said_for_each_kind(kind: str) -> None:
    assert billing_desk.WHAT_TO_DO[OrderKind(kind)]
