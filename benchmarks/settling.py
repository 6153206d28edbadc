"""How busy the settling of billing orders keeps the rate that a provider allows, when each answer takes a while.

python -m benchmarks.settling --orders 10000 --answer-ms 50 --rate 100 --connections 8
"""

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Lock
from time import monotonic

from flask_migrate import upgrade
from sqlalchemy import func, insert, select

from adapters.clock import SystemClock
from app import create_app
from domain.lifecycle import OrderKind
from domain.ports import BillingReceipt
from models import BillingOrder, Member, db
from services.settling import Pace, settle
from settings import Settings


class SlowProvider:
    """A provider that answers after a while, and counts what it was asked."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock = seconds, Lock()
        self.asked: list[float] = []

    def stop(self, billing_ref: str, *, key: str, now: datetime, at_once: bool = False) -> BillingReceipt:
        with self._lock:
            self.asked.append(monotonic())
        Event().wait(self._seconds)
        return BillingReceipt(key)


def put_orders(count: int) -> None:
    now = datetime.now(UTC)
    step = 5000
    for first in range(0, count, step):
        numbers = range(first, min(first + step, count))
        db.session.execute(
            insert(Member),
            [
                {"external_id": f"m-{n}", "email": mail, "email_key": mail, "joined_at": now}
                for n, mail in ((n, f"m{n}@example.org") for n in numbers)
            ],
        )
    ids = db.session.scalars(select(Member.id)).all()
    db.session.execute(
        insert(BillingOrder),
        [
            {
                "key": f"stop:{member_id}",
                "member_id": member_id,
                "kind": OrderKind.STOP,
                "billing_ref": f"m-{member_id}",
                "created_at": now,
                "due_at": now,
            }
            for member_id in ids
        ],
    )
    db.session.commit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=10_000)
    parser.add_argument("--answer-ms", type=float, default=50)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--connections", type=int, default=8)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        url = os.environ.get("DATABASE_URL") or f"sqlite:///{Path(folder) / 'bench.db'}"
        app = create_app(Settings(database_url=url, secret_key="bench", instance_path=Path(folder), scheduler=False))  # noqa: S106
        with app.app_context():
            upgrade()
            put_orders(given.orders)
            provider = SlowProvider(given.answer_ms / 1000)
            began = monotonic()
            done = settle(
                db.session(),
                provider,  # type: ignore[arg-type]
                SystemClock(),
                db.session.commit,
                lambda: False,
                Pace(given.connections, given.rate),
            )
            took = monotonic() - began
            unfinished = db.session.scalar(select(func.count()).where(BillingOrder.state != "done"))
            db.session.remove()
            db.engine.dispose()
    busy = given.orders / given.rate / took
    starts = provider.asked[:: max(1, given.orders // 200)]
    most = max(sum(1 for at in provider.asked if start <= at < start + 1) for start in starts)
    print(f"{done.done} orders in {took:.1f} s, {unfinished} unfinished: {done.done / took:.1f} a second")
    print(f"the rate of {given.rate:g} a second was kept busy to {busy:.1%}; at most {most} begun in any one second")


if __name__ == "__main__":
    main()
