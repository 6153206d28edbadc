"""What operators look at before and during a round: the forecast, and where a campaign stands. Reads only."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from domain import dates
from domain.errors import NotFound
from domain.lifecycle import CampaignState, CaseState, MailState, MemberStatus, MessageState
from domain.notices import NOTICES, Kind
from domain.policy import DORMANT, Code
from models import Campaign, Case, Member, Message
from services import breaker, wording
from services.campaigns import askable
from services.cases import word
from services.mail import pace
from services.selection import dormant, reason
from settings import Settings

LIVE_CASE = "live_case"
UNREACHABLE = "unreachable"
TOLD = "told"


@dataclass(frozen=True, slots=True)
class Preview:
    """Who would be in at ``at``, why the others are out, and the money that is at stake each month and year."""

    at: datetime
    members: int
    priced: int
    """How many have a price over 0 on record; whoever has none counts as free, and nobody free is asked."""
    dormant: int
    by_rule: dict[str, int]
    out_by_reason: dict[str, int]
    paying: int
    percent_of_paying: float
    money: list[dict[str, Any]]
    """A row for each currency and billing interval: currency, interval, members, amount_minor (of one interval)."""
    deadline_at: datetime
    hold: breaker.Hold | None


def preview(session: Session, settings: Settings, now: datetime) -> Preview:
    """The forecast of a campaign that would be drafted at ``now``: counts by the one rule, each reason on its own."""
    code = reason(settings.policy, now)
    reachable, no_live_case, not_told = askable(settings, now)
    verdict = sa.case(
        (code.not_in([str(c) for c in DORMANT]), code),
        (~reachable, UNREACHABLE),
        (~no_live_case, LIVE_CASE),
        (~not_told, TOLD),
        else_=code,
    ).label("verdict")
    counted = session.execute(
        select(verdict, func.count(), func.count().filter(Member.price_minor > 0))
        .where(Member.status != "purged")
        .group_by(verdict)
    ).all()
    counts = {str(word): count for word, count, _priced in counted}
    by_rule = {str(rule): counts.pop(rule, 0) for rule in (Code.NEVER_USED, Code.STOPPED_USING)}
    total = sum(by_rule.values())
    chosen = dormant(
        settings.policy, now, [Member.currency, Member.billing_interval, Member.price_minor], *askable(settings, now)
    ).subquery()
    money = session.execute(
        select(chosen.c.currency, chosen.c.billing_interval, func.count(), func.sum(chosen.c.price_minor))
        .group_by(chosen.c.currency, chosen.c.billing_interval)
        .order_by(func.count().desc())
    ).all()
    paying = breaker.count_paying(session)
    would_be = Campaign(month=dates.month_of(now, settings.zone), released={})
    return Preview(
        at=now,
        members=total + sum(counts.values()),
        priced=sum(priced for _word, _count, priced in counted),
        dormant=total,
        by_rule=by_rule,
        out_by_reason=dict(sorted(counts.items(), key=lambda item: -item[1])),
        paying=paying,
        percent_of_paying=round(100 * total / paying, 2) if paying else 0.0,
        money=[
            {"currency": currency, "interval": interval, "members": count, "amount_minor": int(amount)}
            for currency, interval, count, amount in money
        ],
        deadline_at=dates.month_end_with_notice(now, settings.min_notice_days, settings.zone),
        hold=breaker.check(session, settings, would_be, total, now),
    )


def dormant_rows(session: Session, settings: Settings, now: datetime) -> Any:
    """The dormant one by one, as a stream of rows in the order of the preview's CSV."""
    columns = [
        Member.external_id,
        Member.joined_at,
        Member.last_used_at,
        Member.last_sign_of_life_at,
        Member.price_minor,
        Member.currency,
    ]
    selected = dormant(settings.policy, now, columns, *askable(settings, now))
    result = session.execute(selected.execution_options(yield_per=1000))
    return (_as_mapping(row) for row in result)


