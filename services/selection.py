"""The one set-based form of ``domain/policy.py``; tests/services/test_selection.py holds the two together.

``reason`` gives every member's policy.Code and reads them all; ``dormant`` gives only the dormant, through two partial
indexes, in a time that does not grow with the membership.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, false, func, literal_column, or_, select, true, union_all
from sqlalchemy.sql.selectable import CompoundSelect

from domain.lifecycle import MemberStatus
from domain.policy import NOT_PAYING, Code, Policy, cutoffs
from models import Member
from models.member import paying_and_not_exempt


def reason(policy: Policy, now: datetime) -> ColumnElement[str]:
    """policy.Code of each member as one CASE, its branches in the order in which policy.assess asks."""
    bounds = cutoffs(policy, now)
    used = Member.last_used_at.is_not(None)
    recent = case(
        (used, Member.last_sign_of_life_at >= bounds.stopped_using),
        else_=Member.last_sign_of_life_at >= bounds.never_used,
    )
    unknown = case(
        (used, _unknown(policy, bounds.stopped_using)),
        else_=_unknown(policy, bounds.never_used),
    )
    return case(
        (Member.status != MemberStatus.ACTIVE, Code.NOT_ACTIVE),
        (Member.operator_exempt_reason.is_not(None), Code.EXEMPT_BY_OPERATOR),
        (Member.exempt_reason.is_not(None), Code.EXEMPT_BY_IMPORT),
        (func.coalesce(Member.plan, "").in_(sorted(policy.exempt_plans)), Code.EXEMPT_PLAN),
        (func.coalesce(Member.price_minor, 0) == 0, Code.FREE),
        *((Member.subscription_status == status, code) for status, code in NOT_PAYING.items()),
        (recent, Code.RECENT),
        (unknown, Code.USE_UNKNOWN),
        (used, Code.STOPPED_USING),
        else_=Code.NEVER_USED,
    )


def dormant(policy: Policy, now: datetime, columns: list[Any], *more: ColumnElement[bool]) -> CompoundSelect[Any]:
    """``columns`` and, last, the rule of every dormant member for whom ``more`` holds too.

    Two selects joined by UNION ALL, not one with OR: each is answered by its own partial index.
    """
    bounds = cutoffs(policy, now)

    def one(code: Code, used: ColumnElement[bool], bound: datetime) -> Select[Any]:
        return select(*columns, literal_column(f"'{code}'").label("rule")).where(
            paying_and_not_exempt(),
            used,
            Member.last_sign_of_life_at < bound,
            not_exempt_plan(policy.exempt_plans),
            false() if _is_unknown(policy, bound) else true(),
            *more,
        )

    return union_all(
        one(Code.NEVER_USED, Member.last_used_at.is_(None), bounds.never_used),
        one(Code.STOPPED_USING, Member.last_used_at.is_not(None), bounds.stopped_using),
    )


def not_exempt_plan(exempt_plans: frozenset[str] | tuple[str, ...]) -> ColumnElement[bool]:
    if not exempt_plans:
        return true()
    return or_(Member.plan.is_(None), Member.plan.not_in(sorted(exempt_plans)))


def paying() -> ColumnElement[bool]:
    """A stop would save money; whether the member is exempt does not matter here."""
    return and_(
        Member.status == literal_column("'active'"),
        Member.subscription_status == literal_column("'active'"),
        Member.price_minor > literal_column("0"),
    )


def _is_unknown(policy: Policy, bound: datetime) -> bool:
    return policy.use_known_since is not None and policy.use_known_since >= bound


def _unknown(policy: Policy, bound: datetime) -> ColumnElement[bool]:
    return true() if _is_unknown(policy, bound) else false()
