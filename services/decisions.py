"""Answers: keep, or end. By the mail's link, signed in, without signing in, or by an operator on the member's behalf.

Each answer is idempotent, can be changed until the deadline, gets a receipt, and speaks to the provider at once: an
explicit end stops further charges with the answer, a keep takes that back. The member's row is locked first and the
case after it, so that an answer and the month end never both believe they were first.
"""

from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from domain import dates
from domain.errors import NotFound, Refused
from domain.lifecycle import Answer, CampaignState, CaseState, MemberStatus, OrderKind, Rule, Through
from domain.notices import Kind
from domain.policy import SubscriptionStatus
from models import Case, Event, Member, insert
from services import billing, cases, events, outbox, warning
from settings import Settings


def answer(
    session: Session,
    settings: Settings,
    case_id: int,
    wish: Answer,
    through: Through,
    now: datetime,
    note: str | None = None,
) -> Case:
    """Record the answer of one case and cause what follows from it. The same answer again changes nothing.

    Raises NotFound, or Refused when the membership or the case is over; the text says what holds.
    """
    found = session.get(Case, case_id)
    if found is None:
        raise NotFound("There is no such case.")
    member = cases.lock(session, found.member_id)
    case = session.get_one(Case, case_id, populate_existing=True, with_for_update={"key_share": True})
    if member is None or member.status != MemberStatus.ACTIVE:
        raise Refused("The membership is no longer active.")
    campaign_state = None if case.campaign is None else case.campaign.state
    honoured_at = cases.honoured_at(case, campaign_state, settings, now)
    if case.closed_at is not None:
        if wish == Answer.KEEP and case.state != CaseState.LAPSED:
            return case
        _reopen(session, settings, case, now)
    if case.answer == wish:
        return case

    changed = case.answer is not None
    case.answer = wish
    case.answered_at = now
    case.answered_through = through
    if note is not None:
        case.answer_note = note
    case.wording_version = settings.wording_version
    case.generation += 1
    if wish == Answer.KEEP:
        case.kept_before_at = member.last_kept_at
        member.last_kept_at = now
        if case.deadline_at is None:
            # Answered before the campaign opened: without a day to close on, the case would stay live for ever.
            case.deadline_at = dates.next_month_end(now, settings.zone)
    else:
        if changed:
            member.last_kept_at = case.kept_before_at
        if member.last_kept_at is not None and member.last_kept_at > now:
            # Dated by a clock that was ahead: what is said now comes after it.
            member.last_kept_at = now
        case.deadline_at = honoured_at
    session.flush()

    if wish == Answer.LAPSE:
        if is_billed(member):
            billing.order(
                session,
                kind=OrderKind.STOP,
                key=f"stop:{case.public_id}:{case.generation}",
                member=member,
                case=case,
                now=now,
            )
    elif changed:
        take_back_stop(session, member, case, now)
    outbox.put(
        session,
        kind=Kind.RECEIPT_KEEP if wish == Answer.KEEP else Kind.RECEIPT_LAPSE,
        once_key=f"receipt:{case.public_id}:{case.generation}",
        now=now,
        member=member,
        case=case,
        deadline_at=case.deadline_at,
    )
    events.record(
        session,
        "answered_keep" if wish == Answer.KEEP else "answered_lapse",
        now,
        detail=through,
        member_id=member.id,
        case_id=case.id,
        campaign_id=case.campaign_id,
    )
    return case


def end_membership(
    session: Session, settings: Settings, member_id: int, through: Through, now: datetime, note: str | None = None
) -> Case:
    """End a membership by the member's own wish, asked or unasked: answers the live case, or opens one for it."""
    member = cases.lock(session, member_id)
    if member is None:
        raise NotFound("There is no such member.")
    if member.status != MemberStatus.ACTIVE:
        raise Refused("The membership is no longer active.")
    case = cases.live_case(session, member_id)
    if case is None:
        case = _own_case(session, member, now)
    return answer(session, settings, case.id, Answer.LAPSE, through, now, note)


def keep_membership(
    session: Session, settings: Settings, member_id: int, through: Through, now: datetime, note: str | None = None
) -> Case | None:
    """Keep for a member: answers the live case; without one it is a sign of life and nothing else."""
    member = cases.lock(session, member_id)
    if member is None:
        raise NotFound("There is no such member.")
    if member.status != MemberStatus.ACTIVE:
        raise Refused("The membership is no longer active.")
    case = cases.live_case(session, member_id)
    if case is not None:
        return answer(session, settings, case.id, Answer.KEEP, through, now, note)
    member.last_kept_at = now
    session.flush()
    events.record(session, "kept_unasked", now, detail=through, member_id=member_id)
    return None


