"""Why: of one member, the facts, the decision, what was sent and answered, and what happened (design promise 10)."""

from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from domain import policy
from models import BillingOrder, Campaign, Case, Event, ListItem, Member, Message, Profile, SavedList, SignIn
from services import library
from services.cases import word_of
from services.together import Together
from settings import Settings


def _of_a_member() -> Together:
    member_id: Any = bindparam("member_id")
    case = (
        select(
            Campaign.month,
            Case.state,
            Case.rule,
            Case.answer,
            Case.warned_at,
            Case.deadline_at,
            Case.answered_at,
            Case.answered_through,
            Case.closed_at,
        )
        .outerjoin(Campaign, Campaign.id == Case.campaign_id)
        .where(Case.member_id == member_id)
        # The live case, or else the latest.
        .order_by(Case.closed_at.is_(None).desc(), Case.opened_at.desc(), Case.id.desc())
        .limit(1)
    )
    return Together(
        case=case,
        messages=select(Message.id, *_columns(Message, MESSAGE)).where(Message.member_id == member_id),
        orders=select(BillingOrder.id, *_columns(BillingOrder, ORDER)).where(BillingOrder.member_id == member_id),
        events=select(Event.id, *_columns(Event, EVENT)).where(Event.member_id == member_id),
        sign_ins=select(SignIn.id, *_columns(SignIn, SIGN_IN)).where(SignIn.member_id == member_id),
        profiles=select(*library.PROFILES).where(Profile.member_id == member_id),
        lists=select(*library.LISTS).where(SavedList.member_id == member_id),
        items=select(*library.ITEMS).where(ListItem.member_id == member_id),
    )


def _columns(table: Any, names: tuple[str, ...]) -> list[Any]:
    return [getattr(table, name) for name in names]


CASE = ("month", "state", "rule", "answer", "warned_at", "deadline_at", "answered_at", "answered_through")
MESSAGE = ("kind", "state", "due_at", "sent_at", "attempts", "message_id", "smtp_reply")
ORDER = ("kind", "state", "created_at", "due_at", "done_at", "attempts", "receipt", "error")
EVENT = ("at", "code", "detail")
SIGN_IN = ("device", "at")
OF_A_MEMBER = _of_a_member()


def member_evidence(
    session: Session, settings: Settings, member: Member, now: datetime, *, to_themselves: bool = False
) -> dict[str, Any]:
    """The object of `members show --json` (design section 6), by one query.

    Instants are ISO 8601 in UTC; ``reason`` is a code. Only the member is told of their devices.
    """
    decision = policy.assess(member.facts, settings.policy, now)
    found = OF_A_MEMBER.fetch(session, member_id=member.id)
    profiles = library.profiles_of(found["profiles"], found["lists"], found["items"])
    return {
        "external_id": member.external_id,
        "status": member.status,
        "exempt_reason": member.operator_exempt_reason or member.exempt_reason,
        "joined_at": _plain(member.joined_at),
        "last_used_at": _plain(member.last_used_at),
        "last_sign_of_life_at": _plain(member.last_sign_of_life_at),
        "dormant": decision.dormant,
        "rule": decision.code.value if decision.dormant else None,
        "reason": decision.code.value,
        "lapsed_at": _plain(member.lapsed_at),
        "keep_until": _plain(member.keep_until),
        "case": next((_told(case, CASE) | {"state": word_of(case)} for case in found["case"]), None),
        "messages": _in_order(found["messages"], MESSAGE),
        "billing_orders": _in_order(found["orders"], ORDER),
        "events": _in_order(found["events"], EVENT),
        "library": {"external_id": member.external_id, "profiles": profiles.get(member.id, [])},
        **({"sign_ins": _in_order(found["sign_ins"], SIGN_IN)} if to_themselves else {}),
    }


def note(session: Session, member_id: int) -> str | None:
    """What an operator noted with the live case, or the latest: how a member told them, or why a keep was void."""
    latest = select(Case.answer_note).where(Case.member_id == member_id)
    return session.scalar(
        latest.order_by(Case.closed_at.is_(None).desc(), Case.opened_at.desc(), Case.id.desc()).limit(1)
    )


def _in_order(rows: list[Any], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [_told(row, names) for row in sorted(rows, key=attrgetter("id"))]


def _told(row: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _plain(getattr(row, name)) for name in names}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
