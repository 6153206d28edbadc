"""Month end: every live case whose deadline has passed ends, or rolls on, whatever its campaign.

In windows of member ids, each a transaction of its own, so that a crash loses nothing and nobody waits long for a lock;
what takes long with millions of members, such as the breaker's counting, happens between transactions that write. In
each window, in this order:

1. the members are locked (PostgreSQL), so no fact changes between the following statements;
2. explicit ends lapse: an answer of one's own needs no warning and no open campaign;
3. silent cases lapse, by the one UPDATE that has every fact of promises 1 and 2 in its condition. Neither ends what an
   app store or a partner bills by itself, for that would go on being charged;
4. the cases follow: lapsed, told (instead of such an end), kept, returned, exempted, withdrawn, unreachable; the rest
   roll on to a later deadline;
5. stop orders, mails and events of exactly these cases (services/closing_effects.py).

Running it again, late, twice or at once changes nothing more: every statement starts from what it finds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, false, func, literal, or_, select, text, update
from sqlalchemy import case as when
from sqlalchemy.orm import Session

from domain import dates
from domain.lifecycle import (
    Answer,
    CampaignState,
    CaseState,
    MemberStatus,
    MessageState,
    Through,
)
from domain.notices import Kind
from domain.policy import SubscriptionStatus
from models import Campaign, Case, Member, Message, change, for_writing
from models.base import UTCDateTime, latest
from services import breaker, campaigns, closing_effects
from services.cases import facts_hold, new_batch, why_not
from settings import Settings

WINDOW = 2000
"""Cases in one transaction, at most: on SQLite nobody else writes for as long as one takes."""

FIRST_WINDOW = 500
"""How many cases fit is known only after the first window."""

SMALLEST_WINDOW = 100
LONGEST_LOCK = 0.2
"""Seconds that a transaction should take at most; where one took longer, the next windows are smaller."""


@dataclass(slots=True)
class Closed:
    """How many memberships ended, how many cases closed otherwise or rolled on, and whether a feed is awaited."""

    lapsed: int = 0
    otherwise: int = 0
    rolled: int = 0
    waiting_for_feed: bool = False


def close(session: Session, settings: Settings, now: datetime, commit: Callable[[], None]) -> Closed:
    """End what is due at ``now``. ``commit`` is called after every window, with nothing half-done."""
    done = Closed()
    deadlines = _due_deadlines(session, now)
    session.rollback()
    for deadline in deadlines:
        may_end_silence = _look_before_closing(session, settings, deadline, now, done, commit)
        after, size = 0, min(FIRST_WINDOW, WINDOW)
        while True:
            for_writing(session)
            _plan_for_any_window(session)
            began = monotonic()
            last = _end_of_window(session, deadline, after, size)
            if last is None:
                commit()
                break
            _close_window(session, settings, deadline, (after, last), may_end_silence, now, done)
            commit()
            after, size = last, _next_size(size, monotonic() - began)
    _settle_finished(session, now, commit)
    return done


def _due_deadlines(session: Session, now: datetime) -> list[datetime]:
    return list(
        session.scalars(
            select(Case.deadline_at)
            .where(Case.closed_at.is_(None), Case.deadline_at <= now)
            .distinct()
            .order_by(Case.deadline_at)
        )
    )


def _look_before_closing(
    session: Session,
    settings: Settings,
    deadline: datetime,
    now: datetime,
    done: Closed,
    commit: Callable[[], None],
) -> bool:
    """The breaker, before any silent case of this deadline ends. False: they have to wait for the use feed."""
    waits, waited_too_long = breaker.waits_for_feed(session, settings, deadline, now)
    done.waiting_for_feed = done.waiting_for_feed or waits
    warned = session.execute(
        select(Campaign, func.count())
        .join(Case, Case.campaign_id == Campaign.id)
        .where(Campaign.state == CampaignState.OPEN, *_warned_and_silent(deadline))
        .group_by(Campaign.id)
        .order_by(Campaign.month)
    ).all()
    blocked = bool(warned) and waits and waited_too_long is None
    wrong: list[tuple[int, breaker.Hold]] = []
    for campaign, at_most in warned:
        hold = waited_too_long
        if hold is not None and breaker.is_released(campaign, hold):
            hold = None
        if hold is None and not blocked:
            hold = breaker.check(session, settings, campaign, at_most, now)
            if hold is not None:
                # Only those count whose facts still hold. To look at every member is worth it only now.
                concerned = _concerned(session, settings, deadline, campaign)
                hold = breaker.check(session, settings, campaign, concerned, now) if concerned else None
        if hold is not None:
            wrong.append((campaign.id, hold))
    session.rollback()
    if wrong:
        for_writing(session)
        for campaign_id, hold in wrong:
            campaigns.hold_open(session, campaign_id, hold, now)
        commit()
    return not blocked


def _warned_and_silent(deadline: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        Case.closed_at.is_(None),
        Case.deadline_at == deadline,
        Case.warned_at.is_not(None),
        Case.answer.is_(None),
    )


def _concerned(session: Session, settings: Settings, deadline: datetime, campaign: Campaign) -> int:
    found = (
        select(func.count())
        .select_from(Case)
        .join(Member, Member.id == Case.member_id)
        .where(Case.campaign_id == campaign.id, *_warned_and_silent(deadline), facts_hold(settings))
    )
    return session.scalar(found) or 0


def _settle_finished(session: Session, now: datetime, commit: Callable[[], None]) -> None:
    finished = campaigns.any_finished(session)
    paying = breaker.count_paying(session) if finished else 0
    session.rollback()
    if finished:
        for_writing(session)
        campaigns.settle_finished(session, paying, now)
        commit()


def _next_size(size: int, seconds: float) -> int:
    """So many cases as the last window shows that this machine ends within ``LONGEST_LOCK``."""
    fitting = int(size * LONGEST_LOCK / seconds) if 2 * seconds > LONGEST_LOCK else 2 * size
    return min(WINDOW, max(SMALLEST_WINDOW, fitting))


def _plan_for_any_window(session: Session) -> None:
    """Keeps PostgreSQL from planning each window by what it last knew of the tables.

    It has not counted the lapsed since this month end began, takes them for very few, and would look through all of
    them in each window: the time of a close would grow by its square. A plan for whatever values goes by the window.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))


