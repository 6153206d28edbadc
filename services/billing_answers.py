"""What the billing provider has answered to an order, and what follows from it for the member.

In one transaction, under the lease of whoever has asked: whose lease another has taken meanwhile is ignored.
"""

import random
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from domain.errors import (
    BillingElsewhere,
    BillingError,
    BillingGone,
    BillingPending,
    BillingPermanent,
    BillingRefused,
    BillingTemporary,
)
from domain.lifecycle import UNFINISHED_ORDERS, MemberStatus, MessageState, OrderKind, OrderState
from domain.links import Purpose
from domain.money import Money
from domain.notices import Kind
from domain.ports import Acknowledged, BillingReceipt, Subscription
from models import BillingOrder, MagicLink, Member, Message, change, insert
from services import billing, events, outbox, returning
from services.billing_asking import CLAIMED, LEASE, PATIENCE, Claimed

FIRST_BACKOFF = timedelta(minutes=1)

LONGEST_BACKOFF = timedelta(hours=6)


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
        case BillingElsewhere() if claimed.kind is OrderKind.STOP and not _is_being_erased(session, claimed):
            # Nobody here can mend that either: the member is told who can.
            code = "billing_superseded"
            values |= {"state": OrderState.SUPERSEDED, "error": str(outcome), "done_at": now}
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
    if isinstance(outcome, BillingElsewhere) and code == "billing_superseded":
        returning.told_elsewhere(session, claimed.member_id, outcome.billed_by, now)
    if isinstance(outcome, BillingGone) and code == "billing_superseded":
        _restart_instead(session, claimed, now)
    if isinstance(outcome, BillingReceipt) and claimed.kind is OrderKind.STOP and not claimed.at_once:
        held = outcome.read_back
        refund_if_late(session, claimed.member_id, claimed.key, now, None if held is None else held.paid_through)
    if code == "billing_failed":
        # One mail a day, however many orders fail: what they are, the checks and `flask billing list` say.
        outbox.put_to_operators(session, Kind.NEEDS_ATTENTION, f"needs_attention:billing:{now:%Y-%m-%d}", now)
    if not (code == "billing_delayed" and claimed.attempts > 1):
        events.record(session, code, now, detail=claimed.kind, member_id=claimed.member_id, case_id=claimed.case_id)
    if code == "payment_declined":
        returning.reverse_what_was_refuted(session, claimed.member_id, now)
    return True


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
            .returning(*CLAIMED)
            .execution_options(synchronize_session=False)
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        return False
    claimed = Claimed(**{**row, "kind": OrderKind(row["kind"])})
    return record(session, claimed, acknowledged.outcome, now)


def _judged(
    session: Session, claimed: Claimed, outcome: BillingReceipt | BillingError, now: datetime
) -> BillingReceipt | BillingError:
    """What an answer comes to: what holds at the provider counts, not what it calls done; patience has an end; where a
    rest was to go back and nothing did, a person has to see to it; and only who has pressed a button that named the
    price is asked for another card."""
    match outcome:
        case BillingReceipt(read_back=Subscription() as held) if _contradicts(claimed.kind, held):
            if claimed.kind is OrderKind.STOP and held.billed_by is not None:
                return BillingElsewhere(f"{held.billed_by} charges for it by itself", held.billed_by)
            goes_on = "goes on charging" if held.charges_on else "charges no more"
            return BillingPermanent(f"the provider calls it done, and says when asked that it {goes_on}")
        case BillingReceipt(refunded=Money(minor=0)) if claimed.kind is OrderKind.REFUND and claimed.at_once:
            return BillingPermanent("nothing went back: the provider has no charge for the time that had been paid")
        case BillingRefused() if claimed.kind is OrderKind.RESTART and not _takes_an_end_back(session, claimed):
            return BillingPermanent(str(outcome))
        case BillingTemporary() if claimed.gives_up_at is not None and now >= claimed.gives_up_at:
            return BillingPermanent(f"given up after {PATIENCE.days} days: {outcome}")
    return outcome


def _contradicts(kind: OrderKind, held: Subscription) -> bool:
    """What the provider said when it was asked again is not what the order was for."""
    return kind is not OrderKind.REFUND and held.charges_on is (kind is OrderKind.STOP)


def _is_being_erased(session: Session, claimed: Claimed) -> bool:
    """Then nothing is left to tell the member by: a person has to, before the address goes."""
    statement = select(Member.erase_requested_at).where(Member.id == claimed.member_id)
    return session.scalars(statement).one() is not None


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


def refund_if_late(
    session: Session, member_id: int, key: str, now: datetime, told_until: datetime | None = None
) -> None:
    """A stop, by its key, that reached the provider after a period had begun for which nothing was owed: that charge
    goes back.

    A period begins where the paid one ended, and a file may have told of it; where that is not known, a day is what a
    stop may take. ``told_until``: until when the provider says that it is paid, which a file may say later.
    """
    member = session.get(Member, member_id, populate_existing=True)
    ended_at = None if member is None else member.access_ends_at or member.erase_requested_at
    if member is None or ended_at is None or member.status == MemberStatus.ACTIVE:
        return
    paid = member.paid_through
    renewed = paid is not None and (
        ended_at <= paid < now or (member.access_ends_at is not None and paid > member.access_ends_at)
    )
    if renewed or now - ended_at > billing.TAKES_A_DAY:
        billing.order(
            session,
            kind=OrderKind.REFUND,
            key=f"refund:{key}",
            member=member,
            now=now,
            since=ended_at,
            paid_through=max(filter(None, (paid, told_until)), default=None),
        )


def backoff(attempts: int) -> timedelta:
    """How long to wait after so many attempts: a minute, doubled each time, at most six hours."""
    return min(FIRST_BACKOFF * (1 << min(attempts - 1, 20)), LONGEST_BACKOFF)


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
