"""Orders to the billing provider: written with the decision that causes them, carried out one after another a member.

An order is claimed with a lease, in a transaction of its own; the provider is asked with no transaction open; its
answer is recorded under the lease's token. A process that dies in between leaves the lease behind: when it has run out,
another asks again with the same key, and the provider answers what it answered before.
"""

import random
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, assert_never

from sqlalchemy import ColumnElement, and_, exists, func, literal, literal_column, or_, select, update
from sqlalchemy.orm import Session, aliased

from domain.errors import (
    BillingError,
    BillingGone,
    BillingPending,
    BillingPermanent,
    BillingRefused,
    BillingTemporary,
    NotFound,
    Refused,
)
from domain.lifecycle import UNFINISHED_ORDERS, MemberStatus, MessageState, OrderKind, OrderState
from domain.links import Purpose
from domain.money import Money
from domain.notices import Kind
from domain.ports import Acknowledged, Billing, BillingReceipt, Subscription
from models import BillingOrder, Case, MagicLink, Member, Message, change, insert
from models.base import UTCDateTime, random_id
from services import events, outbox

LEASE = timedelta(minutes=10)
BATCH = 10
"""So many are claimed at once: few enough that a slow provider answers all of them within the lease."""

UNSETTLED = (*UNFINISHED_ORDERS, OrderState.FAILED)
"""Not on record as done: what such an order was to change may or may not hold at the provider."""

TAKES_A_DAY = timedelta(days=1)
FIRST_BACKOFF = timedelta(minutes=1)
LONGEST_BACKOFF = timedelta(hours=6)
PATIENCE = timedelta(days=7)
"""So long an order is asked for again; then a person has to see to it."""

RESTORED = "the database was restored: look at the provider whether this has been done, then try again"
"""The error of an order that waited when a backup was made (services/restoring.py)."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """An order that this process may carry out until its lease ends."""

    id: int
    key: str
    member_id: int
    case_id: int | None
    kind: OrderKind
    billing_ref: str | None
    price_minor: int | None
    currency: str | None
    interval: str | None
    since: datetime | None
    at_once: bool
    gives_up_at: datetime | None
    attempts: int
    lease_token: str


_CLAIMED = (
    BillingOrder.id,
    BillingOrder.key,
    BillingOrder.member_id,
    BillingOrder.case_id,
    BillingOrder.kind,
    BillingOrder.billing_ref,
    BillingOrder.price_minor,
    BillingOrder.currency,
    BillingOrder.billing_interval.label("interval"),
    BillingOrder.since,
    BillingOrder.at_once,
    BillingOrder.gives_up_at,
    BillingOrder.attempts,
    BillingOrder.lease_token,
)


@dataclass(frozen=True, slots=True)
class Settled:
    done: int = 0
    again: int = 0
    failed: int = 0
    closed: bool = False
    """The provider's address takes no more orders: the rest was left, and nothing is to be sent there."""

    def plus(self, outcome: BillingReceipt | BillingError) -> "Settled":
        match outcome:
            case BillingReceipt():
                return replace(self, done=self.done + 1)
            case BillingTemporary():
                return replace(self, again=self.again + 1)
            case _:
                return replace(self, failed=self.failed + 1)


def order(
    session: Session,
    *,
    kind: OrderKind,
    key: str,
    member: Member,
    now: datetime,
    case: Case | None = None,
    due_at: datetime | None = None,
    since: datetime | None = None,
    ended_before: dict[str, str] | None = None,
) -> bool:
    """Write down one order, with the price as it is now; False when there is one of this key already."""
    statement = (
        insert(session, BillingOrder)
        .values(
            key=key,
            member_id=member.id,
            case_id=None if case is None else case.id,
            kind=kind,
            billing_ref=member.billing_ref or member.public_id,
            price_minor=member.price_minor,
            currency=member.currency,
            billing_interval=member.billing_interval,
            since=since,
            ended_before=ended_before,
            created_at=now,
            due_at=due_at or now,
        )
        .on_conflict_do_nothing(index_elements=["key"])
        .returning(BillingOrder.id)
    )
    return session.scalar(statement) is not None


def supersede_untried_stop(session: Session, member_id: int, now: datetime) -> bool:
    """Take back a stop that no provider has seen yet; False when there is none, so that it needs an undo or restart."""
    superseded = session.execute(
        update(BillingOrder)
        .where(
            BillingOrder.member_id == member_id,
            BillingOrder.kind == OrderKind.STOP,
            BillingOrder.state == OrderState.QUEUED,
            BillingOrder.attempts == 0,
        )
        .values(state=OrderState.SUPERSEDED, done_at=now)
        .returning(BillingOrder.case_id)
        .execution_options(synchronize_session=False)
    ).all()
    for (case_id,) in superseded:
        events.record(session, "billing_superseded", now, detail=OrderKind.STOP, member_id=member_id, case_id=case_id)
    return bool(superseded)


