"""What follows from the cases that a window of the month end closed: stop orders, refunds, mails and events.

Each statement takes up what the window (services/closing.py) has just written: its cases, by the name of its batch.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, String, and_, cast, exists, false, func, literal, or_, select, update
from sqlalchemy import case as when
from sqlalchemy.orm import Session

from domain.lifecycle import CaseState, MemberStatus, OrderKind, OrderState
from domain.notices import Kind
from domain.policy import SubscriptionStatus
from models import BillingOrder, Case, Member, change, insert
from models.base import UTCDateTime
from services import campaigns, events, outbox
from services.billing import TAKES_A_DAY


def what_follows(session: Session, ours: ColumnElement[bool], now: datetime) -> None:
    """Stop orders, mails and events of the cases this window closed."""
    stop = (
        select(
            # The stop that went with an answer, and was struck out since, has the shorter key.
            when((Case.answer.is_(None), "stop:"), else_="stop:end:")
            + Case.public_id
            + ":"
            + cast(Case.generation, String),
            Member.id,
            Case.id,
            literal(OrderKind.STOP.value),
            func.coalesce(Member.billing_ref, Member.public_id),
            _has_a_rest(),
            _instant(now),
            _instant(now),
        )
        .select_from(Case)
        .join(Member, Member.id == Case.member_id)
        # An explicit end has sent its stop with the answer, unless somebody else billed the membership at that time.
        .where(ours, Case.state == CaseState.LAPSED, or_(Case.answer.is_(None), and_(_is_billed(), ~_has_a_stop())))
    )
    columns = ["key", "member_id", "case_id", "kind", "billing_ref", "at_once", "created_at", "due_at"]
    change(
        session,
        insert(session, BillingOrder)
        .from_select(columns, stop, include_defaults=False)
        .on_conflict_do_nothing(index_elements=["key"]),
    )
    outbox.put_for_cases(
        session,
        Kind.LAPSED,
        outbox.case_key(Kind.LAPSED, Case.generation),
        now,
        ours,
        Case.state == CaseState.LAPSED,
        deadline=Case.deadline_at,
    )
    outbox.put_for_cases(
        session,
        Kind.TOLD,
        outbox.case_key(Kind.TOLD, Case.generation),
        now,
        ours,
        Case.state == CaseState.TOLD,
        deadline=Case.deadline_at,
    )
    outbox.put_for_cases(
        session,
        Kind.RETURNED,
        outbox.case_key(Kind.RETURNED, Case.generation),
        now,
        ours,
        Case.state == CaseState.RETURNED,
        Case.warned_at.is_not(None),
        # Who has left since is not told that the membership continues.
        Member.status == MemberStatus.ACTIVE,
        Member.subscription_status != SubscriptionStatus.ENDED,
    )
    campaigns.tell_nothing_ends(
        session,
        now,
        ours,
        Case.state.in_([CaseState.EXEMPTED, CaseState.WITHDRAWN]),
        Member.status == MemberStatus.ACTIVE,
    )
    events.record_all(session, events.of_cases("case_closed", Case.state, now).where(ours))


def give_back_what_came_before_its_stop(
    session: Session, ours: ColumnElement[bool], deadline: datetime, now: datetime
) -> None:
    """A stop that went with an answer, and is done, may have come after a period had begun for which nothing was owed:
    where a month end is late, and the answer came after its day. For other stops see billing_answers.refund_if_late.
    """
    late = or_(
        and_(Member.paid_through == Member.access_ends_at, BillingOrder.done_at > Member.access_ends_at),
        and_(Member.access_ends_at == deadline, BillingOrder.done_at > deadline + TAKES_A_DAY),
    )
    refund = (
        select(
            literal("refund:") + BillingOrder.key,
            Member.id,
            Case.id,
            literal(OrderKind.REFUND.value),
            BillingOrder.billing_ref,
            Member.access_ends_at,
            Member.paid_through,
            _instant(now),
            _instant(now),
        )
        .select_from(Case)
        .join(Member, Member.id == Case.member_id)
        .join(BillingOrder, BillingOrder.case_id == Case.id)
        .where(
            ours,
            Case.state == CaseState.LAPSED,
            Case.answer.is_not(None),
            BillingOrder.kind == OrderKind.STOP,
            BillingOrder.state == OrderState.DONE,
            late,
            # A rest that goes back anyway has it.
            ~_has_a_rest(),
        )
    )
    columns = ["key", "member_id", "case_id", "kind", "billing_ref", "since", "paid_through", "created_at", "due_at"]
    change(
        session,
        insert(session, BillingOrder)
        .from_select(columns, refund, include_defaults=False)
        .on_conflict_do_nothing(index_elements=["key"]),
    )


def give_back_the_rest(session: Session, ours: ColumnElement[bool], now: datetime) -> None:
    """REFUND=pro_rata: what was paid for the time after the end goes back, once what is left of it is over, too.

    The members' rows then say until when it is paid: else a return would count on what went back.
    """
    cut_short = (ours, Case.state == CaseState.LAPSED, _has_a_rest())
    what = literal(":") + Case.public_id + ":" + cast(Case.generation, String)
    same = [Member.id, Case.id, func.coalesce(Member.billing_ref, Member.public_id)]
    over = select(
        literal("stop:over") + what, literal(OrderKind.STOP.value), *same, literal(True), _instant(now), _instant(now),
        literal(None, UTCDateTime()), literal(None, UTCDateTime()),
    ).where(*cut_short, Case.answer.is_not(None))  # fmt: skip
    rest = select(
        literal("refund") + what, literal(OrderKind.REFUND.value), *same, literal(True), _instant(now), _instant(now),
        Member.access_ends_at, Member.paid_through,
    ).where(*cut_short)  # fmt: skip
    columns = [
        "key", "kind", "member_id", "case_id", "billing_ref", "at_once", "created_at", "due_at", "since",
        "paid_through",
    ]  # fmt: skip
    # In this order: of one member's orders the first one written is carried out first.
    for orders in (over, rest):
        change(
            session,
            insert(session, BillingOrder)
            .from_select(columns, orders.join(Member, Member.id == Case.member_id), include_defaults=False)
            .on_conflict_do_nothing(index_elements=["key"]),
        )
    lapsed = select(Case.member_id).where(ours, Case.state == CaseState.LAPSED)
    change(
        session,
        update(Member)
        .where(Member.id.in_(lapsed), Member.status == MemberStatus.LAPSED, _has_a_rest())
        .values(paid_through=Member.access_ends_at),
    )


def _has_a_rest() -> ColumnElement[bool]:
    """A member who has just lapsed has paid for longer than there is access."""
    return func.coalesce(Member.access_ends_at < Member.paid_through, false())


def _is_billed() -> ColumnElement[bool]:
    """decisions.is_billed in SQL, of a member whose case has lapsed."""
    charged = or_(func.coalesce(Member.price_minor, 0) > 0, Member.billing_ref.is_not(None))
    return and_(Member.subscription_status != SubscriptionStatus.ENDED, charged)


def _has_a_stop() -> ColumnElement[bool]:
    return exists(
        select(BillingOrder.id).where(
            BillingOrder.case_id == Case.id,
            BillingOrder.kind == OrderKind.STOP,
            BillingOrder.state != OrderState.SUPERSEDED,
        )
    )


def _instant(value: datetime) -> ColumnElement[Any]:
    return literal(value, UTCDateTime())
