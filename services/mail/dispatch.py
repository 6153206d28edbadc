"""How messages go out: claimed with a lease, recorded before the next is sent.

A message goes through ``queued → sending → sent``; or becomes ``failed`` (refused for good, or tried long enough),
``bounced`` (the address is dead) or ``obsolete`` (what it would say no longer holds).

The order of a delivery matters, and is this:

1. ``claim`` takes due messages whose facts hold *in that statement*, stamps the deadline, and mints links; commit.
2. The mail is rendered and handed to the server, with no transaction open.
3. ``recording.record`` writes the server's reply, if the lease is still ours; commit. Then comes the connection's next
   message.
"""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    String,
    Update,
    and_,
    bindparam,
    case,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session, aliased

from domain import dates
from domain.lifecycle import CampaignState, MemberStatus, MessageState, OrderKind, OrderState
from domain.money import Money, known
from domain.notices import FIRST_OF_NOTICES, NOTICES, PURGE_AFTER_NOTICE_DAYS, Kind
from models import BillingOrder, Campaign, Case, ClockJump, Member, Message, change
from models.base import UTCDateTime, among, is_one_of, latest, said
from services import links
from services.billing import rest_of, rest_unconfirmed, unconfirmed
from services.cases import facts_hold_but, new_batch
from settings import Settings

LEASE = timedelta(minutes=10)
FEW = 10
"""So many rows are read at a time by a thread that steps back: some 0.3 ms of the interpreter's."""

STOP_WITH_THEIR_ROUND = (*NOTICES, Kind.DEADLINE_MOVED)
"""What speaks of a deadline goes out of an open campaign only."""

FOLLOW_A_WARNING = (Kind.REMINDER, Kind.LAST_CALL, Kind.DEADLINE_MOVED, Kind.WITHDRAWN)


_OfMessage = namedtuple("_OfMessage", [
    "id", "public_id", "kind", "locale", "to_address", "attempts", "message_id", "deadline_at", "created_at",
    "member_id", "operator_id", "magic_link_id",
])  # fmt: skip
_OfMember = namedtuple("_OfMember", [
    "id", "external_id", "email", "name", "plan", "price_minor", "currency", "billing_interval", "joined_at",
    "last_used_at", "paid_through", "returned_at", "lapsed_at", "access_ends_at", "keep_until",
    "billed_by", "subscription_status",
])  # fmt: skip
_OfCase = namedtuple("_OfCase", [
    "id", "public_id", "address_generation", "rule", "found_joined_at", "found_last_used_at",
    "found_sign_of_life_at", "warned_at", "deadline_at", "answered_at", "state", "not_mine_at", "closed_at",
    "answer", "answer_note", "paid_minor", "paid_currency", "paid_asked_at", "told_it_continues",
    "reminders_declined_at",
])  # fmt: skip
_OfCampaign = namedtuple("_OfCampaign", [
    "id", "month", "dormant_count", "drafted_at", "hold_reason", "hold_facts",
])  # fmt: skip


NOBODY = _OfMember._make([None] * len(_OfMember._fields))
NO_CASE = _OfCase._make([None] * len(_OfCase._fields))
NO_CAMPAIGN = _OfCampaign._make([None] * len(_OfCampaign._fields))


# Not frozen, for the reason of words.Facts.
@dataclass(slots=True)
class Claimed:
    """A message this process holds, with all that its templates show. ``link`` is the one absolute link in it.

    ``member``, ``case`` and ``campaign`` are rows as the claim read them, of the columns above: no objects of a
    session, so they can be read when nothing is open. ``about`` is the member, or that of the case.
    ``thread`` is the Message-ID of the warning that it follows, where its kind follows one.
    """

    id: int
    public_id: str
    kind: Kind
    locale: str | None
    to_address: str
    attempts: int
    lease_token: str
    message_id: str
    deadline_at: datetime | None
    created_at: datetime
    member: Any = None
    about: Any = None
    case: Any = None
    campaign: Any = None
    operator_id: int | None = None
    link: str | None = None
    thread: str | None = None
    shared: bool = False
    """Whether it is a mail to sign in, and which of several memberships of its address is meant is not known yet."""
    rest: bool = False
    """Of the mail of an end: the rest of what was paid goes back."""
    refunded: Money | None = None
    """How much of it has, where the provider says."""


