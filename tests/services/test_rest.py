"""REFUND=pro_rata: the rest of a paid period goes back once, and access ends with the membership."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import literal, select
from sqlalchemy.orm import Session

from adapters.billing.local import LocalBilling
from domain.lifecycle import Answer, Through
from domain.money import pro_rata
from models import LocalCharge, Member, db
from models.base import UTCDateTime
from services import account, billing_desk, books, closing, decisions, returning, settling
from services.importing import import_members
from services.mail import dispatch
from services.mail.words import Facts
from services.notice import standing
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import accept_mails, case_of, close, opened, orders_of

MONTH_END = at("2026-06-30 22:00")
AFTER = at("2026-06-30 22:05")
PAID_FROM, PAID_TO = at("2026-06-14 22:00"), at("2026-07-14 22:00")
REST = pro_rata(1299, PAID_FROM, PAID_TO, MONTH_END)


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Any:
    app = make_app(refund="pro_rata")
    with app.app_context():
        yield app


@pytest.fixture
def member(session: Session, settings: Settings) -> Member:
    """Warned on the 3rd; charged on the 15th until the next one."""
    row = factories.dormant(session, paid_through=PAID_FROM)
    session.commit()
    opened(session, settings, NOW)
    books.charge_due(session, settings, at("2026-06-15 06:00"), session.commit)
    session.refresh(row)
    assert row.paid_through == PAID_TO
    session.commit()
    return row


def settled(session: Session, settings: Settings, now: datetime) -> None:
    session.commit()
    settling.settle(session, LocalBilling(db.engine, settings.zone), FrozenClock(now), session.commit, lambda: False)
    session.expire_all()


def money(session: Session, member: Member) -> list[tuple[datetime, int, int | None]]:
    session.rollback()
    rows = session.execute(
        select(LocalCharge.period_start, LocalCharge.amount_minor, LocalCharge.refunded_minor)
        .where(LocalCharge.billing_ref == member.billing_ref)
        .order_by(LocalCharge.period_start)
    )
    return [tuple(row) for row in rows]  # type: ignore[misc]


@pytest.mark.parametrize("asked_for", [False, True], ids=["silent", "own wish"])
def test_the_rest_goes_back_once_and_access_ends_with_the_membership(
    session: Session, settings: Settings, member: Member, asked_for: bool
) -> None:
    case = case_of(session, member)
    if asked_for:
        decisions.answer(session, settings, case.id, Answer.LAPSE, Through.LINK, at("2026-06-20"))
        settled(session, settings, at("2026-06-20"))
    seen = standing(session, settings, type(case).id == case.id, at("2026-06-20"))
    assert seen is not None
    assert (seen.gives_back, seen.outlook.access_ends_at) == (True, MONTH_END)
    close(session, settings, AFTER)
    session.refresh(member)
    assert (member.access_ends_at, member.paid_through) == (MONTH_END, MONTH_END)
    kinds = ["stop", "stop", "refund"] if asked_for else ["stop", "refund"]
    assert [kind for kind, _ in orders_of(session, member)] == kinds
    session.commit()
    assert "lapsed" not in accept_mails(session, settings, AFTER), "it waits for what went back"
    close(session, settings, AFTER)
    settled(session, settings, AFTER)
    assert [state for _, state in orders_of(session, member)] == ["done"] * len(kinds)
    assert money(session, member) == [(PAID_FROM, 1299, REST)]
    [claimed] = [one for one in dispatch.claim(session, settings, AFTER, 50) if one.kind == "lapsed"]
    refunded = Facts.of(claimed).refunded
    assert refunded is not None
    assert (refunded.minor, refunded.currency) == (REST, "EUR")
    seen = standing(session, settings, type(case).id == case.id, AFTER)
    assert seen is not None
    assert seen.gives_back


def test_coming_back_is_charged_once_from_the_day_it_was_ordered(
    session: Session, settings: Settings, member: Member
) -> None:
    close(session, settings, AFTER)
    # A minute after the end, with nothing at the provider yet.
    now = at("2026-06-30 22:06")
    session.refresh(member)
    quote = returning.quote(member, settings, now)
    assert (quote.kind, quote.first_charge_at) == ("restart", now)
    returning.order(session, settings, member.id, quote, now)
    settled(session, settings, now)
    books.charge_due(session, settings, at("2026-07-20"), session.commit)
    assert money(session, member) == [(PAID_FROM, 1299, REST), (now, 1299, None)]
    assert {state for _, state in orders_of(session, member)} == {"done"}


def test_use_reported_late_takes_back_what_nobody_has_heard_of(
    session: Session, settings: Settings, member: Member
) -> None:
    close(session, settings, AFTER)
    use = select(literal(member.id).label("member_id"), literal(at("2026-06-29"), UTCDateTime()).label("used_at"))
    assert returning.reverse_for_use(session, settings, use, AFTER) == 1
    session.commit()
    session.refresh(member)
    assert (member.status, member.paid_through) == ("active", PAID_TO)
    assert orders_of(session, member) == [("stop", "superseded"), ("refund", "superseded")]
    settled(session, settings, AFTER)
    books.charge_due(session, settings, at("2026-07-20"), session.commit)
    assert money(session, member) == [(PAID_FROM, 1299, None), (PAID_TO, 1299, None)]


def test_a_file_that_still_says_what_was_paid_before_is_no_return(
    session: Session, settings: Settings, member: Member, tmp_path: Any
) -> None:
    close(session, settings, AFTER)
    settled(session, settings, AFTER)
    assert said(session, settings, tmp_path, member, "2026-07-15") == "lapsed"
    assert said(session, settings, tmp_path, member, "2026-08-20") == "active"


def said(session: Session, settings: Settings, folder: Any, member: Member, paid_through: str) -> str:
    path = folder / "members.csv"
    row = f"{member.external_id},{member.email},2025-01-15,{paid_through}"
    session.commit()
    path.write_text(f"external_id,email,joined_at,paid_through\n{row}\n")
    import_members(session, settings, path, at("2026-07-02 06:00"), commit=session.commit)
    session.refresh(member)
    return member.status


def test_where_the_books_know_of_no_charge_a_person_sees_to_it(session: Session, settings: Settings) -> None:
    elsewhere = factories.dormant(session, paid_through=PAID_TO)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, AFTER)
    settled(session, settings, AFTER)
    assert orders_of(session, elsewhere) == [("stop", "done"), ("refund", "failed")]
    [(order, _)] = billing_desk.failed_orders(session)
    assert "nothing went back" in (order.error or "")
    assert "lapsed" not in accept_mails(session, settings, AFTER)
    billing_desk.mark_done(session, order.id, "bank transfer 17", AFTER)
    session.commit()
    assert "lapsed" in accept_mails(session, settings, AFTER)


@pytest.mark.parametrize("facts", [{"price_minor": 0}, {"subscription_status": "trial"}, {"paid_through": None}])
def test_where_nothing_was_paid_nothing_goes_back(session: Session, settings: Settings, facts: dict[str, Any]) -> None:
    member = factories.using(session, **{"paid_through": PAID_TO, **facts})
    assert account.end_unasked(member, settings, NOW).gives_back is False
    decisions.end_membership(session, settings, member.id, Through.ACCOUNT, NOW)
    session.commit()
    closing.close(session, settings, AFTER, session.commit)
    session.refresh(member)
    assert member.status == "lapsed"
    assert member.access_ends_at == (member.paid_through or MONTH_END)
    assert "refund" not in [kind for kind, _ in orders_of(session, member)]
