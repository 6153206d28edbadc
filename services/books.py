"""The books of BILLING=local: who goes on is charged when the paid period is over, and the next one is paid.

The books follow the members' rows: from ``paid_through`` on the next period is charged, at the price on record, and
``paid_through`` moves on in the same transaction. Nobody is charged

- whose ``paid_through`` is not known, or had passed before the books first saw it: charging never begins by surprise;
- whom an app store or a partner bills by itself;
- whose subscription in the books is stopped, or who has said that the membership shall end;
- who is asked and stays silent, for a period that begins at the deadline or after it: that waits for the month end.

A period is charged once: (billing_ref, period_start) is unique. One that was due while nothing ran is charged late.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, literal, or_, select, update
from sqlalchemy.orm import Session

from domain.dates import INTERVALS, following_charge
from domain.lifecycle import Answer, OrderKind
from models import BillingOrder, Case, LocalCharge, LocalSubscription, Member, change, for_writing, insert
from services.billing import UNSETTLED
from services.cases import lock_members
from services.selection import paying
from settings import Settings

WINDOW = 10_000
"""Member ids in one transaction."""

FORESIGHT = timedelta(days=1)
"""So long after its end a paid period that the books hear of for the first time still counts as running on."""


@dataclass(slots=True)
class Charged:
    charges: int = 0
    members: int = 0


def charge_due(session: Session, settings: Settings, now: datetime, commit: Callable[[], None]) -> Charged:
    """Charge what has fallen due by ``now``. ``commit`` is called after every window, with nothing half-done."""
    done = Charged()
    last = session.scalar(select(func.max(Member.id))) or 0
    session.rollback()
    for after in range(0, last, WINDOW):
        for_writing(session)
        window = and_(Member.id > after, Member.id <= after + WINDOW)
        follow_members(session, now, window)
        _charge(session, settings, now, window, done)
        commit()
    return done


def follow_members(session: Session, now: datetime, *window: ColumnElement[bool]) -> int:
    """Open the books for paying members, and bring those up to date of whom a file says that more has been paid."""
    ref = _ref()
    found = (
        select(
            ref,
            func.max(Member.paid_through),
            func.max(Member.paid_through),
            func.max(Member.price_minor),
            func.max(Member.currency),
            func.max(Member.billing_interval),
        )
        .where(
            paying(),
            Member.billed_by.is_(None),
            Member.paid_through > now - FORESIGHT,
            Member.billing_interval.in_(INTERVALS),
            *window,
        )
        .group_by(ref)
    )
    columns = ["billing_ref", "anchor_at", "next_charge_at", "price_minor", "currency", "billing_interval"]
    opened = insert(session, LocalSubscription).from_select(columns, found, include_defaults=False)
    new, known = opened.excluded, LocalSubscription
    return change(
        session,
        opened.on_conflict_do_update(
            index_elements=["billing_ref"],
            set_={name: getattr(new, name) for name in columns[1:]},
            where=or_(known.next_charge_at.is_(None), known.next_charge_at < new.next_charge_at),
        ),
    )


def _charge(session: Session, settings: Settings, now: datetime, window: ColumnElement[bool], done: Charged) -> None:
    silent_until = (
        select(func.min(Case.deadline_at))
        .where(Case.member_id == Member.id, Case.closed_at.is_(None), Case.answer.is_(None))
        .scalar_subquery()
    )
    due = (
        select(
            Member.id,
            Member.paid_through,
            Member.price_minor,
            Member.currency,
            LocalSubscription.billing_ref,
            LocalSubscription.anchor_at,
            LocalSubscription.billing_interval,
            silent_until.label("silent_until"),
        )
        .join(LocalSubscription, LocalSubscription.billing_ref == _ref())
        .where(
            window,
            paying(),
            Member.billed_by.is_(None),
            Member.paid_through <= now,
            Member.erase_requested_at.is_(None),
            LocalSubscription.anchor_at.is_not(None),
            LocalSubscription.stopped_at.is_(None),
            or_(silent_until.is_(None), Member.paid_through < silent_until),
            ~_ends(),
        )
        .order_by(Member.id)
    )
    lock_members(session, select(due.subquery().c.id))
    # Looked at anew once the members are locked: an answer that was being saved is seen, a stop in the books as well.
    rows: Sequence[Any] = session.execute(due.with_for_update(of=LocalSubscription)).all()
    charges = [charge for row in rows for charge in _charges(row, settings, now)]
    if not charges:
        return
    done.charges += len(charges)
    done.members += len(rows)
    session.execute(insert(session, LocalCharge).on_conflict_do_nothing(), charges)
    paid: dict[str, datetime] = {charge["billing_ref"]: charge["period_end"] for charge in charges}
    moved = [(row, paid[row.billing_ref]) for row in rows if row.billing_ref in paid]
    session.execute(update(Member), [{"id": row.id, "paid_through": end} for row, end in moved])
    session.execute(
        update(LocalSubscription),
        [
            {
                "billing_ref": row.billing_ref,
                "anchor_at": _anchor(row, settings),
                "next_charge_at": end,
                "price_minor": row.price_minor,
                "currency": row.currency,
            }
            for row, end in moved
        ],
    )


def _charges(row: Any, settings: Settings, now: datetime) -> list[dict[str, Any]]:
    """The periods of one member that have begun, one after another."""
    found = []
    start, anchor = row.paid_through, _anchor(row, settings)
    while start <= now and (row.silent_until is None or start < row.silent_until):
        end = following_charge(anchor, row.billing_interval, start, settings.zone)
        found.append(
            {
                "billing_ref": row.billing_ref,
                "period_start": start,
                "period_end": end,
                "amount_minor": row.price_minor,
                "currency": row.currency,
                "charged_at": now,
            }
        )
        start = end
    return found


def _anchor(row: Any, settings: Settings) -> datetime:
    """Where the charges are counted from: what was paid until another day than theirs is counted from that day on."""
    anchor: datetime = row.anchor_at
    start: datetime = row.paid_through
    before = start - timedelta(microseconds=1)
    on_schedule = anchor < start and following_charge(anchor, row.billing_interval, before, settings.zone) == start
    return anchor if on_schedule else start


def _ends() -> ColumnElement[bool]:
    """The member has said that the membership shall end, or a stop is on its way to the books."""
    wish = select(literal(1)).where(Case.member_id == Member.id, Case.closed_at.is_(None), Case.answer == Answer.LAPSE)
    stop = select(literal(1)).where(
        BillingOrder.member_id == Member.id, BillingOrder.kind == OrderKind.STOP, BillingOrder.state.in_(UNSETTLED)
    )
    return or_(wish.exists(), stop.exists())


def _ref() -> ColumnElement[Any]:
    return func.coalesce(Member.billing_ref, Member.public_id)
