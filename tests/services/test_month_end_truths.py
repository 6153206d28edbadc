"""A month end goes by what was said to the member, and by what the member, the files and the provider said last."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import literal, select, update
from sqlalchemy.orm import Session

from domain.errors import BillingElsewhere, BillingRefused, BillingTemporary, Refused
from domain.lifecycle import Answer, Through
from domain.notices import Kind
from domain.ports import BillingReceipt
from models import Campaign, ClockJump, Member, Message, db
from models.base import UTCDateTime
from services import (
    billing_answers,
    billing_asking,
    campaigns,
    decisions,
    notice,
    returning,
    timekeeping,
    warning,
)
from services.importing import import_members
from services.mail import bounces, dispatch, letters, recording
from services.mail.words import Facts
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import ACCEPTED, accept_mails, case_of, close, kinds_to, opened, orders_of

JULY_1 = at("2026-07-01 06:00")
MONTH_END = at("2026-06-30 22:00")
NEXT_MONTH_END = at("2026-07-31 22:00")


def settled(session: Session, now: datetime, outcome: Any = None) -> None:
    while claimed := billing_asking.claim(session, now, 10):
        for one in claimed:
            billing_answers.record(session, one, outcome or BillingReceipt(f"done {one.key}"), now)
        session.commit()


def answer(session: Session, settings: Settings, member: Member, wish: Answer, when: datetime) -> None:
    decisions.answer(session, settings, case_of(session, member).id, wish, Through.LINK, when)
    session.commit()


def moved_to(session: Session, settings: Settings, member: Member, email: str, now: datetime) -> None:
    session.execute(update(Member).where(Member.id == member.id).values(email=email, email_key=email))
    warning.address_changed(session, settings, now)
    session.commit()


def imported(session: Session, settings: Settings, folder: Any, header: str, row: str, now: datetime) -> None:
    path = folder / "members.csv"
    path.write_text(f"{header}\n{row}\n")
    session.commit()
    import_members(session, settings, path, now, commit=session.commit)
    session.expire_all()


def test_who_was_told_that_silence_keeps_does_not_lapse_by_it(make_app: Callable[..., Flask]) -> None:
    asks_only = make_app(on_silence="keep")
    with asks_only.app_context():
        session, settings = db.session(), asks_only.extensions["dormouse"].settings
        member_id = factories.dormant(session).id
        session.commit()
        opened(session, settings, NOW)
        session.commit()
    ends = make_app(on_silence="lapse")
    with ends.app_context():
        session, settings = db.session(), ends.extensions["dormouse"].settings
        seen = notice.standing(session, settings, notice.LIVE, NOW, member_id=member_id)
        assert seen is not None
        assert not seen.ends_by_silence, "the page says what holds"
        factories.live_feed(session, at("2026-06-24 08:00"))
        warning.remind(session, settings, at("2026-06-24 08:00"))
        [reminder] = dispatch.claim(session, settings, at("2026-06-24 08:00"), 10)
        said = letters.compose(settings, reminder, Facts.of(reminder), at("2026-06-24 08:00")).text
        assert "If we hear nothing from you, your membership ends" not in " ".join(said.split())
        session.rollback()
        close(session, settings, JULY_1)
        assert session.get_one(Member, member_id).status == "active"
        assert case_of(session, session.get_one(Member, member_id)).state == "kept"


def test_who_was_told_that_only_a_store_can_end_it_does_not_lapse_by_silence(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session, billed_by="app_store")
    session.commit()
    opened(session, settings, NOW)
    session.execute(update(Member).values(billed_by=None))
    session.commit()
    close(session, settings, JULY_1)
    session.refresh(member)
    assert member.status == "active"


def test_an_address_that_changes_forth_and_back_is_warned_once(session: Session, settings: Settings) -> None:
    member = factories.dormant(session, email="a@example.org")
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    moved_to(session, settings, member, "b@example.org", NOW)
    dispatch.retire(session, settings)
    session.commit()
    moved_to(session, settings, member, "a@example.org", NOW)
    assert accept_mails(session, settings, NOW) == [Kind.WARNING]


def test_the_last_day_that_a_warning_names_is_the_one_that_holds(session: Session, settings: Settings) -> None:
    member = factories.dormant(session, email="a@example.org")
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    now = at("2026-06-16 12:00")
    [first] = dispatch.claim(session, settings, now, 10)
    session.commit()
    moved_to(session, settings, member, "b@example.org", now)
    moved_to(session, settings, member, "a@example.org", now)
    recording.record(session, settings, first, ACCEPTED, now)
    session.commit()
    accept_mails(session, settings, at("2026-06-17 12:00"))
    named = session.scalars(
        select(Message.deadline_at)
        .where(Message.kind.in_(["warning", "deadline_moved"]), Message.state == "sent")
        .order_by(Message.id.desc())
    ).first()
    close(session, settings, JULY_1)
    session.refresh(member)
    assert (member.status, named) in [("active", NEXT_MONTH_END), ("lapsed", MONTH_END)]


@pytest.mark.parametrize("what", ["use", "bounce"])
def test_a_return_that_is_not_paid_for_does_not_bring_back_an_end_that_should_never_have_been(
    session: Session, settings: Settings, what: str
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    settled(session, JULY_1)
    back = at("2026-07-01 12:00")
    session.refresh(member)
    returning.order(session, settings, member.id, returning.quote(member, settings, back), back)
    session.commit()
    if what == "use":
        used_at = at("2026-06-30 12:00")
        session.execute(update(Member).values(last_used_at=used_at))
        use = select(literal(member.id).label("member_id"), literal(used_at, UTCDateTime()).label("used_at"))
        returning.reverse_for_use(session, settings, use, at("2026-07-01 13:00"))
    else:
        warned = session.scalar(select(Message.id).where(Message.kind == "warning"))
        assert bounces.bounced(session, settings, warned or 0, at("2026-07-01 13:00"))
    session.commit()
    settled(session, at("2026-07-01 14:00"), BillingRefused("declined"))
    session.refresh(member)
    assert member.status == "active"


def test_an_own_end_is_stopped_though_a_store_was_said_to_bill_it_for_a_while(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    answer(session, settings, member, Answer.LAPSE, at("2026-06-10"))
    settled(session, at("2026-06-10 00:01"), BillingElsewhere("a store charges", "app_store"))
    session.refresh(member)
    assert (member.billed_by, orders_of(session, member)) == ("app_store", [("stop", "superseded")])
    # The next file: billed by the service again.
    session.execute(update(Member).values(billed_by=None))
    session.commit()
    close(session, settings, JULY_1)
    session.refresh(member)
    assert member.status == "lapsed"
    assert ("stop", "queued") in orders_of(session, member)


def test_scenario_22_a_keep_after_a_file_said_ended_takes_the_stop_back(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    answer(session, settings, member, Answer.LAPSE, at("2026-06-04"))
    settled(session, at("2026-06-04 00:01"))
    session.execute(update(Member).values(subscription_status="ended"))
    session.commit()
    answer(session, settings, member, Answer.KEEP, at("2026-06-20"))
    assert ("undo", "queued") in orders_of(session, member)


def test_scenario_21_an_end_asked_for_in_a_held_round_whose_day_has_passed_ends_this_month(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    campaigns.hold(session, settings, "2026-06", at("2026-06-20"))
    session.commit()
    close(session, settings, JULY_1)
    now = at("2026-07-15 10:00")
    decisions.end_membership(session, settings, member.id, Through.ACCOUNT, now)
    session.commit()
    close(session, settings, now + timedelta(days=1))
    session.refresh(member)
    assert member.status == "active", f"lapsed as of {member.lapsed_at}"
    close(session, settings, at("2026-08-01 06:00"))
    session.refresh(member)
    assert (member.status, member.lapsed_at) == ("lapsed", NEXT_MONTH_END)


def test_the_page_of_a_held_round_whose_day_has_passed_offers_an_end_that_lies_ahead(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    campaigns.hold(session, settings, "2026-06", at("2026-06-20"))
    session.commit()
    now = at("2026-07-15 10:00")
    seen = notice.standing(session, settings, notice.LIVE, now, member_id=member.id)
    assert seen is not None
    assert seen.outlook.ends_at > now


def test_scenario_13_a_late_bounce_of_an_address_that_was_replaced_in_time_reverses_nothing(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session, email="old@example.org")
    session.commit()
    opened(session, settings, NOW)
    old = session.scalar(select(Message.id).where(Message.kind == "warning"))
    moved_to(session, settings, member, "new@example.org", at("2026-06-05"))
    accept_mails(session, settings, at("2026-06-05 10:00"))
    close(session, settings, JULY_1)
    session.refresh(member)
    assert member.status == "lapsed"
    bounces.bounced(session, settings, old or 0, at("2026-07-02"))
    session.commit()
    session.refresh(member)
    assert (member.status, case_of(session, member).state) == ("lapsed", "lapsed"), kinds_to(session, member)


def test_an_own_end_is_honoured_after_a_keep_that_a_wrong_clock_dated_ahead(
    session: Session, settings: Settings
) -> None:
    member = factories.using(session)
    session.commit()
    ahead = NOW + timedelta(days=30)
    session.add(ClockJump(noticed_at=ahead, expected_at=NOW))
    decisions.keep_membership(session, settings, member.id, Through.ACCOUNT, ahead)
    timekeeping.confirm(session, NOW)
    session.commit()
    decisions.end_membership(session, settings, member.id, Through.ACCOUNT, NOW + timedelta(hours=1))
    session.commit()
    close(session, settings, JULY_1)
    session.refresh(member)
    assert member.status == "lapsed"


def test_an_own_end_counts_though_the_keep_before_it_came_from_a_machine_seconds_ahead(
    session: Session, settings: Settings
) -> None:
    member = factories.using(session)
    decisions.keep_membership(session, settings, member.id, Through.ACCOUNT, NOW + timedelta(seconds=2))
    session.commit()
    decisions.end_membership(session, settings, member.id, Through.ACCOUNT, NOW)
    session.commit()
    close(session, settings, JULY_1)
    session.refresh(member)
    assert member.status == "lapsed"


@pytest.mark.parametrize("left", [{"status": "ended"}, {"subscription_status": "ended"}], ids=["absent", "ended"])
def test_who_used_it_and_has_left_since_is_not_told_that_it_continues(
    session: Session, settings: Settings, left: dict[str, str]
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    session.execute(update(Member).values(last_used_at=at("2026-06-10"), **left))
    session.commit()
    close(session, settings, JULY_1)
    assert "returned" not in kinds_to(session, member)


def test_a_day_of_joining_that_is_corrected_is_no_sign_of_life(
    session: Session, settings: Settings, tmp_path: Any
) -> None:
    """The service has begun to send instants where it sent days."""
    member = factories.dormant(session, joined_at=at("2025-01-14 23:00"))
    session.commit()
    opened(session, settings, NOW)
    row = f"{member.external_id},{member.email},2025-01-15T10:00:00+01:00"
    imported(session, settings, tmp_path, "external_id,email,joined_at", row, at("2026-06-10 06:00"))
    assert member.last_used_at is None
    close(session, settings, JULY_1)
    assert case_of(session, member).state != "returned", kinds_to(session, member)


@pytest.mark.parametrize("where", ["bounced", "cancelled"])
def test_scenario_21_an_end_after_a_warning_that_counts_no_more_ends_this_month(
    session: Session, settings: Settings, where: str
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, at("2026-06-20"))
    assert case_of(session, member).deadline_at == NEXT_MONTH_END
    if where == "bounced":
        message = session.scalar(select(Message.id).where(Message.kind == "warning"))
        bounces.bounced(session, settings, message or 0, at("2026-06-21"))
    else:
        campaigns.cancel(session, settings, "2026-06", at("2026-06-21"))
    session.commit()
    answer(session, settings, member, Answer.LAPSE, at("2026-06-22"))
    close(session, settings, JULY_1)
    session.refresh(member)
    assert (member.status, member.lapsed_at) == ("lapsed", MONTH_END)


def test_an_own_end_after_a_return_that_was_not_paid_for_does_not_end_it_once_more(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    settled(session, JULY_1)
    back = at("2026-07-01 12:00")
    session.refresh(member)
    returning.order(session, settings, member.id, returning.quote(member, settings, back), back)
    decisions.end_membership(session, settings, member.id, Through.ACCOUNT, at("2026-07-01 13:00"))
    session.commit()
    settled(session, at("2026-07-01 14:00"), BillingRefused("declined"))
    session.refresh(member)
    assert member.lapsed_at == MONTH_END
    close(session, settings, at("2026-08-01 06:00"))
    session.refresh(member)
    assert (member.status, member.lapsed_at, case_of(session, member).state) == ("lapsed", MONTH_END, "withdrawn")


def test_a_release_moves_the_day_of_nobody_who_has_asked_for_the_end(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    answer(session, settings, member, Answer.LAPSE, NOW)
    campaigns.hold(session, settings, "2026-06", at("2026-06-20"))
    factories.live_feed(session, at("2026-06-25"))
    campaigns.release(session, settings, "2026-06", at("2026-06-25"))
    session.commit()
    assert close(session, settings, JULY_1).lapsed == 1


def test_a_release_brings_no_day_nearer_than_the_one_that_was_named(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, at("2026-06-20"))
    assert case_of(session, member).deadline_at == NEXT_MONTH_END
    campaigns.hold(session, settings, "2026-06", at("2026-06-21"))
    # Before the 17th of the month a release can still reach this month's end: as if the clock of the notice were short.
    campaigns._move_near_deadlines(session, settings, session.scalars(select(Campaign)).one(), at("2026-06-10"))
    session.commit()
    assert case_of(session, member).deadline_at == NEXT_MONTH_END


def test_who_has_left_is_not_told_that_nothing_ends(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    session.execute(update(Member).values(status="ended"))
    session.commit()
    close(session, settings, JULY_1)
    assert case_of(session, member).state == "withdrawn"
    assert kinds_to(session, member) == ["warning"]


def test_who_was_never_warned_and_used_it_hears_nothing(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.execute(update(Member).values(last_used_at=NOW))
    session.commit()
    close(session, settings, JULY_1)
    assert case_of(session, member).state == "returned"
    assert "returned" not in kinds_to(session, member)


def test_a_case_whose_day_is_over_takes_no_end(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    campaigns.cancel(session, settings, "2026-06", at("2026-06-20"))
    session.commit()
    with pytest.raises(Refused):
        answer(session, settings, member, Answer.LAPSE, at("2026-07-02"))


def test_an_earlier_case_takes_no_end_while_another_is_live(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    first = case_of(session, member).id
    campaigns.cancel(session, settings, "2026-06", NOW)
    session.commit()
    opened(session, settings, at("2026-07-03"), "2026-07")
    with pytest.raises(Refused):
        decisions.answer(session, settings, first, Answer.LAPSE, Through.ACCOUNT, at("2026-07-04"))


def test_who_has_left_is_not_told_where_it_can_be_ended(session: Session, settings: Settings) -> None:
    member = factories.dormant(session, billed_by="app_store")
    session.commit()
    opened(session, settings, NOW)
    answer(session, settings, member, Answer.LAPSE, NOW)
    session.execute(update(Member).values(status="ended"))
    session.commit()
    close(session, settings, JULY_1)
    assert case_of(session, member).state == "withdrawn"
    assert "told" not in kinds_to(session, member)


def test_where_silence_keeps_an_own_end_is_one_and_everybody_else_goes_on(make_app: Callable[..., Flask]) -> None:
    app = make_app(on_silence="keep")
    with app.app_context():
        session, settings = db.session(), app.extensions["dormouse"].settings
        a, b, c = factories.dormant(session), factories.dormant(session, billed_by="x"), factories.dormant(session)
        session.commit()
        opened(session, settings, NOW)
        answer(session, settings, c, Answer.LAPSE, NOW)
        close(session, settings, JULY_1)
        assert [case_of(session, m).state for m in (a, b, c)] == ["kept", "kept", "lapsed"]


def test_who_has_paid_for_fifty_years_stops_no_month_end(session: Session, settings: Settings) -> None:
    factories.dormant(session, paid_through=at("2075-12-31"))
    factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    assert close(session, settings, JULY_1).lapsed == 2


@pytest.mark.parametrize("asked_for", [False, True], ids=["silent", "own wish"])
def test_scenario_20_a_charge_while_close_was_down_goes_back(
    session: Session, settings: Settings, asked_for: bool
) -> None:
    member = factories.dormant(session, paid_through=MONTH_END)
    session.commit()
    opened(session, settings, NOW)
    if asked_for:
        answer(session, settings, member, Answer.LAPSE, at("2026-07-02 09:00"))
        settled(session, at("2026-07-02 09:01"))
    close(session, settings, at("2026-07-03 09:00"))
    settled(session, at("2026-07-03 09:01"))
    session.refresh(member)
    assert (member.status, member.lapsed_at) == ("lapsed", MONTH_END)
    assert orders_of(session, member) == [("stop", "done"), ("refund", "done")]


def test_an_own_end_in_time_gives_nothing_back(session: Session, settings: Settings) -> None:
    member = factories.dormant(session, paid_through=MONTH_END)
    session.commit()
    opened(session, settings, NOW)
    answer(session, settings, member, Answer.LAPSE, at("2026-06-29 09:00"))
    settled(session, at("2026-06-29 09:01"))
    close(session, settings, at("2026-07-03 09:00"))
    assert orders_of(session, member) == [("stop", "done")]


def test_whose_end_is_reversed_for_a_bounce_hears_of_it_at_the_address_that_is_good(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session, email="old@example.org")
    session.commit()
    opened(session, settings, NOW)
    warned = session.scalar(select(Message.id).where(Message.kind == "warning"))
    close(session, settings, JULY_1)
    moved_to(session, settings, member, "new@example.org", JULY_1)
    settled(session, JULY_1)
    assert accept_mails(session, settings, JULY_1) == [Kind.LAPSED]
    bounces.bounced(session, settings, warned or 0, at("2026-07-02"))
    session.commit()
    settled(session, at("2026-07-02"))
    session.refresh(member)
    assert (member.status, member.mail_state) == ("active", "good")
    assert accept_mails(session, settings, at("2026-07-02 01:00")) == [Kind.WITHDRAWN]


@pytest.mark.parametrize("on_record", [None, "2026-06-14 22:00"])
def test_a_file_that_tells_late_of_a_charge_before_the_end_is_no_return(
    session: Session, settings: Settings, tmp_path: Any, on_record: str | None
) -> None:
    """Files once a month: the charge of 15 June is in the one of 2 July."""
    member = factories.dormant(session, paid_through=None if on_record is None else at(on_record))
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    settled(session, JULY_1)
    row = f"{member.external_id},{member.email},2025-01-15,2026-07-15"
    imported(session, settings, tmp_path, "external_id,email,joined_at,paid_through", row, at("2026-07-02 06:00"))
    assert (member.status, member.access_ends_at) == ("lapsed", at("2026-07-14 22:00"))


def test_scenario_35_who_pays_anew_after_the_end_has_returned(
    session: Session, settings: Settings, tmp_path: Any
) -> None:
    """A period that begins after the end reaches further than one from it."""
    member = factories.dormant(session, paid_through=at("2026-06-14 22:00"))
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    settled(session, JULY_1)
    row = f"{member.external_id},{member.email},2025-01-15,2026-08-02"
    imported(session, settings, tmp_path, "external_id,email,joined_at,paid_through", row, at("2026-07-02 06:00"))
    assert member.status == "active"


@pytest.mark.parametrize("tried", [False, True])
def test_a_charge_that_the_waiting_stop_did_not_prevent_does_not_undo_an_own_end(
    session: Session, settings: Settings, tmp_path: Any, tried: bool
) -> None:
    """And it goes back once the stop has arrived."""
    member = factories.dormant(session, paid_through=MONTH_END)
    session.commit()
    opened(session, settings, NOW)
    answer(session, settings, member, Answer.LAPSE, at("2026-06-29"))
    if tried:
        [claimed] = billing_asking.claim(session, at("2026-06-29"), 10)
        billing_answers.record(session, claimed, BillingTemporary("502"), at("2026-06-29"))
        session.commit()
    close(session, settings, JULY_1)
    row = f"{member.external_id},{member.email},2025-01-15,2026-08-01"
    imported(session, settings, tmp_path, "external_id,email,joined_at,paid_through", row, at("2026-07-02 06:00"))
    assert member.status == "lapsed"
    settled(session, at("2026-07-02 12:00"))
    assert orders_of(session, member) == [("stop", "done"), ("refund", "done")]


def test_whom_a_store_has_come_to_bill_after_the_warning_does_not_lapse(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    session.execute(update(Member).values(billed_by="app_store"))
    session.commit()
    close(session, settings, JULY_1)
    session.refresh(member)
    assert (member.status, case_of(session, member).state) == ("active", "told")
