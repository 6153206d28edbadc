"""The books of BILLING=local: every call once per key, on both databases."""

from datetime import timedelta
from threading import Barrier, Thread
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from adapters.billing.local import LocalBilling
from domain.errors import BillingPermanent, BillingTemporary
from domain.ports import BillingReceipt
from models import LocalCall, LocalCharge, LocalSubscription, db
from tests.adapters.billing_contract import RefundingContract
from tests.conftest import NOW
from tests.factories import at


class LocalWorld:
    now = NOW

    def __init__(self) -> None:
        self.billing = LocalBilling(db.engine)
        self._made = 0

    def subscribe(self, *, price_minor: int = 1299, currency: str = "EUR", interval: str = "month") -> str:
        self._made += 1
        ref = f"made-{self._made}"
        self.billing.restart(
            ref, price_minor=price_minor, currency=currency, interval=interval, key=f"made:{ref}", now=self.now
        )
        return ref


class TestLocalContract(RefundingContract):
    @pytest.fixture
    def world(self, app: Flask) -> LocalWorld:
        return LocalWorld()


@pytest.fixture
def books(app: Flask) -> LocalBilling:
    return LocalBilling(db.engine)


def restart(books: LocalBilling, key: str = "restart:1", interval: str = "month") -> BillingReceipt:
    return books.restart("m-1", price_minor=1299, currency="EUR", interval=interval, key=key, now=NOW)


def subscription(session: Session, ref: str = "m-1") -> LocalSubscription:
    session.rollback()
    return session.get_one(LocalSubscription, ref, populate_existing=True)


def charges(session: Session) -> list[LocalCharge]:
    session.rollback()
    return list(session.scalars(select(LocalCharge).order_by(LocalCharge.period_start)))


def test_a_stop_of_a_reference_not_seen_before_is_kept(books: LocalBilling, session: Session) -> None:
    books.stop("m-1", key="stop:1", now=NOW)
    assert subscription(session).stopped_at == NOW


def test_a_stop_keeps_the_day_of_the_next_charge_and_undo_goes_back_to_it(
    books: LocalBilling, session: Session
) -> None:
    restart(books)
    books.stop("m-1", key="stop:1", now=NOW + timedelta(days=3))
    receipt = books.undo("m-1", key="undo:1", now=NOW + timedelta(days=5))
    assert receipt.next_charge_at == at("2026-07-03 10:00")
    row = subscription(session)
    assert (row.stopped_at, row.next_charge_at) == (None, at("2026-07-03 10:00"))
    assert len(charges(session)) == 1


@pytest.mark.parametrize(
    ("interval", "following"),
    [("month", "2026-07-03 10:00"), ("quarter", "2026-09-03 10:00"), ("year", "2027-06-03 10:00")],
)
def test_a_restart_charges_once_for_the_period_that_starts(
    books: LocalBilling, session: Session, interval: str, following: str
) -> None:
    receipt = restart(books, interval=interval)
    assert receipt.next_charge_at == at(following)
    (charge,) = charges(session)
    assert (charge.period_start, charge.amount_minor, charge.currency) == (NOW, 1299, "EUR")


def test_the_same_key_gets_the_same_answer_and_nothing_is_done_again(books: LocalBilling, session: Session) -> None:
    first = restart(books)
    books.stop("m-1", key="stop:1", now=NOW)
    assert restart(books) == first
    assert subscription(session).stopped_at == NOW
    assert len(charges(session)) == 1
    assert books.stop("m-1", key="stop:1", now=NOW + timedelta(days=1)) == books.stop("m-1", key="stop:1", now=NOW)
    assert session.scalar(select(func.count()).select_from(LocalCall)) == 2


def test_the_same_restart_asked_at_once_charges_once(books: LocalBilling, session: Session) -> None:
    together, answers = Barrier(6), []

    def ask() -> None:
        together.wait()
        answers.append(restart(books))

    threads = [Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    assert len(set(answers)) == 1
    assert len(charges(session)) == 1


def test_a_refund_gives_back_periods_from_then_on_once(books: LocalBilling, session: Session) -> None:
    restart(books)
    books.restart("m-1", price_minor=1299, currency="EUR", interval="month", key="restart:2", now=at("2026-08-01"))
    books.refund("m-1", since=at("2026-07-01"), key="refund:1", now=at("2026-08-02"))
    books.refund("m-1", since=at("2026-07-01"), key="refund:2", now=at("2026-08-05"))
    assert [charge.refunded_at for charge in charges(session)] == [None, at("2026-08-02")]
    assert [charge.refunded_minor for charge in charges(session)] == [None, 1299]


def test_the_books_are_kept_in_the_services_time_zone(app: Flask) -> None:
    """Midnight of 1 October in Berlin is 22:00 UTC of the day before; that of 1 November is 23:00."""
    berlin = LocalBilling(db.engine, ZoneInfo("Europe/Berlin"))
    receipt = berlin.restart(
        "m-1", price_minor=1, currency="EUR", interval="month", key="k", now=at("2026-09-30 22:00")
    )
    assert receipt.next_charge_at == at("2026-10-31 23:00")
    assert receipt.read_back is not None
    assert receipt.read_back.paid_through == at("2026-10-31 23:00")


def test_another_member_is_left_alone(books: LocalBilling, session: Session) -> None:
    restart(books)
    books.stop("m-2", key="stop:2", now=NOW)
    books.refund("m-2", since=at("2020-01-01"), key="refund:2", now=NOW)
    assert subscription(session).stopped_at is None
    assert charges(session)[0].refunded_at is None


def test_an_interval_nobody_knows_is_refused_for_good(books: LocalBilling, session: Session) -> None:
    with pytest.raises(BillingPermanent, match="fortnight"):
        restart(books, interval="fortnight")
    assert charges(session) == []


def test_a_database_that_is_away_is_a_provider_that_is_away(books: LocalBilling, session: Session) -> None:
    LocalCharge.__table__.drop(db.engine)
    if db.engine.dialect.name == "sqlite":
        with pytest.raises(BillingTemporary, match="books are busy"):
            restart(books)