def claim(session: Session, now: datetime, limit: int) -> list[Claimed]:
    """Take up to ``limit`` orders that are due or whose lease ran out, of members without an earlier unfinished one."""
    earlier = aliased(BillingOrder)
    due = (
        select(BillingOrder.id)
        .where(
            # A literal: only then do both databases see that the partial index, in the order asked for, covers this.
            literal_column("billing_order.state IN ('queued', 'working')"),
            or_(
                and_(BillingOrder.state == OrderState.QUEUED, BillingOrder.due_at <= now),
                and_(BillingOrder.state == OrderState.WORKING, BillingOrder.lease_until <= now),
            ),
            ~exists().where(
                earlier.member_id == BillingOrder.member_id,
                earlier.id < BillingOrder.id,
                earlier.state.in_(UNFINISHED_ORDERS),
            ),
        )
        .order_by(BillingOrder.due_at, BillingOrder.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=BillingOrder)
        .cte("due")
    )
    rows = session.execute(
        update(BillingOrder)
        .where(BillingOrder.id.in_(select(due.c.id)))
        .values(
            state=OrderState.WORKING,
            attempts=BillingOrder.attempts + 1,
            gives_up_at=func.coalesce(BillingOrder.gives_up_at, literal(now + PATIENCE, UTCDateTime())),
            lease_token=random_id(),
            lease_until=now + LEASE,
        )
        .returning(*_CLAIMED)
        .execution_options(synchronize_session=False)
    ).mappings()
    return sorted((Claimed(**{**row, "kind": OrderKind(row["kind"])}) for row in rows), key=lambda one: one.id)


def record(session: Session, claimed: Claimed, outcome: BillingReceipt | BillingError, now: datetime) -> bool:
    """Write down what the provider answered; False, and nothing written, when another took the order meanwhile."""
    values: dict[str, object] = {"lease_token": None, "lease_until": None}
    outcome = _judged(session, claimed, outcome, now)
    match outcome:
        case BillingReceipt():
            code = "billing_done"
            values |= {"state": OrderState.DONE, "receipt": outcome.reference, "error": None, "done_at": now}
            values |= {"read_back": None if outcome.read_back is None else as_told(outcome.read_back)}
            if outcome.refunded is not None and outcome.refunded.minor:
                values |= {"refunded_minor": outcome.refunded.minor, "currency": outcome.refunded.currency}
        case BillingTemporary():
            code = "billing_delayed"
            wait = backoff(claimed.attempts)
            if isinstance(outcome, BillingPending):
                # Many orders of one day are awaited together: they are not all asked about at the same instant.
                wait *= random.uniform(1, 1.25)
            values |= {"state": OrderState.QUEUED, "due_at": now + wait, "error": str(outcome)}
        case BillingGone() if claimed.kind is OrderKind.UNDO and _goes_on(session, claimed):
            # Asked for while the paid period ran, and it has run out: what was agreed to goes on with a new period.
            code = "billing_superseded"
            values |= {"state": OrderState.SUPERSEDED, "error": str(outcome), "done_at": now}
        case BillingRefused() if claimed.kind is OrderKind.RESTART:
            # Nobody has to mend this but the member, by another card, and that is another order.
            code = "payment_declined"
            values |= {"state": OrderState.SUPERSEDED, "error": str(outcome), "pay_at": outcome.pay_at, "done_at": now}
        case _:
            code = "billing_failed"
            values |= {"state": OrderState.FAILED, "error": str(outcome)}
    mine = session.scalar(
        update(BillingOrder)
        .where(
            BillingOrder.id == claimed.id,
            BillingOrder.state == OrderState.WORKING,
            BillingOrder.lease_token == claimed.lease_token,
        )
        .values(values)
        .returning(BillingOrder.id)
        .execution_options(synchronize_session=False)
    )
    if mine is None:
        return False
    if code == "payment_declined" and not _end_again(session, claimed, now):
        code = "billing_superseded"
    if isinstance(outcome, BillingReceipt) and claimed.kind is OrderKind.RESTART:
        # The period that a return has paid for is the one the next end must not cut short.
        learned = {"paid_through": outcome.next_charge_at, "billing_ref": outcome.billing_ref}
        news = {name: value for name, value in learned.items() if value is not None}
        if news:
            session.execute(
                update(Member)
                .where(Member.id == claimed.member_id, Member.status == MemberStatus.ACTIVE)
                .values(news)
                .execution_options(synchronize_session=False)
            )
    if isinstance(outcome, BillingGone) and code == "billing_superseded":
        _restart_instead(session, claimed, now)
    if isinstance(outcome, BillingReceipt) and claimed.kind is OrderKind.STOP and not claimed.at_once:
        _refund_if_late(session, claimed, now)
    if code == "billing_failed":
        # One mail a day, however many orders fail: what they are, the checks and `flask billing list` say.
        outbox.put_to_operators(session, Kind.NEEDS_ATTENTION, f"needs_attention:billing:{now:%Y-%m-%d}", now)
    if not (code == "billing_delayed" and claimed.attempts > 1):
        events.record(session, code, now, detail=claimed.kind, member_id=claimed.member_id, case_id=claimed.case_id)
    return True


