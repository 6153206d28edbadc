"""The cases of the design's attackers that are decided in services/, by number."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import literal, select, text, update
from sqlalchemy.orm import Session

from domain import dates
from domain.errors import Refused
from domain.lifecycle import Answer, Through
from domain.notices import Kind
from domain.ports import MailResult
from models import BillingOrder, Campaign, Case, Erasure, Member, Message, db, for_writing
from models.base import UTCDateTime
from services import campaigns, check_in, decisions, purging, reports, returning, warning
from services.mail import bounces, dispatch, recording
from services.mail.words import Facts
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import ACCEPTED, accept_mails, case_of, close, kinds_to, opened, orders_of, purge

JULY_1 = at("2026-07-01 06:00")
MONTH_END = at("2026-06-30 22:00")
NEXT_MONTH_END = at("2026-07-31 22:00")


def answer(
    session: Session, settings: Settings, member: Member, wish: Answer, when: object, through: Through = Through.LINK
) -> None:
    decisions.answer(session, settings, case_of(session, member).id, wish, through, when)  # type: ignore[arg-type]
    session.commit()


def use(session: Session, settings: Settings, member: Member, used_at: object, now: object) -> int:
    session.execute(update(Member).where(Member.id == member.id).values(last_used_at=used_at))
    uses = select(literal(member.id).label("member_id"), literal(used_at, UTCDateTime()).label("used_at"))
    reversed_ = returning.reverse_for_use(session, settings, uses, now)  # type: ignore[arg-type]
    session.commit()
    return reversed_


def finish_billing(session: Session, when: object) -> None:
    session.execute(update(BillingOrder).values(state="done", done_at=when))
    session.commit()


def drafted_members(session: Session, month: str) -> set[int]:
    return set(
        session.scalars(
            select(Case.member_id).join(Campaign, Campaign.id == Case.campaign_id).where(Campaign.month == month)
        )
    )


# Who is asked


def test_scenario_01_who_kept_is_asked_again_only_after_the_rule_holds_anew(
    session: Session, settings: Settings
) -> None:
    never, once, undecided = factories.dormant(session), factories.stopped_using(session), factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    for member in (never, once, undecided):
        answer(session, settings, member, Answer.KEEP, at("2026-06-10"))
    answer(session, settings, undecided, Answer.LAPSE, at("2026-06-11"))
    close(session, settings, JULY_1)
    session.refresh(undecided)
    assert (undecided.status, undecided.last_kept_at) == ("lapsed", None), "the keep was taken back"

    def asked(month: str) -> set[int]:
        now = at(f"{month}-12 10:00")
        factories.live_feed(session, now)
        campaigns.draft(session, settings, month, now)
        session.commit()
        found = drafted_members(session, month)
        campaigns.cancel(session, settings, month, now)
        session.commit()
        return found

    assert asked("2026-07") == set()
    assert asked("2027-05") == set()
    assert asked("2027-06") == {never.id}
    assert asked("2028-06") == {never.id, once.id}


def test_scenario_06_each_reason_is_counted_on_its_own(make_app: Callable[..., Flask]) -> None:
    app = make_app(exempt_plans=("Family",))
    with app.app_context():
        session, settings = db.session(), app.extensions["dormouse"].settings
        factories.dormant(session)
        for facts in (
            {"price_minor": 0},
            {"price_minor": None, "currency": None},
            {"subscription_status": "trial"},
            {"subscription_status": "paused"},
            {"subscription_status": "past_due"},
            {"plan": "Family"},
            {"exempt_reason": "staff"},
            {"operator_exempt_reason": "asked by phone"},
            {"mail_state": "bounced"},
        ):
            factories.member(session, **facts)
        session.commit()
        found = reports.preview(session, settings, NOW)
        assert found.dormant == 1
        assert found.out_by_reason == {
            "free": 2, "trial": 1, "paused": 1, "past_due": 1, "exempt_plan": 1, "exempt_by_import": 1,
            "exempt_by_operator": 1, "unreachable": 1,
        }  # fmt: skip
        assert found.money == [{"currency": "EUR", "interval": "month", "members": 1, "amount_minor": 1299}]


def test_scenario_07_two_members_of_one_address_are_two_cases(session: Session, settings: Settings) -> None:
    one = factories.dormant(session, email="family@example.org")
    other = factories.dormant(session, email="family@example.org")
    session.commit()
    opened(session, settings, NOW)
    assert kinds_to(session, one) == kinds_to(session, other) == ["warning"]
    answer(session, settings, one, Answer.KEEP, NOW)
    assert case_of(session, other).answer is None
    close(session, settings, JULY_1)
    session.refresh(one)
    session.refresh(other)
    assert (one.status, other.status) == ("active", "lapsed")


def test_scenario_08_a_rolled_case_is_left_out_of_next_months_draft(session: Session, settings: Settings) -> None:
    rolled, new = factories.dormant(session), factories.member(session, joined_at=at("2025-06-20"))
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    close(session, settings, JULY_1)
    factories.live_feed(session, at("2026-07-01"))
    campaigns.draft(session, settings, "2026-07", at("2026-07-02"))
    session.commit()
    assert drafted_members(session, "2026-07") == {new.id}
    assert case_of(session, rolled).deadline_at == NEXT_MONTH_END


# Warned in time


def test_scenario_10_a_warning_accepted_too_late_moves_the_deadline(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    [claimed] = dispatch.claim(session, settings, at("2026-06-16 21:59"), 10)
    assert claimed.deadline_at == MONTH_END
    session.commit()
    # Two days in the server's hands: 14 local days to 1 July are no longer left.
    recording.record(session, settings, claimed, ACCEPTED, at("2026-06-17 22:00"))
    session.commit()
    assert case_of(session, member).deadline_at == NEXT_MONTH_END
    assert kinds_to(session, member) == ["warning", "deadline_moved"]
    assert close(session, settings, JULY_1).lapsed == 0
    assert close(session, settings, at("2026-08-01")).lapsed == 1


def test_scenario_10_a_day_in_the_server_still_leaves_the_notice(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    [claimed] = dispatch.claim(session, settings, at("2026-06-16 21:59"), 10)
    session.commit()
    recording.record(session, settings, claimed, ACCEPTED, at("2026-06-17 21:59"))
    session.commit()
    assert case_of(session, member).deadline_at == MONTH_END
    assert kinds_to(session, member) == ["warning"]


def test_scenario_11_held_and_released_next_month_ends_nobody_that_day(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    campaigns.hold(session, settings, "2026-06", at("2026-06-20"))
    session.commit()
    assert close(session, settings, JULY_1).lapsed == 0
    factories.live_feed(session, at("2026-07-03"))
    campaigns.release(session, settings, "2026-06", at("2026-07-03 09:00"))
    session.commit()
    assert close(session, settings, at("2026-07-03 10:00")).lapsed == 0
    assert case_of(session, member).deadline_at == NEXT_MONTH_END
    assert kinds_to(session, member) == ["warning", "deadline_moved"]
    assert close(session, settings, at("2026-08-01")).lapsed == 1


def test_scenario_12_a_cancelled_campaign_withdraws_and_tells_the_warned(session: Session, settings: Settings) -> None:
    warned = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    assert warning.remind(session, settings, at("2026-06-24 10:00")) == 1
    campaigns.cancel(session, settings, "2026-06", at("2026-06-24 11:00"))
    session.commit()
    assert case_of(session, warned).state == "withdrawn"
    assert accept_mails(session, settings, at("2026-06-24 12:00")) == [Kind.WITHDRAWN]
    states = dict(session.execute(select(Message.kind, Message.state)).all())
    assert states == {"warning": "sent", "reminder": "obsolete", "withdrawn": "sent"}
    assert close(session, settings, JULY_1).lapsed == 0


def test_scenario_13_a_changed_address_is_warned_and_the_old_warning_counts_no_more(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session, email="old@example.org")
    session.commit()
    opened(session, settings, NOW)
    old = case_of(session, member).address_generation
    old_warning = session.scalar(select(Message.id).where(Message.kind == "warning"))
    session.execute(
        update(Member).where(Member.id == member.id).values(email="new@example.org", email_key="new@example.org")
    )
    warning.address_changed(session, settings, at("2026-06-25"))
    session.commit()
    case = case_of(session, member)
    assert (case.address_generation, case.warned_at, case.address) == (old + 1, None, "new@example.org")
    assert check_in.token(settings, case.public_id, old) != check_in.token(settings, case.public_id, old + 1)
    accept_mails(session, settings, at("2026-06-25 08:00"))
    # The bounce of the old address says nothing about the new one.
    bounces.bounced(session, settings, old_warning or 0, at("2026-06-25 09:00"))
    session.commit()
    session.refresh(member)
    assert member.mail_state == "good"
    assert close(session, settings, JULY_1).lapsed == 0, "the new address was warned too late for June"
    assert close(session, settings, at("2026-08-01")).lapsed == 1
    sent = session.execute(select(Message.to_address).where(Message.kind == "warning").order_by(Message.id)).scalars()
    assert list(sent) == ["old@example.org", "new@example.org"]


def test_scenario_14_a_bounce_after_month_end_reverses_the_lapse(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    finish_billing(session, JULY_1)
    message = session.scalar(select(Message.id).where(Message.kind == "warning"))
    bounces.bounced(session, settings, message or 0, at("2026-07-02 12:00"))
    session.commit()
    session.refresh(member)
    assert (member.status, member.mail_state) == ("active", "bounced")
    assert case_of(session, member).state == "unreachable"
    assert orders_of(session, member) == [("stop", "done"), ("undo", "queued")]
    factories.live_feed(session, at("2026-07-05"))
    campaigns.draft(session, settings, "2026-07", at("2026-07-05"))
    session.commit()
    assert drafted_members(session, "2026-07") == set()
    session.execute(
        update(Member)
        .where(Member.id == member.id)
        .values(email="n@example.org", email_key="n@example.org", mail_state="good")
    )
    factories.live_feed(session, at("2026-08-05"))
    campaigns.draft(session, settings, "2026-08", at("2026-08-05"))
    assert drafted_members(session, "2026-08") == {member.id}


def test_scenario_15_a_sender_slower_than_its_lease_is_ignored(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    [slow] = dispatch.claim(session, settings, NOW, 10)
    session.commit()
    assert dispatch.claim(session, settings, NOW + timedelta(minutes=5), 10) == []
    [other] = dispatch.claim(session, settings, NOW + dispatch.LEASE, 10)
    session.commit()
    assert other.message_id == slow.message_id
    assert recording.record(session, settings, other, ACCEPTED, NOW + dispatch.LEASE)
    assert not recording.record(
        session, settings, slow, MailResult(accepted=False, code=550, reply="no", permanent=True), NOW
    )
    session.commit()
    assert case_of(session, member).warned_at == NOW + dispatch.LEASE


def test_scenario_16_a_feed_that_died_holds_the_campaign_at_month_end(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    campaign = opened(session, settings, NOW)
    factories.live_feed(session, at("2026-06-10"))
    session.commit()
    from services import closing

    assert closing.close(session, settings, JULY_1, session.commit).lapsed == 0
    session.refresh(campaign)
    assert (campaign.state, campaign.hold_reason) == ("held", "feed_silent")
    assert "2026-06-10" in (reports.status(session, settings, "2026-06", JULY_1).hold_sentence or "")
    session.refresh(member)
    assert member.status == "active"


def test_scenario_16_close_waits_for_a_feed_that_is_not_complete_through_the_deadline(
    session: Session, settings: Settings
) -> None:
    factories.dormant(session)
    session.commit()
    campaign = opened(session, settings, NOW)
    factories.live_feed(session, MONTH_END, complete_through=at("2026-06-30 12:00"))
    session.commit()
    from services import closing

    waiting = closing.close(session, settings, JULY_1, session.commit)
    assert (waiting.lapsed, waiting.waiting_for_feed) == (0, True)
    session.refresh(campaign)
    assert campaign.state == "open"
    session.commit()
    later = MONTH_END + timedelta(days=3, hours=1)
    factories.live_feed(session, later)
    session.commit()
    closing.close(session, settings, later, session.commit)
    session.refresh(campaign)
    assert (campaign.state, campaign.hold_reason) == ("held", "feed_incomplete")


def test_scenario_16_a_feed_that_became_complete_lets_close_go_on(session: Session, settings: Settings) -> None:
    factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    factories.live_feed(session, JULY_1, complete_through=MONTH_END)
    session.commit()
    from services import closing

    assert closing.close(session, settings, JULY_1, session.commit).lapsed == 1


# The end


def test_scenario_19_use_on_the_last_day_reported_after_close_reverses(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, at("2026-06-30 22:05"))
    finish_billing(session, MONTH_END)
    assert use(session, settings, member, at("2026-06-30 21:00"), JULY_1) == 1
    session.refresh(member)
    assert (member.status, member.lapsed_at, member.keep_until) == ("active", None, None)
    assert case_of(session, member).state == "returned"
    assert orders_of(session, member) == [("stop", "done"), ("undo", "queued")]
    assert kinds_to(session, member)[-1] == "returned"
    assert use(session, settings, member, at("2026-06-30 21:00"), JULY_1) == 0, "once"
    assert undone(session, settings, JULY_1) == [True], "the mail may say that the end is undone"


def test_who_used_it_before_the_month_end_is_not_told_of_an_end_that_never_was(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    member.last_used_at = at("2026-06-20")
    session.commit()
    close(session, settings, at("2026-06-30 22:05"))
    assert kinds_to(session, member)[-1] == "returned"
    assert undone(session, settings, JULY_1) == [False]


def undone(session: Session, settings: Settings, now: datetime) -> list[bool]:
    """What the mails of a return that are due say of the end."""
    session.commit()
    for_writing(session)
    claimed = dispatch.claim(session, settings, now, 10)
    return [Facts.of(one).undone for one in claimed if one.kind == "returned"]


def test_scenario_19_use_after_the_lapse_does_not_reverse_it(session: Session, settings: Settings) -> None:
    member = factories.dormant(session, paid_through=at("2026-07-15"))
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, at("2026-06-30 22:05"))
    assert use(session, settings, member, at("2026-07-02"), at("2026-07-03")) == 0
    session.refresh(member)
    assert member.status == "lapsed"


@pytest.mark.parametrize("sign", ["keep", "use"])
def test_scenario_20_until_close_has_run_keep_and_use_count(session: Session, settings: Settings, sign: str) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    if sign == "keep":
        answer(session, settings, member, Answer.KEEP, at("2026-07-02"))
    else:
        use(session, settings, member, at("2026-07-02"), at("2026-07-02"))
    assert close(session, settings, at("2026-07-03")).lapsed == 0
    assert case_of(session, member).state == ("kept" if sign == "keep" else "returned")


@pytest.mark.parametrize("where", ["before the warning", "without a case", "bounced", "held", "cancelled"])
def test_scenario_21_an_end_of_ones_own_is_honoured_at_this_months_end(
    session: Session, settings: Settings, where: str
) -> None:
    member = factories.using(session) if where == "without a case" else factories.dormant(session)
    session.commit()
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    if where != "before the warning":
        campaigns.approve(session, settings, "2026-06", NOW)
        session.commit()
        accept_mails(session, settings, NOW)
    if where == "bounced":
        message = session.scalar(select(Message.id).where(Message.kind == "warning"))
        bounces.bounced(session, settings, message or 0, NOW)
    elif where in ("held", "cancelled"):
        {"held": campaigns.hold, "cancelled": campaigns.cancel}[where](session, settings, "2026-06", NOW)
    session.commit()
    if where in ("bounced", "cancelled"):
        answer(session, settings, member, Answer.LAPSE, at("2026-06-20"))
    else:
        decisions.end_membership(session, settings, member.id, Through.ACCOUNT, at("2026-06-20"))
        session.commit()
    assert orders_of(session, member) == [("stop", "queued")]
    assert kinds_to(session, member)[-1] == "receipt_lapse"
    use(session, settings, member, at("2026-06-25"), at("2026-06-25"))
    assert kinds_to(session, member)[-1] == "used_after_end"
    assert close(session, settings, JULY_1).lapsed == 1
    session.refresh(member)
    assert (member.status, member.lapsed_at) == ("lapsed", MONTH_END)
    assert orders_of(session, member) == [("stop", "queued")], "one stop, sent with the answer"


def test_scenario_22_keep_takes_a_stop_back(session: Session, settings: Settings) -> None:
    unsent, sent = factories.dormant(session), factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    for member in (unsent, sent):
        answer(session, settings, member, Answer.LAPSE, at("2026-06-03 12:00"))
    session.execute(
        update(BillingOrder).where(BillingOrder.member_id == sent.id).values(state="done", done_at=NOW, attempts=1)
    )
    session.commit()
    for member in (unsent, sent):
        answer(session, settings, member, Answer.KEEP, at("2026-06-20"))
    assert orders_of(session, unsent) == [("stop", "superseded")]
    assert orders_of(session, sent) == [("stop", "done"), ("undo", "queued")]
    assert close(session, settings, JULY_1).lapsed == 0


def test_scenario_23_the_last_answer_holds_and_each_has_its_receipt(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    for hour, wish in enumerate((Answer.KEEP, Answer.LAPSE, Answer.LAPSE, Answer.KEEP, Answer.LAPSE)):
        answer(session, settings, member, wish, at("2026-06-10") + timedelta(hours=hour))
    assert kinds_to(session, member) == [
        "warning", "receipt_keep", "receipt_lapse", "receipt_keep", "receipt_lapse",
    ]  # fmt: skip
    close(session, settings, JULY_1)
    session.refresh(member)
    assert member.status == "lapsed"
    with pytest.raises(Refused):
        answer(session, settings, member, Answer.KEEP, JULY_1)


def test_scenario_24_the_days_that_are_named(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    session.refresh(member)
    assert member.lapsed_at is not None
    assert member.keep_until is not None
    assert member.lapsed_at == MONTH_END
    assert dates.named_day(member.lapsed_at, settings.zone).isoformat() == "2026-06-30"
    assert dates.named_day(member.keep_until, settings.zone).isoformat() == "2027-04-30"


def test_scenario_25_an_annual_plan_keeps_access_and_data_until_it_is_used_up(
    session: Session, settings: Settings
) -> None:
    annual = factories.dormant(session, billing_interval="year", paid_through=at("2027-05-14 22:00"))
    monthly = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    session.refresh(annual)
    session.refresh(monthly)
    assert (annual.lapsed_at, annual.access_ends_at) == (MONTH_END, at("2027-05-14 22:00"))
    assert annual.keep_until is not None
    assert dates.named_day(annual.keep_until, settings.zone).isoformat() == "2028-03-31"
    assert annual.keep_until == dates.keep_until(at("2027-05-14 22:00"), 10, settings.zone)
    assert monthly.keep_until == dates.keep_until(MONTH_END, 10, settings.zone)
    finish_billing(session, JULY_1)
    purging.warn_purge(session, settings, at("2027-04-05"))
    session.commit()
    accept_mails(session, settings, at("2027-04-05"))
    assert purge(session, settings, at("2027-05-03")) == 1, "only the monthly one"


# Coming back and going for good


def test_scenario_34_a_return_inside_the_paid_period_strikes_out_an_unsent_stop(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session, paid_through=at("2026-07-15"))
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    session.refresh(member)
    quoted = returning.quote(member, settings, at("2026-07-01 06:01"))
    assert (quoted.kind, quoted.first_charge_at) == ("undo", at("2026-07-15"))
    returning.order(session, settings, member.id, quoted, at("2026-07-01 06:01"))
    session.commit()
    assert orders_of(session, member) == [("stop", "superseded")]
    with pytest.raises(Refused):
        returning.order(session, settings, member.id, quoted, at("2026-07-01 06:02"))


def test_scenario_35_who_paid_elsewhere_is_active_again_and_never_purged(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    session.execute(update(Member).where(Member.id == member.id).values(paid_through=at("2026-09-01")))
    assert returning.returned_elsewhere(session, settings, at("2026-08-02")) == 1
    session.commit()
    session.refresh(member)
    assert (member.status, member.returned_at, member.keep_until) == ("active", at("2026-08-02"), None)
    assert purge(session, settings, at("2028-01-01")) == 0


def test_scenario_36_erasing_an_active_member_waits_for_the_stop(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    factories.library(session, member)
    session.commit()
    assert purging.erase(session, settings, member.id, NOW) is False
    session.commit()
    session.refresh(member)
    assert (member.status, orders_of(session, member)) == ("ended", [("stop", "queued")])
    assert member.email is not None
    assert purge(session, settings, NOW) == 0
    finish_billing(session, NOW)
    assert purge(session, settings, NOW) == 1
    to = session.scalar(select(Message.to_address).where(Message.kind == "erased"))
    assert to is not None, "the confirmation still needs it"
    accept_mails(session, settings, NOW)
    assert session.scalar(select(Message.to_address).where(Message.kind == "erased")) is None


def test_scenario_36_the_address_is_kept_for_the_mail_no_longer_than_a_week(
    session: Session, settings: Settings
) -> None:
    member = factories.member(session, price_minor=0, billing_ref=None)
    session.commit()
    assert purging.erase(session, settings, member.id, NOW) is True
    session.commit()
    purge(session, settings, NOW + timedelta(days=7))
    assert session.scalar(select(Message.to_address)) is not None
    purge(session, settings, NOW + timedelta(days=7, minutes=1))
    assert session.execute(select(Message.to_address, Message.state)).one() == (None, "obsolete")


def test_scenario_38_a_purge_leaves_nothing_of_the_person(session: Session, settings: Settings) -> None:
    member = factories.dormant(
        session, email="erika.mustermann@example.org", name="Erika Mustermann", external_id="customer-4711"
    )
    factories.library(session, member)
    session.commit()
    opened(session, settings, NOW)
    decisions.answer(
        session, settings, case_of(session, member).id, Answer.LAPSE, Through.OPERATOR, NOW, note="Erika rang up"
    )
    session.commit()
    close(session, settings, JULY_1)
    accept_mails(session, settings, JULY_1)
    finish_billing(session, JULY_1)
    purging.warn_purge(session, settings, at("2027-04-02"))
    session.commit()
    accept_mails(session, settings, at("2027-04-02"))
    session.execute(update(Message).values(smtp_reply="250 queued for Erika.Mustermann@example.org"))
    assert purge(session, settings, at("2027-05-01")) == 1
    for table in reversed(db.metadata.sorted_tables):
        for row in session.execute(select(table)):
            words = " ".join(str(value) for value in row).casefold()
            for trace in ("erika", "mustermann", "customer-4711", "title 1", "queued by"):
                assert trace not in words, (table.name, row)
    assert session.scalar(select(Erasure.digest)) is not None
    session.commit()
    if session.get_bind().dialect.name == "sqlite":
        session.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        session.commit()
        assert settings.database_url.startswith("sqlite:///")
        from pathlib import Path

        pages = Path(settings.database_url.removeprefix("sqlite:///")).read_bytes().lower()
        for trace in (b"erika", b"mustermann", b"customer-4711"):
            assert trace not in pages


def test_scenario_39_purge_waits_for_the_last_notice(session: Session, settings: Settings) -> None:
    late, dead, never = (factories.dormant(session) for _ in range(3))
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    finish_billing(session, JULY_1)
    accept_mails(session, settings, JULY_1)
    session.execute(update(Member).where(Member.id == dead.id).values(mail_state="bounced"))
    session.commit()
    # The scheduler was down: the last chance is first tried after keep-until has passed.
    assert purging.warn_purge(session, settings, at("2027-05-10")) == 2
    session.execute(update(Message).where(Message.member_id == never.id, Message.kind == "last_chance").values(
        due_at=at("2030-01-01")
    ))  # fmt: skip
    session.commit()
    accept_mails(session, settings, at("2027-05-12"))
    assert purge(session, settings, at("2027-05-13")) == 1
    session.refresh(dead)
    assert dead.status == "purged"
    assert purge(session, settings, at("2027-05-25")) == 0
    assert purge(session, settings, at("2027-05-26")) == 1
    session.refresh(late)
    assert late.status == "purged"
    assert purge(session, settings, at("2027-06-08")) == 0
    assert purge(session, settings, at("2027-06-09")) == 1


# Operators


def test_scenario_40_a_draft_nobody_approved_is_superseded(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    factories.operator(session)
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    session.commit()
    for day in (4, 6, 10, 15, 20):
        campaigns.open_what_is_due(session, settings, at(f"2026-06-{day:02} 08:00"))
        session.commit()
    told = session.scalars(select(Message.kind).where(Message.operator_id.is_not(None)).order_by(Message.id)).all()
    assert told == ["campaign_ready", "approve_by", "approve_by", "approve_by"]
    factories.live_feed(session, at("2026-07-02"))
    campaigns.draft(session, settings, "2026-07", at("2026-07-02"))
    session.commit()
    june = reports.status(session, settings, "2026-06", at("2026-07-02"))
    assert (june.state, june.cancel_reason, june.totals["cases"]) == ("cancelled", "superseded", {"withdrawn": 1})
    assert drafted_members(session, "2026-07") == {member.id}
    assert kinds_to(session, member) == []


def test_scenario_40_approved_on_the_20th_ends_next_month_and_says_so_before(
    session: Session, settings: Settings
) -> None:
    factories.dormant(session)
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    session.commit()
    before = reports.status(session, settings, "2026-06", at("2026-06-16"))
    assert (before.deadline_at, str(before.approve_by)) == (MONTH_END, "2026-06-16")
    late = at("2026-06-20")
    assert reports.status(session, settings, "2026-06", late).deadline_at == NEXT_MONTH_END
    factories.live_feed(session, late)
    assert campaigns.approve(session, settings, "2026-06", late).deadline_at == NEXT_MONTH_END


def test_scenario_41_a_share_of_nothing_or_a_handful_is_no_measure(session: Session, settings: Settings) -> None:
    for month, dormant, paying in (("2026-03", 0, 4000), ("2026-04", 1, 40)):
        session.add(
            Campaign(month=month, state="closed", policy={}, drafted_at=NOW, dormant_count=dormant, paying_count=paying)
        )
        session.flush()
        from services import breaker

        this = Campaign(month="2026-06", released={})
        for _ in range(10):
            factories.using(session)
        factories.live_feed(session, NOW)
        assert breaker.check(session, settings, this, 3, NOW) is None


def test_a_round_that_asks_over_a_fiftieth_is_held_and_one_of_a_handful_is_not(make_app: Callable[..., Flask]) -> None:
    app = make_app(max_dormant_percent=2, hold_min_members=5)
    with app.app_context():
        session, settings = db.session(), app.extensions["dormouse"].settings
        factories.live_feed(session, NOW)
        for _ in range(5):
            factories.dormant(session)
        few = campaigns.draft(session, settings, "2026-06", NOW)
        assert few.state == "draft", "five of five, but no more than HOLD_MIN_MEMBERS"
        session.rollback()

        factories.live_feed(session, NOW)
        for _ in range(6):
            factories.dormant(session)
        many = campaigns.draft(session, settings, "2026-06", NOW)
        assert (many.state, many.hold_reason) == ("held", "too_many")


def test_scenario_41_a_half_dead_feed_holds(make_app: Callable[..., Flask]) -> None:
    app = make_app(max_dormant_percent=50, hold_min_members=5)
    with app.app_context():
        session, settings = db.session(), app.extensions["dormouse"].settings
        session.add(
            Campaign(month="2026-05", state="closed", policy={}, drafted_at=NOW, dormant_count=2, paying_count=60)
        )
        for _ in range(40):
            factories.using(session)
        for _ in range(8):
            factories.dormant(session)
        factories.live_feed(session, NOW)
        campaign = campaigns.draft(session, settings, "2026-06", NOW)
        assert (campaign.state, campaign.hold_reason) == ("held", "share_jumped")
        released = campaigns.release(session, settings, "2026-06", NOW)
        assert released.state == "open"
        session.commit()
        accept_mails(session, settings, NOW)
        assert close(session, settings, JULY_1).lapsed == 8, "a released reason does not hold again"
