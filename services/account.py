"""What signed-in pages show of a membership beside the notice: its library, its history, an end of one's own wish.

All of it only reads, with a number of queries that does not depend on how much there is.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain import dates
from models import Event, ListItem, Member, Profile, SavedList
from services import evidence
from settings import Settings

FIRST_TITLES = 5
SHOWN_TITLES = 500
"""The rest unfolds, so that whoever looks whether everything is there can see it; the download has it all."""
HISTORY = 100


@dataclass(frozen=True, slots=True)
class ListAtAGlance:
    """``name`` as the service calls it, how many items it holds, and their titles up to SHOWN_TITLES."""

    kind: str
    name: str
    count: int
    titles: list[str]

    @property
    def first(self) -> list[str]:
        return self.titles[:FIRST_TITLES]

    @property
    def folded(self) -> list[str]:
        return self.titles[FIRST_TITLES:]

    @property
    def not_shown(self) -> int:
        return self.count - len(self.titles)


@dataclass(frozen=True, slots=True)
class ProfileAtAGlance:
    name: str
    settings: dict[str, Any]
    lists: list[ListAtAGlance]


@dataclass(frozen=True, slots=True)
class End:
    """What an end of one's own, unasked, would mean today; exclusive bounds."""

    ends_at: datetime
    access_ends_at: datetime
    keep_until: datetime


def library_at_a_glance(session: Session, member_id: int) -> list[ProfileAtAGlance]:
    """The member's profiles in their order, each with its lists, their sizes and titles; four queries."""
    counts: dict[int, int] = {
        list_id: count
        for list_id, count in session.execute(
            select(ListItem.list_id, func.count()).where(ListItem.member_id == member_id).group_by(ListItem.list_id)
        )
    }
    titles: dict[int, list[str]] = defaultdict(list)
    for list_id, title in session.execute(
        select(ListItem.list_id, ListItem.title)
        .where(ListItem.member_id == member_id, ListItem.position < SHOWN_TITLES)
        .order_by(ListItem.list_id, ListItem.position)
    ):
        titles[list_id].append(title)
    lists: dict[int, list[ListAtAGlance]] = defaultdict(list)
    for saved in session.scalars(
        select(SavedList).where(SavedList.member_id == member_id).order_by(SavedList.position)
    ):
        lists[saved.profile_id].append(
            ListAtAGlance(saved.kind, saved.name, counts.get(saved.id, 0), titles.get(saved.id, []))
        )
    profiles = session.scalars(select(Profile).where(Profile.member_id == member_id).order_by(Profile.position))
    return [ProfileAtAGlance(profile.name, profile.settings, lists.get(profile.id, [])) for profile in profiles]


def history(session: Session, member_id: int, limit: int | None = HISTORY) -> list[Event]:
    """What this programme has done and heard, the latest first; a limit of None gives all of it."""
    return list(
        session.scalars(
            select(Event).where(Event.member_id == member_id).order_by(Event.at.desc(), Event.id.desc()).limit(limit)
        )
    )


def everything(session: Session, settings: Settings, member: Member, now: datetime) -> dict[str, Any]:
    """All that is on record of a member, for the member: who they are and what they pay, and the evidence."""
    return {
        "email": member.email,
        "name": member.name,
        "locale": member.locale,
        "plan": member.plan,
        "price_minor": member.price_minor,
        "currency": member.currency,
        "billing_interval": member.billing_interval,
        "subscription_status": member.subscription_status,
        "paid_through": None if member.paid_through is None else member.paid_through.isoformat(),
        **evidence.member_evidence(session, settings, member, now),
    }


def end_unasked(member: Member, settings: Settings, now: datetime) -> End:
    """When a membership ends that its member ends today without having been asked: see decisions.answer."""
    ends_at = dates.next_month_end(now, settings.zone)
    access_ends_at = max(ends_at, member.paid_through or ends_at)
    return End(ends_at, access_ends_at, dates.keep_until(access_ends_at, settings.keep_months, settings.zone))
