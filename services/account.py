"""What signed-in pages show of a membership beside the notice: its library, its history, an end of one's own wish.

All of it only reads, by one query each, however much there is.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from domain import dates
from domain.lifecycle import OrderKind, OrderState
from models import BillingOrder, Event, ListItem, Member, Profile, SavedList, SignIn
from models.base import UTCDateTime
from services import evidence, sign_ins
from services.billing import UNSETTLED
from services.together import Together
from settings import Settings

FIRST_TITLES = 5
SHOWN_TITLES = 500
"""The rest of a list unfolds, so that whoever looks whether everything is there can see it; the download has it all."""
ROOM = 14_000
BESIDE_A_TITLE = 10
"""Bytes that all titles of a page may take, each with what stands around it: no page is heavier than 60 kB."""
HISTORY = 50


@dataclass(frozen=True, slots=True)
class ListAtAGlance:
    """``name`` as the service calls it, how many items it holds, and the titles that a page has room for."""

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
class Happening:
    """An event, as far as members are told of it: codes, which blueprints/account/history.py words."""

    at: datetime
    code: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class End:
    """What an end of one's own, unasked, would mean today; exclusive bounds."""

    ends_at: datetime
    access_ends_at: datetime
    keep_until: datetime
    gives_back: bool
    """What is paid for the time after the end goes back."""


@dataclass(frozen=True, slots=True)
class OnRecord:
    """``history`` is what this programme has done and heard, the latest first, up to HISTORY."""

    library: list[ProfileAtAGlance]
    history: list[Happening]
    unconfirmed: frozenset[str]
    """Kinds of billing orders that the payment provider has not confirmed yet."""
    sign_ins: list[tuple[str, str, datetime]]
    """Where the member is signed in, the latest first: public_id, kind of device, since when."""


def _questions(**more: Any) -> Together:
    member_id: Any = bindparam("member_id")
    held = select(func.count()).where(ListItem.list_id == SavedList.id).scalar_subquery()
    return Together(
        profiles=select(Profile.id, Profile.position, Profile.name, Profile.settings).where(
            Profile.member_id == member_id
        ),
        lists=select(
            SavedList.id, SavedList.profile_id, SavedList.position, SavedList.kind, SavedList.name, held.label("held")
        ).where(SavedList.member_id == member_id),
        titles=select(ListItem.list_id, ListItem.position, ListItem.title).where(
            ListItem.member_id == member_id, ListItem.position < SHOWN_TITLES
        ),
        **more,
    )


EVERYTHING_SHOWN = _questions(
    events=select(Event.id, Event.at, Event.code, Event.detail)
    .where(Event.member_id == bindparam("member_id"))
    .order_by(Event.at.desc(), Event.id.desc())
    .limit(HISTORY),
    orders=select(BillingOrder.kind).where(
        BillingOrder.member_id == bindparam("member_id"), BillingOrder.state.in_(UNSETTLED)
    ),
    sign_ins=select(SignIn.id, SignIn.public_id, SignIn.device, SignIn.at).where(
        SignIn.member_id == bindparam("member_id"), SignIn.at > bindparam("since", type_=UTCDateTime())
    ),
)

COMING_BACK = _questions(
    tries=select(BillingOrder.id, BillingOrder.state, BillingOrder.pay_at, BillingOrder.ended_before).where(
        BillingOrder.member_id == bindparam("member_id"), BillingOrder.kind == OrderKind.RESTART
    )
)


@dataclass(frozen=True, slots=True)
class Declined:
    """The payment of the last try to come back was declined; ``pay_at`` is where another way to pay is, if anywhere."""

    pay_at: str | None


def on_record(session: Session, member_id: int, now: datetime) -> OnRecord:
    """What the page of a membership shows beside its facts; one query."""
    found = EVERYTHING_SHOWN.fetch(session, member_id=member_id, since=now - sign_ins.LASTS)
    latest = sorted(found["events"], key=attrgetter("at", "id"), reverse=True)
    history = [Happening(event.at, event.code, event.detail) for event in latest]
    return OnRecord(
        library=_library(found),
        history=history,
        unconfirmed=frozenset(order.kind for order in found["orders"]),
        sign_ins=[
            (one.public_id, one.device, one.at)
            for one in sorted(found["sign_ins"], key=attrgetter("at", "id"), reverse=True)
        ],
    )


def waiting(session: Session, member: Member) -> tuple[list[ProfileAtAGlance], Declined | None]:
    """What waits for a lapsed member, and whether a try to come back has failed; one query."""
    found = COMING_BACK.fetch(session, member_id=member.id)
    last = max(found["tries"], key=attrgetter("id"), default=None)
    ended = None if member.lapsed_at is None else member.lapsed_at.isoformat()
    declined = (
        last is not None and last.state == OrderState.SUPERSEDED and (last.ended_before or {}).get("lapsed_at") == ended
    )
    return _library(found), Declined(last.pay_at) if declined and last is not None else None


def _library(found: dict[str, list[Any]]) -> list[ProfileAtAGlance]:
    titles: dict[int, list[str]] = defaultdict(list)
    room = ROOM
    # The first of all lists before the second of any: no list is empty because another is long.
    for one in sorted(found["titles"], key=attrgetter("position", "list_id")):
        room -= len(one.title.encode()) + BESIDE_A_TITLE
        if room < 0:
            break
        titles[one.list_id].append(one.title)
    lists: dict[int, list[ListAtAGlance]] = defaultdict(list)
    for saved in sorted(found["lists"], key=attrgetter("position")):
        lists[saved.profile_id].append(ListAtAGlance(saved.kind, saved.name, saved.held, titles.get(saved.id, [])))
    return [
        ProfileAtAGlance(profile.name, profile.settings, lists.get(profile.id, []))
        for profile in sorted(found["profiles"], key=attrgetter("position"))
    ]


def everything(session: Session, settings: Settings, member: Member, now: datetime) -> dict[str, Any]:
    """All that is on record of a member, for the member: what they pay, and the evidence; one query."""
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
        **evidence.member_evidence(session, settings, member, now, to_themselves=True),
    }


def told_in(evidence: dict[str, Any]) -> list[Happening]:
    """All of the history that is in ``everything``, the latest first."""
    events = reversed(evidence["events"])
    return [Happening(datetime.fromisoformat(event["at"]), event["code"], event["detail"]) for event in events]


def end_unasked(member: Member, settings: Settings, now: datetime) -> End:
    """When a membership ends that its member ends today without having been asked: see decisions.answer."""
    ends_at = dates.next_month_end(now, settings.zone)
    gives_back = settings.gives_back(member.price_minor, member.subscription_status)
    access_ends_at = dates.access_ends(ends_at, member.paid_through, refunded=gives_back)
    rest = gives_back and member.paid_through is not None and member.paid_through > ends_at
    keep_until = dates.keep_until(access_ends_at, settings.keep_months, settings.zone)
    return End(ends_at, access_ends_at, keep_until, rest)