def claim(
    session: Session,
    settings: Settings,
    now: datetime,
    limit: int,
    *,
    notices: bool = True,
    step_back: Callable[[], None] | None = None,
) -> list[Claimed]:
    """Take up to ``limit`` due messages for this process; commit before rendering. Those of others are skipped.

    Without ``notices``, only what no pace holds back; and no notice is looked at while no round is open. ``step_back``
    is called after every few that are read, by a thread that others must not wait for.
    """
    _release_expired(session, now)
    token = new_batch()
    lease = {"token": token, "lease_until": now + LEASE}
    connection = session.connection()
    connection.execute(
        _taking(tuple(settings.exempt_plans), notices and bool(open_rounds(session))),
        {
            **lease,
            "now": now,
            "at_most": limit,
            "behind_the_at": f"@{_domain(settings.mail_default_sender)}>",
            "wording": settings.wording_version,
            "deadline": dates.month_end_with_notice(now, settings.min_notice_days, settings.zone),
            "earliest_purge": _earliest_purge(now, settings),
        },
    )
    found = connection.execute(_reading(), lease)
    claimed: list[Claimed] = []
    for few in found.partitions(FEW) if step_back is not None else [found.all()]:
        claimed += [_claimed(session, settings, token, now, row) for row in few]
        if step_back is not None:
            step_back()
    return claimed


@lru_cache(maxsize=16)
def _taking(exempt_plans: tuple[str, ...], notices: bool) -> Update:
    """The claim itself. It is kept, because to put it together takes longer than to run it."""
    now = bindparam("now", type_=UTCDateTime())
    # Asked of one message after the other, in the order of the index, until there are enough: however many wait. What
    # may go is asked about an outer join, which PostgreSQL takes for no join of the messages themselves. Of such a join
    # it would read, and sort, all that wait, for each claim.
    alone = select(literal(1).label("one")).subquery("alone")
    may_go = (
        select(literal(1))
        .select_from(
            alone.outerjoin(Case, Case.id == Message.case_id)
            .outerjoin(Member, Member.id == Message.member_id)
            .outerjoin(Campaign, Campaign.id == Case.campaign_id)
        )
        .where(_may_go(exempt_plans))
        .correlate(Message)
    )
    chosen = (
        select(Message.id)
        .where(
            Message.state == said(MessageState.QUEUED),
            Message.due_at <= now,
            may_go.exists(),
            # All else goes before them, so that the index ends where they begin, however many wait.
            true() if notices else and_(~is_one_of(Message.kind, NOTICES), Message.priority < FIRST_OF_NOTICES),
        )
        .order_by(Message.priority, Message.due_at, Message.id)
        .limit(bindparam("at_most"))
        .with_for_update(of=Message, skip_locked=True)
        # As a CTE it is run once; as a plain subquery PostgreSQL may run it again and lock more than the limit.
        .cte("chosen", nesting=True)
    )
    return (
        update(_TABLE)
        .where(among(_TABLE.c.id, select(chosen.c.id).scalar_subquery()), _TABLE.c.state == MessageState.QUEUED)
        .values(
            state=MessageState.SENDING,
            lease_token=bindparam("token"),
            lease_until=bindparam("lease_until"),
            attempts=_TABLE.c.attempts + 1,
            message_id=func.coalesce(
                _TABLE.c.message_id, literal("<") + _TABLE.c.public_id + bindparam("behind_the_at", type_=String())
            ),
            wording_version=bindparam("wording"),
            # Stamped before it is rendered: the first month end that leaves the notice and a day.
            deadline_at=case(
                (_TABLE.c.kind == Kind.WARNING, bindparam("deadline", type_=UTCDateTime())),
                # Told late, nobody is erased before the notice has had its days: that is the day to name.
                (
                    _TABLE.c.kind == Kind.LAST_CHANCE,
                    latest(_TABLE.c.deadline_at, bindparam("earliest_purge", type_=UTCDateTime())),
                ),
                else_=_TABLE.c.deadline_at,
            ),
        )
    )


@lru_cache(maxsize=1)
def _reading() -> Select[Any]:
    """What was claimed, with all that its templates show.

    What is asked of some kinds only stands in a CASE: a subquery that has the kind as one of its conditions is begun
    for each row, before any of them is asked.
    """
    message, member, case_, campaign = (table.__table__.c for table in (Message, Member, Case, Campaign))
    return (
        select(
            *(message[name] for name in _OfMessage._fields),
            *(member[name] for name in _OfMember._fields),
            *(case_[name] for name in _OfCase._fields),
            *(campaign[name] for name in _OfCampaign._fields),
            _warning_before(),
            _address_is_shared(),
            *_went_back(),
        )
        .select_from(_TABLE)
        .outerjoin(Case.__table__, case_.id == message.case_id)
        .outerjoin(Member.__table__, member.id == func.coalesce(message.member_id, case_.member_id))
        .outerjoin(Campaign.__table__, campaign.id == func.coalesce(case_.campaign_id, message.campaign_id))
        # The lease is said in the words of its index, so that nothing is looked through for the token.
        .where(
            message.state == said(MessageState.SENDING),
            message.lease_until == bindparam("lease_until", type_=UTCDateTime()),
            message.lease_token == bindparam("token"),
        )
        .order_by(message.priority, message.due_at, message.id)
    )


