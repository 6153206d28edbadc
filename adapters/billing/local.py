"""The billing provider for a service that keeps its own books (BILLING=local): three tables of our own database.

It stands for a provider, so it knows no member and shares no transaction with us: a call is one transaction of its own,
and what was answered under a key is answered again. What falls due is charged by services/books.py.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Engine,
    String,
    TableClause,
    column,
    func,
    insert,
    literal,
    select,
    table,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import OperationalError

from domain.dates import INTERVALS, following_charge
from domain.errors import BillingGone, BillingPermanent, BillingTemporary, BillingUnknown, NotFound
from domain.money import Money
from domain.money import pro_rata as share_of
from domain.policy import SubscriptionStatus
from domain.ports import BillingReceipt, Charge, Page, Subscription

_instant = DateTime(timezone=True)
_subscription = table(
    "local_subscription",
    column("billing_ref", String),
    column("anchor_at", _instant),
    column("next_charge_at", _instant),
    column("stopped_at", _instant),
    column("ended_at", _instant),
    column("price_minor", BigInteger),
    column("currency", String),
    column("billing_interval", String),
)
_charge = table(
    "local_charge",
    column("id", BigInteger),
    column("billing_ref", String),
    column("period_start", _instant),
    column("period_end", _instant),
    column("amount_minor", BigInteger),
    column("currency", String),
    column("charged_at", _instant),
    column("refunded_at", _instant),
    column("refunded_minor", BigInteger),
)
_call = table(
    "local_call",
    column("key", String),
    column("reference", String),
    column("refunded_minor", BigInteger),
    column("currency", String),
    column("next_charge_at", _instant),
    column("called_at", _instant),
)


class LocalBilling:
    def __init__(self, engine: Engine, zone: tzinfo = UTC) -> None:
        self._engine = engine
        self._zone = zone

    def read(self, billing_ref: str, *, now: datetime) -> Subscription:
        with self._engine.connect() as connection:
            row = connection.execute(select(_subscription).where(_subscription.c.billing_ref == billing_ref)).first()
        if row is None:
            raise BillingUnknown(f"the books have no subscription {billing_ref}")
        return _told(row, now)

    def list(self, cursor: str | None, *, limit: int, now: datetime) -> Page:
        following = select(_subscription).order_by(_subscription.c.billing_ref).limit(limit)
        if cursor is not None:
            following = following.where(_subscription.c.billing_ref > cursor)
        with self._engine.connect() as connection:
            rows = connection.execute(following).all()
        return Page(
            tuple(_told(row, now) for row in rows), str(rows[-1].billing_ref) if len(rows) == limit and rows else None
        )

    def charges(self, billing_ref: str, *, since: datetime) -> Sequence[Charge] | None:
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(_charge)
                .where(_charge.c.billing_ref == billing_ref, _charge.c.charged_at >= _utc(since))
                .order_by(_charge.c.charged_at)
            ).all()
        return [
            Charge(
                period_start=_certain(row.period_start),
                period_end=_aware(row.period_end),
                charged_at=_certain(row.charged_at),
                amount_minor=row.amount_minor,
                refunded_minor=row.refunded_minor or 0,
                currency=row.currency,
            )
            for row in rows
        ]

    def stop(self, billing_ref: str, *, key: str, now: datetime, at_once: bool = False) -> BillingReceipt:
        with self._once(billing_ref, key, now) as call:
            if call.answered is None:
                call.know()
                # Whatever came first stays: since when it is stopped, and when it was over.
                call.change(stopped_at=_first(_subscription.c.stopped_at, now))
                if at_once:
                    call.change(ended_at=_first(_subscription.c.ended_at, now))
        return call.receipt

    def undo(self, billing_ref: str, *, key: str, now: datetime) -> BillingReceipt:
        with self._once(billing_ref, key, now) as call:
            if call.answered is None:
                call.know()
                if call.ended_at is not None:
                    raise BillingGone(f"{billing_ref} was ended at once: only a restart begins it again")
                call.next_charge_at = call.change(stopped_at=None)
        return call.receipt

    def restart(
        self, billing_ref: str, *, price_minor: int, currency: str, interval: str, key: str, now: datetime
    ) -> BillingReceipt:
        if interval not in INTERVALS:
            raise BillingPermanent(f"cannot charge every {interval!r}: a period is one of {', '.join(INTERVALS)}")
        with self._once(billing_ref, key, now) as call:
            if call.answered is None:
                start = _utc(now)
                following = following_charge(start, interval, start, self._zone)
                call.know()
                call.next_charge_at = call.change(
                    stopped_at=None,
                    ended_at=None,
                    anchor_at=start,
                    next_charge_at=following,
                    price_minor=price_minor,
                    currency=currency,
                    billing_interval=interval,
                )
                call.charge(start, following, price_minor, currency)
        return call.receipt

    def refund(
        self, billing_ref: str, *, since: datetime, key: str, now: datetime, pro_rata: bool = False
    ) -> BillingReceipt:
        with self._once(billing_ref, key, now) as call:
            if call.answered is None:
                call.refund(_utc(since), pro_rata)
        return call.receipt

    def news(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> Sequence[str]:
        raise NotFound("The books are kept here: nobody sends word of them.")

    @contextmanager
    def _once(self, billing_ref: str, key: str, now: datetime) -> Iterator["_Call"]:
        """One call, one transaction. A busy database is a provider that is busy."""
        try:
            with self._engine.connect().execution_options(for_writing=True) as connection, connection.begin():
                call = _Call(connection, billing_ref, key, _utc(now))
                yield call
                call.close()
        except OperationalError as error:
            raise BillingTemporary(f"the books are busy: {error.orig}") from error


class _Call:
    """A call under its key: taking the key comes first, so that of two at once the second waits and gets the answer."""

    def __init__(self, connection: Connection, billing_ref: str, key: str, now: datetime) -> None:
        self._connection, self._ref, self._key, self._now = connection, billing_ref, key, now
        self.reference = f"local-{secrets.token_hex(8)}"
        self.next_charge_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.refunded: Money | None = None
        self.answered: BillingReceipt | None = None
        self._read_back: Subscription | None = None
        values = {"key": key, "reference": self.reference, "next_charge_at": None, "called_at": now}
        if not self._insert_new(_call, values):
            row = connection.execute(select(_call).where(_call.c.key == key)).one()
            self.reference, self.next_charge_at = row.reference, _aware(row.next_charge_at)
            if row.refunded_minor is not None:
                self.refunded = Money(row.refunded_minor, row.currency or "")
            self.answered = self.receipt

    @property
    def receipt(self) -> BillingReceipt:
        return BillingReceipt(self.reference, self.next_charge_at, refunded=self.refunded, read_back=self._read_back)

    def know(self) -> None:
        """A reference that the books do not know yet gets a subscription: its earlier charges were made elsewhere."""
        self._insert_new(_subscription, {"billing_ref": self._ref})
        self.ended_at = self._connection.scalar(
            select(_subscription.c.ended_at).where(_subscription.c.billing_ref == self._ref).with_for_update()
        )

    def change(self, **values: Any) -> datetime | None:
        """Change the subscription; gives its next charge."""
        changed = self._connection.execute(
            update(_subscription)
            .where(_subscription.c.billing_ref == self._ref)
            .values(**values)
            .returning(_subscription.c.next_charge_at)
        )
        return _aware(changed.scalar_one())

    def charge(self, period_start: datetime, period_end: datetime, amount_minor: int, currency: str) -> None:
        self._connection.execute(
            insert(_charge).values(
                billing_ref=self._ref,
                period_start=period_start,
                period_end=period_end,
                amount_minor=amount_minor,
                currency=currency,
                charged_at=self._now,
            )
        )

    def refund(self, since: datetime, pro_rata: bool) -> None:
        """What has gone back already counts: no charge is ever refunded by more than it was."""
        self.refunded = Money(0, "")
        for row in self._connection.execute(
            select(_charge).where(_charge.c.billing_ref == self._ref).order_by(_charge.c.id).with_for_update()
        ).all():
            start, end = _certain(row.period_start), _aware(row.period_end)
            if start >= since:
                owed = row.amount_minor
            elif pro_rata and end is not None:
                owed = share_of(row.amount_minor, start, end, since)
            else:
                continue
            if owed > (row.refunded_minor or 0):
                self._connection.execute(
                    update(_charge).where(_charge.c.id == row.id).values(refunded_at=self._now, refunded_minor=owed)
                )
                self.refunded = self.refunded.plus(owed - (row.refunded_minor or 0), row.currency)

    def close(self) -> None:
        learned: dict[str, object] = {"next_charge_at": self.next_charge_at}
        if self.refunded is not None:
            learned |= {"refunded_minor": self.refunded.minor, "currency": self.refunded.currency}
        if self.answered is None and any(value is not None for value in learned.values()):
            self._connection.execute(update(_call).where(_call.c.key == self._key).values(learned))
        row = self._connection.execute(select(_subscription).where(_subscription.c.billing_ref == self._ref)).first()
        self._read_back = None if row is None else _told(row, self._now)

    def _insert_new(self, into: TableClause, values: dict[str, object]) -> bool:
        construct = sqlite.insert if self._connection.dialect.name == "sqlite" else postgresql.insert
        statement = construct(into).values(values).on_conflict_do_nothing().returning(literal(1))
        return self._connection.scalar(statement) is not None


def _told(row: Row[Any], now: datetime) -> Subscription:
    stopped, following = row.stopped_at is not None, _aware(row.next_charge_at)
    over = row.ended_at is not None or (stopped and (following is None or following <= now))
    return Subscription(
        billing_ref=row.billing_ref,
        status=SubscriptionStatus.ENDED if over else SubscriptionStatus.ACTIVE,
        stopping=stopped and not over,
        price_minor=row.price_minor,
        currency=row.currency,
        interval=row.billing_interval,
        paid_through=_aware(row.ended_at) or following,
        next_charge_at=None if stopped else following,
    )


def _first(at: ColumnElement[Any], now: datetime) -> ColumnElement[Any]:
    return func.coalesce(at, literal(_utc(now), _instant))


def _utc(instant: datetime) -> datetime:
    """As our instants are kept: SQLite drops the offset, so it has to be that of UTC."""
    return instant.astimezone(UTC)


def _aware(instant: datetime | None) -> datetime | None:
    return None if instant is None else _certain(instant)


def _certain(instant: datetime) -> datetime:
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
