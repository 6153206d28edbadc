"""A month's round from draft to its end: who is in, by when to approve, holding, releasing, cancelling.

``draft → open → closed``; a round that looks wrong, or that an operator stops, is ``held`` until released or cancelled.
Selection, cases, messages and events are each one statement, however many members there are.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, literal, or_, select, update
from sqlalchemy.orm import Session

from domain import dates
from domain.errors import NotFound, Refused
from domain.lifecycle import CampaignState, CaseState, HoldReason, MailState, MessageState
from domain.notices import APPROVE_REMINDER_DAYS, NOTICES, VETO_DAYS, Kind
from models import Campaign, Case, Member, Message, change
from models import insert as insert_or
from models.base import UTCDateTime, planned_without
from services import breaker, events, outbox
from services.cases import lock_members, new_batch
from services.outgoing import writing
from services.selection import dormant
from settings import Settings

UNDECIDED = (CampaignState.DRAFT, CampaignState.HELD)


def askable(settings: Settings, now: datetime) -> list[Any]:
    """What a campaign asks of a dormant member besides: an address that is not dead, no case that is live, and not to
    have been told lately where the membership can be ended: nothing that we could do would come of asking again."""
    has_live_case = select(Case.id).where(Case.member_id == Member.id, Case.closed_at.is_(None)).exists()
    told_since = dates.start_of_day(
        dates.months_back(dates.local_day(now, settings.zone), settings.never_used_months), settings.zone
    )
    was_told = (
        select(Case.id)
        .where(Case.member_id == Member.id, Case.state == CaseState.TOLD, Case.closed_at >= told_since)
        .exists()
    )
    return [Member.mail_state == MailState.GOOD, ~has_live_case, or_(Member.billed_by.is_(None), ~was_told)]


def draft(session: Session, settings: Settings, month: str, now: datetime) -> Campaign:
    """Select this month's dormant members into a draft. Drafting again gives the campaign that is there.

    A draft of an earlier month that nobody approved is superseded first, so its members can be selected anew.
    """
    current = dates.month_of(now, settings.zone)
    if month != current:
        raise Refused(f"Only the current month can be drafted: {current}, not {month}.")
    there = session.scalar(select(Campaign).where(Campaign.month == month).with_for_update(key_share=True))
    if there is not None:
        return there
    _supersede(session, settings, month, now)
    new = session.scalar(
        insert_or(session, Campaign)
        .values(month=month, state=CampaignState.DRAFT, policy=_policy(settings), drafted_at=now, dormant_count=0)
        .on_conflict_do_nothing(index_elements=["month"])
        .returning(Campaign.id)
    )
    campaign = _get(session, month)
    if new is None:
        # Somebody else has drafted it at the same moment, and was waited for.
        return campaign

    found = [
        literal(campaign.id).label("campaign_id"),
        Member.id,
        literal(now, UTCDateTime()).label("opened_at"),
        Member.joined_at,
        Member.last_used_at,
        Member.last_sign_of_life_at,
        Member.plan,
        Member.price_minor,
        Member.currency,
        Member.billing_interval,
        Member.email,
    ]
    columns = [
        "campaign_id", "member_id", "opened_at", "found_joined_at", "found_last_used_at", "found_sign_of_life_at",
        "found_plan", "found_price_minor", "found_currency", "found_billing_interval", "address", "rule",
    ]  # fmt: skip
    selected = dormant(settings.policy, now, found, *askable(settings, now))
    # Before the first round there is no case, and PostgreSQL would read the whole table for each member: it does not
    # see that this statement fills it. Later there is no table that is to be read whole.
    with planned_without(session, "seqscan"):
        campaign.dormant_count = change(
            session,
            insert_or(session, Case)
            .from_select(columns, selected, include_defaults=False)
            # A member who ends the membership at this very moment opens a case too (PostgreSQL); one of the two is
            # enough.
            .on_conflict_do_nothing(),
        )
    events.record(session, "campaign_drafted", now, campaign_id=campaign.id)
    events.record_all(session, events.of_cases("case_opened", Case.rule, now).where(Case.campaign_id == campaign.id))

    hold_if_wrong(session, settings, campaign, campaign.dormant_count, now)
    if campaign.state == CampaignState.DRAFT:
        if settings.campaign_approval == "auto":
            _open(session, settings, campaign, now)
        else:
            outbox.put_to_operators(session, Kind.CAMPAIGN_READY, f"campaign_ready:{month}", now, campaign=campaign)
    return campaign


def approve(
    session: Session, settings: Settings, month: str, now: datetime, operator_id: int | None = None
) -> Campaign:
    """Open a draft: its warnings go out. Approving an open campaign again changes nothing."""
    campaign = _get(session, month)
    if campaign.state == CampaignState.OPEN:
        return campaign
    if campaign.state == CampaignState.HELD:
        raise Refused(f"The campaign of {month} is held; release it or cancel it.")
    if campaign.state != CampaignState.DRAFT:
        raise Refused(f"The campaign of {month} is {campaign.state}; only a draft can be approved.")
    events.record(session, "campaign_approved", now, campaign_id=campaign.id, operator_id=operator_id)
    hold_if_wrong(session, settings, campaign, _live_silent(session, campaign), now)
    if campaign.state == CampaignState.DRAFT:
        _open(session, settings, campaign, now)
    return campaign


def hold(session: Session, settings: Settings, month: str, now: datetime, operator_id: int | None = None) -> Campaign:
    """Stop a campaign: nothing is sent and no silent case ends until it is released or cancelled."""
    campaign = _get(session, month)
    if campaign.state == CampaignState.HELD:
        return campaign
    if campaign.state not in (CampaignState.DRAFT, CampaignState.OPEN):
        raise Refused(f"The campaign of {month} is {campaign.state}; only a draft or an open one can be held.")
    _hold(session, campaign, breaker.Hold(HoldReason.OPERATOR, 1, {}), now, operator_id=operator_id)
    return campaign


def release(
    session: Session, settings: Settings, month: str, now: datetime, operator_id: int | None = None
) -> Campaign:
    """Let a held campaign go on, its reason being known: an open one is open again, a draft opens.

    Releasing is approving with the reason in view; the same reason holds this campaign again only when its figure has
    grown by half. Cases whose deadline is now nearer than the notice get the next month end, and a mail that says so.
    """
    campaign = _get(session, month)
    if campaign.state == CampaignState.OPEN:
        return campaign
    if campaign.state != CampaignState.HELD or campaign.hold_reason is None:
        raise Refused(f"The campaign of {month} is {campaign.state}; only a held one can be released.")
    figure = float((campaign.hold_facts or {}).get("figure", 1))
    reason = campaign.hold_reason
    campaign.released = {**(campaign.released or {}), reason: figure}
    campaign.held_at = campaign.hold_reason = campaign.hold_facts = None
    campaign.state = CampaignState.DRAFT if campaign.opened_at is None else CampaignState.OPEN
    _tell_of_no_hold(session, campaign)
    if reason == HoldReason.BOUNCES:
        _try_again(session, campaign, now)
    events.record(session, "campaign_released", now, campaign_id=campaign.id, operator_id=operator_id)
    if campaign.opened_at is None:
        hold_if_wrong(session, settings, campaign, _live_silent(session, campaign), now)
        if campaign.state == CampaignState.DRAFT:
            _open(session, settings, campaign, now)
    else:
        _move_near_deadlines(session, settings, campaign, now)
    session.flush()
    return campaign


def cancel(session: Session, settings: Settings, month: str, now: datetime, operator_id: int | None = None) -> Campaign:
    """End a campaign: silent cases are withdrawn and whoever was warned is told that nothing ends.

    Who has answered keeps that answer: an explicit end is honoured whatever the campaign's state.
    """
    campaign = _get(session, month)
    if campaign.state == CampaignState.CANCELLED:
        return campaign
    if campaign.state == CampaignState.CLOSED:
        raise Refused(f"The campaign of {month} is closed; what it ended can be undone member by member.")
    _cancel(session, settings, campaign, "operator", now)
    events.record(session, "campaign_cancelled", now, campaign_id=campaign.id, operator_id=operator_id)
    return campaign


def open_what_is_due(session: Session, settings: Settings, now: datetime) -> None:
    """Daily: open what needs no approval, remind operators of what does."""
    for campaign in session.scalars(
        select(Campaign)
        .where(Campaign.state == CampaignState.DRAFT)
        .order_by(Campaign.month)
        .with_for_update(key_share=True)
    ).all():
        age = (dates.local_day(now, settings.zone) - dates.local_day(campaign.drafted_at, settings.zone)).days
        if settings.campaign_approval == "auto" or (settings.campaign_approval == "veto" and age >= VETO_DAYS):
            hold_if_wrong(session, settings, campaign, _live_silent(session, campaign), now)
            if campaign.state == CampaignState.DRAFT:
                _open(session, settings, campaign, now)
        elif settings.campaign_approval == "manual":
            passed = [day for day in APPROVE_REMINDER_DAYS if day <= age]
            if passed:
                key = f"approve_by:{campaign.month}:{passed[-1]}"
                outbox.put_to_operators(session, Kind.APPROVE_BY, key, now, campaign=campaign)


def hold_if_wrong(session: Session, settings: Settings, campaign: Campaign, concerned: int, now: datetime) -> None:
    wrong = breaker.check(session, settings, campaign, concerned, now)
    if wrong is not None:
        _hold(session, campaign, wrong, now)


def hold_open(session: Session, campaign_id: int, reason: breaker.Hold, now: datetime) -> None:
    """Hold a campaign for what was found a moment ago, unless somebody has held or released it since."""
    campaign = session.get_one(Campaign, campaign_id, with_for_update={"key_share": True}, populate_existing=True)
    if campaign.state == CampaignState.OPEN and not breaker.is_released(campaign, reason):
        _hold(session, campaign, reason, now)


def hold_after_restore(session: Session, now: datetime) -> list[str]:
    """Hold every round that is not over, also one that was held or released before; returns their months."""
    unfinished = (CampaignState.DRAFT, CampaignState.HELD, CampaignState.OPEN)
    months = []
    for campaign in session.scalars(
        select(Campaign).where(Campaign.state.in_(unfinished)).order_by(Campaign.month).with_for_update(key_share=True)
    ).all():
        campaign.released = {why: at for why, at in (campaign.released or {}).items() if why != HoldReason.RESTORED}
        _hold(session, campaign, breaker.Hold(HoldReason.RESTORED, 1, {}), now)
        months.append(campaign.month)
    return months


def any_finished(session: Session) -> bool:
    return session.scalar(_finished().limit(1)) is not None


def settle_finished(session: Session, paying: int, now: datetime) -> None:
    """An open campaign none of whose cases is live is closed; its share is what next month's is held against."""
    for campaign in session.scalars(_finished().with_for_update(key_share=True)).all():
        campaign.state = CampaignState.CLOSED
        campaign.closed_at = now
        campaign.paying_count = paying
        session.flush()
        events.record(session, "campaign_closed", now, campaign_id=campaign.id)