def _as_mapping(row: Row[Any]) -> dict[str, Any]:
    return dict(row._mapping)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far the notices of a campaign are; before approval ``queued`` are those that approving would queue."""

    sent: int
    queued: int
    failed: int
    per_hour: int | None
    """The speed of the last hour; None while there is none."""
    done_at: datetime | None
    """When the last of them will have gone out, by the settings of pace and that speed; None: not known, or held."""
    in_time: bool | None
    """Whether all warnings that wait will leave the notice before the campaign's deadline."""


@dataclass(frozen=True, slots=True)
class Status:
    """Where a campaign stands. ``totals`` has cases by state and messages by state, over all kinds."""

    month: str
    state: str
    hold_reason: str | None
    hold_sentence: str | None
    deadline_at: datetime | None
    approve_by: date | None
    """Of a draft: the last day on which approving still gives the deadline it has today."""
    cancel_reason: str | None
    cancelled_at: datetime | None
    totals: dict[str, dict[str, int]]
    delivery: Delivery
    next_step: str


def status(session: Session, settings: Settings, month: str, now: datetime) -> Status:
    """Raises NotFound. A case that is live counts as ``open``, or as ``kept`` or ``lapsing`` once answered."""
    campaign = session.scalar(select(Campaign).where(Campaign.month == month))
    if campaign is None:
        raise NotFound(f"There is no campaign of {month}.")
    undecided = campaign.opened_at is None and campaign.state in (CampaignState.DRAFT, CampaignState.HELD)
    deadline = (
        dates.month_end_with_notice(now, settings.min_notice_days, settings.zone) if undecided else campaign.deadline_at
    )
    state = word()
    cases = session.execute(select(state, func.count()).where(Case.campaign_id == campaign.id).group_by(state)).all()
    messages = session.execute(
        select(Message.state, func.count())
        .where(Message.campaign_id == campaign.id, Message.member_id.is_not(None))
        .group_by(Message.state)
    ).all()
    return Status(
        month=campaign.month,
        state=campaign.state,
        hold_reason=campaign.hold_reason,
        hold_sentence=hold_sentence(campaign.hold_reason, campaign.hold_facts or {}),
        deadline_at=deadline,
        approve_by=dates.last_day_to_open(now, settings.min_notice_days, settings.zone) if undecided else None,
        cancel_reason=campaign.cancel_reason,
        cancelled_at=campaign.cancelled_at,
        totals={
            "cases": {str(word): count for word, count in cases},
            "messages": {str(word): count for word, count in messages},
        },
        delivery=_delivery(session, settings, campaign, undecided, deadline, now),
        next_step=_next_step(settings, campaign, deadline),
    )


def _delivery(
    session: Session, settings: Settings, campaign: Campaign, undecided: bool, deadline: datetime | None, now: datetime
) -> Delivery:
    notices = (Message.campaign_id == campaign.id, Message.kind.in_(NOTICES))
    counted = session.execute(select(Message.state, func.count()).where(*notices).group_by(Message.state)).all()
    states = {str(state): count for state, count in counted}
    waiting = states.get(MessageState.QUEUED, 0) + states.get(MessageState.SENDING, 0)
    warnings = select(func.count()).select_from(Message).where(*notices, Message.kind == Kind.WARNING)
    unsent = session.scalar(warnings.where(Message.state.in_([MessageState.QUEUED, MessageState.SENDING]))) or 0
    if undecided:
        live = select(func.count()).select_from(Case).where(Case.campaign_id == campaign.id, Case.closed_at.is_(None))
        waiting = unsent = session.scalar(live.where(Case.answer.is_(None))) or 0
    rate = _speed(session, *notices, Message.sent_at > now - timedelta(hours=1), Message.sent_at <= now)
    # A round that has not begun goes out as fast as the last one did.
    expected = rate or _speed(session, *_fullest_hour(session))
    is_held = campaign.state == CampaignState.HELD and not undecided
    spent = pace.spent_today(session, settings, now)
    done = None if is_held else pace.done_at(settings, now, waiting, spent, expected)
    if done is not None and waiting:
        # What came back is not due yet; what a process holds, killed or not, no other takes before its lease is over.
        when = sa.case((Message.state == MessageState.SENDING, Message.lease_until), else_=Message.due_at)
        waits = Message.state.in_([MessageState.QUEUED, MessageState.SENDING])
        done = max(done, session.scalar(select(func.max(when)).where(*notices, waits)) or done)
    in_time = None
    if unsent and done is not None and deadline is not None:
        in_time = dates.month_end_with_notice(done, settings.min_notice_days, settings.zone) <= deadline
    return Delivery(
        sent=states.get(MessageState.SENT, 0),
        queued=waiting,
        failed=states.get(MessageState.FAILED, 0) + states.get(MessageState.BOUNCED, 0),
        per_hour=round(rate * 3600) if rate else None,
        done_at=done if waiting else None,
        in_time=in_time,
    )


