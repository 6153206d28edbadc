"""Why: of one member, the facts, the decision, what was sent and answered, and what happened (design promise 10)."""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain import policy
from domain.lifecycle import Answer, CaseState
from models import BillingOrder, Campaign, Case, Event, Member, Message
from services import library
from settings import Settings


def member_evidence(session: Session, settings: Settings, member: Member, now: datetime) -> dict[str, Any]:
    """The object of `members show --json` (design section 6). Instants are ISO 8601 in UTC; ``reason`` is a code."""
    decision = policy.assess(member.facts, settings.policy, now)
    return {
        "external_id": member.external_id,
        "status": member.status,
        "exempt_reason": member.operator_exempt_reason or member.exempt_reason,
        "joined_at": _iso(member.joined_at),
        "last_used_at": _iso(member.last_used_at),
        "last_sign_of_life_at": _iso(member.last_sign_of_life_at),
        "dormant": decision.dormant,
        "rule": decision.code.value if decision.dormant else None,
        "reason": decision.code.value,
        "lapsed_at": _iso(member.lapsed_at),
        "keep_until": _iso(member.keep_until),
        "case": _case(session, member.id),
        "messages": _messages(session, member.id),
        "billing_orders": _billing_orders(session, member.id),
        "events": _events(session, member.id),
        "library": library.load(session, member.id),
    }


def state_of(case: Case) -> str:
    """How a case stands: ``open``, ``kept`` or ``lapsing`` once answered, or how it ended."""
    if case.closed_at is None and case.answer is not None:
        return CaseState.KEPT.value if case.answer == Answer.KEEP else "lapsing"
    return case.state


def _case(session: Session, member_id: int) -> dict[str, Any] | None:
    """The live case, or else the latest."""
    found = session.execute(
        select(Case, Campaign.month)
        .outerjoin(Campaign, Campaign.id == Case.campaign_id)
        .where(Case.member_id == member_id)
        .order_by(Case.closed_at.is_(None).desc(), Case.opened_at.desc(), Case.id.desc())
        .limit(1)
    ).first()
    if found is None:
        return None
    case, month = found
    return {
        "month": month,
        "state": state_of(case),
        "rule": case.rule,
        "answer": case.answer,
        "warned_at": _iso(case.warned_at),
        "deadline_at": _iso(case.deadline_at),
        "answered_at": _iso(case.answered_at),
        "answered_through": case.answered_through,
    }


def _messages(session: Session, member_id: int) -> list[dict[str, Any]]:
    rows = session.scalars(select(Message).where(Message.member_id == member_id).order_by(Message.id))
    return [
        {
            "kind": row.kind,
            "state": row.state,
            "due_at": _iso(row.due_at),
            "sent_at": _iso(row.sent_at),
            "attempts": row.attempts,
            "message_id": row.message_id,
            "smtp_reply": row.smtp_reply,
        }
        for row in rows
    ]


def _billing_orders(session: Session, member_id: int) -> list[dict[str, Any]]:
    rows = session.scalars(select(BillingOrder).where(BillingOrder.member_id == member_id).order_by(BillingOrder.id))
    return [
        {
            "kind": row.kind,
            "state": row.state,
            "created_at": _iso(row.created_at),
            "due_at": _iso(row.due_at),
            "done_at": _iso(row.done_at),
            "attempts": row.attempts,
            "receipt": row.receipt,
            "error": row.error,
        }
        for row in rows
    ]


def _events(session: Session, member_id: int) -> list[dict[str, Any]]:
    rows = session.scalars(select(Event).where(Event.member_id == member_id).order_by(Event.id))
    return [{"at": _iso(row.at), "code": row.code, "detail": row.detail} for row in rows]


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