def _finished() -> Select[Campaign]:
    # The live cases are few when a round is over, and have an index of their own; those that have ended are many.
    live = select(Case.campaign_id).where(Case.closed_at.is_(None), Case.campaign_id.is_not(None))
    return select(Campaign).where(Campaign.state == CampaignState.OPEN, Campaign.id.not_in(live))


def _open(session: Session, settings: Settings, campaign: Campaign, now: datetime) -> None:
    campaign.state = CampaignState.OPEN
    campaign.opened_at = now
    campaign.deadline_at = dates.month_end_with_notice(now, settings.min_notice_days, settings.zone)
    session.flush()
    change(
        session,
        update(Case)
        .where(Case.campaign_id == campaign.id, Case.closed_at.is_(None), Case.answer.is_(None))
        .values(deadline_at=campaign.deadline_at),
    )
    queue_warnings(session, now, Case.campaign_id == campaign.id)
    events.record(session, "campaign_opened", now, campaign_id=campaign.id)
    writing.put_opened(session, now, Case.campaign_id == campaign.id, Case.closed_at.is_(None), Case.answer.is_(None))


def queue_warnings(
    session: Session,
    now: datetime,
    *which: Any,
    again: tuple[MessageState, ...] = (MessageState.FAILED, MessageState.OBSOLETE),
) -> int:
    """A warning for each live, silent case of the selection that has none for its present address.

    One that was given up, because it failed or a fact did not hold for a while, is taken up again (``again``: from
    which of the two states).
    """
    unwarned = (
        select(Case.id)
        .join(Member, Member.id == Case.member_id)
        .where(
            Case.closed_at.is_(None),
            Case.answer.is_(None),
            Case.warned_at.is_(None),
            # One to an earlier address carries a link that opens nothing, also where that address is the present again.
            Message.once_key == outbox.case_key(Kind.WARNING, Case.address_generation),
            *which,
        )
    )
    taken_up = outbox.take_up_again(
        session, now, Message.kind == Kind.WARNING, Message.state.in_(again), Message.case_id.in_(unwarned)
    )
    return taken_up + outbox.put_for_cases(
        session,
        Kind.WARNING,
        outbox.case_key(Kind.WARNING, Case.address_generation),
        now,
        Case.closed_at.is_(None),
        Case.answer.is_(None),
        Case.warned_at.is_(None),
        *which,
    )


