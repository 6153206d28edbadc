"""What a billing provider sends word of: written down at once, and asked of the provider after that.

Word may come twice, late, in any order or never; so nothing of it is believed but that something has changed. What
holds is read from the provider, and that is what the member's row gets. Words that come while the provider is asked
are asked about again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.orm import Session

from domain.errors import BillingError, BillingTemporary, BillingUnknown
from domain.lifecycle import MemberStatus, OrderKind
from domain.policy import SubscriptionStatus
from domain.ports import Billing, Clock, Subscription
from models import BillingNews, BillingOrder, Member, change, for_writing, insert
from models.base import random_id
from services import events, returning
from services.billing import UNSETTLED
from services.billing_answers import backoff
from services.cases import lock
from settings import Settings

LEASE = timedelta(minutes=5)
BATCH = 10


@dataclass(frozen=True, slots=True)
class Claimed:
    billing_ref: str
    heard: int
    attempts: int
    lease_token: str


def heard(session: Session, billing_refs: list[str], now: datetime) -> None:
    """Write down that something has changed with these subscriptions."""
    for ref in sorted(set(billing_refs)):
        statement = insert(session, BillingNews).values(billing_ref=ref, due_at=now)
        again = {"heard": BillingNews.heard + 1, "due_at": now, "attempts": 0}
        session.execute(statement.on_conflict_do_update(index_elements=["billing_ref"], set_=again))


def look(
    session: Session,
    settings: Settings,
    billing: Billing,
    clock: Clock,
    commit: Callable[[], None],
    enough: Callable[[], bool],
) -> int:
    """Ask about everything there is word of, until nothing is left or ``enough``; returns how many were asked about."""
    looked = 0
    while not enough():
        for_writing(session)
        claimed = _claim(session, clock.now())
        commit()
        if not claimed:
            break
        for one in claimed:
            found = _read(billing, one.billing_ref, clock.now())
            for_writing(session)
            if _record(session, one, found, clock.now()) and isinstance(found, Subscription):
                apply(session, settings, found, clock.now())
            commit()
            looked += 1
    return looked


def unread(session: Session) -> list[BillingNews]:
    """Word that the provider could not, or would not, be asked about, by reference: with what it said."""
    failed = select(BillingNews).where(BillingNews.error.is_not(None)).order_by(BillingNews.billing_ref)
    return list(session.scalars(failed))


def ask_again(session: Session, now: datetime) -> int:
    """Of those, the ones that nobody would ask about before the next word of them; how many."""
    given_up = and_(BillingNews.error.is_not(None), BillingNews.looked >= BillingNews.heard)
    return change(
        session, update(BillingNews).where(given_up).values(heard=BillingNews.heard + 1, due_at=now, attempts=0)
    )


def apply(session: Session, settings: Settings, found: Subscription, now: datetime) -> bool:
    """Bring a member's row in line with what the provider says now; False where no member has this subscription.

    A lapsed member changes only by a return: charged, and paid for longer than what was paid when it ended.
    """
    refs = [found.billing_ref] if found.continues is None else [found.billing_ref, found.continues]
    member_id = session.scalar(
        select(Member.id)
        .where(Member.billing_ref.in_(refs), Member.status != MemberStatus.PURGED)
        .order_by(Member.billing_ref != found.billing_ref)
        .limit(1)
    )
    member = None if member_id is None else lock(session, member_id)
    if member is None:
        return False
    if member.status == MemberStatus.LAPSED:
        until, known = found.paid_through, member.access_ends_at
        later = found.charges_on and until is not None and known is not None and until > known
        if later and not _is_ending(session, member.id, found.billing_ref):
            member.billing_ref, member.paid_through = found.billing_ref, found.paid_through
            member.billed_by = found.billed_by
            member.subscription_status = found.status
            session.flush()
            returning.returned_elsewhere(session, settings, now)
        return True
    if member.billing_ref != found.billing_ref and not found.charges_on:
        # One that was begun to continue another, and is over again.
        return True
    member.billing_ref, member.billed_by = found.billing_ref, found.billed_by
    changed = member.subscription_status != found.status
    member.subscription_status = found.status
    if found.paid_through is not None and found.status in (SubscriptionStatus.ACTIVE, SubscriptionStatus.TRIAL):
        member.paid_through = found.paid_through
    if found.price_minor is not None and found.currency is not None:
        member.price_minor, member.currency = found.price_minor, found.currency
        member.billing_interval = found.interval
    session.flush()
    if changed:
        events.record(session, "subscription_changed", now, detail=found.status, member_id=member.id)
    return True


def _is_ending(session: Session, member_id: int, billing_ref: str) -> bool:
    """A stop of this subscription is on its way: until it is on record, the provider still says that it charges."""
    statement = select(BillingOrder.id).where(
        BillingOrder.member_id == member_id,
        BillingOrder.billing_ref == billing_ref,
        BillingOrder.kind == OrderKind.STOP,
        BillingOrder.state.in_(UNSETTLED),
    )
    return session.scalar(statement.limit(1)) is not None


def _claim(session: Session, now: datetime) -> list[Claimed]:
    due = (
        select(BillingNews.billing_ref)
        .where(
            BillingNews.looked < BillingNews.heard,
            BillingNews.due_at <= now,
            or_(BillingNews.lease_until.is_(None), BillingNews.lease_until <= now),
        )
        .order_by(BillingNews.due_at, BillingNews.billing_ref)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    rows = session.execute(
        update(BillingNews)
        .where(BillingNews.billing_ref.in_(select(due.c.billing_ref)))
        .values(lease_token=random_id(), lease_until=now + LEASE, attempts=BillingNews.attempts + 1)
        .returning(BillingNews.billing_ref, BillingNews.heard, BillingNews.attempts, BillingNews.lease_token)
        .execution_options(synchronize_session=False)
    )
    return [Claimed(**row) for row in rows.mappings()]


def _read(billing: Billing, billing_ref: str, now: datetime) -> Subscription | BillingError:
    try:
        return billing.read(billing_ref, now=now)
    except BillingError as error:
        return error


def _record(session: Session, claimed: Claimed, found: Subscription | BillingError, now: datetime) -> bool:
    """False: another has taken it over meanwhile, with an answer that is newer."""
    values: dict[str, object] = {"lease_token": None, "lease_until": None, "looked": claimed.heard, "error": None}
    if isinstance(found, BillingTemporary):
        values |= {"looked": BillingNews.looked, "due_at": now + backoff(claimed.attempts), "error": str(found)}
    elif isinstance(found, BillingError) and not isinstance(found, BillingUnknown):
        values |= {"error": str(found)}
    mine = and_(BillingNews.billing_ref == claimed.billing_ref, BillingNews.lease_token == claimed.lease_token)
    # Nothing is kept of word that has been looked into: a reference outlives its member otherwise.
    if values["error"] is None and change(session, delete(BillingNews).where(mine, BillingNews.heard == claimed.heard)):
        return True
    return bool(change(session, update(BillingNews).where(mine).values(values)))
