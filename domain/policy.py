"""Who is dormant. This is the only place that decides it.

A member is **dormant** when active, paying, not exempt, and one of two rules holds:

- ``never_used``: no use is on record, and the last sign of life is 12 months old or more;
- ``stopped_using``: use is on record, and the last sign of life is 24 months old or more.

The **sign of life** is the latest of: joined, last use, last keep, last return; and, where the service has recorded use
only since a certain day, that day. Months are calendar months in the service's time zone and the boundary day is in:
who joined on 3 March 2025 is due on 3 March 2026. **Paying** means that a stop would save money: a price over zero and
a subscription that is ``active``; trial, paused, past due and ended are out, each with its own reason.

The one set-based form of this is ``services/selection.py``; a property test holds the two together.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum

from domain import dates


class Code(StrEnum):
    """Why a member is in or out. The first two are in; the order of the others is the order in which they are asked."""

    NEVER_USED = "never_used"
    STOPPED_USING = "stopped_using"

    NOT_ACTIVE = "not_active"
    EXEMPT_BY_OPERATOR = "exempt_by_operator"
    EXEMPT_BY_IMPORT = "exempt_by_import"
    EXEMPT_PLAN = "exempt_plan"
    FREE = "free"
    TRIAL = "trial"
    PAUSED = "paused"
    PAST_DUE = "past_due"
    SUBSCRIPTION_ENDED = "subscription_ended"
    USE_UNKNOWN = "use_unknown"
    RECENT = "recent"


DORMANT = frozenset({Code.NEVER_USED, Code.STOPPED_USING})


class SubscriptionStatus(StrEnum):
    ACTIVE = "active"
    TRIAL = "trial"
    PAUSED = "paused"
    PAST_DUE = "past_due"
    ENDED = "ended"


NOT_PAYING = {
    SubscriptionStatus.TRIAL: Code.TRIAL,
    SubscriptionStatus.PAUSED: Code.PAUSED,
    SubscriptionStatus.PAST_DUE: Code.PAST_DUE,
    SubscriptionStatus.ENDED: Code.SUBSCRIPTION_ENDED,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules' numbers, as an operator set them."""

    zone: tzinfo
    never_used_months: int = 12
    stopped_using_months: int = 24
    use_known_since: datetime | None = None
    exempt_plans: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Facts:
    """What is on record of one member: a snapshot."""

    status: str
    joined_at: datetime
    last_used_at: datetime | None = None
    last_kept_at: datetime | None = None
    returned_at: datetime | None = None
    plan: str | None = None
    price_minor: int | None = None
    subscription_status: str = SubscriptionStatus.ACTIVE
    exempt_reason: str | None = None
    operator_exempt_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A code and the facts it rests on; ``months`` are whole months since the sign of life."""

    code: Code
    sign_of_life_at: datetime
    months: int

    @property
    def dormant(self) -> bool:
        return self.code in DORMANT


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """The exclusive bounds a sign of life must lie before; a day is due when it is wholly before its bound."""

    never_used: datetime
    stopped_using: datetime


def cutoffs(policy: Policy, now: datetime) -> Cutoffs:
    today = dates.local_day(now, policy.zone)

    def bound(months: int) -> datetime:
        return dates.start_of_day(dates.months_back(today, months) + timedelta(days=1), policy.zone)

    return Cutoffs(bound(policy.never_used_months), bound(policy.stopped_using_months))


def sign_of_life(facts: Facts) -> datetime:
    """The member's own latest sign of life; the database keeps the same in ``last_sign_of_life_at``."""
    signs = (facts.joined_at, facts.last_used_at, facts.last_kept_at, facts.returned_at)
    return max(sign for sign in signs if sign is not None)


def assess(facts: Facts, policy: Policy, now: datetime) -> Decision:
    """Whether this member is dormant at ``now``, and why or why not."""
    sign = sign_of_life(facts)
    today = dates.local_day(now, policy.zone)
    months = max(0, dates.months_between(dates.local_day(sign, policy.zone), today))

    def decided(code: Code) -> Decision:
        return Decision(code, sign, months)

    if facts.status != "active":
        return decided(Code.NOT_ACTIVE)
    if facts.operator_exempt_reason is not None:
        return decided(Code.EXEMPT_BY_OPERATOR)
    if facts.exempt_reason is not None:
        return decided(Code.EXEMPT_BY_IMPORT)
    if facts.plan in policy.exempt_plans:
        return decided(Code.EXEMPT_PLAN)
    if not facts.price_minor:
        return decided(Code.FREE)
    if facts.subscription_status != SubscriptionStatus.ACTIVE:
        return decided(NOT_PAYING[SubscriptionStatus(facts.subscription_status)])

    bounds = cutoffs(policy, now)
    rule, bound = (
        (Code.NEVER_USED, bounds.never_used)
        if facts.last_used_at is None
        else (Code.STOPPED_USING, bounds.stopped_using)
    )
    if sign >= bound:
        return decided(Code.RECENT)
    if policy.use_known_since is not None and policy.use_known_since >= bound:
        return decided(Code.USE_UNKNOWN)
    return decided(rule)