_TABLE: Any = Message.__table__
_TO_MEMBER = len(_OfMessage._fields)
_TO_CASE = _TO_MEMBER + len(_OfMember._fields)
_TO_CAMPAIGN = _TO_CASE + len(_OfCase._fields)
_TO_REST = _TO_CAMPAIGN + len(_OfCampaign._fields)


def _claimed(session: Session, settings: Settings, token: str, now: datetime, row: Row[Any]) -> Claimed:
    message = _OfMessage._make(row[:_TO_MEMBER])
    # Without such a row an outer join gives one of nothing but nulls.
    about = None if row[_TO_MEMBER] is None else _OfMember._make(row[_TO_MEMBER:_TO_CASE])
    found_case = None if row[_TO_CASE] is None else _OfCase._make(row[_TO_CASE:_TO_CAMPAIGN])
    campaign = None if row[_TO_CAMPAIGN] is None else _OfCampaign._make(row[_TO_CAMPAIGN:_TO_REST])
    member = None if message.member_id is None else about
    return Claimed(
        message.id,
        message.public_id,
        Kind(message.kind),
        message.locale,
        message.to_address,
        message.attempts,
        token,
        message.message_id,
        message.deadline_at,
        message.created_at,
        member,
        about,
        found_case,
        campaign,
        message.operator_id,
        links.for_message(session, settings, message, member, found_case, now),
        row[_TO_REST],
        row[_TO_REST + 1],
        row[_TO_REST + 2],
        known(row[_TO_REST + 3], row[_TO_REST + 4]),
    )


def give_back(session: Session, claimed: list[Claimed]) -> None:
    """Return claimed messages untried: the budget is over or the server is away. It is no attempt."""
    change(
        session,
        update(Message)
        .where(
            Message.id.in_([one.id for one in claimed]),
            Message.lease_token.in_({one.lease_token for one in claimed}),
        )
        .values(state=MessageState.QUEUED, lease_token=None, lease_until=None, attempts=Message.attempts - 1),
    )


def open_rounds(session: Session) -> frozenset[int]:
    """The campaigns whose notices may go out just now."""
    return frozenset(session.connection().execute(OPEN_ROUNDS).scalars())


OPEN_ROUNDS = select(Campaign.__table__.c.id).where(Campaign.__table__.c.state == CampaignState.OPEN)


def retire(session: Session, settings: Settings) -> int:
    """Queued mails that may never go out become obsolete: their case is over, answered, or no longer as found.

    Those of a held campaign wait: they go out when it is released. The mails of an end that was taken back do not, nor
    does the question whether a new address is right to one that has become another meanwhile.
    """
    return change(session, _retiring(tuple(settings.exempt_plans)))


@lru_cache(maxsize=16)
def _retiring(exempt_plans: tuple[str, ...]) -> Update:
    still = exists(
        select(Case.id)
        .join(Member, Member.id == Case.member_id)
        .join(Campaign, Campaign.id == Case.campaign_id)
        .where(
            Case.id == Message.case_id,
            facts_hold_but(exempt_plans),
            is_one_of(Campaign.state, [CampaignState.OPEN, CampaignState.HELD]),
            Message.to_address == Case.address,
            _still_meant(),
        )
    )
    moved = exists(select(Case.id).where(Case.id == Message.case_id, _day_is_still()))
    ended = exists(select(Member.id).where(Member.id == Message.member_id, _is_over()))
    theirs = exists(select(Member.id).where(Member.id == Message.member_id, Member.email == Message.to_address))
    return (
        update(_TABLE)
        .where(
            _TABLE.c.state == said(MessageState.QUEUED),
            or_(
                and_(is_one_of(_TABLE.c.kind, NOTICES), ~still),
                and_(_TABLE.c.kind == Kind.DEADLINE_MOVED, ~moved),
                and_(is_one_of(_TABLE.c.kind, links.COME_BACK), ~ended),
                and_(_TABLE.c.kind == Kind.OLD_ADDRESS, ~theirs),
            ),
        )
        .values(state=MessageState.OBSOLETE)
    )


def _earliest_purge(now: datetime, settings: Settings) -> datetime:
    return dates.start_of_day(
        dates.local_day(now, settings.zone) + timedelta(days=PURGE_AFTER_NOTICE_DAYS), settings.zone
    )


