"""What members who are asked have really paid since they last used it, where the provider tells.

Asked for in the background, case by case, and again after a week, since charges go on meanwhile; pages and mails say as
of which day. Whatever the provider cannot tell, or knows only a part of, is estimated instead (services/wording.py).
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from domain import dates
from domain.errors import BillingError
from domain.money import Money
from domain.ports import Billing, Charge, Clock
from models import Case, Member, change, for_writing
from settings import Settings

BATCH = 20
ASKED_AGAIN_AFTER = timedelta(days=7)
LATE = timedelta(days=7)
"""So much later than it was due a charge may be made, after a declined card for one."""


def look(
    session: Session,
    settings: Settings,
    billing: Billing,
    clock: Clock,
    commit: Callable[[], None],
    enough: Callable[[], bool],
) -> int:
    """Ask what was charged, for everybody who is being asked, until that is known or ``enough``; how many it was."""
    looked = 0
    while not enough():
        for_writing(session)
        found = _claim(session, clock.now())
        commit()
        if not found:
            break
        amounts: list[dict[str, Any]] = []
        for one in found:
            try:
                charges = billing.charges(one.ref, since=one.since)
            except BillingError:
                # It is asked again in a week; until then there is the estimate.
                continue
            if charges is None:
                # This provider tells nobody's.
                return looked
            paid = added_up(charges, one.since, one.interval, settings)
            amounts.append(
                {
                    "id": one.id,
                    "paid_minor": None if paid is None else paid.minor,
                    "paid_currency": None if paid is None else paid.currency,
                }
            )
        if amounts:
            for_writing(session)
            # A case that a month end holds at this moment is left as it is: waited for, the two might wait in a ring.
            free = select(Case.id).where(Case.id.in_([one["id"] for one in amounts]))
            held = set(session.scalars(free.with_for_update(skip_locked=True, key_share=True)))
            mine = [one for one in amounts if one["id"] in held]
            if mine:
                session.execute(update(Case), mine)
            commit()
        looked += len(found)
    return looked


def added_up(charges: Sequence[Charge], since: datetime, interval: str | None, settings: Settings) -> Money | None:
    """What was charged less what went back; None where that is not all, or not of one currency."""
    if not charges or len({charge.currency for charge in charges}) > 1:
        return None
    known = interval if interval in dates.INTERVALS else "month"
    if charges[0].charged_at > dates.following_charge(since, known, since, settings.zone) + LATE:
        # There must have been some before: the provider has not charged this member for all of the time.
        return None
    return Money(sum(charge.amount_minor - charge.refunded_minor for charge in charges), charges[0].currency)


def _claim(session: Session, now: datetime) -> Sequence[Any]:
    """The next cases to ask about, noted as asked: whoever dies over them leaves them to next week."""
    due = (
        select(Case.id)
        .join(Member, Member.id == Case.member_id)
        .where(
            Case.closed_at.is_(None),
            or_(Case.paid_asked_at.is_(None), Case.paid_asked_at <= now - ASKED_AGAIN_AFTER),
            Case.campaign_id.is_not(None),
            Case.found_sign_of_life_at.is_not(None),
            # Whoever else bills it has not told us what it took.
            Member.billed_by.is_(None),
        )
        .limit(BATCH)
        .with_for_update(skip_locked=True, key_share=True, of=Case)
    )
    ids = list(session.scalars(due))
    if not ids:
        return []
    change(session, update(Case).where(Case.id.in_(ids)).values(paid_asked_at=now))
    return session.execute(
        select(
            Case.id,
            Case.found_sign_of_life_at.label("since"),
            Member.billing_interval.label("interval"),
            func.coalesce(Member.billing_ref, Member.public_id).label("ref"),
        )
        .join(Member, Member.id == Case.member_id)
        .where(Case.id.in_(ids))
        .order_by(Case.id)
    ).all()
