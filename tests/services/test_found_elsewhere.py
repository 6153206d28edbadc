"""A provider that finds out only at the stop that a store bills the membership: then it has not ended, and says so."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.errors import BillingElsewhere
from domain.lifecycle import Answer, OrderKind, Through
from domain.notices import Kind
from domain.ports import BillingReceipt, Subscription
from models import Event, Member, Message
from services import billing, billing_answers, billing_asking, billing_desk, decisions, purging, returning, settling
from services.notice import State, standing
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import accept_mails, case_of, close, kinds_to, opened, orders_of

JULY = at("2026-07-01 10:00")
STORE = "App Store"


class Elsewhere:
    """A provider that cannot stop anything, and would do all the rest."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def stop(self, billing_ref: str, *, key: str, **_: Any) -> BillingReceipt:
        self.asked.append(key)
        raise BillingElsewhere("the App Store charges for it by itself", STORE)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")


@pytest.fixture
def provider() -> Elsewhere:
    return Elsewhere()


def settle(session: Session, provider: Any, clock: FrozenClock, now: Any) -> settling.Settled:
    clock.travel(now)
    session.commit()
    return settling.settle(session, provider, clock, session.commit, lambda: False)


def again(session: Session, member: Member) -> Member:
    session.expire_all()
    return session.get_one(Member, member.id)


def test_a_silent_end_that_cannot_be_carried_out_is_none(
    session: Session, settings: Settings, clock: FrozenClock, provider: Elsewhere
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY)
    assert again(session, member).status == "lapsed"
    settle(session, provider, clock, JULY)
    found, case = again(session, member), case_of(session, member)
    assert (found.status, found.billed_by, found.subscription_status) == ("active", STORE, "active")
    assert (found.lapsed_at, found.access_ends_at, found.keep_until) == (None, None, None)
    assert (case.state, case.closed_at) == ("told", JULY)
    assert orders_of(session, member) == [("stop", "superseded")]
    # "You no longer pay" was never said.
    assert accept_mails(session, settings, JULY) == [Kind.TOLD]
    assert kinds_to(session, member) == ["warning", "lapsed", "told"]
    seen = standing(session, settings, type(case).id == case.id, JULY)
    assert seen is not None
    assert seen.state is State.TOLD
    assert billing_desk.failed_orders(session) == []
    # Nothing is left to do, however often the jobs run.
    close(session, settings, JULY + timedelta(days=1))
    assert settle(session, provider, clock, JULY + timedelta(days=1)) == settling.Settled()
    assert purging.purge(session, settings, JULY + timedelta(days=400), session.commit) == 0
    assert accept_mails(session, settings, JULY + timedelta(days=1)) == []
    codes = session.execute(select(Event.code, Event.detail).where(Event.code == "lapse_reversed")).all()
    assert [tuple(one) for one in codes] == [("lapse_reversed", "told")]


def test_an_end_of_ones_own_is_told_at_once_and_once(
    session: Session, settings: Settings, clock: FrozenClock, provider: Elsewhere
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    decisions.answer(session, settings, case_of(session, member).id, Answer.LAPSE, Through.LINK, NOW)
    settle(session, provider, clock, NOW)
    assert (again(session, member).status, case_of(session, member).state) == ("active", "open")
    assert accept_mails(session, settings, NOW) == [Kind.RECEIPT_LAPSE, Kind.TOLD]
    close(session, settings, JULY)
    assert (again(session, member).status, case_of(session, member).state) == ("active", "told")
    assert accept_mails(session, settings, JULY) == []
    assert orders_of(session, member) == [("stop", "superseded")]


def test_a_rest_does_not_go_back_where_nothing_ended(
    session: Session, settings: Settings, clock: FrozenClock, provider: Elsewhere
) -> None:
    back = settings.model_copy(update={"refund": "pro_rata"})
    paid = at("2026-07-20")
    member = factories.dormant(session, paid_through=paid)
    session.commit()
    opened(session, back, NOW)
    close(session, back, JULY)
    assert orders_of(session, member) == [("stop", "queued"), ("refund", "queued")]
    settle(session, provider, clock, JULY)
    assert orders_of(session, member) == [("stop", "superseded"), ("refund", "superseded")]
    assert again(session, member).paid_through == paid


def test_who_came_back_at_a_price_meanwhile_is_not_charged_a_second_time(
    session: Session, settings: Settings, clock: FrozenClock, provider: Elsewhere
) -> None:
    member = factories.dormant(session, paid_through=at("2026-06-15"))
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY)
    quoted = returning.quote(again(session, member), settings, JULY)
    returning.order(session, settings, member.id, quoted, JULY)
    kinds = [kind for kind, _ in orders_of(session, member)]
    assert kinds[0] == "stop"
    assert kinds[-1] == "restart"
    settle(session, provider, clock, JULY)
    assert {state for _, state in orders_of(session, member)} == {"superseded"}
    assert (again(session, member).status, again(session, member).billed_by) == ("active", STORE)
    assert accept_mails(session, settings, JULY) == [Kind.TOLD]


def test_whose_data_goes_is_left_to_an_operator_while_there_is_an_address(
    session: Session, settings: Settings, clock: FrozenClock, provider: Elsewhere
) -> None:
    member = factories.using(session)
    session.commit()
    assert not purging.erase(session, settings, member.id, NOW)
    settle(session, provider, clock, NOW)
    assert orders_of(session, member) == [("stop", "failed")]
    assert again(session, member).status == "ended"


@pytest.mark.parametrize(
    ("kind", "held", "state"),
    [
        (OrderKind.STOP, {"status": "active"}, "failed"),
        (OrderKind.STOP, {"status": "active", "stopping": True}, "done"),
        (OrderKind.STOP, {"status": "ended"}, "done"),
        (OrderKind.STOP, {"status": "active", "billed_by": STORE}, "superseded"),
        (OrderKind.UNDO, {"status": "active", "stopping": True}, "failed"),
        (OrderKind.UNDO, {"status": "active"}, "done"),
        (OrderKind.RESTART, {"status": "ended"}, "failed"),
        (OrderKind.RESTART, {"status": "active"}, "done"),
    ],
)
def test_what_holds_counts_and_not_what_the_provider_calls_done(
    session: Session, kind: OrderKind, held: dict[str, Any], state: str
) -> None:
    member = factories.member(session)
    billing.order(session, kind=kind, key="key", member=member, now=NOW)
    session.commit()
    [claimed] = billing_asking.claim(session, NOW, 1)
    read_back = Subscription(billing_ref="ref", **held)
    assert billing_answers.record(session, claimed, BillingReceipt("r", read_back=read_back), NOW)
    session.commit()
    assert orders_of(session, member) == [(kind, state)]
    assert not session.scalars(select(Message).where(Message.member_id == member.id)).all()