def void_keep(session: Session, settings: Settings, member_id: int, reason: str, now: datetime) -> Case:
    """Take back a keep that a machine pressed: an end it turned round holds again, or else the member is asked anew.

    Asked anew as after a change of address: the old link takes no answer, and nothing ends before a new notice was
    accepted in time, for the receipt has told the member meanwhile that nothing would. Raises NotFound or Refused.
    """
    member = cases.lock(session, member_id)
    if member is None:
        raise NotFound("There is no such member.")
    case = cases.live_case(session, member_id)
    if case is None or case.answer != Answer.KEEP:
        raise Refused("There is no keep that could be taken back: the member has no live case with this answer.")
    if case.answered_through != Through.LINK:
        raise Refused(
            f"This keep came through {case.answered_through}, not through the link of a mail, so no machine has pressed"
            " it. Use `flask members answer` for what the member says now."
        )
    before = session.scalars(
        select(Event.code)
        .where(
            Event.member_id == member.id,
            Event.case_id == case.id,
            Event.code.in_(["answered_keep", "answered_lapse", "keep_voided"]),
        )
        .order_by(Event.id.desc())
        .offset(1)
        .limit(1)
    ).one_or_none()
    events.record(
        session,
        "keep_voided",
        now,
        member_id=member.id,
        case_id=case.id,
        campaign_id=case.campaign_id,
    )
    if before == "answered_lapse":
        return answer(session, settings, case.id, Answer.LAPSE, Through.OPERATOR, now, reason)
    if case.campaign is not None and case.campaign.state == CampaignState.CANCELLED:
        raise Refused("Its round was cancelled: the membership continues, and nobody is asked again.")
    member.last_kept_at = case.kept_before_at
    case.answer = case.answered_at = case.answered_through = case.wording_version = None
    case.answer_note = reason
    session.flush()
    warning.ask_anew(session, case.id, now)
    return case


def not_mine(session: Session, case_id: int, now: datetime) -> None:
    """Somebody says on the page: this is not mine, or the member has died. Operators are told; nothing else changes."""
    case = session.get(Case, case_id)
    if case is None:
        raise NotFound("There is no such case.")
    cases.lock(session, case.member_id)
    if case.not_mine_at is None:
        case.not_mine_at = now
        session.flush()
        events.record(
            session, "said_not_mine", now, member_id=case.member_id, case_id=case.id, campaign_id=case.campaign_id
        )
    outbox.put_to_operators(session, Kind.NEEDS_ATTENTION, f"needs_attention:not_mine:{case.public_id}", now, case=case)


def exempt(session: Session, member_id: int, reason: str | None, now: datetime) -> None:
    """An operator's exemption, which no import touches; ``None`` takes it back."""
    member = cases.lock(session, member_id)
    if member is None or member.status == MemberStatus.PURGED:
        raise NotFound("There is no such member.")
    member.operator_exempt_reason = reason
    session.flush()
    events.record(session, "exempted" if reason else "exemption_ended", now, member_id=member_id)


def take_back_stop(session: Session, member: Member, case: Case, now: datetime) -> None:
    """A stop that the provider has not heard of is struck out; one that it may have heard of is undone."""
    if member.subscription_status == SubscriptionStatus.ENDED and billing.was_stopped(session, case.id):
        # A file called it ended because of our stop: by our order it runs again.
        member.subscription_status = SubscriptionStatus.ACTIVE
        session.flush()
    if is_billed(member) and not billing.supersede_untried_stop(session, member.id, now):
        billing.order(
            session,
            kind=OrderKind.UNDO,
            key=f"undo:{case.public_id}:{case.generation}",
            member=member,
            case=case,
            now=now,
        )


def is_billed(member: Member) -> bool:
    """Something may be charged by our order, and stopped by it: a price, or a reference at the provider, such as a
    trial's that turns into payment. What an app store or a partner bills by itself is not."""
    charged = member.subscription_status != SubscriptionStatus.ENDED and bool(member.price_minor or member.billing_ref)
    return charged and member.billed_by is None


def _reopen(session: Session, settings: Settings, case: Case, now: datetime) -> None:
    """A case that ended with the membership running on takes an end of the member's own until its deadline."""
    over = case.deadline_at is not None and case.deadline_at <= now
    other = session.scalar(select(exists().where(Case.member_id == case.member_id, Case.closed_at.is_(None))))
    if case.state not in cases.CAN_STILL_END or over or other:
        raise Refused("This round is over; sign in to see what holds now and to change it.")
    case.state = CaseState.OPEN
    case.closed_at = None
    case.batch = None
    session.flush()
    events.record(
        session, "case_reopened", now, member_id=case.member_id, case_id=case.id, campaign_id=case.campaign_id
    )


def _own_case(session: Session, member: Member, now: datetime) -> Case:
    """A case without a round; or the one that a draft at this very moment has opened, which is waited for."""
    case_id = session.scalar(
        insert(session, Case)
        .values(
            member_id=member.id,
            rule=Rule.OWN_WISH,
            opened_at=now,
            found_joined_at=member.joined_at,
            found_last_used_at=member.last_used_at,
            found_sign_of_life_at=member.last_sign_of_life_at,
            found_plan=member.plan,
            found_price_minor=member.price_minor,
            found_currency=member.currency,
            found_billing_interval=member.billing_interval,
            address=member.email,
        )
        .on_conflict_do_nothing()
        .returning(Case.id)
    )
    if case_id is None:
        drafted = cases.live_case(session, member.id)
        assert drafted is not None, "nothing else is in the way, and the member is locked"
        return drafted
    events.record(session, "case_opened", now, detail=Rule.OWN_WISH, member_id=member.id, case_id=case_id)
    return session.get_one(Case, case_id)