def _end_of_window(session: Session, deadline: datetime, after: int, size: int) -> int | None:
    """The member id that ends the next window, or None where no case is left."""
    due = (
        select(Case.member_id)
        .where(Case.closed_at.is_(None), Case.deadline_at == deadline, Case.member_id > after)
        .order_by(Case.member_id)
        .limit(size)
        .subquery()
    )
    last: int | None = session.scalar(select(func.max(due.c.member_id)))
    return last


def _close_window(
    session: Session,
    settings: Settings,
    deadline: datetime,
    window: tuple[int, int],
    may_end_silence: bool,
    now: datetime,
    done: Closed,
) -> None:
    after, last = window
    here = and_(Case.member_id > after, Case.member_id <= last)
    due = and_(Case.closed_at.is_(None), Case.deadline_at == deadline, here)
    paid_through = _lock(session, due, window)
    batch = new_batch()
    # The batch alone would say which; the window is what an index finds them by.
    ours = and_(here, Case.batch == batch)

    lapses = own_wishes = _lapse(session, settings, deadline, paid_through, due, _ended_by_own_wish())
    if may_end_silence:
        if settings.on_silence == "lapse":
            ended = and_(_ended_by_silence(settings, deadline), ~_told_it_continues())
            lapses += _lapse(session, settings, deadline, paid_through, due, ended)
        _keep_the_silent(session, settings, deadline, due, now)
    done.lapsed += lapses
    if lapses:
        _close_lapsed(session, due, batch, now)
    closed = _tell(session, settings, deadline, due, batch, now, silent_too=may_end_silence)
    closed += _close_otherwise(session, settings, due, batch, now)
    done.otherwise += closed
    if lapses or closed:
        closing_effects.what_follows(session, ours, now)
    if own_wishes:
        closing_effects.give_back_what_came_before_its_stop(session, ours, deadline, now)
    if lapses and settings.refund == "pro_rata":
        closing_effects.give_back_the_rest(session, ours, now)
    if may_end_silence:
        done.rolled += _roll_on(session, settings, due, here, now)