def _judged(
    session: Session, claimed: Claimed, outcome: BillingReceipt | BillingError, now: datetime
) -> BillingReceipt | BillingError:
    """What an answer comes to: patience has an end; where a rest was to go back and nothing did, a person has to see to
    it; and only who has pressed a button that named the price is asked for another card."""
    match outcome:
        case BillingReceipt(refunded=Money(minor=0)) if claimed.kind is OrderKind.REFUND and claimed.at_once:
            return BillingPermanent("nothing went back: the provider has no charge for the time that had been paid")
        case BillingRefused() if claimed.kind is OrderKind.RESTART and not _takes_an_end_back(session, claimed):
            return BillingPermanent(str(outcome))
        case BillingTemporary() if claimed.gives_up_at is not None and now >= claimed.gives_up_at:
            return BillingPermanent(f"given up after {PATIENCE.days} days: {outcome}")
    return outcome


def _takes_an_end_back(session: Session, claimed: Claimed) -> bool:
    statement = select(BillingOrder.ended_before).where(BillingOrder.id == claimed.id)
    return session.scalars(statement).one() is not None


def _goes_on(session: Session, claimed: Claimed) -> bool:
    """Whether the member has asked for what this undo was to do, at a price, and nothing has come after it."""
    if not claimed.price_minor or claimed.currency is None:
        return False
    later = exists(
        select(BillingOrder.id).where(BillingOrder.member_id == claimed.member_id, BillingOrder.id > claimed.id)
    )
    statement = select(Member.id).where(
        Member.id == claimed.member_id, Member.status == MemberStatus.ACTIVE, Member.billed_by.is_(None), ~later
    )
    return session.scalar(statement) is not None


def _restart_instead(session: Session, claimed: Claimed, now: datetime) -> None:
    """At the price that was agreed to. It begins now: for the days in between nothing is charged."""
    session.execute(
        insert(session, BillingOrder)
        .values(
            key=f"restart:{claimed.key}"[:120],
            member_id=claimed.member_id,
            case_id=claimed.case_id,
            kind=OrderKind.RESTART,
            billing_ref=claimed.billing_ref,
            price_minor=claimed.price_minor,
            currency=claimed.currency,
            billing_interval=claimed.interval,
            created_at=now,
            due_at=now,
        )
        .on_conflict_do_nothing(index_elements=["key"])
    )


