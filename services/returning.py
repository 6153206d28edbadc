"""Coming back: by an order on the page, by use that turns out to have come before the end, or elsewhere.

The member's row decides: every return is an UPDATE of it that asks for ``lapsed``, and so is the purge. Whichever comes
second finds nothing to do.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    String,
    Table,
    and_,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy import case as when
from sqlalchemy.orm import Session

from domain import dates
from domain.errors import QuoteChanged, Refused
from domain.lifecycle import Answer, CaseState, MailState, MemberStatus, MessageState, OrderKind, OrderState
from domain.notices import Kind
from domain.policy import SubscriptionStatus
from models import BillingOrder, Case, Member, Message, change, insert
from models.base import UTCDateTime, latest
from services import billing, events, outbox
from services.cases import lock, lock_members, new_batch
from services.closing import keep_until_in_sql
from services.decisions import is_billed
from settings import Settings

BOUNCE_REVERSES = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Quote:
    """What the come-back page offers. ``kind`` is undo inside the paid period, restart after it."""

    kind: str
    price_minor: int | None
    currency: str | None
    interval: str | None
    first_charge_at: datetime | None
    """When money is taken next: the old billing date for undo, now for restart, None where nothing is charged."""
    saved_until: datetime

    def matches(self, other: "Quote", settings: Settings) -> bool:
        """Whether somebody who agreed to ``other`` has agreed to this: same kind, same price, same day."""

        def day(instant: datetime | None) -> object:
            return None if instant is None else dates.local_day(instant, settings.zone)

        return (self.kind, self.price_minor, self.currency, self.interval, day(self.first_charge_at)) == (
            other.kind,
            other.price_minor,
            other.currency,
            other.interval,
            day(other.first_charge_at),
        )


def quote(member: Member, settings: Settings, now: datetime) -> Quote:
    """What coming back now would be. Raises Refused for who is not lapsed."""
    if member.status != MemberStatus.LAPSED or member.access_ends_at is None or member.keep_until is None:
        raise Refused("There is no ended membership to come back to.")
    undo = member.access_ends_at > now
    charged = bool(member.price_minor)
    return Quote(
        kind=OrderKind.UNDO if undo else OrderKind.RESTART,
        price_minor=member.price_minor,
        currency=member.currency,
        interval=member.billing_interval,
        first_charge_at=None if not charged else member.access_ends_at if undo else now,
        saved_until=member.keep_until,
    )


def order(session: Session, settings: Settings, member_id: int, quoted: Quote, now: datetime) -> Quote:
    """Come back at the price and on the day the page showed.

    Raises QuoteChanged when they no longer hold (nothing is ordered), Refused when there is nothing to come back to.
    """
    member = lock(session, member_id)
    if member is None:
        raise Refused("There is no ended membership to come back to.")
    present = quote(member, settings, now)
    if not present.matches(quoted, settings):
        raise QuoteChanged("The price or the date has changed since the page was shown.")
    assert member.lapsed_at is not None
    decision = f"{member.public_id}:{int(member.lapsed_at.timestamp())}"
    access_ended_at = member.access_ends_at
    end = {"lapsed_at": member.lapsed_at, "access_ends_at": member.access_ends_at, "keep_until": member.keep_until}
    ended_before = {name: at.isoformat() for name, at in end.items() if at is not None}
    _activate(session, Member.id == member_id, now, returned_at=now, subscription_status=_runs_again())
    session.refresh(member)
    if present.kind == OrderKind.UNDO:
        if is_billed(member) and not billing.supersede_untried_stop(session, member_id, now):
            billing.order(session, kind=OrderKind.UNDO, key=f"undo:{decision}", member=member, now=now)
    elif member.price_minor:
        if _stop_came_late(session, member_id, access_ended_at):
            billing.order(
                session,
                kind=OrderKind.REFUND,
                key=f"refund:{decision}",
                member=member,
                now=now,
                since=access_ended_at,
            )
        tried = session.scalar(
            select(func.count()).where(
                BillingOrder.member_id == member_id,
                BillingOrder.key.startswith(f"restart:{decision}", autoescape=True),
            )
        )
        billing.order(
            session,
            kind=OrderKind.RESTART,
            # A card that was declined is declined again under the key of that try.
            key=f"restart:{decision}:{tried}" if tried else f"restart:{decision}",
            member=member,
            now=now,
            ended_before=ended_before,
        )
    _take_back_mails(session, Message.member_id == member_id)
    once = f"welcome_back:{decision}:{int(now.timestamp())}"
    outbox.put(session, kind=Kind.WELCOME_BACK, once_key=once, now=now, member=member)
    events.record(session, "came_back", now, detail=present.kind, member_id=member_id)
    return present


def reverse_for_use(session: Session, settings: Settings, uses: Any, now: datetime) -> int:
    """Use before a silent lapse that is reported after it reverses the lapse; ``uses`` is (member_id, used_at).

    An explicit end is not undone by use; whoever uses the service after it gets a mail that offers keep.
    """
    used = uses.subquery() if not hasattr(uses, "c") else uses
    after_own_end = exists(
        select(literal(1)).where(used.c.member_id == Case.member_id, used.c.used_at > Case.answered_at)
    )
    outbox.put_for_cases(
        session,
        Kind.USED_AFTER_END,
        outbox.case_key(Kind.USED_AFTER_END, Case.generation),
        now,
        Case.closed_at.is_(None),
        Case.answer == Answer.LAPSE,
        Member.status == MemberStatus.ACTIVE,
        # Where nothing ends by it, the answer is a note.
        Member.billed_by.is_(None),
        after_own_end,
        deadline=Case.deadline_at,
    )
    return _reverse(session, _used_in_time(used), CaseState.RETURNED, now)


def _used_in_time(used: Any) -> ColumnElement[bool]:
    return exists(
        select(literal(1)).where(
            used.c.member_id == Case.member_id,
            used.c.used_at > Case.found_sign_of_life_at,
            used.c.used_at < Case.closed_at,
        )
    )


def reverse_for_bounce(session: Session, member: Member, now: datetime) -> int:
    """A warning that turns out not to have arrived: the silent lapse it led to is reversed for fourteen days."""
    return _reverse(session, and_(Case.member_id == member.id, _warned_in_vain(now)), CaseState.UNREACHABLE, now)


def reverse_what_was_refuted(session: Session, member_id: int, now: datetime) -> None:
    """An end that holds again, for the return was not paid for, may have been refuted while it did not hold."""
    of_member = select(Member.id.label("member_id"), Member.last_used_at.label("used_at")).where(Member.id == member_id)
    this = Case.member_id == member_id
    used = _used_in_time(of_member.subquery())
    taken_back = _reverse(session, and_(this, used), CaseState.RETURNED, now) or _reverse(
        session, and_(this, _warned_in_vain(now)), CaseState.UNREACHABLE, now
    )
    if taken_back:
        # That the end holds again was told by a mail of no case.
        _take_back_mails(session, Message.member_id == member_id)


def _warned_in_vain(now: datetime) -> ColumnElement[bool]:
    bounced = exists(
        select(Message.id).where(
            Message.case_id == Case.id,
            Message.kind == Kind.WARNING,
            # An earlier address that was replaced in time has not warned this member in vain.
            Message.to_address == Case.warned_to,
            Message.state == "bounced",
        )
    )
    return and_(Case.closed_at > now - BOUNCE_REVERSES, bounced)


def returned_elsewhere(session: Session, settings: Settings, now: datetime) -> int:
    """A lapsed member for whom more has been paid since has come back at the service itself: active, not purged.

    Not so who is said to have paid for the very time that was given back: with the end, or because its charge came
    before the stop was on record. And not who has asked for the end while its stop is on the way: what is charged until
    it arrives is what the member wanted to be spared, and goes back when it does.
    """
    stop_on_its_way = exists(
        select(Case.id)
        .join(BillingOrder, BillingOrder.case_id == Case.id)
        .where(
            Case.member_id == Member.id,
            Case.state == CaseState.LAPSED,
            Case.answer == Answer.LAPSE,
            Case.deadline_at == Member.lapsed_at,
            BillingOrder.kind == OrderKind.STOP,
            BillingOrder.state.in_(billing.UNSETTLED),
        )
    )
    given_back = exists(
        select(BillingOrder.id).where(
            BillingOrder.member_id == Member.id,
            BillingOrder.kind == OrderKind.REFUND,
            BillingOrder.state != OrderState.SUPERSEDED,
            BillingOrder.paid_through >= Member.paid_through,
        )
    )
    # A literal: the partial index over the lapsed knows them then.
    lapsed = Member.status == literal_column("'lapsed'")
    paid_again = select(Member.id).where(
        lapsed, Member.paid_through > Member.access_ends_at, ~given_back, ~stop_on_its_way
    )
    # Found once, and locked as they are: who pays while this runs is another file's, or another word's.
    returned = session.scalars(paid_again.order_by(Member.id).with_for_update(key_share=True)).all()
    if not returned:
        return 0
    _take_back_mails(session, Message.member_id.in_(returned))
    # A stop that waits would stop what has just been paid; one that may have gone out is undone. One that is done came
    # before the payment.
    _take_back_stops(session, BillingOrder.member_id.in_(returned), now, done_too=False)
    events.record_all(
        session,
        select(
            literal(now, UTCDateTime()),
            literal("returned_elsewhere"),
            literal(None, String()),
            Member.id,
            literal(None, BigInteger()),
            literal(None, BigInteger()),
        ).where(Member.id.in_(returned)),
    )
    return _activate(session, Member.id.in_(returned), now, returned_at=now)


def told_elsewhere(session: Session, member_id: int, billed_by: str, now: datetime) -> None:
    """The provider has found out only at the stop that somebody else bills the membership: it has not ended, and the
    member is told so, and where it can be ended. What waits behind the stop was meant for a subscription that it cannot
    change: nothing of it may be charged or given back, for the store goes on charging."""
    member = lock(session, member_id)
    if member is None or member.status == MemberStatus.PURGED:
        return
    member.billed_by = billed_by
    session.flush()
    waiting = and_(
        BillingOrder.member_id == member_id, BillingOrder.state == OrderState.QUEUED, BillingOrder.attempts == 0
    )
    restart = session.scalar(select(exists().where(waiting, BillingOrder.kind == OrderKind.RESTART)))
    _give_up_rests(session, waiting)
    change(session, update(BillingOrder).where(waiting).values(state=OrderState.SUPERSEDED, done_at=now))
    ended = and_(Case.member_id == member_id, Case.state == CaseState.LAPSED, Case.deadline_at == member.lapsed_at)
    asked = and_(Case.member_id == member_id, Case.closed_at.is_(None), Case.answer == Answer.LAPSE)
    # Who has come back at a price that nobody takes now has to know who does; the last case has the page that says so.
    whose = Case.member_id == member_id if restart else or_(ended, asked)
    case_id = session.scalar(select(Case.id).where(whose).order_by(Case.id.desc()).limit(1))
    this = Case.id == case_id
    _take_back_mails(session, Message.member_id == member_id, *([Kind.WELCOME_BACK] if restart else []))
    if _activate(session, Member.id == member_id, now, subscription_status=_runs_again()):
        told = literal(CaseState.TOLD.value)
        events.record_all(session, events.of_cases("lapse_reversed", told, now).where(ended, this))
        change(session, update(Case).where(ended, this).values(state=CaseState.TOLD))
    # A case that is still live closes as told at its month end, with no second mail.
    key = outbox.case_key(Kind.TOLD, Case.generation)
    outbox.put_for_cases(session, Kind.TOLD, key, now, this, deadline=Case.deadline_at)


def learn_what_was_paid(session: Session, settings: Settings, incoming: Table) -> int:
    """Of lapsed members it was not on record that they had paid until the end: where a file says now that they had, and
    for less than one period after it, that was a payment before the end and no return. They have access until then, and
    everything is saved accordingly. Before the file's values are taken over; how many.

    ``incoming`` has external_id and paid_through.
    """
    interval = func.coalesce(Member.billing_interval, "month")
    unknown = and_(
        Member.external_id == incoming.c.external_id,
        Member.status == MemberStatus.LAPSED,
        or_(Member.paid_through.is_(None), Member.paid_through < Member.lapsed_at),
        incoming.c.paid_through > Member.access_ends_at,
    )
    learned = 0
    # Month ends are few, and a period is not what SQL can count.
    for at, every in session.execute(select(Member.lapsed_at, interval).where(unknown).distinct()).all():
        assert at is not None, "the database holds a lapse to have its instant"
        bound = _a_period_after(at, every, settings)
        until = incoming.c.paid_through
        learned += change(
            session,
            update(Member)
            .where(unknown, Member.lapsed_at == at, interval == every, until < bound)
            .values(access_ends_at=until, keep_until=keep_until_in_sql(settings, until, at, bound)),
        )
    return learned


def _a_period_after(at: datetime, interval: str, settings: Settings) -> datetime:
    known = interval if interval in dates.INTERVALS else "month"
    return dates.following_charge(at, known, at, settings.zone)


def _activate(session: Session, which: Any, now: datetime, **values: Any) -> int:
    """Lapsed → active. The condition on the status is what a purge at the same instant loses or wins by."""
    return change(
        session,
        update(Member)
        .where(Member.status == MemberStatus.LAPSED, which)
        .values(status=MemberStatus.ACTIVE, lapsed_at=None, access_ends_at=None, keep_until=None, **values),
    )


def _runs_again() -> ColumnElement[str]:
    """A subscription that a file called ended after our stop runs again by our order: the next end has to stop it."""
    return when(
        (Member.subscription_status == SubscriptionStatus.ENDED, SubscriptionStatus.ACTIVE.value),
        else_=Member.subscription_status,
    )


def _reverse(session: Session, which: Any, becomes: CaseState, now: datetime) -> int:
    """Take silent lapses back: members active, cases as they should have ended, stops struck out or undone, a mail."""
    lapsed = and_(
        Case.state == CaseState.LAPSED,
        Case.answer.is_(None),
        Case.member_id == Member.id,
        Member.status == MemberStatus.LAPSED,
        # This case, not an earlier one that the member has long come back from.
        Member.lapsed_at == Case.deadline_at,
        which,
    )
    lock_members(session, select(Case.member_id).join(Member, Member.id == Case.member_id).where(lapsed))
    batch = new_batch()
    reversed_ = change(
        session, update(Case).where(lapsed).values(state=becomes, batch=batch, generation=Case.generation + 1)
    )

    if not reversed_:
        return 0
    ours = Case.batch == batch
    _activate(session, Member.id.in_(select(Case.member_id).where(ours)), now, subscription_status=_runs_again())
    whose = BillingOrder.member_id.in_(select(Case.member_id).where(ours))
    _take_back_stops(session, and_(whose, BillingOrder.case_id.in_(select(Case.id).where(ours))), now, done_too=True)
    _take_back_mails(session, Message.case_id.in_(select(Case.id).where(ours)))
    if becomes == CaseState.RETURNED:
        outbox.put_for_cases(session, Kind.RETURNED, outbox.case_key(Kind.RETURNED, Case.generation), now, ours)
    else:
        # Whose address is another by now, and takes mail, hears of it there.
        outbox.put_for_cases(
            session,
            Kind.WITHDRAWN,
            outbox.case_key(Kind.WITHDRAWN, Case.generation),
            now,
            ours,
            Member.email != Case.warned_to,
            Member.mail_state == MailState.GOOD,
        )
    events.record_all(session, events.of_cases("lapse_reversed", literal(becomes.value), now).where(ours))
    return reversed_


def _take_back_stops(session: Session, which: ColumnElement[bool], now: datetime, *, done_too: bool) -> None:
    """Strike out the stops that no provider has heard of, and order an undo of the others. A rest that no provider has
    heard of does not go back either, and is the member's again."""
    stops = and_(which, BillingOrder.kind == OrderKind.STOP)
    rests = and_(which, BillingOrder.kind == OrderKind.REFUND, BillingOrder.at_once)
    untried = and_(rests, BillingOrder.state == OrderState.QUEUED, BillingOrder.attempts == 0)
    _give_up_rests(session, untried)
    change(session, update(BillingOrder).where(untried).values(state=OrderState.SUPERSEDED, done_at=now))
    change(
        session,
        update(BillingOrder)
        .where(stops, BillingOrder.state == OrderState.QUEUED, BillingOrder.attempts == 0)
        .values(state=OrderState.SUPERSEDED, done_at=now),
    )
    over = [OrderState.SUPERSEDED] if done_too else [OrderState.SUPERSEDED, OrderState.DONE]
    undo = select(
        literal("undo:") + BillingOrder.key,
        BillingOrder.member_id,
        BillingOrder.case_id,
        literal(OrderKind.UNDO.value),
        BillingOrder.billing_ref,
        literal(now, UTCDateTime()),
        literal(now, UTCDateTime()),
    ).where(stops, BillingOrder.state.not_in(over))
    columns = ["key", "member_id", "case_id", "kind", "billing_ref", "created_at", "due_at"]
    change(
        session,
        insert(session, BillingOrder)
        .from_select(columns, undo, include_defaults=False)
        .on_conflict_do_nothing(index_elements=["key"]),
    )


