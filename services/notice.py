"""What holds for a case at this instant, and what of it is shown where.

Two readers, one truth: ``notice_for`` is what banner and API show a signed-in member (nothing, most of the time);
``standing`` is what the page behind a check-in link tells about its case, at any time until and after its end.
Both read only.
"""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, bindparam, exists, select
from sqlalchemy.orm import Session, aliased

from domain import dates
from domain.lifecycle import Answer, CampaignState, CaseState, MemberStatus, OrderKind, Rule
from domain.money import Money, known
from models import Campaign, Case, Member
from services.billing import rest_of, unconfirmed
from services.cases import CAN_STILL_END, ends_by_silence, honoured_at, why_not
from settings import Settings


class State(StrEnum):
    """What a page says of a case. From RETURNED on it is how the case ended, or how it will at month end because the
    facts have changed already."""

    OPEN = "open"
    KEPT = "kept"
    LAPSING = "lapsing"
    WAITING = "waiting"
    """The round is a draft or held: nobody's silence ends anything, a member's own wish does."""
    ERASING = "erasing"

    LAPSED = "lapsed"
    BACK = "back"
    ENDED = "ended"
    PURGED = "purged"
    ASKED_AGAIN = "asked_again"
    """This case is over, the membership runs, and a newer case is live."""

    RETURNED = "returned"
    EXEMPTED = "exempted"
    WITHDRAWN = "withdrawn"
    UNREACHABLE = "unreachable"
    TOLD = "told"
    """An end was wanted, or silence would have meant one, of what an app store or a partner bills: it runs on."""


@dataclass(frozen=True, slots=True)
class Found:
    """The facts the case rests on; all None once a purge has erased them. ``months`` since the sign of life."""

    joined_at: datetime | None
    last_used_at: datetime | None
    sign_of_life_at: datetime | None
    months: int


@dataclass(frozen=True, slots=True)
class Notice:
    """A live case, for the member: why we ask, until when (an exclusive bound), what it costs, what was answered."""

    rule: Rule
    facts: Found
    deadline: datetime
    price: Money | None
    interval: str | None
    paid: Money | None
    """What the provider has charged since the sign of life, and as of when; None where it does not tell."""
    paid_as_of: datetime | None
    answer: Answer | None
    state: State
    ends_by_silence: bool
    """Whether no answer means the end (ON_SILENCE)."""
    billed_by: str | None
    """The app store or partner where alone the member can end it; None: it ends here."""
    locale: str | None
    """The member's language."""
    case: tuple[str, int]
    """What its check-in link is made for: the case's public_id and the generation of its address."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What an end of this membership means, or meant: exclusive bounds. And when a keep would be asked about again."""

    ends_at: datetime
    access_ends_at: datetime
    keep_until: datetime
    asked_again_on: date


@dataclass(frozen=True, slots=True)
class Standing:
    """A case and its member as they are now, and what that amounts to."""

    state: State
    case: Case
    member: Member
    facts: Found
    deadline: datetime
    ends_by_silence: bool
    overdue: bool
    """The day that was named is over and the month end has not got here yet: until it has, every answer counts."""
    answers: tuple[Answer, ...]
    """What can be answered now: both, the other one, or nothing any more."""
    outlook: Outlook
    gives_back: bool = False
    """What is paid for the time after the end goes back, or has gone back."""
    unconfirmed: bool = False
    """The payment provider has not confirmed yet that charges have stopped."""

    @property
    def live(self) -> bool:
        return self.case.closed_at is None

    @property
    def voided(self) -> bool:
        """A machine had pressed "keep" and an operator has taken that back: the member is asked anew."""
        return self.case.answer is None and self.case.answer_note is not None


def notice_for(session: Session, settings: Settings, member: Member, now: datetime) -> Notice | None:
    """What banner, page and API show this member; one query.

    A silent case is shown while its campaign is open and the facts it rests on still hold; an answered one while it is
    live. A member's own end is honoured whatever becomes of the campaign, so that stays in sight when it is held.
    """
    return notice_of(session, settings, member.id, now)


