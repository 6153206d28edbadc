"""How events go out: claimed with a lease, posted with no transaction open, recorded under the lease's token.

Of one member an event goes out only when every earlier one has got through or was given up; those of several members
go out at once. A process that dies between the service's answer and our record leaves its lease behind, and another
posts the same event again, under the same ``webhook-id``.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, exists, func, literal_column, or_, select, update
from sqlalchemy.orm import Session, aliased

from domain import outgoing, webhooks
from domain.outgoing import UNFINISHED, WANTS_ACKNOWLEDGEMENT, Happening, State, Type
from domain.ports import Clock, Outcome, WebhookReply, WebhookSender
from models import Campaign, Case, EventEndpoint, Member, OutgoingEvent, for_writing
from models.base import random_id
from services.outgoing import endpoint
from settings import Settings

LEASE = timedelta(minutes=10)
AT_ONCE = 8
"""So many calls are under way at the same time, each for another member."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """An event that this process may send until its lease ends."""

    id: int
    public_id: str
    attempts: int
    lease_token: str
    happening: Happening


@dataclass(frozen=True, slots=True)
class Sent:
    delivered: int = 0
    again: int = 0
    failed: int = 0


def send(
    session: Session,
    settings: Settings,
    sender: WebhookSender,
    clock: Clock,
    commit: Callable[[], None],
    enough: Callable[[], bool],
) -> Sent:
    """Send what is due, until nothing is or ``enough`` says to stop. Commits after each claim and each answer."""
    if endpoint.follow(session, settings, clock.now()):
        commit()
    url = settings.events_url
    if url is None:
        return Sent()
    delivered = again = failed = 0
    with ThreadPoolExecutor(AT_ONCE, "dormouse events") as threads:
        while not enough():
            for_writing(session)
            claimed = claim(session, clock.now(), AT_ONCE)
            commit()
            if not claimed:
                break
            replies = list(threads.map(lambda one: _post(settings, sender, url, one, clock.now()), claimed))
            for_writing(session)
            states = [
                record(session, settings, one, reply, clock.now()) for one, reply in zip(claimed, replies, strict=True)
            ]
            commit()
            delivered += sum(state in (State.SENT, State.DONE) for state in states)
            again += states.count(State.QUEUED)
            failed += states.count(State.FAILED)
    return Sent(delivered, again, failed)


def claim(session: Session, now: datetime, limit: int) -> list[Claimed]:
    """Take up to ``limit`` events that are due or whose lease ran out, of members without an earlier unfinished one."""
    earlier = aliased(OutgoingEvent)
    open_for_calls = exists(
        select(EventEndpoint.id).where(
            EventEndpoint.refused_at.is_(None),
            or_(EventEndpoint.paused_until.is_(None), EventEndpoint.paused_until <= now),
        )
    )
    due = (
        select(OutgoingEvent.id)
        .where(
            # A literal: only then does SQLite see, too, that the partial index covers this.
            literal_column("outgoing_event.state IN ('queued', 'sending')"),
            or_(
                and_(OutgoingEvent.state == State.QUEUED, OutgoingEvent.due_at <= now),
                and_(OutgoingEvent.state == State.SENDING, OutgoingEvent.lease_until <= now),
            ),
            ~exists().where(
                earlier.member_id == OutgoingEvent.member_id,
                earlier.id < OutgoingEvent.id,
                earlier.state.in_(UNFINISHED),
            ),
            open_for_calls,
        )
        .order_by(OutgoingEvent.due_at, OutgoingEvent.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=OutgoingEvent)
        .cte("due")
    )
    tokens = {
        row.id: row.lease_token
        for row in session.execute(
            update(OutgoingEvent)
            .where(OutgoingEvent.id.in_(select(due.c.id)))
            .values(
                state=State.SENDING,
                attempts=OutgoingEvent.attempts + 1,
                lease_token=random_id(),
                lease_until=now + LEASE,
            )
            .returning(OutgoingEvent.id, OutgoingEvent.lease_token)
            .execution_options(synchronize_session=False)
        )
    }
    if not tokens:
        return []
    rows = session.execute(
        select(
            OutgoingEvent,
            func.coalesce(OutgoingEvent.external_id, Member.external_id).label("external_id"),
            Case.public_id.label("case_id"),
            Campaign.month,
        )
        .join(Member, Member.id == OutgoingEvent.member_id)
        .outerjoin(Case, Case.id == OutgoingEvent.case_id)
        .outerjoin(Campaign, Campaign.id == Case.campaign_id)
        .where(OutgoingEvent.id.in_(tokens))
        .order_by(OutgoingEvent.id)
        .execution_options(populate_existing=True)
    )
    return [
        Claimed(
            id=row.id,
            public_id=row.public_id,
            attempts=row.attempts,
            lease_token=tokens[row.id],
            happening=Happening(
                type=Type(row.type),
                at=row.at,
                external_id=external_id,
                detail=row.detail,
                case_id=case_id,
                month=month,
                deadline_at=row.deadline_at,
                access_ends_at=row.access_ends_at,
                keep_until=row.keep_until,
            ),
        )
        for row, external_id, case_id, month in rows
    ]


def record(session: Session, settings: Settings, claimed: Claimed, reply: WebhookReply, now: datetime) -> State | None:
    """Write down what came of one call; None, and nothing written, when another took the event meanwhile."""
    values: dict[str, object] = {"lease_token": None, "lease_until": None, "said": reply.text[:200]}
    if reply.outcome is Outcome.ACCEPTED:
        heard = claimed.happening.type not in WANTS_ACKNOWLEDGEMENT or outgoing.acknowledges(reply.body)
        state = State.DONE if heard else State.SENT
        values |= {"sent_at": now} | ({"done_at": now, "external_id": None} if heard else {})
    elif reply.outcome is Outcome.GONE or reply.nobody_there:
        # That says nothing about this event: it stays where it was in its schedule.
        state = State.QUEUED
        values["attempts"] = OutgoingEvent.attempts - 1
    else:
        wait = outgoing.wait(claimed.attempts, claimed.public_id)
        state = State.FAILED if wait is None else State.QUEUED
        values |= {"done_at": now} if wait is None else {"due_at": now + wait}
    mine = session.scalar(
        update(OutgoingEvent)
        .where(
            OutgoingEvent.id == claimed.id,
            OutgoingEvent.state == State.SENDING,
            OutgoingEvent.lease_token == claimed.lease_token,
        )
        .values(state=state, **values)
        .returning(OutgoingEvent.id)
        .execution_options(synchronize_session=False)
    )
    if reply.outcome is Outcome.GONE:
        endpoint.gone(session, now)
    elif reply.nobody_there:
        endpoint.nobody_there(session, settings, reply.retry_after, now)
    else:
        endpoint.answered(session)
    if mine is not None and state is State.FAILED:
        endpoint.tell_operators(session, now)
    return None if mine is None else state


def _post(settings: Settings, sender: WebhookSender, url: str, claimed: Claimed, now: datetime) -> WebhookReply:
    body = outgoing.body(claimed.happening, settings.zone)
    return sender.post(url, body, webhooks.signed(settings.events_secret, f"evt_{claimed.public_id}", body, now))
