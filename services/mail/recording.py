"""What a mail server said is written down: of one message, or of as many as were answered in the same moment.

Whoever records has the lease: that is a condition of the statement. Promise 1 and the lock order: the members first, in
the order of their ids, then messages and cases.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from json import dumps
from typing import Any

from sqlalchemy import Boolean, bindparam, case, func, literal, select, update
from sqlalchemy.orm import Session

from domain import dates
from domain.lifecycle import CaseState, MessageState
from domain.notices import Kind
from domain.ports import MailResult
from models import Case, Member, Message, change
from models.base import Listed, UTCDateTime
from services import events, outbox
from services.cases import ends_by_silence, locking
from services.mail.bounces import address_is_dead
from services.mail.dispatch import Claimed
from settings import Settings

MAX_ATTEMPTS = 20
FIRST_RETRY = timedelta(minutes=1)
LONGEST_RETRY = timedelta(hours=6)
DEAD_MAILBOX = (550, 551, 553)

Answered = tuple[Claimed, MailResult]


def record(session: Session, settings: Settings, claimed: Claimed, result: MailResult, now: datetime) -> bool:
    """Write down what the server said. False: the lease ran out and another has the row; then nothing is written."""
    return record_all(session, settings, [(claimed, result)], now) == 1


class NotAlike(Exception):
    """Of several messages not all are to be written down in the same way: take it back, and record each by itself."""


def record_all(session: Session, settings: Settings, answered: Sequence[Answered], now: datetime) -> int:
    """The same of several messages; returns of how many the lease was still ours. Raises NotAlike.

    How many rows a statement has changed tells whether it was all of them; to be told which would cost a good part of
    the whole, and is asked for one at a time.
    """
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        members = [one.member.id for one, _ in answered if one.member is not None]
        connection.execute(_statements("postgresql").lock, {"members": dumps(members)})
    accepted = [(one, result) for one, result in answered if result.accepted]
    recorded = _accepted(session, settings, accepted, now) if accepted else 0
    return recorded + sum(
        _not_accepted(session, settings, one, result, now) for one, result in answered if not result.accepted
    )


def fail(session: Session, claimed: Claimed, reason: str, now: datetime) -> None:
    """The message cannot be rendered: it stays failed, with the reason, and stops no other."""
    ours = change(
        session,
        update(Message)
        .where(Message.id == claimed.id, Message.lease_token == claimed.lease_token)
        .values(state=MessageState.FAILED, lease_token=None, lease_until=None, smtp_reply=reason[:500]),
    )
    if ours:
        _event(session, "mail_failed", claimed, now)


class _Statements:
    """Made once, and of tables: they run for each group of replies, and to make them takes longer than to run them.

    A group comes as one value in JSON, so that a statement is the same however many replies it writes down.
    """

    def __init__(self, dialect: str) -> None:
        message, case_ = Message.__table__.c, Case.__table__.c
        now = bindparam("now", type_=UTCDateTime())
        deadline = bindparam("deadline", type_=UTCDateTime())
        answer = Listed(dialect, "answers", of_lists=True)
        these = select(Listed(dialect, "these").numbers).scalar_subquery()
        self.lock = locking(select(Listed(dialect, "members").numbers))
        self.sent = (
            update(Message.__table__)  # type: ignore[arg-type]
            .where(message.id == answer.number(0), message.lease_token == answer.word(1))
            .values(state=MessageState.SENT, sent_at=now, smtp_reply=answer.word(2), lease_token=None, lease_until=None)
        )
        self.accepted = events.inserted(
            select(
                now,
                literal("mail_accepted"),
                message.kind,
                message.member_id,
                message.case_id,
                message.campaign_id,
                message.operator_id,
            ).where(message.id.in_(these))
        )
        self.warned = (
            update(Case.__table__)  # type: ignore[arg-type]
            .where(
                message.id.in_(these),
                message.case_id == case_.id,
                message.to_address == case_.address,
                message.once_key == outbox.case_key(Kind.WARNING, Case.address_generation),
                case_.closed_at.is_(None),
                case_.warned_at.is_(None),
            )
            .values(
                warned_at=now,
                warned_to=case_.address,
                told_it_continues=bindparam("continues", type_=Boolean()),
                # Somebody who has answered meanwhile was told another day.
                deadline_at=case((case_.answer.is_(None), deadline), else_=func.coalesce(case_.deadline_at, deadline)),
            )
        )


@lru_cache(maxsize=2)
def _statements(dialect: str) -> _Statements:
    return _Statements(dialect)


def _accepted(session: Session, settings: Settings, accepted: list[Answered], now: datetime) -> int:
    connection = session.connection()
    statements = _statements(connection.dialect.name)
    answers = dumps([(one.id, one.lease_token, result.reply[:500]) for one, result in accepted])
    ours = connection.execute(statements.sent, {"answers": answers, "now": now}).rowcount
    if ours < len(accepted):
        if len(accepted) > 1:
            raise NotAlike
        return 0
    erased = [one.id for one, _ in accepted if one.kind == Kind.ERASED]
    if erased:
        change(session, update(Message).where(Message.id.in_(erased)).values(to_address=None))
    connection.execute(statements.accepted, {"now": now, "these": dumps([one.id for one, _ in accepted])})
    warnings = [one for one, _ in accepted if one.kind == Kind.WARNING and one.member is not None]
    _warned(session, settings, warnings, now)
    return ours


def _not_accepted(session: Session, settings: Settings, claimed: Claimed, result: MailResult, now: datetime) -> bool:
    if result.server_down:
        values: dict[str, Any] = {
            "state": MessageState.QUEUED,
            "attempts": Message.attempts - 1,
            "due_at": now + FIRST_RETRY,
        }
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
    if values["state"] == MessageState.FAILED:
        _event(session, "mail_failed", claimed, now)
    elif values["state"] == MessageState.BOUNCED:
        _event(session, "mail_bounced", claimed, now)
        if claimed.member is not None:
            member = session.get(Member, claimed.member.id, populate_existing=True)
            if member is not None:
                address_is_dead(session, settings, member, claimed.to_address, now)
    return True


def _warned(session: Session, settings: Settings, claimed: list[Claimed], now: datetime) -> None:
    """The server has accepted the warnings: from now on, and only from now on, these members are warned."""
    alike: dict[tuple[datetime, bool], list[Claimed]] = defaultdict(list)
    for one in claimed:
        assert one.deadline_at is not None
        too_late = now >= dates.warned_by(one.deadline_at, settings.min_notice_days, settings.zone)
        # Accepted too late for the day it names: that day is not acted on.
        deadline = (
            dates.month_end_with_notice(now, settings.min_notice_days, settings.zone) if too_late else one.deadline_at
        )
        alike[deadline, not ends_by_silence(settings, one.member.billed_by)].append(one)
    for (deadline, continues), group in alike.items():
        connection = session.connection()
        values = {"these": dumps([one.id for one in group]), "now": now, "deadline": deadline, "continues": continues}
        warned = connection.execute(_statements(connection.dialect.name).warned, values).rowcount
        if warned < len(group) > 1:
            raise NotAlike
        for one in group:
            if not warned or deadline != one.deadline_at:
                _tell(session, one, deadline, now, warned=bool(warned))


def _tell(session: Session, claimed: Claimed, deadline: datetime, now: datetime, *, warned: bool) -> None:
    """What the warning says is not so any more: its reader is told what is."""
    current = session.get_one(Case, claimed.case.id, populate_existing=True)
    member = session.get(Member, claimed.member.id)
    if member is None:
        return
    if not warned and current.state in (CaseState.WITHDRAWN, CaseState.EXEMPTED):
        # It was on its way when the case ended: who gets it must hear that nothing ends.
        outbox.put(
            session,
            kind=Kind.WITHDRAWN,
            once_key=f"{Kind.WITHDRAWN}:{current.public_id}:{current.generation}",
            now=now,
            member=member,
            case=current,
        )
    if warned and deadline != claimed.deadline_at and current.answer is None:
        outbox.put(
            session,
            kind=Kind.DEADLINE_MOVED,
            once_key=f"deadline_moved:{current.public_id}:{int(deadline.timestamp())}",
            now=now,
            member=member,
            case=current,
            deadline_at=deadline,
        )


def _event(session: Session, code: str, claimed: Claimed, now: datetime) -> None:
    events.record(
        session,
        code,
        now,
        detail=claimed.kind,
        member_id=claimed.member.id if claimed.member else None,
        case_id=claimed.case.id if claimed.case else None,
        campaign_id=claimed.campaign.id if claimed.campaign else None,
        operator_id=claimed.operator_id,
    )


def _backoff(attempts: int) -> timedelta:
    return min(FIRST_RETRY * float(2 ** (attempts - 1)), LONGEST_RETRY)
