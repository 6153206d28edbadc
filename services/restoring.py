"""After a restore nothing is done on stale facts (scenario 43).

What happened since the backup is not known here: who used the service, who answered, who was erased, which mail and
which billing order went out. So, in one transaction, before anything else runs on the restored database:

1. erasures since are replayed from their log: whoever is in it is erased at once;
2. billing orders that waited become ``failed``: an operator looks at the provider and releases them, under their key;
3. mail that waited is not sent, but for last chances, without which nobody would ever be purged;
4. rounds are held with reason ``restored``, also one that is drafted later this month (services/breaker.py); live
   silent cases are withdrawn, and the warned are told to ignore our mail;
5. sign-in and erase links are dead, and every session ends, also those that were begun since.

Answers are kept: an explicit end is honoured, and whoever gave one is counted for the operator to look at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from domain.dates import month_of
from domain.lifecycle import (
    UNFINISHED_ORDERS,
    Answer,
    CaseState,
    MemberStatus,
    MessageState,
    OrderState,
)
from domain.links import Purpose
from domain.notices import Kind
from models import BillingOrder, Case, Erasure, JobRun, MagicLink, Member, Message, Operator, SignIn, change, insert
from services import billing_desk, breaker, campaigns, erasure, events, purging
from settings import Settings

CHUNK = 500
GENERATIONS = 1000
"""More than a member can have signed out everywhere since any backup, so that no session begun since comes back."""


@dataclass(slots=True)
class Restored:
    """What was done, for the operator; counts, but for what has to be looked at one by one."""

    held: list[str] = field(default_factory=list)
    withdrawn: int = 0
    replayed: int = 0
    erasures_of_nobody: int = 0
    """Lines of the log that fit no member of the backup: they joined later, or the secret key is another one."""
    unsent: dict[str, int] = field(default_factory=dict)
    orders: list[tuple[int, str, str]] = field(default_factory=list)
    """id, kind and external id of each billing order that an operator has to release."""
    ending: int = 0
    """Live cases with the answer "end": whoever has changed their mind since the backup is among them."""


def settle(session: Session, settings: Settings, erased: Mapping[str, datetime], now: datetime) -> Restored:
    """Bring a database that has just been restored to rest. ``erased``: what services/erasure_log.py has read."""
    done = Restored()
    _replay(session, settings, erased, now, done)
    _hold_back_orders(session, done)
    _hold_back_mail(session, done)
    done.held = campaigns.hold_after_restore(session, now)
    # After the mail: those who were warned are told now, and that mail is not a stale one.
    done.withdrawn = campaigns.withdraw(session, now, Case.answer.is_(None))
    _end_sessions(session, now)
    done.ending = (
        session.scalar(
            select(func.count()).select_from(Case).where(Case.closed_at.is_(None), Case.answer == Answer.LAPSE)
        )
        or 0
    )
    _remember(session, settings, now)
    events.record(session, "restored", now)
    return done


def _replay(
    session: Session, settings: Settings, erased: Mapping[str, datetime], now: datetime, done: Restored
) -> None:
    """Erase again whoever was erased since the backup; who has joined again after an erasure it knows of stays."""
    since = dict(_unknown(session, erased))
    if not since:
        return
    whose: dict[int, tuple[str, datetime]] = {}
    found = set()
    members = select(Member.id, Member.external_id).where(Member.external_id.is_not(None))
    for member_id, external_id in session.execute(members.execution_options(yield_per=1000)):
        assert external_id is not None
        for digest in erasure.digests(settings, external_id):
            if digest in since:
                whose[member_id] = (external_id, since[digest])
                found.add(digest)
    done.erasures_of_nobody = len(since.keys() - found)
    ids = list(whose)
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        theirs = Case.member_id.in_(chunk)
        # What the provider was to do for them it has done before they were erased.
        change(
            session,
            update(BillingOrder)
            .where(BillingOrder.member_id.in_(chunk), BillingOrder.state.not_in(_SETTLED))
            .values(state=OrderState.SUPERSEDED, lease_token=None, lease_until=None, done_at=now),
        )
        change(
            session,
            update(Case).where(theirs, Case.closed_at.is_(None)).values(state=CaseState.WITHDRAWN, closed_at=now),
        )
        change(
            session,
            update(Message)
            .where(Message.member_id.in_(chunk), Message.state.in_(_WAITING))
            .values(state=MessageState.OBSOLETE, lease_token=None, lease_until=None),
        )
        done.replayed += purging.purge_these(session, settings, chunk, now)
    # The instant is that of the erasure, not of its replay: whoever joined in between is taken again.
    known_now = {erasure.digests(settings, external_id)[0]: at for external_id, at in whose.values()}
    _write_down(session, since | known_now)


def _unknown(session: Session, erased: Mapping[str, datetime]) -> Iterator[tuple[str, datetime]]:
    digests = list(erased)
    for start in range(0, len(digests), CHUNK):
        chunk = digests[start : start + CHUNK]
        rows = session.execute(select(Erasure.digest, Erasure.purged_at).where(Erasure.digest.in_(chunk))).all()
        known = {digest: at for digest, at in rows}
        yield from (
            (digest, erased[digest]) for digest in chunk if known.get(digest) is None or known[digest] < erased[digest]
        )


def _write_down(session: Session, erased: Mapping[str, datetime]) -> None:
    rows = [{"digest": digest, "purged_at": at} for digest, at in erased.items()]
    for start in range(0, len(rows), CHUNK):
        statement = insert(session, Erasure).values(rows[start : start + CHUNK])
        change(
            session,
            statement.on_conflict_do_update(
                index_elements=["digest"], set_={"purged_at": statement.excluded.purged_at}
            ),
        )


_SETTLED = (OrderState.DONE, OrderState.SUPERSEDED)
_WAITING = (MessageState.QUEUED, MessageState.SENDING)


def _hold_back_orders(session: Session, done: Restored) -> None:
    done.orders = [
        (order_id, kind, external_id or "–")
        for order_id, kind, external_id in session.execute(
            select(BillingOrder.id, BillingOrder.kind, Member.external_id)
            .join(Member, Member.id == BillingOrder.member_id)
            .where(BillingOrder.state.in_(UNFINISHED_ORDERS))
            .order_by(BillingOrder.id)
        )
    ]
    change(
        session,
        update(BillingOrder)
        .where(BillingOrder.state.in_(UNFINISHED_ORDERS))
        .values(state=OrderState.FAILED, error=billing_desk.RESTORED, lease_token=None, lease_until=None),
    )


def _hold_back_mail(session: Session, done: Restored) -> None:
    waiting = (Message.state.in_(_WAITING), Message.kind != Kind.LAST_CHANCE)
    counted = session.execute(
        select(Message.kind, func.count()).where(*waiting).group_by(Message.kind).order_by(Message.kind)
    )
    done.unsent = {kind: count for kind, count in counted}
    # An erased member's address was kept for this mail alone.
    change(
        session,
        update(Message).where(*waiting, Message.kind == Kind.ERASED).values(to_address=None, locale=None),
    )
    change(
        session,
        update(Message).where(*waiting).values(state=MessageState.OBSOLETE, lease_token=None, lease_until=None),
    )


def _end_sessions(session: Session, now: datetime) -> None:
    change(session, delete(SignIn))
    change(
        session,
        update(MagicLink)
        .where(MagicLink.purpose != Purpose.COME_BACK, MagicLink.used_at.is_(None))
        .values(used_at=now),
    )
    change(
        session,
        update(Member)
        .where(Member.status != MemberStatus.PURGED)
        .values(session_generation=Member.session_generation + GENERATIONS),
    )
    change(session, update(Operator).values(session_generation=Operator.session_generation + GENERATIONS))


def _remember(session: Session, settings: Settings, now: datetime) -> None:
    """What the breaker asks: a round that is drafted later this month rests on the same stale facts."""
    done = {"started_at": now, "finished_at": now, "result": "restored"}
    change(
        session,
        insert(session, JobRun)
        .values(job=breaker.RESTORE, period=month_of(now, settings.zone), attempts=1, **done)
        .on_conflict_do_update(index_elements=["job", "period"], set_=done),
    )