def _lock(session: Session, due: ColumnElement[bool], window: tuple[int, int]) -> datetime | None:
    """Lock the members in the order of their ids (on SQLite a writing transaction is alone); how far any has paid."""
    members = (
        select(Member.paid_through)
        # The window says it once more, or PostgreSQL reads all members there are.
        .where(Member.id.in_(select(Case.member_id).where(due)), Member.id > window[0], Member.id <= window[1])
        .order_by(Member.id)
        .with_for_update(key_share=True)
        .subquery()
    )
    furthest: datetime | None = session.scalar(select(func.max(members.c.paid_through)))
    return furthest


def _ended_by_own_wish() -> ColumnElement[bool]:
    # A keep that came after the answer this statement sees is on the member's row: on PostgreSQL that row is read anew
    # after waiting for it, the case is not.
    return and_(
        Case.answer == Answer.LAPSE,
        or_(Member.last_kept_at.is_(None), Member.last_kept_at <= Case.answered_at),
    )


def _ended_by_silence(settings: Settings, deadline: datetime) -> ColumnElement[bool]:
    """Promise 1 and 2 in one condition: warned in time, at the present address, by a mail the server accepted and
    nobody bounced, in an open campaign, and every fact still as it was found."""
    warning = exists(
        select(Message.id).where(
            Message.case_id == Case.id,
            Message.kind == Kind.WARNING,
            Message.state == MessageState.SENT,
            Message.to_address == Case.warned_to,
        )
    )
    campaign_is_open = exists(
        select(Campaign.id).where(Campaign.id == Case.campaign_id, Campaign.state == CampaignState.OPEN)
    )
    return and_(
        facts_hold(settings),
        Case.warned_at < dates.warned_by(deadline, settings.min_notice_days, settings.zone),
        Member.email == Case.warned_to,
        warning,
        campaign_is_open,
    )


def _told_it_continues() -> ColumnElement[bool]:
    return func.coalesce(Case.told_it_continues, false())


def _lapse(
    session: Session,
    settings: Settings,
    deadline: datetime,
    paid_through: datetime | None,
    due: ColumnElement[bool],
    condition: ColumnElement[bool],
) -> int:
    """The statement that ends memberships, as of the deadline; access runs on to the end of what is paid, unless the
    rest of that goes back."""
    access_ends: ColumnElement[Any] = latest(literal(deadline, UTCDateTime()), Member.paid_through)
    if settings.refund == "pro_rata":
        access_ends = when((_paying(), literal(deadline, UTCDateTime())), else_=access_ends)
    return change(
        session,
        update(Member)
        .where(
            Member.id == Case.member_id,
            Member.status == MemberStatus.ACTIVE,
            Member.billed_by.is_(None),
            due,
            condition,
        )
        .values(
            status=MemberStatus.LAPSED,
            lapsed_at=deadline,
            access_ends_at=access_ends,
            keep_until=keep_until_in_sql(settings, access_ends, deadline, paid_through),
        ),
    )


def _paying() -> ColumnElement[bool]:
    """settings.gives_back in SQL."""
    return and_(Member.price_minor > 0, Member.subscription_status == SubscriptionStatus.ACTIVE)


def keep_until_in_sql(
    settings: Settings, access_ends: ColumnElement[Any], first: datetime, last: datetime | None
) -> ColumnElement[Any]:
    """``dates.keep_until`` of a column whose values lie between two instants: a branch for each month between them.

    Month ends in a time zone are not something both databases can count.
    """
    branches = []
    bound = first
    while last is not None and bound < last:
        branches.append((access_ends <= bound, _instant(dates.keep_until(bound, settings.keep_months, settings.zone))))
        bound = dates.next_month_end(bound, settings.zone)
    longest = _instant(dates.keep_until(bound, settings.keep_months, settings.zone))
    return when(*branches, else_=longest) if branches else longest


