"""Holding our records against the provider's: nobody whose membership has ended is charged, nobody charged is unknown.

Whatever an order of ours still has to change is left out, it is being settled. Repaired is only what cannot be meant
otherwise: a charge that goes on after an end is stopped, and facts are taken from the provider.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import exists, func, literal, or_, select
from sqlalchemy.orm import Session

from domain.errors import BillingUnknown
from domain.lifecycle import Answer, MemberStatus, OrderKind
from domain.policy import SubscriptionStatus
from domain.ports import Billing, Subscription
from models import BillingOrder, Case, Member, for_writing
from services import billing as orders
from services import provider_news
from services.billing import UNSETTLED
from services.selection import paying
from settings import Settings

PAGE = 100


class Kind(StrEnum):
    CHARGED_AFTER_END = "charged_after_end"
    CHARGED_THOUGH_ENDING = "charged_though_ending"
    CHARGED_TWICE = "charged_twice"
    CHARGED_ELSEWHERE = "charged_elsewhere"
    CHARGED_UNKNOWN = "charged_unknown"
    STOPS_THOUGH_ACTIVE = "stops_though_active"
    FACTS_DIFFER = "facts_differ"
    NOT_THERE = "not_there"


MEANS = {
    Kind.CHARGED_AFTER_END: "the membership has ended, and the provider goes on charging",
    Kind.CHARGED_THOUGH_ENDING: "the member has ended it, and the provider goes on charging",
    Kind.CHARGED_TWICE: "somebody else bills the membership, and the provider charges for it as well: ask the member",
    Kind.CHARGED_ELSEWHERE: "the membership has ended, and whoever bills it charges on: only the member can stop it",
    Kind.CHARGED_UNKNOWN: "the provider charges somebody who is no member here: import them, or stop it there",
    Kind.STOPS_THOUGH_ACTIVE: "the membership goes on here and ends at the provider: ask the member which is meant",
    Kind.FACTS_DIFFER: "status or price at the provider is another than here",
    Kind.NOT_THERE: "the provider knows no such subscription: mend the reference, and import",
}
CAN_BE_REPAIRED = (Kind.CHARGED_AFTER_END, Kind.CHARGED_THOUGH_ENDING, Kind.FACTS_DIFFER)


@dataclass(frozen=True, slots=True)
class Difference:
    kind: Kind
    external_id: str | None
    billing_ref: str
    detail: str = ""
    repaired: bool = False


def reconcile(
    session: Session,
    settings: Settings,
    billing: Billing,
    now: datetime,
    commit: Callable[[], None],
    *,
    fix: bool = False,
) -> Iterator[Difference]:
    """Every difference, one by one; no transaction is open while the provider is asked. Raises BillingError.

    With ``fix`` what can be repaired is, each in a transaction of its own: a stop is ordered, or facts are taken over.
    """
    seen: set[str] = set()
    cursor: str | None = None
    while True:
        page = billing.list(cursor, limit=PAGE, now=now)
        seen.update(one.billing_ref for one in page.subscriptions)
        members = _members(session, [ref for one in page.subscriptions for ref in (one.billing_ref, one.continues)])
        session.rollback()
        for one in page.subscriptions:
            found = _compare(one, members.get(one.billing_ref) or members.get(one.continues or ""))
            if found is not None:
                yield _repaired(session, settings, one, found, now, commit) if fix else found
        cursor = page.cursor
        if cursor is None:
            break
    yield from _missing(session, settings, billing, seen, now, commit, fix=fix)


def _members(session: Session, refs: list[str | None]) -> dict[str, Any]:
    wanted = [ref for ref in refs if ref is not None]
    reference = func.coalesce(Member.billing_ref, Member.public_id)
    ends = exists(
        select(literal(1)).where(Case.member_id == Member.id, Case.closed_at.is_(None), Case.answer == Answer.LAPSE)
    )
    rows = session.execute(
        select(
            Member.id,
            Member.external_id,
            Member.status,
            Member.subscription_status,
            Member.price_minor,
            Member.currency,
            Member.billed_by,
            reference.label("ref"),
            ends.label("ends"),
            _is_being_settled().label("settling"),
        ).where(or_(Member.billing_ref.in_(wanted), Member.public_id.in_(wanted)))
    )
    return {row.ref: row for row in rows}


def _is_being_settled() -> Any:
    return exists(select(BillingOrder.id).where(BillingOrder.member_id == Member.id, BillingOrder.state.in_(UNSETTLED)))


def _compare(there: Subscription, here: Any) -> Difference | None:
    def difference(kind: Kind, detail: str = "") -> Difference:
        return Difference(kind, None if here is None else here.external_id, there.billing_ref, detail)

    if here is None:
        return difference(Kind.CHARGED_UNKNOWN) if there.charges_on else None
    if here.settling:
        return None
    if here.status != MemberStatus.ACTIVE:
        kind = Kind.CHARGED_AFTER_END if there.can_stop else Kind.CHARGED_ELSEWHERE
        return difference(kind, there.billed_by or "") if there.charges_on else None
    if here.billed_by is not None and there.can_stop:
        return difference(Kind.CHARGED_TWICE, f"{here.billed_by} here") if there.charges_on else None
    if there.billed_by != here.billed_by:
        ours = here.billed_by or "the provider"
        return difference(Kind.FACTS_DIFFER, f"billed by {ours} here, by {there.billed_by} there")
    if here.ends and there.can_stop:
        return difference(Kind.CHARGED_THOUGH_ENDING) if there.charges_on else None
    if there.status != here.subscription_status:
        return difference(Kind.FACTS_DIFFER, f"{here.subscription_status} here, {there.status} there")
    if there.stopping:
        return difference(Kind.STOPS_THOUGH_ACTIVE)
    priced = there.price_minor is not None and (there.price_minor, there.currency) != (here.price_minor, here.currency)
    if priced:
        prices = f"{here.price_minor} {here.currency} here, {there.price_minor} {there.currency} there"
        return difference(Kind.FACTS_DIFFER, f"{prices}, in minor units")
    return None


def _repaired(
    session: Session,
    settings: Settings,
    there: Subscription,
    found: Difference,
    now: datetime,
    commit: Callable[[], None],
) -> Difference:
    if found.kind not in CAN_BE_REPAIRED:
        return found
    for_writing(session)
    done = True
    if found.kind is Kind.FACTS_DIFFER:
        provider_news.apply(session, settings, there, now)
    else:
        member = session.scalars(
            select(Member).where(Member.external_id == found.external_id).with_for_update(key_share=True)
        ).one()
        key = f"stop:found:{member.public_id}:{int(now.timestamp())}"
        done = orders.order(session, kind=OrderKind.STOP, key=key, member=member, now=now)
    commit()
    return Difference(found.kind, found.external_id, found.billing_ref, found.detail, repaired=done)


def _missing(
    session: Session,
    settings: Settings,
    billing: Billing,
    seen: set[str],
    now: datetime,
    commit: Callable[[], None],
    *,
    fix: bool,
) -> Iterator[Difference]:
    """Members who pay here and were not in the provider's list: it is asked about each of them."""
    last = 0
    while True:
        rows = session.execute(
            select(Member.id, Member.external_id, func.coalesce(Member.billing_ref, Member.public_id).label("ref"))
            # What others bill the provider need not know.
            .where(Member.id > last, paying(), Member.billed_by.is_(None), ~_is_being_settled())
            .order_by(Member.id)
            .limit(1000)
        ).all()
        session.rollback()
        if not rows:
            return
        last = rows[-1].id
        for row in rows:
            if row.ref in seen:
                continue
            try:
                there = billing.read(row.ref, now=now)
            except BillingUnknown:
                # Our own books open an account when it is first charged.
                if settings.billing != "local":
                    yield Difference(Kind.NOT_THERE, row.external_id, row.ref)
                continue
            if there.status == SubscriptionStatus.ENDED:
                found = Difference(Kind.FACTS_DIFFER, row.external_id, row.ref, "active here, ended there")
                yield _repaired(session, settings, there, found, now, commit) if fix else found
