"""Periods that were paid, told late: an undo after one has run out, and a file that knows of one for the first time."""

from datetime import datetime
from pathlib import Path

from sqlalchemy import literal, select
from sqlalchemy.orm import Session

from adapters.billing.local import LocalBilling
from domain.lifecycle import Answer, Through
from domain.ports import BillingReceipt, Subscription
from models import db
from models.base import UTCDateTime
from services import billing_answers, billing_asking, decisions, returning, settling
from services.importing import import_members
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import case_of, close, opened, orders_of

JULY_1 = at("2026-07-01 06:00")


def settled(session: Session, now: datetime) -> None:
    session.commit()
    settling.settle(session, LocalBilling(db.engine), FrozenClock(now), session.commit, lambda: False)
    session.expire_all()


def test_scenario_22_a_keep_after_the_paid_period_ran_out_begins_the_charges_anew(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    case = case_of(session, member)
    decisions.answer(session, settings, case.id, Answer.LAPSE, Through.LINK, NOW)
    settled(session, NOW)
    decisions.answer(session, settings, case.id, Answer.KEEP, Through.LINK, at("2026-06-20"))
    session.commit()
    books = LocalBilling(db.engine)
    books.stop(member.billing_ref or "", key="ended there", now=at("2026-06-15"), at_once=True)
    settled(session, at("2026-06-20"))
    kinds = [("stop", "done"), ("undo", "superseded"), ("restart", "done")]
    assert orders_of(session, member) == kinds
    settled(session, at("2026-06-21"))
    [charge] = books.charges(member.billing_ref or "", since=NOW) or ()
    assert (charge.period_start, charge.amount_minor) == (at("2026-06-20"), 1299)
    session.refresh(member)
    assert (member.status, member.paid_through) == ("active", at("2026-07-20"))
    assert orders_of(session, member) == kinds


def test_scenario_22_where_nobody_pressed_a_button_an_undo_that_comes_too_late_waits_for_an_operator(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, at("2026-06-30 22:05"))
    settled(session, at("2026-06-30 22:05"))
    ref, member_id = member.billing_ref or "", member.id
    session.commit()
    LocalBilling(db.engine).stop(ref, key="over", now=JULY_1, at_once=True)
    use = select(literal(member_id).label("member_id"), literal(at("2026-06-30 21:00"), UTCDateTime()).label("used_at"))
    assert returning.reverse_for_use(session, settings, use, JULY_1) == 1
    session.commit()
    settled(session, JULY_1)
    assert orders_of(session, member) == [("stop", "done"), ("undo", "failed")]


def test_scenario_35_a_file_that_tells_late_of_a_payment_before_the_end_is_no_return(
    session: Session, settings: Settings, tmp_path: Path
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, at("2026-06-30 22:05"))

    def said(paid_through: str, now: datetime) -> tuple[str, datetime | None, datetime | None]:
        path = tmp_path / "members.csv"
        row = f"{member.external_id},{member.email},2025-01-15,{paid_through}"
        session.commit()
        path.write_text(f"external_id,email,joined_at,paid_through\n{row}\n")
        import_members(session, settings, path, now, commit=session.commit)
        session.refresh(member)
        return member.status, member.access_ends_at, member.keep_until

    for day in (2, 3):
        # Charged on the 15th of June, two weeks before the end. A second file says the same.
        told = said("2026-07-15", at(f"2026-07-0{day} 06:00"))
        assert told == ("lapsed", at("2026-07-14 22:00"), at("2027-05-31 22:00"))
    assert said("2026-08-15", at("2026-07-16 06:00")) == ("active", None, None)


def test_scenario_35_a_charge_that_was_given_back_is_no_return_when_a_file_tells_of_it(
    session: Session, settings: Settings, tmp_path: Path
) -> None:
    """Promise 11: the stop came to the provider after it had charged once more, and says so itself."""
    member = factories.dormant(session, paid_through=at("2026-07-15"))
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, at("2026-06-30 22:05"))
    late = at("2026-07-16 07:00")
    [claimed] = billing_asking.claim(session, late, 10)
    held = Subscription(member.billing_ref or "", "active", stopping=True, paid_through=at("2026-08-15"))
    billing_answers.record(session, claimed, BillingReceipt("r-1", read_back=held), late)
    session.commit()
    assert orders_of(session, member) == [("stop", "done"), ("refund", "queued")]

    def said(paid_through: str, now: datetime) -> str:
        path = tmp_path / "members.csv"
        row = f"{member.external_id},{member.email},2025-01-15,{paid_through}"
        session.commit()
        path.write_text(f"external_id,email,joined_at,paid_through\n{row}\n")
        import_members(session, settings, path, now, commit=session.commit)
        session.refresh(member)
        return member.status

    assert said("2026-08-15", at("2026-07-17 06:00")) == "lapsed"
    assert said("2026-09-20", at("2026-08-21 06:00")) == "active"
