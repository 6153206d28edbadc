"""Billing orders that wait for an operator: which they are, trying them again, and having done them by hand."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.errors import NotFound, Refused
from domain.lifecycle import UNFINISHED_ORDERS, OrderKind, OrderState
from models import BillingOrder, Member
from services import billing_answers, events

RESTORED = "the database was restored: look at the provider whether this has been done, then try again"
"""The error of an order that waited when a backup was made (services/restoring.py)."""

WHAT_TO_DO = {
    OrderKind.STOP: "stop it at the provider by hand if it is urgent; a retry finds it stopped and is done",
    OrderKind.UNDO: "the member goes on here: begin the subscription again at the provider, or end it here as well",
    OrderKind.RESTART: "the member is active and not charged: mend the cause, or begin it at the provider by hand",
    OrderKind.REFUND: "give the money back at the provider by hand, then mark the order as done",
}
"""For operators, beside the provider's own words."""


def failed_orders(session: Session) -> list[tuple[BillingOrder, Member]]:
    """The orders that wait for an operator, oldest first, with whom they concern."""
    rows = session.execute(
        select(BillingOrder, Member)
        .join(Member, Member.id == BillingOrder.member_id)
        .where(BillingOrder.state == OrderState.FAILED)
        .order_by(BillingOrder.id)
    )
    return [(order, member) for order, member in rows]


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
    if row.kind == OrderKind.STOP and not row.at_once:
        billing_answers.refund_if_late(session, row.member_id, row.key, now)


def is_over(session: Session, key: str) -> bool:
    """Whether there is such an order that has been finished."""
    statement = select(BillingOrder.id).where(
        BillingOrder.key == key, BillingOrder.state.in_((OrderState.DONE, OrderState.FAILED, OrderState.SUPERSEDED))
    )
    return session.scalar(statement) is not None
