"""The books of BILLING=local: who goes on is charged once a period, and nobody else."""

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from adapters.billing.local import LocalBilling
from domain.lifecycle import Answer, Through
from models import LocalCharge, LocalSubscription, Member, db
from services import books, decisions, settling
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import case_of, close, opened

# Midnight in Berlin, as a file's "2026-06-15" is read.
THE_15TH = at("2026-06-14 22:00")


def charge(session: Session, settings: Settings, now: datetime) -> books.Charged:
    session.commit()
    return books.charge_due(session, settings, now, session.commit)


def settle(session: Session, clock: FrozenClock, settings: Settings, now: datetime) -> None:
    clock.travel(now)
    session.commit()
    settling.settle(session, LocalBilling(db.engine, settings.zone), clock, session.commit, lambda: False)


def periods(session: Session, member: Member) -> list[Any]:
    session.rollback()
    return list(
        session.scalars(
            select(LocalCharge.period_start)
            .where(LocalCharge.billing_ref == (member.billing_ref or member.public_id))
            .order_by(LocalCharge.period_start)
        )
    )


def paid_through(session: Session, member: Member) -> datetime | None:
    session.rollback()
    return session.scalars(select(Member.paid_through).where(Member.id == member.id)).one()


def test_who_goes_on_is_charged_when_the_paid_period_is_over_and_once(session: Session, settings: Settings) -> None:
    member = factories.using(session, paid_through=THE_15TH, billing_ref=None)
    assert charge(session, settings, NOW).charges == 0
    assert charge(session, settings, at("2026-06-14 23:00")) == books.Charged(1, 1)
    assert charge(session, settings, at("2026-06-20")).charges == 0
    assert periods(session, member) == [THE_15TH]
    assert paid_through(session, member) == at("2026-07-14 22:00")
    only = session.scalars(select(LocalCharge)).one()
    assert (only.amount_minor, only.currency, only.period_end) == (1299, "EUR", at("2026-07-14 22:00"))


def test_what_fell_due_while_nothing_ran_is_charged_late_period_by_period(session: Session, settings: Settings) -> None:
    member = factories.using(session, paid_through=THE_15TH)
    charge(session, settings, NOW)
    assert charge(session, settings, at("2026-08-20")) == books.Charged(3, 1)
    assert paid_through(session, member) == at("2026-09-14 22:00")


@pytest.mark.parametrize(
    ("interval", "first", "following"),
    [
        ("month", "2026-06-29 22:00", ["2026-07-29 22:00", "2026-08-29 22:00"]),
        ("month", "2027-01-30 23:00", ["2027-02-27 23:00", "2027-03-30 22:00"]),
        ("week", "2026-10-22 22:00", ["2026-10-29 23:00", "2026-11-05 23:00"]),
        ("quarter", "2026-11-29 23:00", ["2027-02-27 23:00", "2027-05-29 22:00"]),
        ("year", "2028-02-28 23:00", ["2029-02-27 23:00", "2030-02-27 23:00"]),
    ],
)
def test_the_day_of_the_month_stays_in_the_services_time_zone(
    session: Session, settings: Settings, interval: str, first: str, following: list[str]
) -> None:
    """30 June, 31 January and 29 February, over short months and over changes of the clocks."""
    member = factories.using(session, paid_through=at(first), billing_interval=interval)
    charge(session, settings, at(first))
    for expected in following:
        assert paid_through(session, member) == at(expected)
        charge(session, settings, at(expected))


@pytest.mark.parametrize(
    "facts",
    [
        {"subscription_status": "paused"},
        {"subscription_status": "trial"},
        {"price_minor": 0},
        {"status": "ended"},
        {"erase_requested_at": NOW},
        {"billing_interval": "fortnight"},
        {"paid_through": None},
        # Had passed when the books first saw it.
        {"paid_through": at("2026-06-01")},
    ],
)
def test_who_does_not_pay_is_not_charged(session: Session, settings: Settings, facts: dict[str, Any]) -> None:
    member = factories.using(session, **{"paid_through": THE_15TH, **facts})
    charge(session, settings, NOW)
    assert charge(session, settings, at("2026-06-20")).charges == 0
    assert paid_through(session, member) == facts.get("paid_through", THE_15TH)