def _hold(
    session: Session, campaign: Campaign, hold: breaker.Hold, now: datetime, operator_id: int | None = None
) -> None:
    campaign.state = CampaignState.HELD
    campaign.held_at = now
    campaign.hold_reason = hold.reason
    campaign.hold_facts = {**hold.facts, "figure": hold.figure}
    session.flush()
    events.record(session, "campaign_held", now, detail=hold.reason, campaign_id=campaign.id, operator_id=operator_id)
    if hold.reason != HoldReason.OPERATOR:
        key = f"needs_attention:held:{campaign.month}:{hold.reason}:{int(now.timestamp())}"
        outbox.put_to_operators(session, Kind.NEEDS_ATTENTION, key, now, campaign=campaign)


def _tell_of_no_hold(session: Session, campaign: Campaign) -> None:
    """Operators who have not been told of a hold yet need not be any more."""
    about = (Message.campaign_id == campaign.id, Message.kind == Kind.NEEDS_ATTENTION, Message.case_id.is_(None))
    change(
        session, update(Message).where(*about, Message.state == MessageState.QUEUED).values(state=MessageState.OBSOLETE)
    )


def _try_again(session: Session, campaign: Campaign, now: datetime) -> None:
    """What the mail server refused, and not an address: whoever releases the round has seen to it. Who is told no more
    is for the claim to say, as with every notice that waits."""
    refused = (Message.state == MessageState.FAILED, Message.kind.in_(NOTICES), Message.campaign_id == campaign.id)
    outbox.take_up_again(session, now, *refused)


