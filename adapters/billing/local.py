"""The billing provider for a service that keeps its own books (BILLING=local): three tables of our own database.

It stands for a provider, so it knows no member and shares no transaction with us: a call is one transaction of its own,
and what was answered under a key is answered again.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import BigInteger, DateTime, Engine, String, TableClause, column, insert, literal, select, table, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from domain.dates import add_months
from domain.errors import BillingPermanent, BillingTemporary
from domain.ports import BillingReceipt

INTERVALS = {"month": 1, "quarter": 3, "year": 12}

_instant = DateTime(timezone=True)
_subscription = table(
    "local_subscription",
    column("billing_ref", String),
    column("stopped_at", _instant),
    column("next_charge_at", _instant),
)
_charge = table(
    "local_charge",
    column("billing_ref", String),
    column("period_start", _instant),
    column("amount_minor", BigInteger),
    column("currency", String),
    column("charged_at", _instant),
    column("refunded_at", _instant),
)
_call = table(
    "local_call",
    column("key", String),
    column("reference", String),
    column("next_charge_at", _instant),
    column("called_at", _instant),
)


class LocalBilling:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def stop(self, billing_ref: str, *, key: str, now: datetime) -> BillingReceipt:
        with self._once(key, now) as call:
            if call.answered is None:
                call.know(billing_ref)
                call.change(billing_ref, stopped_at=_utc(now))
        return call.receipt

    def undo(self, billing_ref: str, *, key: str, now: datetime) -> BillingReceipt:
        with self._once(key, now) as call:
            if call.answered is None:
                call.know(billing_ref)
                call.next_charge_at = call.change(billing_ref, stopped_at=None)
        return call.receipt

    def restart(
        self, billing_ref: str, *, price_minor: int, currency: str, interval: str, key: str, now: datetime
    ) -> BillingReceipt:
        if interval not in INTERVALS:
            raise BillingPermanent(f"cannot charge every {interval!r}: a period is one of {', '.join(INTERVALS)}")
        with self._once(key, now) as call:
            if call.answered is None:
                start = _utc(now)
                following = datetime.combine(add_months(start.date(), INTERVALS[interval]), start.timetz())
                call.know(billing_ref)
                call.next_charge_at = call.change(billing_ref, stopped_at=None, next_charge_at=following)
                call.charge(billing_ref, start, price_minor, currency)
        return call.receipt

    def refund(self, billing_ref: str, *, since: datetime, key: str, now: datetime) -> BillingReceipt:
        with self._once(key, now) as call:
            if call.answered is None:
                call.refund(billing_ref, _utc(since))
        return call.receipt

    @contextmanager
    def _once(self, key: str, now: datetime) -> Iterator["_Call"]:
        """One call, one transaction. A busy database is a provider that is busy."""
        try:
            with self._engine.connect().execution_options(for_writing=True) as connection, connection.begin():
                call = _Call(connection, key, _utc(now))
                yield call
                call.close()
        except OperationalError as error:
            raise BillingTemporary(f"the books are busy: {error.orig}") from error


class _Call:
    """A call under its key: taking the key comes first, so that of two at once the second waits and gets the answer."""

    def __init__(self, connection: Connection, key: str, now: datetime) -> None:
        self._connection, self._key, self._now = connection, key, now
        self.reference = f"local-{secrets.token_hex(8)}"
        self.next_charge_at: datetime | None = None
        self.answered: BillingReceipt | None = None
        values = {"key": key, "reference": self.reference, "next_charge_at": None, "called_at": now}
        if not self._insert_new(_call, values):
            row = connection.execute(select(_call.c.reference, _call.c.next_charge_at).where(_call.c.key == key)).one()
            self.answered = BillingReceipt(row.reference, _aware(row.next_charge_at))

    @property
    def receipt(self) -> BillingReceipt:
        return self.answered or BillingReceipt(self.reference, self.next_charge_at)

    def know(self, billing_ref: str) -> None:
        """A reference that the books do not know yet gets a subscription: its earlier charges were made elsewhere."""
        self._insert_new(_subscription, {"billing_ref": billing_ref, "stopped_at": None, "next_charge_at": None})

    def change(self, billing_ref: str, **values: datetime | None) -> datetime | None:
        """Change a subscription; gives its next charge."""
        changed = self._connection.execute(
            update(_subscription)
            .where(_subscription.c.billing_ref == billing_ref)
            .values(**values)
            .returning(_subscription.c.next_charge_at)
        )
        return _aware(changed.scalar_one())

    def charge(self, billing_ref: str, period_start: datetime, amount_minor: int, currency: str) -> None:
        self._connection.execute(
            insert(_charge).values(
                billing_ref=billing_ref,
                period_start=period_start,
                amount_minor=amount_minor,
                currency=currency,
                charged_at=self._now,
            )
        )

    def refund(self, billing_ref: str, since: datetime) -> None:
        self._connection.execute(
            update(_charge)
            .where(
                _charge.c.billing_ref == billing_ref, _charge.c.period_start >= since, _charge.c.refunded_at.is_(None)
            )
            .values(refunded_at=self._now)
        )

    def close(self) -> None:
        if self.answered is None and self.next_charge_at is not None:
            self._connection.execute(
                update(_call).where(_call.c.key == self._key).values(next_charge_at=self.next_charge_at)
            )

    def _insert_new(self, into: TableClause, values: dict[str, object]) -> bool:
        construct = sqlite.insert if self._connection.dialect.name == "sqlite" else postgresql.insert
        statement = construct(into).values(values).on_conflict_do_nothing().returning(literal(1))
        return self._connection.scalar(statement) is not None


def _utc(instant: datetime) -> datetime:
    """As our instants are kept: SQLite drops the offset, so it has to be that of UTC."""
    return instant.astimezone(UTC)


def _aware(instant: datetime | None) -> datetime | None:
    if instant is None:
        return None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