def test_what_a_file_says_has_been_paid_is_not_charged_again(session: Session, settings: Settings) -> None:
    member = factories.using(session, paid_through=THE_15TH)
    charge(session, settings, NOW)
    session.execute(update(Member).values(paid_through=at("2026-08-02 22:00"), price_minor=1499))
    charge(session, settings, at("2026-07-20"))
    charge(session, settings, at("2026-08-03"))
    assert periods(session, member) == [at("2026-08-02 22:00")]
    assert session.scalars(select(LocalCharge.amount_minor)).one() == 1499
    assert paid_through(session, member) == at("2026-09-02 22:00")


def test_two_members_of_one_subscription_are_charged_once(session: Session, settings: Settings) -> None:
    both = [factories.using(session, paid_through=THE_15TH, billing_ref="family") for _ in range(2)]
    charge(session, settings, NOW)
    charge(session, settings, at("2026-06-20"))
    assert periods(session, both[0]) == [THE_15TH]
    assert {paid_through(session, one) for one in both} == {at("2026-07-14 22:00")}


def test_scenario_22_no_charge_after_an_end_and_none_twice_after_a_keep(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    ends, changes = (factories.dormant(session, paid_through=THE_15TH) for _ in range(2))
    charge(session, settings, NOW)
    opened(session, settings, NOW)
    for member in (ends, changes):
        decisions.answer(session, settings, case_of(session, member).id, Answer.LAPSE, Through.LINK, NOW)
    # The stop has not even gone out.
    assert charge(session, settings, at("2026-06-15")).charges == 0
    settle(session, clock, settings, at("2026-06-16"))
    assert charge(session, settings, at("2026-06-17")).charges == 0

    decisions.answer(session, settings, case_of(session, changes).id, Answer.KEEP, Through.LINK, at("2026-06-20"))
    settle(session, clock, settings, at("2026-06-20"))
    for day in ("2026-06-20", "2026-06-21", "2026-07-10"):
        charge(session, settings, at(day))
    assert periods(session, changes) == [THE_15TH]
    assert paid_through(session, changes) == at("2026-07-14 22:00")
    close(session, settings, at("2026-07-01 06:00"))
    for day in ("2026-07-02", "2026-07-20"):
        charge(session, settings, at(day))
    assert periods(session, ends) == []


def test_silence_is_charged_until_the_deadline_and_not_for_a_day_after_it(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    """Promise 11. The month end may come late; no period that begins after it is charged meanwhile."""
    deadline = at("2026-06-30 22:00")
    before, after = (factories.dormant(session, paid_through=paid) for paid in (THE_15TH, deadline))
    charge(session, settings, NOW)
    opened(session, settings, NOW)
    charge(session, settings, at("2026-07-02"))
    assert (periods(session, before), periods(session, after)) == ([THE_15TH], [])
    close(session, settings, at("2026-07-02 06:00"))
    settle(session, clock, settings, at("2026-07-02 06:00"))
    charge(session, settings, at("2026-08-20"))
    assert (periods(session, before), periods(session, after)) == ([THE_15TH], [])
    session.refresh(before)
    assert (before.status, before.access_ends_at) == ("lapsed", at("2026-07-14 22:00"))


def test_a_silent_case_that_does_not_end_is_charged_late(session: Session, settings: Settings) -> None:
    member = factories.dormant(session, paid_through=at("2026-06-30 22:00"))
    charge(session, settings, NOW)
    opened(session, settings, NOW)
    session.execute(update(Member).values(last_used_at=at("2026-06-20")))
    charge(session, settings, at("2026-07-01"))
    assert periods(session, member) == []
    close(session, settings, at("2026-07-01 06:00"))
    charge(session, settings, at("2026-07-02"))
    assert periods(session, member) == [at("2026-06-30 22:00")]


def test_a_restart_is_charged_on_from_its_own_day(session: Session, settings: Settings, clock: FrozenClock) -> None:
    member = factories.dormant(session, paid_through=at("2026-06-10"))
    ref = member.billing_ref or ""
    session.commit()
    LocalBilling(db.engine, settings.zone).restart(
        ref, price_minor=1299, currency="EUR", interval="month", key="restart:1", now=NOW
    )
    session.execute(update(Member).values(paid_through=at("2026-07-03 10:00"), last_used_at=NOW))
    charge(session, settings, at("2026-07-04"))
    assert periods(session, member) == [NOW, at("2026-07-03 10:00")]
    row = session.scalars(select(LocalSubscription)).one()
    assert (row.anchor_at, row.next_charge_at) == (NOW, at("2026-08-03 10:00"))