def _keep_the_silent(
    session: Session, settings: Settings, deadline: datetime, due: ColumnElement[bool], now: datetime
) -> None:
    """ON_SILENCE=keep: the programme asks only. Silence counts as a keep, or everybody would be asked every month.

    So it does, whatever the setting is by now, of whoever was told that it ends nothing, and can be ended here.
    """
    silent = and_(due, _ended_by_silence(settings, deadline))
    if settings.on_silence == "lapse":
        silent = and_(silent, _told_it_continues(), Member.billed_by.is_(None))
    batch = new_batch()
    kept = change(
        session,
        update(Case)
        .where(Case.member_id == Member.id, silent)
        .values(
            answer=Answer.KEEP,
            answered_at=now,
            answered_through=Through.SILENCE,
            wording_version=settings.wording_version,
            batch=batch,
        ),
    )
    if not kept:
        return
    change(
        session, update(Member).where(Member.id == Case.member_id, due, Case.batch == batch).values(last_kept_at=now)
    )


def _close_lapsed(session: Session, due: ColumnElement[bool], batch: str, now: datetime) -> None:
    """The cases of the members that have just lapsed: a live case whose member has lapsed can be no other."""
    change(
        session,
        update(Case)
        .where(
            due,
            Case.member_id == Member.id,
            Member.status == MemberStatus.LAPSED,
            Member.lapsed_at == Case.deadline_at,
        )
        .values(state=CaseState.LAPSED, closed_at=now, batch=batch),
    )


def _tell(
    session: Session,
    settings: Settings,
    deadline: datetime,
    due: ColumnElement[bool],
    batch: str,
    now: datetime,
    *,
    silent_too: bool,
) -> int:
    """What nobody here can stop does not end here, asked for or not: the member is told where it can be ended."""
    wish = _ended_by_own_wish()
    ends = or_(wish, _ended_by_silence(settings, deadline)) if silent_too else wish
    return change(
        session,
        update(Case)
        .where(
            due,
            Case.member_id == Member.id,
            Member.status == MemberStatus.ACTIVE,
            Member.billed_by.is_not(None),
            ends,
        )
        .values(state=CaseState.TOLD, closed_at=now, batch=batch),
    )


def _close_otherwise(session: Session, settings: Settings, due: ColumnElement[bool], batch: str, now: datetime) -> int:
    how = when(
        (Case.answer == Answer.KEEP, CaseState.KEPT),
        # Who wanted the end and did not lapse has left some other way, or waits for the next run.
        (
            Case.answer == Answer.LAPSE,
            when((Member.status != MemberStatus.ACTIVE, CaseState.WITHDRAWN), else_=None),
        ),
        else_=why_not(settings),
    )
    # Held means that nothing ends because of silence, and nothing is sent: a held round's silent cases wait.
    held = select(Campaign.id).where(Campaign.state == CampaignState.HELD)
    return change(
        session,
        update(Case)
        .where(
            due,
            Case.member_id == Member.id,
            how.is_not(None),
            or_(Case.answer.is_not(None), Case.campaign_id.is_(None), Case.campaign_id.not_in(held)),
        )
        .values(state=how, closed_at=now, batch=batch),
    )


def _roll_on(
    session: Session, settings: Settings, due: ColumnElement[bool], here: ColumnElement[bool], now: datetime
) -> int:
    """Silent cases of open campaigns that had not enough notice: the same case, a later deadline, a warning again."""
    deadline = dates.month_end_with_notice(now, settings.min_notice_days, settings.zone)
    batch = new_batch()
    open_campaigns = select(Campaign.id).where(Campaign.state == CampaignState.OPEN)
    rolled = change(
        session,
        update(Case)
        .where(due, Case.answer.is_(None), Case.campaign_id.in_(open_campaigns))
        .values(deadline_at=deadline, batch=batch),
    )

    if rolled:
        ours = and_(here, Case.batch == batch)
        campaigns.queue_warnings(session, now, ours)
        campaigns.tell_moved(session, now, deadline, ours)
    return rolled


def _instant(value: datetime) -> ColumnElement[Any]:
    return literal(value, UTCDateTime())