def _may_go(exempt_plans: tuple[str, ...]) -> ColumnElement[bool]:
    """A notice goes out only while its case's facts hold and its campaign is open.

    A mail with a link goes to nobody but its member: one that waits for an address that has changed waits until the
    outbox has followed (warning.address_changed). Nothing that speaks of a deadline goes out of a held campaign. And
    nobody is told that charges have ended, or begun again, before the payment provider has confirmed it.
    """
    confirmed = and_(
        or_(Message.kind != Kind.LAPSED, ~or_(unconfirmed(OrderKind.STOP), rest_unconfirmed())),
        or_(
            Message.kind != Kind.WELCOME_BACK,
            ~or_(unconfirmed(OrderKind.RESTART), unconfirmed(OrderKind.UNDO)),
        ),
    )
    may_go = or_(
        ~is_one_of(Message.kind, {*STOP_WITH_THEIR_ROUND, *links.CHECK_IN, *links.COME_BACK, Kind.OLD_ADDRESS}),
        and_(
            ~is_one_of(Message.kind, STOP_WITH_THEIR_ROUND),
            Message.to_address == Member.email,
        ),
        and_(
            Message.kind == Kind.DEADLINE_MOVED,
            Message.to_address == Member.email,
            Campaign.state == CampaignState.OPEN,
            _day_is_still(),
        ),
        and_(
            facts_hold_but(exempt_plans),
            Campaign.state == CampaignState.OPEN,
            Message.to_address == Case.address,
            _still_meant(),
            # A clock that is behind would stamp a warning with a notice that is not as long as it looks.
            ~exists(select(ClockJump.id).where(ClockJump.confirmed_at.is_(None))),
        ),
    )
    return and_(may_go, confirmed, or_(~is_one_of(Message.kind, links.COME_BACK), _is_over()))


def _still_meant() -> ColumnElement[bool]:
    """A warning names its day when it is claimed; a further notice names one, and may be unwanted by now."""
    return or_(
        Message.kind == Kind.WARNING,
        and_(Message.deadline_at == Case.deadline_at, Case.reminders_declined_at.is_(None)),
    )


def _day_is_still() -> ColumnElement[bool]:
    """The case is asked, and this is its day."""
    return and_(Case.closed_at.is_(None), Case.answer.is_(None), Message.deadline_at == Case.deadline_at)


def _is_over() -> ColumnElement[bool]:
    """The membership has ended, and not once more since this mail was written down: who has come back is not told."""
    return and_(Member.status == MemberStatus.LAPSED, Member.lapsed_at <= Message.created_at)


def _warning_before() -> ColumnElement[str | None]:
    """The Message-ID of the warning that went to the same address: mail programs show what follows beneath it."""
    warning = aliased(Message)
    found = (
        select(warning.message_id)
        .where(
            warning.case_id == Message.case_id,
            warning.kind == Kind.WARNING,
            warning.to_address == Message.to_address,
            warning.state == MessageState.SENT,
        )
        .order_by(warning.sent_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    return case((is_one_of(Message.kind, FOLLOW_A_WARNING), found))


def _address_is_shared() -> ColumnElement[bool]:
    """Asked of mails to sign in only: every other is about one membership, whoever else reads it."""
    other = aliased(Member)
    shared = exists(select(other.id).where(other.email_key == Member.email_key, other.id != Member.id))
    return case((Message.kind == Kind.SIGN_IN, shared), else_=false())


def _went_back() -> tuple[ColumnElement[Any], ...]:
    """Whether the end gives back a rest, how much that came to, and in which currency. Asked of the mail of an end."""

    is_an_end = Message.kind == Kind.LAPSED

    def of_the_refund(column: Any) -> ColumnElement[Any]:
        found = (
            select(column)
            .where(
                BillingOrder.member_id == Message.member_id,
                BillingOrder.case_id == Message.case_id,
                BillingOrder.kind == OrderKind.REFUND,
                BillingOrder.at_once,
                BillingOrder.state == OrderState.DONE,
            )
            .limit(1)
            .scalar_subquery()
        )
        return case((is_an_end, found))

    return (
        case((is_an_end, rest_of()), else_=false()),
        of_the_refund(BillingOrder.refunded_minor),
        of_the_refund(BillingOrder.currency),
    )


def _release_expired(session: Session, now: datetime) -> None:
    """What a process held that is gone, or slower than its lease, can be taken again; the attempt has counted."""
    session.connection().execute(_releasing(), {"now": now})


@lru_cache(maxsize=1)
def _releasing() -> Update:
    return (
        update(_TABLE)
        .where(
            _TABLE.c.state == said(MessageState.SENDING),
            _TABLE.c.lease_until <= bindparam("now", type_=UTCDateTime()),
        )
        .values(state=MessageState.QUEUED, lease_token=None, lease_until=None)
    )


def _domain(sender: str) -> str:
    return sender.rpartition("@")[2].rstrip(">").strip()
