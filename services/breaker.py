"""A run that looks wrong stops itself (design promise 8).

At draft, at opening and at close the number of members concerned is held against the paying members, against the last
closed campaign, and the use feed against the clock. Counting stops as soon as the answer is known, so a draft takes as
long for ten million members as for one.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from sqlalchemy import Select, SelectBase, func, literal_column, select, union_all
from sqlalchemy.orm import Session

from domain.lifecycle import CampaignState, HoldReason
from models import Campaign, JobRun, Member, UseFeed
from models.member import paying_and_not_exempt
from services.selection import paying
from settings import Settings

RESTORE = "restore"
"""The name under which ``job_run`` remembers a restore, with the month it was made in."""

JUMP = 3
GROWN = 1.5


@dataclass(frozen=True, slots=True)
class Hold:
    """Why to stop. ``figure`` is what a release remembers; ``facts`` are what the sentence for operators says."""

    reason: HoldReason
    figure: float
    facts: dict[str, Any]


def check(session: Session, settings: Settings, campaign: Campaign, concerned: int, now: datetime) -> Hold | None:
    """The first reason to hold this campaign, ``concerned`` members being about to be asked or ended; or None.

    A reason that an operator has released holds again only when its figure has grown by half.
    """
    for hold in (
        _restored(session, campaign),
        _feed_silent(session, settings, now),
        _too_many(session, settings, concerned),
        _share_jumped(session, settings, campaign, concerned),
    ):
        if hold is not None and not is_released(campaign, hold):
            return hold
    return None


def is_released(campaign: Campaign, hold: Hold) -> bool:
    released = (campaign.released or {}).get(hold.reason)
    return released is not None and hold.figure < released * GROWN


def waits_for_feed(session: Session, settings: Settings, deadline: datetime, now: datetime) -> tuple[bool, Hold | None]:
    """Whether close has to wait for a feed that declares how far it is complete, and whether it has waited too long."""
    behind = session.execute(
        select(UseFeed.source, UseFeed.complete_through)
        .where(UseFeed.complete_through.is_not(None), UseFeed.complete_through < deadline)
        .order_by(UseFeed.complete_through)
        .limit(1)
    ).first()
    if behind is None:
        return False, None
    waited = now - deadline
    if waited <= timedelta(days=settings.use_feed_max_days):
        return True, None
    facts = {"source": behind.source, "complete_through": behind.complete_through.isoformat()}
    return True, Hold(HoldReason.FEED_INCOMPLETE, waited / timedelta(days=1), facts)


def _restored(session: Session, campaign: Campaign) -> Hold | None:
    """A round of the month of a restore may rest on what has changed since the backup (services/restoring.py)."""
    restored = session.get(JobRun, (RESTORE, campaign.month)) is not None
    return Hold(HoldReason.RESTORED, 1, {}) if restored else None


def _feed_silent(session: Session, settings: Settings, now: datetime) -> Hold | None:
    last = session.scalar(select(func.max(UseFeed.last_event_at)))
    if last is not None and now - last <= timedelta(days=settings.use_feed_max_days):
        return None
    days = None if last is None else round((now - last) / timedelta(days=1), 1)
    facts = {"last_event_at": None if last is None else last.isoformat(), "days": days}
    return Hold(HoldReason.FEED_SILENT, days or 1.0, facts)


def _too_many(session: Session, settings: Settings, concerned: int) -> Hold | None:
    if concerned <= settings.hold_min_members:
        return None
    share = settings.max_dormant_percent / 100
    if share > 0 and _paying(session, ceil(concerned / share)) * share >= concerned:
        return None
    members = _paying(session)
    percent = _percent(concerned, members)
    facts = {"concerned": concerned, "paying": members, "percent": percent, "limit": settings.max_dormant_percent}
    return Hold(HoldReason.TOO_MANY, percent, facts)


def _share_jumped(session: Session, settings: Settings, campaign: Campaign, concerned: int) -> Hold | None:
    last = session.scalar(
        select(Campaign)
        .where(Campaign.state == CampaignState.CLOSED, Campaign.month < campaign.month)
        .order_by(Campaign.month.desc())
        .limit(1)
    )
    # Nobody last month says nothing about this one; nor does a handful now.
    if concerned < settings.hold_min_members or last is None or not last.dormant_count or not last.paying_count:
        return None
    share = JUMP * last.dormant_count / last.paying_count
    if _paying(session, ceil(concerned / share)) * share >= concerned:
        return None
    members = _paying(session)
    percent = _percent(concerned, members)
    facts = {
        "concerned": concerned,
        "paying": members,
        "percent": percent,
        "last_month": last.month,
        "last_percent": _percent(last.dormant_count, last.paying_count),
    }
    return Hold(HoldReason.SHARE_JUMPED, percent, facts)


def count_paying(session: Session) -> int:
    return _paying(session)


def _paying(session: Session, up_to: int | None = None) -> int:
    """How many members pay; with ``up_to``, counting stops there."""
    if up_to is not None:
        # Those who are not exempt are counted first, by the indexes of the selection: their rows need not be read.
        not_exempt: Select[Any] = select(literal_column("1")).select_from(Member).where(paying_and_not_exempt())
        halves = (not_exempt.where(Member.last_used_at.is_not(None)), not_exempt.where(Member.last_used_at.is_(None)))
        if _count(session, union_all(*halves).limit(up_to)) >= up_to:
            return up_to
    return _count(session, select(literal_column("1")).select_from(Member).where(paying()).limit(up_to))


def _count(session: Session, rows: SelectBase) -> int:
    return session.scalar(select(func.count()).select_from(rows.subquery())) or 0


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 100.0