def notice_by_id(session: Session, settings: Settings, external_id: str, now: datetime) -> tuple[bool, Notice | None]:
    """The same for whoever has this id at the service; False where nobody has."""
    member_id = session.scalar(
        select(Member.id).where(Member.external_id == external_id, Member.erase_requested_at.is_(None))
    )
    return member_id is not None, None if member_id is None else notice_of(session, settings, member_id, now)


def notice_of(session: Session, settings: Settings, member_id: int, now: datetime) -> Notice | None:
    """The same, of a member who has not been loaded."""
    row = session.execute(_cases(settings, LIVE), {"member_id": member_id}).one_or_none()
    if row is None:
        return None
    seen = _standing(row, settings, now)
    campaign_open = seen.case.campaign_id is None or row.campaign_state == CampaignState.OPEN
    shown = seen.state in (State.LAPSING, State.TOLD) or (campaign_open and seen.state in (State.OPEN, State.KEPT))
    if not shown:
        return None
    case, member = seen.case, seen.member
    return Notice(
        rule=Rule(case.rule),
        facts=seen.facts,
        deadline=seen.deadline,
        price=None if not member.price_minor or member.currency is None else Money(member.price_minor, member.currency),
        interval=member.billing_interval,
        paid=known(case.paid_minor, case.paid_currency),
        paid_as_of=case.paid_asked_at,
        answer=None if case.answer is None else Answer(case.answer),
        state=seen.state,
        ends_by_silence=seen.ends_by_silence,
        billed_by=member.billed_by,
        locale=member.locale,
        case=(case.public_id, case.address_generation),
    )


def standing(
    session: Session, settings: Settings, which: ColumnElement[bool], now: datetime, **values: Any
) -> Standing | None:
    """The standing of the case that ``which`` names, None where there is none; one query.

    ``values`` are those of ``LIVE`` and ``BY_LINK``, which pages go by.
    """
    row = session.execute(_cases(settings, which), values).one_or_none()
    return None if row is None else _standing(row, settings, now)


LIVE: ColumnElement[bool] = and_(Case.member_id == bindparam("member_id"), Case.closed_at.is_(None))
BY_LINK: ColumnElement[bool] = and_(
    Case.public_id == bindparam("public_id"), Case.address_generation == bindparam("generation")
)
_MADE: dict[tuple[str, tuple[str, ...]], Any] = {}


def _cases(settings: Settings, which: ColumnElement[bool]) -> Any:
    """The statement of both readers. Putting it together takes as long as half a page, so that is done once."""
    name = "live" if which is LIVE else "by_link" if which is BY_LINK else None
    if name is None:
        return _put_together(settings).where(which)
    key = name, settings.exempt_plans
    if key not in _MADE:
        _MADE[key] = _put_together(settings).where(which)
    return _MADE[key]


def _put_together(settings: Settings) -> Any:
    other = aliased(Case)
    again = exists().where(other.member_id == Case.member_id, other.id != Case.id, other.closed_at.is_(None))
    return (
        select(
            Case,
            Member,
            Campaign.state.label("campaign_state"),
            why_not(settings).label("gone"),
            again.label("asked_again"),
            unconfirmed(OrderKind.STOP).label("unconfirmed"),
            rest_of(Case).label("rest"),
        )
        .join(Member, Member.id == Case.member_id)
        .outerjoin(Campaign, Campaign.id == Case.campaign_id)
        # What somebody else wrote meanwhile is what holds, whatever this session has seen before.
        .execution_options(populate_existing=True)
    )


