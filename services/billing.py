"""Orders to the billing provider: written with the decision that causes them, struck out while no provider has heard of
them; and what may be said of those that are not on record as done.

Claimed and asked for in billing_asking.py, their answers written down in billing_answers.py, at the pace of
settling.py; what waits for an operator is in billing_desk.py.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, exists, select, update
from sqlalchemy.orm import Session

from domain.lifecycle import UNFINISHED_ORDERS, OrderKind, OrderState
from models import BillingOrder, Case, Member, insert
from models.base import is_one_of
from services import events

UNSETTLED = (*UNFINISHED_ORDERS, OrderState.FAILED)
"""Not on record as done: what such an order was to change may or may not hold at the provider."""


TAKES_A_DAY = timedelta(days=1)
"""So long a stop may take where it is not known until when had been paid."""


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
    paid_through: datetime | None = None,
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
            paid_through=paid_through,
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


def was_stopped(session: Session, case_id: int) -> bool:
    """Whether the provider may have heard of a stop of this case."""
    stop = select(BillingOrder.id).where(
        BillingOrder.case_id == case_id,
        BillingOrder.kind == OrderKind.STOP,
        BillingOrder.state != OrderState.SUPERSEDED,
        BillingOrder.attempts > 0,
    )
    return session.scalar(stop.limit(1)) is not None


def unconfirmed(kind: OrderKind, member: Any = Member) -> ColumnElement[bool]:
    """Whether an order of this kind is not on record as done: then nothing may say that it is."""
    return exists(
        select(BillingOrder.id).where(
            BillingOrder.member_id == member.id, BillingOrder.kind == kind, is_one_of(BillingOrder.state, UNSETTLED)
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
            is_one_of(BillingOrder.state, UNSETTLED),
        )
    )