def acknowledge(session: Session, acknowledged: Acknowledged, now: datetime) -> bool:
    """Write down what the provider says later of an order; False for one that is none, or is finished already.

    A process that is sending the order once more at this moment finds its lease gone, and its answer is ignored.
    """
    token = secrets.token_hex(16)
    row = (
        session.execute(
            update(BillingOrder)
            .where(
                BillingOrder.key == acknowledged.key,
                BillingOrder.state.in_(UNFINISHED_ORDERS),
                BillingOrder.attempts > 0,
            )
            .values(state=OrderState.WORKING, lease_token=token, lease_until=now + LEASE)
            .returning(*_CLAIMED)
            .execution_options(synchronize_session=False)
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        return False
    claimed = Claimed(**{**row, "kind": OrderKind(row["kind"])})
    return record(session, claimed, acknowledged.outcome, now)


def _end_again(session: Session, claimed: Claimed, now: datetime) -> bool:
    """A return that was not paid for is none: the end holds again with its dates, and so does the link of its mail.

    False where the member has come back in another way meanwhile, or has gone for good.
    """
    before = session.scalars(select(BillingOrder.ended_before).where(BillingOrder.id == claimed.id)).one()
    ordered_at = session.scalars(select(BillingOrder.created_at).where(BillingOrder.id == claimed.id)).one()
    if before is None:
        return False
    ended = change(
        session,
        update(Member)
        .where(Member.id == claimed.member_id, Member.status == MemberStatus.ACTIVE, Member.returned_at == ordered_at)
        .values(status=MemberStatus.LAPSED, **{name: datetime.fromisoformat(at) for name, at in before.items()}),
    )
    if not ended:
        return False
    change(
        session,
        update(Message)
        .where(
            Message.member_id == claimed.member_id,
            Message.kind == Kind.WELCOME_BACK,
            Message.state == MessageState.QUEUED,
        )
        .values(state=MessageState.OBSOLETE),
    )
    change(
        session,
        update(MagicLink)
        .where(
            MagicLink.member_id == claimed.member_id,
            MagicLink.purpose == Purpose.COME_BACK,
            MagicLink.used_at >= ordered_at,
        )
        .values(used_at=None),
    )
    member = session.get_one(Member, claimed.member_id, populate_existing=True)
    outbox.put(session, kind=Kind.LAPSED, once_key=f"lapsed:declined:{claimed.key}"[:120], now=now, member=member)
    return True


def unconfirmed(kind: OrderKind, member: Any = Member) -> ColumnElement[bool]:
    """Whether an order of this kind is not on record as done: then nothing may say that it is."""
    return exists(
        select(BillingOrder.id).where(
            BillingOrder.member_id == member.id, BillingOrder.kind == kind, BillingOrder.state.in_(UNSETTLED)
        )
    )


def rest_of(case: Any = Case) -> ColumnElement[bool]:
    """Whether the end of a case gives back, or has given back, the rest of what was paid."""
    return exists(
        select(BillingOrder.id).where(
            BillingOrder.member_id == case.member_id,
            BillingOrder.case_id == case.id,
            BillingOrder.kind == OrderKind.REFUND,
            BillingOrder.at_once,
            BillingOrder.state != OrderState.SUPERSEDED,
        )
    )


def rest_unconfirmed(member: Any = Member) -> ColumnElement[bool]:
    """Whether the rest of a paid period is still to go back: then nothing may say how much did."""
    return exists(
        select(BillingOrder.id).where(
            BillingOrder.member_id == member.id,
            BillingOrder.kind == OrderKind.REFUND,
            BillingOrder.at_once,
            BillingOrder.state.in_(UNSETTLED),
        )
    )


WHAT_TO_DO = {
    OrderKind.STOP: "stop it at the provider by hand if it is urgent; a retry finds it stopped and is done",
    OrderKind.UNDO: "the member goes on here: begin the subscription again at the provider, or end it here as well",
    OrderKind.RESTART: "the member is active and not charged: mend the cause, or begin it at the provider by hand",
    OrderKind.REFUND: "give the money back at the provider by hand, then mark the order as done",
}
"""For operators, beside the provider's own words."""


def as_told(subscription: Subscription) -> dict[str, Any]:
    """What a provider says of a subscription, as it is kept with the order and shown as evidence: no personal data."""
    return {
        "billing_ref": subscription.billing_ref,
        "status": str(subscription.status),
        "stopping": subscription.stopping,
        "paid_through": _iso(subscription.paid_through),
        "next_charge_at": _iso(subscription.next_charge_at),
    }


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def _refund_if_late(session: Session, claimed: Claimed, now: datetime) -> None:
    """A stop that reached the provider after a period had begun for which nothing was owed: that charge goes back.

    A period begins where the paid one ended; where that is not known, a day is what a stop may take.
    """
    member = session.get(Member, claimed.member_id, populate_existing=True)
    ended_at = None if member is None else member.access_ends_at or member.erase_requested_at
    if member is None or ended_at is None or member.status == MemberStatus.ACTIVE:
        return
    renewed = member.paid_through is not None and ended_at <= member.paid_through < now
    if renewed or now - ended_at > TAKES_A_DAY:
        order(
            session,
            kind=OrderKind.REFUND,
            key=f"refund:{claimed.key}",
            member=member,
            now=now,
            since=ended_at,
        )


def failed_orders(session: Session) -> list[tuple[BillingOrder, Member]]:
    """The orders that wait for an operator, oldest first, with whom they concern."""
    rows = session.execute(
        select(BillingOrder, Member)
        .join(Member, Member.id == BillingOrder.member_id)
        .where(BillingOrder.state == OrderState.FAILED)
        .order_by(BillingOrder.id)
    )
    return [(order, member) for order, member in rows]


def backoff(attempts: int) -> timedelta:
    """How long to wait after so many attempts: a minute, doubled each time, at most six hours."""
    return min(FIRST_BACKOFF * (1 << min(attempts - 1, 20)), LONGEST_BACKOFF)


def retry(session: Session, order_id: int, now: datetime) -> None:
    """Queue a failed order again, under a new key: the provider has refused the old one for good.

    One that a restore has held back keeps its key: if the provider has carried it out, it says so and does no more.

    Raises Refused when it has not failed, or when a later order of the member has been carried out since.
    """
    row = session.scalar(select(BillingOrder).where(BillingOrder.id == order_id).with_for_update())
    if row is None:
        raise NotFound(f"there is no billing order {order_id}")
    if row.state != OrderState.FAILED:
        raise Refused(f"billing order {order_id} is {row.state}: only a failed one can be tried again")
    later = session.scalar(
        select(BillingOrder.id).where(
            BillingOrder.member_id == row.member_id,
            BillingOrder.id > row.id,
            BillingOrder.state.in_((*UNFINISHED_ORDERS, OrderState.DONE)),
        )
    )
    if later is not None:
        raise Refused(f"billing order {order_id} is out of date: order {later} of the same member came after it")
    if row.error != RESTORED:
        row.key = f"{row.key}:{row.attempts}"
    row.state, row.due_at, row.error, row.gives_up_at = OrderState.QUEUED, now, None, None
    session.flush()


def is_over(session: Session, key: str) -> bool:
    """Whether there is such an order that has been finished."""
    statement = select(BillingOrder.id).where(
        BillingOrder.key == key, BillingOrder.state.in_((OrderState.DONE, OrderState.FAILED, OrderState.SUPERSEDED))
    )
    return session.scalar(statement) is not None


def mark_done(session: Session, order_id: int, reference: str, now: datetime) -> None:
    """An operator has done at the provider by hand what a failed order asks for; ``reference`` says where to see it.

    Raises NotFound, or Refused when it has not failed.
    """
    row = session.scalar(select(BillingOrder).where(BillingOrder.id == order_id).with_for_update())
    if row is None:
        raise NotFound(f"there is no billing order {order_id}")
    if row.state != OrderState.FAILED:
        raise Refused(f"billing order {order_id} is {row.state}: only a failed one can be marked as done")
    row.state, row.receipt, row.error, row.done_at = OrderState.DONE, reference[:200], None, now
    session.flush()
    events.record(session, "billing_done", now, detail=row.kind, member_id=row.member_id, case_id=row.case_id)


def give_back(session: Session, claimed: list[Claimed]) -> None:
    """Return claimed orders untried: it was no attempt."""
    for one in claimed:
        change(
            session,
            update(BillingOrder)
            .where(BillingOrder.id == one.id, BillingOrder.lease_token == one.lease_token)
            .values(state=OrderState.QUEUED, lease_token=None, lease_until=None, attempts=BillingOrder.attempts - 1),
        )


def ask(billing: Billing, claimed: Claimed, now: datetime) -> BillingReceipt | BillingError:
    """Ask the provider for one order; what it cannot or will not do is an outcome as well."""
    if claimed.billing_ref is None:
        return BillingPermanent("the member has no reference at the billing provider: import one and try again")
    try:
        return _call(billing, claimed, claimed.billing_ref, now)
    except BillingError as error:
        return error


def _call(billing: Billing, claimed: Claimed, billing_ref: str, now: datetime) -> BillingReceipt:
    match claimed.kind:
        case OrderKind.STOP:
            return billing.stop(billing_ref, key=claimed.key, now=now, at_once=claimed.at_once)
        case OrderKind.UNDO:
            return billing.undo(billing_ref, key=claimed.key, now=now)
        case OrderKind.RESTART:
            if claimed.price_minor is None or claimed.currency is None:
                raise BillingPermanent("the order has no price: import one and try again")
            return billing.restart(
                billing_ref,
                price_minor=claimed.price_minor,
                currency=claimed.currency,
                interval=claimed.interval or "month",
                key=claimed.key,
                now=now,
            )
        case OrderKind.REFUND:
            if claimed.since is None:
                raise BillingPermanent("the refund does not say since when")
            return billing.refund(billing_ref, since=claimed.since, key=claimed.key, now=now, pro_rata=claimed.at_once)
        case _:
            assert_never(claimed.kind)