def _move_near_deadlines(session: Session, settings: Settings, campaign: Campaign, now: datetime) -> None:
    """A hold has eaten the notice: the next month end that leaves it, and a mail to whoever was told another day."""
    deadline = dates.month_end_with_notice(now, settings.min_notice_days, settings.zone)
    batch = new_batch()
    moved = change(
        session,
        update(Case)
        .where(
            Case.campaign_id == campaign.id,
            Case.closed_at.is_(None),
            Case.answer.is_(None),
            Case.deadline_at < deadline,
        )
        .values(deadline_at=deadline, batch=batch),
    )
    if moved:
        tell_moved(session, now, deadline, Case.batch == batch)
    campaign.deadline_at = deadline


def tell_moved(session: Session, now: datetime, deadline: datetime, *which: Any) -> None:
    """A ``deadline_moved`` mail for each warned case of the selection."""
    outbox.put_for_cases(
        session,
        Kind.DEADLINE_MOVED,
        outbox.case_key(Kind.DEADLINE_MOVED, literal(int(deadline.timestamp()))),
        now,
        Case.warned_at.is_not(None),
        Case.answer.is_(None),
        *which,
        deadline=Case.deadline_at,
    )


def _supersede(session: Session, settings: Settings, month: str, now: datetime) -> None:
    """Drafts of earlier months that nobody opened give way to this month's."""
    for earlier in session.scalars(
        select(Campaign)
        .where(Campaign.month < month, Campaign.state.in_(UNDECIDED), Campaign.opened_at.is_(None))
        .with_for_update(key_share=True)
    ).all():
        _cancel(session, settings, earlier, "superseded", now)
        events.record(session, "campaign_superseded", now, campaign_id=earlier.id)