def _fullest_hour(session: Session) -> tuple[sa.ColumnElement[bool], ...]:
    """The notices of that hour of the round written to last in which most went out."""
    sent = (Message.kind.in_(NOTICES), Message.state == MessageState.SENT)
    last = select(Message.campaign_id).where(*sent).order_by(Message.sent_at.desc()).limit(1)
    hour = func.epoch(Message.sent_at) - func.epoch(Message.sent_at) % 3600
    of_it = (*sent, Message.campaign_id == last.scalar_subquery())
    fullest = select(hour).where(*of_it).group_by(hour).order_by(func.count().desc()).limit(1)
    return (*of_it, hour == fullest.scalar_subquery())


def _speed(session: Session, *which: sa.ColumnElement[bool]) -> float:
    """How many of these mails went out a second; 0 where that says nothing.

    All but the last twentieth: a mail that a server has put off comes long after the others, and tells of no speed.
    """
    sent = (*which, Message.state == MessageState.SENT)
    count, first = session.execute(select(func.count(), func.min(Message.sent_at)).where(*sent)).one()
    most = count * 19 // 20
    if most < 2:
        return 0
    in_turn = select(Message.sent_at).where(*sent).order_by(Message.sent_at)
    last = session.scalar(in_turn.offset(most - 1).limit(1))
    seconds = (last - first).total_seconds() if last is not None and first is not None else 0
    return float((most - 1) / seconds) if seconds else 0


def unreachable(session: Session, month: str) -> list[dict[str, Any]]:
    """Whom the mail of a round did not reach and who may be written to on paper. Raises NotFound.

    Whoever has a new address since, or was erased, is not in it: nobody needs to write to them.
    """
    campaign_id = session.scalar(select(Campaign.id).where(Campaign.month == month))
    if campaign_id is None:
        raise NotFound(f"There is no campaign of {month}.")
    rows = session.execute(
        select(
            Member.external_id,
            Member.name,
            Member.email,
            Member.locale,
            Member.plan,
            Member.mail_state.label("why"),
            Case.closed_at.label("since"),
        )
        .join(Member, Member.id == Case.member_id)
        .where(
            Case.campaign_id == campaign_id,
            Case.state == CaseState.UNREACHABLE,
            Member.mail_state != MailState.GOOD,
            Member.status != MemberStatus.PURGED,
        )
        .order_by(Member.external_id)
    )
    return [dict(row._mapping) for row in rows]


def hold_sentence(reason_: str | None, facts: dict[str, Any]) -> str | None:
    """Why a campaign is held, in one sentence; what operators read at a terminal is in English."""
    with wording.in_language("en"):
        return wording.hold_sentence(reason_, facts)


def _next_step(settings: Settings, campaign: Campaign, deadline: datetime | None) -> str:
    day = "" if deadline is None else f"{dates.named_day(deadline, settings.zone):%-d %B %Y}"
    silence_ends = settings.on_silence == "lapse"
    match campaign.state:
        case CampaignState.DRAFT:
            ending = "memberships would then end" if silence_ends else "whoever wants to end would then do so"
            return f"Approve it with `flask campaign approve {campaign.month}`; {ending} on {day}."
        case CampaignState.HELD:
            return (
                f"Look into the reason, then `flask campaign release {campaign.month}`"
                f" or `flask campaign cancel {campaign.month}`."
            )
        case CampaignState.OPEN:
            if not silence_ends:
                return f"Nothing to do: who wants to end does so on {day}, and what nobody answers continues."
            return f"Nothing to do: what nobody confirms ends on {day}."
        case _:
            return "Nothing to do."
