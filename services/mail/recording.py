"""What a mail server said is written down: of one message, or of as many as were answered in the same moment.

Whoever records has the lease: that is a condition of the statement. Promise 1 and the lock order: the members first, in
the order of their ids, then messages and cases.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from json import dumps
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Insert,
    Select,
    String,
    Update,
    and_,
    bindparam,
    case,
    cast,
    column,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session

from domain import dates
from domain.lifecycle import CaseState, MessageState
from domain.notices import Kind
from domain.ports import MailResult
from models import Case, Member, Message, change
from models.base import Listed, UTCDateTime, among
from models.straight import Straight
from services import events, outbox
from services.cases import ends_by_silence, lock_members, locking
from services.mail import dispatch
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
    _lock_members(session, [claimed])
    if result.accepted:
        return _accepted(session, settings, [(claimed, result)], now).ours == 1
    return _not_accepted(session, settings, claimed, result, now)


class NotAlike(Exception):
    """Of several messages not all are to be written down in the same way: take it back, and record each by itself."""


def record_all(session: Session, settings: Settings, answered: Sequence[Answered], now: datetime) -> frozenset[int]:
    """The same of several messages; returns the rounds that are open. Raises NotAlike.

    How many rows a statement has changed tells whether it was all of them; to be told which would cost a good part of
    the whole, and is asked for one at a time.
    """
    accepted = [(one, result) for one, result in answered if result.accepted]
    others = [(one, result) for one, result in answered if not result.accepted]
    if others:
        _lock_members(session, [one for one, _ in answered])
    if accepted:
        _accepted(session, settings, accepted, now)
    for one, result in others:
        _not_accepted(session, settings, one, result, now)
    # A question by itself: whoever has waited for a lock is to hear what has been held meanwhile.
    return dispatch.open_rounds(session)


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


@dataclass(frozen=True, slots=True)
class _Recorded:
    """Of how many the lease was still ours, and how many cases are warned by it."""

    ours: int
    warned: int


def _lock_members(session: Session, claimed: Sequence[Claimed]) -> None:
    lock_members(session, [one.member.id for one in claimed if one.member is not None])


def _accepted(session: Session, settings: Settings, accepted: list[Answered], now: datetime) -> _Recorded:
    """Of several all, or NotAlike."""
    rows = [_row(settings, one, result, now) for one, result in accepted]
    on_postgresql = session.get_bind().dialect.name == "postgresql"
    recorded = (_at_once if on_postgresql else _in_turn)(session.connection(), rows, now)
    warnings = [(one, row.deadline) for (one, _), row in zip(accepted, rows, strict=True) if row.deadline is not None]
    if len(rows) > 1 and (recorded.ours < len(rows) or recorded.warned < len(warnings)):
        raise NotAlike
    if not recorded.ours:
        return recorded
    erased = [one.id for one, _ in accepted if one.kind == Kind.ERASED]
    if erased:
        change(session, update(Message).where(Message.id.in_(erased)).values(to_address=None))
    for one, deadline in warnings:
        if not recorded.warned or deadline != one.deadline_at:
            _tell(session, one, deadline, now, warned=bool(recorded.warned))
    return recorded


class _Row(NamedTuple):
    """What is written down of a message that a server has accepted; of a warning, the day that now holds as well."""

    id: int
    lease_token: str
    reply: str
    member_id: int | None
    deadline: datetime | None = None
    continues: bool | None = None


def _row(settings: Settings, claimed: Claimed, result: MailResult, now: datetime) -> _Row:
    written = (claimed.id, claimed.lease_token, result.reply[:500])
    if claimed.member is None:
        return _Row(*written, None)
    if claimed.kind != Kind.WARNING:
        return _Row(*written, claimed.member.id)
    assert claimed.deadline_at is not None
    deadline = claimed.deadline_at
    if now >= _warned_by(deadline, settings.min_notice_days, settings.zone):
        # Accepted too late for the day it names: that day is not acted on.
        deadline = dates.month_end_with_notice(now, settings.min_notice_days, settings.zone)
    # As the mail has said it, which went by what a notice had told before: see words.
    told = claimed.case.told_it_continues if claimed.case is not None else None
    continues = not ends_by_silence(settings, claimed.member.billed_by, told)
    return _Row(*written, claimed.member.id, deadline, continues)


_warned_by = lru_cache(maxsize=16)(dates.warned_by)


def _in_turn(connection: Connection | Straight, rows: Sequence[_Row], now: datetime) -> _Recorded:
    """On SQLite, which writes one table a statement, and one process at a time."""
    sent, accepted, warned = _in_turn_statements()
    answers = dumps([(row.id, row.lease_token, row.reply) for row in rows])
    ours = connection.execute(sent, {"answers": answers, "now": now}).rowcount
    if ours < len(rows):
        return _Recorded(ours, 0)
    connection.execute(accepted, {"now": now, "these": dumps([row.id for row in rows])})
    alike: dict[tuple[datetime, bool | None], list[int]] = defaultdict(list)
    for row in rows:
        if row.deadline is not None:
            alike[row.deadline, row.continues].append(row.id)
    warnings = 0
    for (deadline, continues), these in alike.items():
        values = {"these": dumps(these), "now": now, "deadline": deadline, "continues": continues}
        warnings += connection.execute(warned, values).rowcount
    return _Recorded(ours, warnings)


def _at_once(connection: Connection, rows: Sequence[_Row], now: datetime) -> _Recorded:
    """On PostgreSQL: all of it in one statement, for each costs a question and its answer."""
    ours, warned = connection.execute(_at_once_statement(), {"now": now, "answers": _given(rows)}).one()
    return _Recorded(ours, warned)


def _given(rows: Sequence[_Row]) -> str:
    return dumps(
        [
            {
                "id": row.id,
                "token": row.lease_token,
                "reply": row.reply,
                "member_id": row.member_id,
                "deadline": row.deadline and row.deadline.isoformat(),
                "continues": row.continues,
            }
            for row in rows
        ]
    )


def apart() -> tuple[Select[Any], ...]:
    """For whoever does not wait: what writes down a group or nothing of it, and what then tells the open rounds."""
    return (_at_once_statement(all_or_none=True), dispatch.OPEN_ROUNDS)


def for_apart(settings: Settings, answered: Sequence[Answered], now: datetime) -> dict[str, Any] | None:
    """What ``apart`` is asked with; None where more follows from one of them than what it writes down."""
    rows = _nothing_follows(settings, answered, now)
    if rows is None:
        return None
    return {"now": now, "answers": _given(rows), "messages": len(rows), "warnings": _warnings(rows)}


def straight(engine: Engine) -> Straight:
    """For ``record_straight``."""
    return Straight(engine, [*_in_turn_statements(), dispatch.OPEN_ROUNDS])


def record_straight(
    straight: Straight, settings: Settings, answered: Sequence[Answered], now: datetime
) -> frozenset[int] | None:
    """What ``record_all`` does, on SQLite, of messages from which nothing follows, and which are all alike; commits.

    None: they are not, or something has failed, and nothing is written.
    """
    rows = _nothing_follows(settings, answered, now)
    if rows is None:
        straight.take_back()
        return None

    def write(straight: Straight) -> frozenset[int] | None:
        if _in_turn(straight, rows, now) != _Recorded(len(rows), _warnings(rows)):
            return None
        return frozenset(id_ for (id_,) in straight.execute(dispatch.OPEN_ROUNDS, {}))

    return straight.transaction(write)


def _nothing_follows(settings: Settings, answered: Sequence[Answered], now: datetime) -> list[_Row] | None:
    """They are accepted, and there is no more to do about them than to write that down; else None."""
    rows = []
    for one, result in answered:
        if not result.accepted or one.kind == Kind.ERASED:
            return None
        row = _row(settings, one, result, now)
        if row.deadline is not None and row.deadline != one.deadline_at:
            return None
        rows.append(row)
    return rows


def _warnings(rows: Sequence[_Row]) -> int:
    return sum(row.deadline is not None for row in rows)


_NOW = bindparam("now", type_=UTCDateTime())


def _sent(reply: Any) -> dict[str, Any]:
    return {"state": MessageState.SENT, "sent_at": _NOW, "smtp_reply": reply, "lease_token": None, "lease_until": None}


def _accepted_event(sent: Any) -> Select[Any]:
    ids = (sent.member_id, sent.case_id, sent.campaign_id, sent.operator_id)
    return select(_NOW, literal("mail_accepted"), sent.kind, *ids)


def _warned(sent: Any, deadline: Any, continues: Any) -> Update:
    """The server has accepted the warnings: from now on, and only from now on, these members are warned."""
    case_ = Case.__table__.c
    return (
        update(Case.__table__)  # type: ignore[arg-type]
        .where(
            sent.case_id == case_.id,
            sent.to_address == case_.address,
            sent.once_key == outbox.case_key(Kind.WARNING, Case.address_generation),
            case_.closed_at.is_(None),
            case_.warned_at.is_(None),
        )
        .values(
            warned_at=_NOW,
            warned_to=case_.address,
            told_it_continues=continues,
            # Somebody who has answered meanwhile was told another day.
            deadline_at=case((case_.answer.is_(None), deadline), else_=func.coalesce(case_.deadline_at, deadline)),
        )
    )


@lru_cache(maxsize=1)
def _in_turn_statements() -> tuple[Update, Insert, Update]:
    """Made once, as the other: it takes longer to make them than to run them.

    A group comes as one value in JSON, so that a statement is the same however many replies it writes down.
    """
    message = Message.__table__.c
    answer = Listed("answers")
    these = message.id.in_(select(Listed("these").numbers).scalar_subquery())
    sent = (
        update(Message.__table__)  # type: ignore[arg-type]
        .where(message.id == answer.number(0), message.lease_token == answer.word(1))
        .values(_sent(answer.word(2)))
    )
    warned = _warned(message, bindparam("deadline", type_=UTCDateTime()), bindparam("continues", type_=Boolean()))
    return sent, events.inserted(_accepted_event(message).where(these)), warned.where(these)


@lru_cache(maxsize=2)
def _at_once_statement(*, all_or_none: bool = False) -> Select[Any]:
    """Who waits for a lock writes what has become of each row meanwhile: PostgreSQL asks the conditions once more.

    How many are written down, and how many cases are warned. ``all_or_none``: or, where it is not as many as there are
    (``messages``, ``warnings``), an error by which nothing is.
    """
    message = Message.__table__.c
    types: dict[str, Any] = {"id": BigInteger(), "token": String(), "reply": String(), "member_id": BigInteger()}
    types |= {"deadline": UTCDateTime(), "continues": Boolean()}
    answer = select(
        func.json_to_recordset(cast(bindparam("answers", type_=String()), JSON()))
        .table_valued(*(column(name, of) for name, of in types.items()))
        .render_derived(name="given", with_types=True)
    ).cte("answer")
    locked = locking(select(answer.c.member_id)).scalar_subquery()
    sent = (
        update(Message.__table__)  # type: ignore[arg-type]
        # The members first, in the order of their ids: the condition is asked before any row is looked at.
        .where(locked >= 0, message.id == answer.c.id, message.lease_token == answer.c.token)
        .where(among(message.id, select(answer.c.id).scalar_subquery()))
        .values(_sent(answer.c.reply))
        .returning(
            message.kind, message.member_id, message.case_id, message.campaign_id, message.operator_id,
            message.to_address, message.once_key, answer.c.deadline, answer.c.continues,
        )
        .cte("sent")
    )  # fmt: skip
    event = events.inserted(_accepted_event(sent.c)).cte("event_written")
    warned = _warned(sent.c, sent.c.deadline, sent.c.continues).returning(Case.__table__.c.id).cte("warned")
    written = select(func.count()).select_from(sent).scalar_subquery()
    cases = select(func.count()).select_from(warned).scalar_subquery()
    if not all_or_none:
        return select(written, cases).add_cte(event)
    as_many = and_(
        written == bindparam("messages", type_=BigInteger()), cases == bindparam("warnings", type_=BigInteger())
    )
    return select(literal(1) // case((as_many, 1), else_=0)).add_cte(event)


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