def _cancel(session: Session, settings: Settings, campaign: Campaign, reason: str, now: datetime) -> None:
    campaign.state = CampaignState.CANCELLED
    campaign.cancelled_at = now
    campaign.cancel_reason = reason
    campaign.held_at = campaign.hold_reason = campaign.hold_facts = None
    session.flush()
    _tell_of_no_hold(session, campaign)
    withdraw(session, now, Case.campaign_id == campaign.id)


def withdraw(session: Session, now: datetime, *which: Any) -> int:
    """End the live silent cases of a selection as withdrawn; queued notices go, and the warned are told."""
    silent = (Case.closed_at.is_(None), Case.answer.is_(None), *which)
    lock_members(session, select(Case.member_id).where(*silent))
    batch = new_batch()
    ended = change(session, update(Case).where(*silent).values(state=CaseState.WITHDRAWN, closed_at=now, batch=batch))
    ours = Case.batch == batch
    change(
        session,
        update(Message)
        .where(
            Message.case_id.in_(select(Case.id).where(ours)),
            Message.kind.in_([*NOTICES, Kind.DEADLINE_MOVED]),
            Message.state == MessageState.QUEUED,
        )
        .values(state=MessageState.OBSOLETE),
    )
    tell_nothing_ends(session, now, ours)
    events.record_all(session, events.of_cases("case_closed", literal(CaseState.WITHDRAWN.value), now).where(ours))
    return int(ended)


def tell_nothing_ends(session: Session, now: datetime, *which: Any) -> None:
    """An "ignore our mail, nothing ends" for each warned case of the selection."""
    outbox.put_for_cases(
        session,
        Kind.WITHDRAWN,
        outbox.case_key(Kind.WITHDRAWN, Case.generation),
        now,
        Case.warned_at.is_not(None),
        *which,
    )


def _live_silent(session: Session, campaign: Campaign) -> int:
    return (
        session.scalar(
            select(func.count())
            .select_from(Case)
            .where(Case.campaign_id == campaign.id, Case.closed_at.is_(None), Case.answer.is_(None))
        )
        or 0
    )


def _get(session: Session, month: str) -> Campaign:
    campaign = session.scalar(
        select(Campaign)
        .where(Campaign.month == month)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if campaign is None:
        raise NotFound(f"There is no campaign of {month}.")
    return campaign


def _policy(settings: Settings) -> dict[str, Any]:
    """The numbers this campaign was drafted by, for whoever has to defend it later."""
    since = settings.use_known_since
    return {
        "timezone": settings.service_timezone,
        "never_used_months": settings.never_used_months,
        "stopped_using_months": settings.stopped_using_months,
        "keep_months": settings.keep_months,
        "min_notice_days": settings.min_notice_days,
        "on_silence": settings.on_silence,
        "exempt_plans": sorted(settings.exempt_plans),
        "use_known_since": None if since is None else since.isoformat(),
    }
