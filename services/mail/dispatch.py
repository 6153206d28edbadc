"""How messages go out: claimed with a lease, recorded before the next is sent.

A message goes through ``queued → sending → sent``; or becomes ``failed`` (refused for good, or tried long enough),
``bounced`` (the address is dead) or ``obsolete`` (what it would say no longer holds).

The order of a delivery matters, and is this:

1. ``claim`` takes due messages whose facts hold *in that statement*, stamps the deadline, and mints links; commit.
2. The mail is rendered and handed to the server, with no transaction open.
3. ``recording.record`` writes the server's reply, if the lease is still ours; commit. Then comes the connection's next
   message.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import Bundle, Session, aliased

from domain import dates
from domain.lifecycle import CampaignState, MemberStatus, MessageState, OrderKind
from domain.notices import FIRST_OF_NOTICES, NOTICES, PURGE_AFTER_NOTICE_DAYS, Kind
from models import Campaign, Case, ClockJump, Member, Message, change
from models.base import UTCDateTime, latest
from services import links
from services.billing import unconfirmed
from services.cases import facts_hold, new_batch
from settings import Settings

LEASE = timedelta(minutes=10)
FOLLOW_A_WARNING = (Kind.REMINDER, Kind.LAST_CALL, Kind.DEADLINE_MOVED, Kind.WITHDRAWN)


_MESSAGE: Bundle[Any] = Bundle(
    "message", Message.id, Message.public_id, Message.kind, Message.locale, Message.to_address, Message.attempts,
    Message.message_id, Message.deadline_at, Message.created_at, Message.member_id, Message.operator_id,
    Message.magic_link_id,
)  # fmt: skip
_MEMBER: Bundle[Any] = Bundle(
    "member", Member.id, Member.external_id, Member.email, Member.name, Member.plan, Member.price_minor,
    Member.currency, Member.billing_interval, Member.joined_at, Member.last_used_at, Member.paid_through,
    Member.returned_at, Member.lapsed_at, Member.access_ends_at, Member.keep_until,
)  # fmt: skip
_CASE: Bundle[Any] = Bundle(
    "case", Case.id, Case.public_id, Case.address_generation, Case.rule, Case.found_joined_at, Case.found_last_used_at,
    Case.found_sign_of_life_at, Case.warned_at, Case.deadline_at, Case.answered_at, Case.state, Case.not_mine_at,
    Case.closed_at, Case.answer, Case.answer_note,
)  # fmt: skip
_CAMPAIGN: Bundle[Any] = Bundle(
    "campaign", Campaign.id, Campaign.month, Campaign.dormant_count, Campaign.drafted_at, Campaign.hold_reason,
    Campaign.hold_facts,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
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


def claim(session: Session, settings: Settings, now: datetime, limit: int, *, notices: bool = True) -> list[Claimed]:
    """Take up to ``limit`` due messages for this process; commit before rendering. Those of others are skipped.

    Without ``notices``, only what no pace holds back.
    """
    _release_expired(session, now)
    token = new_batch()
    chosen = (
        _joined(Message.id)
        .where(
            Message.state == MessageState.QUEUED,
            Message.due_at <= now,
            _may_go(settings),
            # All else goes before them, so that the index ends where they begin, however many wait.
            true() if notices else and_(Message.kind.not_in(NOTICES), Message.priority < FIRST_OF_NOTICES),
        )
        .order_by(Message.priority, Message.due_at, Message.id)
        .limit(limit)
        .with_for_update(of=Message, skip_locked=True)
        # As a CTE it is run once; as a plain subquery PostgreSQL may run it again and lock more than the limit.
        .cte("chosen", nesting=True)
    )
    change(
        session,
        update(Message)
        .where(Message.id.in_(select(chosen.c.id)), Message.state == MessageState.QUEUED)
        .values(
            state=MessageState.SENDING,
            lease_token=token,
            lease_until=now + LEASE,
            attempts=Message.attempts + 1,
            message_id=func.coalesce(
                Message.message_id, literal("<") + Message.public_id + f"@{_domain(settings.mail_default_sender)}>"
            ),
            wording_version=settings.wording_version,
            # Stamped before it is rendered: the first month end that leaves the notice and a day.
            deadline_at=case(
                (
                    Message.kind == Kind.WARNING,
                    literal(dates.month_end_with_notice(now, settings.min_notice_days, settings.zone), UTCDateTime()),
                ),
                # Told late, nobody is erased before the notice has had its days: that is the day to name.
                (
                    Message.kind == Kind.LAST_CHANCE,
                    latest(Message.deadline_at, literal(_earliest_purge(now, settings), UTCDateTime())),
                ),
                else_=Message.deadline_at,
            ),
        ),
    )
    lease = (Message.state == _literal(MessageState.SENDING), Message.lease_until == now + LEASE)
    rows = session.execute(
        select(_MESSAGE, _MEMBER, _CASE, _CAMPAIGN, _warning_before(), _address_is_shared())
        .select_from(Message)
        .outerjoin(Case, Case.id == Message.case_id)
        .outerjoin(Member, Member.id == func.coalesce(Message.member_id, Case.member_id))
        .outerjoin(Campaign, Campaign.id == func.coalesce(Case.campaign_id, Message.campaign_id))
        # The lease is said in the words of its index, so that nothing is looked through for the token.
        .where(*lease, Message.lease_token == token)
        .order_by(Message.priority, Message.due_at, Message.id)
    ).all()
    return [_claimed(session, settings, token, now, *row) for row in rows]


def _claimed(
    session: Session,
    settings: Settings,
    token: str,
    now: datetime,
    message: Any,
    about: Any,
    case_: Any,
    campaign: Any,
    thread: str | None,
    shared: bool,
) -> Claimed:
    # Without such a row an outer join gives one of nothing but nulls.
    about = about if about.id is not None else None
    member = about if message.member_id is not None else None
    found_case = case_ if case_.id is not None else None
    return Claimed(
        id=message.id,
        public_id=message.public_id,
        kind=Kind(message.kind),
        locale=message.locale,
        to_address=message.to_address,
        attempts=message.attempts,
        lease_token=token,
        message_id=message.message_id,
        deadline_at=message.deadline_at,
        created_at=message.created_at,
        member=member,
        about=about,
        case=found_case,
        campaign=campaign if campaign.id is not None else None,
        operator_id=message.operator_id,
        link=links.for_message(session, settings, message, member, found_case, now),
        thread=thread,
        shared=shared,
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


def retire(session: Session, settings: Settings, now: datetime) -> int:
    """Queued mails that may never go out become obsolete: their case is over, answered, or no longer as found.

    Those of a held campaign wait: they go out when it is released. The mails of an end that was taken back do not.
    """
    still = exists(
        select(Case.id)
        .join(Member, Member.id == Case.member_id)
        .join(Campaign, Campaign.id == Case.campaign_id)
        .where(
            Case.id == Message.case_id,
            facts_hold(settings),
            Campaign.state.in_([CampaignState.OPEN, CampaignState.HELD]),
            Message.to_address == Case.address,
            _still_meant(),
        )
    )
    moved = exists(select(Case.id).where(Case.id == Message.case_id, _day_is_still()))
    ended = exists(select(Member.id).where(Member.id == Message.member_id, _is_over()))
    return change(
        session,
        update(Message)
        .where(
            Message.state == MessageState.QUEUED,
            or_(
                and_(Message.kind.in_(NOTICES), ~still),
                and_(Message.kind == Kind.DEADLINE_MOVED, ~moved),
                and_(Message.kind.in_(sorted(links.COME_BACK)), ~ended),
            ),
        )
        .values(state=MessageState.OBSOLETE),
    )


def _earliest_purge(now: datetime, settings: Settings) -> datetime:
    return dates.start_of_day(
        dates.local_day(now, settings.zone) + timedelta(days=PURGE_AFTER_NOTICE_DAYS), settings.zone
    )


def _may_go(settings: Settings) -> ColumnElement[bool]:
    """A notice goes out only while its case's facts hold and its campaign is open.

    A mail with a link goes to nobody but its member: one that waits for an address that has changed waits until the
    outbox has followed (warning.address_changed). Nothing that speaks of a deadline goes out of a held campaign. And
    nobody is told that charges have ended, or begun again, before the payment provider has confirmed it.
    """
    confirmed = and_(
        or_(Message.kind != Kind.LAPSED, ~unconfirmed(OrderKind.STOP)),
        or_(
            Message.kind != Kind.WELCOME_BACK,
            ~or_(unconfirmed(OrderKind.RESTART), unconfirmed(OrderKind.UNDO)),
        ),
    )
    may_go = or_(
        Message.kind.not_in([*NOTICES, Kind.DEADLINE_MOVED, *links.CHECK_IN, *links.COME_BACK]),
        and_(
            Message.kind.not_in([*NOTICES, Kind.DEADLINE_MOVED]),
            Message.to_address == Member.email,
        ),
        and_(
            Message.kind == Kind.DEADLINE_MOVED,
            Message.to_address == Member.email,
            Campaign.state == CampaignState.OPEN,
            _day_is_still(),
        ),
        and_(
            facts_hold(settings),
            Campaign.state == CampaignState.OPEN,
            Message.to_address == Case.address,
            _still_meant(),
            # A clock that is behind would stamp a warning with a notice that is not as long as it looks.
            ~exists(select(ClockJump.id).where(ClockJump.confirmed_at.is_(None))),
        ),
    )
    return and_(may_go, confirmed, or_(Message.kind.not_in(sorted(links.COME_BACK)), _is_over()))


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


def _joined(*columns: Any) -> Select[Any]:
    return (
        select(*columns)
        .outerjoin(Case, Case.id == Message.case_id)
        .outerjoin(Member, Member.id == Message.member_id)
        .outerjoin(Campaign, Campaign.id == Case.campaign_id)
    )


def _warning_before() -> ColumnElement[str | None]:
    """The Message-ID of the warning that went to the same address: mail programs show what follows beneath it."""
    warning = aliased(Message)
    return (
        select(warning.message_id)
        .where(
            Message.kind.in_(FOLLOW_A_WARNING),
            warning.case_id == Message.case_id,
            warning.kind == Kind.WARNING,
            warning.to_address == Message.to_address,
            warning.state == MessageState.SENT,
        )
        .order_by(warning.sent_at.desc())
        .limit(1)
        .scalar_subquery()
    )


def _address_is_shared() -> ColumnElement[bool]:
    """Asked of mails to sign in only: every other is about one membership, whoever else reads it."""
    other = aliased(Member)
    return and_(
        Message.kind == Kind.SIGN_IN,
        exists(select(other.id).where(other.email_key == Member.email_key, other.id != Member.id)),
    )


def _release_expired(session: Session, now: datetime) -> None:
    """What a process held that is gone, or slower than its lease, can be taken again; the attempt has counted."""
    change(
        session,
        update(Message)
        .where(Message.state == _literal(MessageState.SENDING), Message.lease_until <= now)
        .values(state=MessageState.QUEUED, lease_token=None, lease_until=None),
    )


def _literal(state: MessageState) -> ColumnElement[str]:
    """A state as part of the statement, by which both databases know that an index of that state alone will do."""
    return literal_column(f"'{state}'")


def _domain(sender: str) -> str:
    return sender.rpartition("@")[2].rstrip(">").strip()
