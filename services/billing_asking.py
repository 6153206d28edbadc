"""Asking the billing provider for orders: claimed with a lease, one after another a member.

An order is claimed in a transaction of its own; the provider is asked with no transaction open; its answer is recorded
under the lease's token (billing_answers.py). A process that dies in between leaves the lease behind: when it has run
out, another asks again with the same key, and the provider answers what it answered before.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from sqlalchemy import and_, exists, func, literal, literal_column, or_, select, update
from sqlalchemy.orm import Session, aliased

from domain.errors import BillingError, BillingPermanent
from domain.lifecycle import UNFINISHED_ORDERS, OrderKind, OrderState
from domain.ports import Billing, BillingReceipt
from models import BillingOrder, change
from models.base import UTCDateTime, random_id

LEASE = timedelta(minutes=10)

BATCH = 10
"""So many are claimed at once: few enough that a slow provider answers all of them within the lease."""

PATIENCE = timedelta(days=7)
"""So long an order is asked for again; then a person has to see to it."""


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


CLAIMED = (
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
        .returning(*CLAIMED)
        .execution_options(synchronize_session=False)
    ).mappings()
    return sorted((Claimed(**{**row, "kind": OrderKind(row["kind"])}) for row in rows), key=lambda one: one.id)


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