def _standing(row: Row[Any], settings: Settings, now: datetime) -> Standing:
    case, member = row.Case, row.Member
    state = _state(case, member, row.campaign_state, row.gone, row.asked_again)
    over = case.deadline_at is not None and case.deadline_at <= now
    named = case.warned_at is not None or case.answer is not None
    until = case.closed_at or now
    sign = case.found_sign_of_life_at or until
    outlook = _outlook(case, member, row.campaign_state, settings, now)
    rest = member.paid_through is not None and member.paid_through > outlook.ends_at
    will_go_back = member.status == MemberStatus.ACTIVE and rest and _gives_back(member, settings)
    months = dates.months_between(dates.local_day(sign, settings.zone), dates.local_day(until, settings.zone))
    return Standing(
        state=state,
        case=case,
        member=member,
        facts=Found(case.found_joined_at, case.found_last_used_at, case.found_sign_of_life_at, max(0, months)),
        deadline=_deadline(case, settings, now),
        ends_by_silence=ends_by_silence(settings, member.billed_by, case.told_it_continues),
        overdue=case.closed_at is None and named and over,
        answers=_answers(case, state, over),
        outlook=outlook,
        gives_back=bool(row.rest) or will_go_back,
        unconfirmed=bool(row.unconfirmed),
    )


def _gives_back(member: Member, settings: Settings) -> bool:
    return settings.gives_back(member.price_minor, member.subscription_status)


def _state(case: Case, member: Member, campaign_state: str | None, gone: str | None, asked_again: bool) -> State:
    if member.status == MemberStatus.PURGED:
        return State.PURGED
    if member.erase_requested_at is not None:
        return State.ERASING
    if case.closed_at is None:
        if member.status != MemberStatus.ACTIVE:
            return State.ENDED
        if case.answer is not None:
            if case.answer == Answer.KEEP:
                return State.KEPT
            return State.LAPSING if member.billed_by is None else State.TOLD
        if gone is not None:
            return State(gone)
        return State.WAITING if campaign_state in (CampaignState.DRAFT, CampaignState.HELD) else State.OPEN
    if member.status == MemberStatus.LAPSED:
        return State.LAPSED
    if member.status == MemberStatus.ENDED:
        return State.ENDED
    if asked_again:
        return State.ASKED_AGAIN
    return State.BACK if case.state == CaseState.LAPSED else State(case.state)


def _answers(case: Case, state: State, over: bool) -> tuple[Answer, ...]:
    if state in (State.OPEN, State.WAITING):
        return (Answer.KEEP, Answer.LAPSE)
    if state is State.LAPSING or (state is State.TOLD and case.closed_at is None):
        return (Answer.KEEP,)
    if state in (State.ERASING, State.LAPSED, State.BACK, State.ENDED, State.PURGED, State.ASKED_AGAIN):
        return ()
    # The membership runs on, and may still be ended by its member's own wish.
    return (Answer.LAPSE,) if case.closed_at is None or (case.state in CAN_STILL_END and not over) else ()


def _deadline(case: Case, settings: Settings, now: datetime) -> datetime:
    """The day silence leads to: the one the warning named; before it has gone out, the first it can still name."""
    if case.deadline_at is not None and (case.warned_at is not None or case.answer is not None):
        return case.deadline_at
    first = dates.month_end_with_notice(now, settings.min_notice_days, settings.zone)
    return max(first, case.deadline_at or first)


def _outlook(case: Case, member: Member, campaign_state: str | None, settings: Settings, now: datetime) -> Outlook:
    zone = settings.zone
    if member.status == MemberStatus.LAPSED and member.lapsed_at and member.access_ends_at and member.keep_until:
        # The database holds these three to be there: a lapse promises them.
        ends_at, access_ends_at, keep_until = member.lapsed_at, member.access_ends_at, member.keep_until
    else:
        ends_at = (case.answer == Answer.LAPSE and case.deadline_at) or honoured_at(case, campaign_state, settings, now)
        access_ends_at = dates.access_ends(ends_at, member.paid_through, refunded=_gives_back(member, settings))
        keep_until = dates.keep_until(access_ends_at, settings.keep_months, zone)
    quiet = settings.never_used_months if member.last_used_at is None else settings.stopped_using_months
    kept_at = case.answered_at if case.answer == Answer.KEEP and case.answered_at else now
    return Outlook(ends_at, access_ends_at, keep_until, dates.add_months(dates.local_day(kept_at, zone), quiet))