def _give_up_rests(session: Session, orders: ColumnElement[bool]) -> None:
    """Until when it had been paid is the members' again, where one of these orders would have given the rest back."""
    change(
        session,
        update(Member)
        .where(Member.id == BillingOrder.member_id, orders, BillingOrder.paid_through.is_not(None))
        .values(paid_through=latest(BillingOrder.paid_through, Member.paid_through)),
    )


def _take_back_mails(session: Session, whose: Any, *others: Kind) -> None:
    """A mail of the end that still waits would be wrong after a return."""
    change(
        session,
        update(Message)
        .where(whose, Message.kind.in_([Kind.LAPSED, Kind.LAST_CHANCE, *others]), Message.state == MessageState.QUEUED)
        .values(state=MessageState.OBSOLETE),
    )


def _stop_came_late(session: Session, member_id: int, access_ended_at: datetime | None) -> bool:
    """Whether a charge may have been made for a period after the end: the stop was not on record when access ended."""
    stop = session.execute(
        select(BillingOrder.state, BillingOrder.done_at)
        .where(BillingOrder.member_id == member_id, BillingOrder.kind == OrderKind.STOP)
        .order_by(BillingOrder.id.desc())
        .limit(1)
    ).first()
    if stop is None or access_ended_at is None:
        return False
    return stop.done_at is None or stop.done_at > access_ended_at
