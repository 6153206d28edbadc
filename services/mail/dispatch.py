"""How messages go out: claimed with a lease, recorded before the next is sent.

A message goes through ``queued → sending → sent``; or becomes ``failed`` (refused for good, or tried long enough),
``bounced`` (the address is dead) or ``obsolete`` (what it would say no longer holds).

The order of a delivery matters, and is this:

1. ``claim`` takes due messages whose facts hold *in that statement*, stamps the deadline, and mints links; commit.
2. The mail is rendered and handed to the server, with no transaction open.
3. ``record`` writes the server's reply, if the lease is still ours; commit. Then comes the connection's next message.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, literal, or_, select, true, update
from sqlalchemy.orm import Session, aliased

from domain import dates
from domain.lifecycle import CampaignState, CaseState, MessageState, OrderKind
from domain.notices import NOTICES, PURGE_AFTER_NOTICE_DAYS, Kind
from domain.ports import MailResult
from models import Campaign, Case, ClockJump, Member, Message, Operator, change
from models.base import UTCDateTime, latest
from services import events, links, outbox
from services.billing import unconfirmed
from services.cases import facts_hold, lock, new_batch
from services.mail.bounces import address_is_dead
from settings import Settings

LEASE = timedelta(minutes=10)
MAX_ATTEMPTS = 20
FIRST_RETRY = timedelta(minutes=1)
LONGEST_RETRY = timedelta(hours=6)
DEAD_MAILBOX = (550, 551, 553)
FOLLOW_A_WARNING = (Kind.REMINDER, Kind.LAST_CALL, Kind.DEADLINE_MOVED, Kind.WITHDRAWN)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message this process holds, with all that its templates show. ``link`` is the one absolute link in it.

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
    member: Member | None = None
    case: Case | None = None
    campaign: Campaign | None = None
    operator: Operator | None = None
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
            true() if notices else Message.kind.not_in(NOTICES),
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
    rows = session.execute(
        _joined(Message, Member, Case, Campaign, Operator, _warning_before(), _address_is_shared())
        .outerjoin(Operator, Operator.id == Message.operator_id)
        .where(Message.lease_token == token)
        .order_by(Message.priority, Message.due_at, Message.id)
        .execution_options(populate_existing=True)
    ).all()
    return [
        Claimed(
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
            case=case_,
            campaign=campaign or _campaign(session, message),
            operator=operator,
            link=links.for_message(session, settings, message, member, case_, now),
            thread=thread,
            shared=shared,
        )
        for message, member, case_, campaign, operator, thread, shared in rows
    ]


def record(session: Session, settings: Settings, claimed: Claimed, result: MailResult, now: datetime) -> bool:
    """Write down what the server said. False: the lease ran out and another has the row; then nothing is written."""
    # Promise 1 and the lock order: the member first, then message and case.
    member = lock(session, claimed.member.id) if claimed.member is not None else None
    if result.accepted:
        values: dict[str, Any] = {"state": MessageState.SENT, "sent_at": now}
        if claimed.kind == Kind.ERASED:
            values["to_address"] = None
    elif result.server_down:
        values = {"state": MessageState.QUEUED, "attempts": Message.attempts - 1, "due_at": now + FIRST_RETRY}
    elif result.permanent or claimed.attempts >= MAX_ATTEMPTS:
        dead = result.recipient_refused and result.code in DEAD_MAILBOX
        values = {"state": MessageState.BOUNCED if dead else MessageState.FAILED}
    else:
        values = {"state": MessageState.QUEUED, "due_at": now + _backoff(claimed.attempts)}
    ours = change(
        session,
        update(Message)
        .where(Message.id == claimed.id, Message.lease_token == claimed.lease_token)
        .values(lease_token=None, lease_until=None, smtp_reply=result.reply[:500], **values),
    )
    if not ours:
        return False
    if values["state"] == MessageState.SENT:
        _event(session, "mail_accepted", claimed, now)
        if claimed.kind == Kind.WARNING and member is not None:
            _warned(session, settings, claimed, member, now)
    elif values["state"] == MessageState.FAILED:
        _event(session, "mail_failed", claimed, now)
    elif values["state"] == MessageState.BOUNCED:
        _event(session, "mail_bounced", claimed, now)
        if member is not None:
            address_is_dead(session, settings, member, claimed.to_address, now)
    return True


def give_back(session: Session, claimed: list[Claimed], now: datetime) -> None:
    """Return claimed messages untried: the budget is over or the server is away. It is no attempt."""
    for one in claimed:
        change(
            session,
            update(Message)
            .where(Message.id == one.id, Message.lease_token == one.lease_token)
            .values(state=MessageState.QUEUED, lease_token=None, lease_until=None, attempts=Message.attempts - 1),
        )


def fail(session: Session, claimed: Claimed, reason: str, now: datetime) -> None:
    """The message cannot be rendered: it stays failed, with the reason, and stops no other."""
    change(
        session,
        update(Message)
        .where(Message.id == claimed.id, Message.lease_token == claimed.lease_token)
        .values(state=MessageState.FAILED, lease_token=None, lease_until=None, smtp_reply=reason[:500]),
    )
    _event(session, "mail_failed", claimed, now)


def retire(session: Session, settings: Settings, now: datetime) -> int:
    """Queued notices that may never go out become obsolete: their case is over, answered, or no longer as found.

    Those of a held campaign wait: they go out when it is released.
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
    return change(
        session,
        update(Message)
        .where(Message.state == MessageState.QUEUED, Message.kind.in_(NOTICES), ~still)
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
    return and_(may_go, confirmed)


def _still_meant() -> ColumnElement[bool]:
    """A warning names its day when it is claimed; a further notice names one, and may be unwanted by now."""
    return or_(
        Message.kind == Kind.WARNING,
        and_(Message.deadline_at == Case.deadline_at, Case.reminders_declined_at.is_(None)),
    )


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


def _warned(session: Session, settings: Settings, claimed: Claimed, member: Member, now: datetime) -> None:
    """The server has accepted the warning: from now on, and only from now on, this member is warned."""
    assert claimed.case is not None
    assert claimed.deadline_at is not None
    deadline = claimed.deadline_at
    if now >= dates.warned_by(deadline, settings.min_notice_days, settings.zone):
        # Accepted too late for the day it names: that day is not acted on.
        deadline = dates.month_end_with_notice(now, settings.min_notice_days, settings.zone)
    updated = change(
        session,
        update(Case)
        .where(
            Case.id == claimed.case.id,
            Case.closed_at.is_(None),
            Case.warned_at.is_(None),
            Case.address == claimed.to_address,
        )
        .values(
            warned_at=now,
            warned_to=claimed.to_address,
            # Somebody who has answered meanwhile was told another day.
            deadline_at=case(
                (Case.answer.is_(None), literal(deadline, UTCDateTime())),
                else_=func.coalesce(Case.deadline_at, literal(deadline, UTCDateTime())),
            ),
        ),
    )
    current = session.get_one(Case, claimed.case.id, populate_existing=True)
    if not updated and current.state in (CaseState.WITHDRAWN, CaseState.EXEMPTED):
        # It was on its way when the case ended: who gets it must hear that nothing ends.
        outbox.put(
            session,
            kind=Kind.WITHDRAWN,
            once_key=f"{Kind.WITHDRAWN}:{current.public_id}:{current.generation}",
            now=now,
            member=member,
            case=current,
        )
    if updated and deadline != claimed.deadline_at and current.answer is None:
        outbox.put(
            session,
            kind=Kind.DEADLINE_MOVED,
            once_key=f"deadline_moved:{current.public_id}:{int(deadline.timestamp())}",
            now=now,
            member=member,
            case=current,
            deadline_at=deadline,
        )


def _release_expired(session: Session, now: datetime) -> None:
    """What a process held that is gone, or slower than its lease, can be taken again; the attempt has counted."""
    change(
        session,
        update(Message)
        .where(Message.state == MessageState.SENDING, Message.lease_until <= now)
        .values(state=MessageState.QUEUED, lease_token=None, lease_until=None),
    )


def _campaign(session: Session, message: Message) -> Campaign | None:
    return session.get(Campaign, message.campaign_id) if message.campaign_id else None


def _event(session: Session, code: str, claimed: Claimed, now: datetime) -> None:
    events.record(
        session,
        code,
        now,
        detail=claimed.kind,
        member_id=claimed.member.id if claimed.member else None,
        case_id=claimed.case.id if claimed.case else None,
        campaign_id=claimed.campaign.id if claimed.campaign else None,
        operator_id=claimed.operator.id if claimed.operator else None,
    )


def _backoff(attempts: int) -> timedelta:
    return min(FIRST_RETRY * float(2 ** (attempts - 1)), LONGEST_RETRY)


def _domain(sender: str) -> str:
    return sender.rpartition("@")[2].rstrip(">").strip()
