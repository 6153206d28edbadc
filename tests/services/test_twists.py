"""What an attacker of the code found: things that happen between two steps, and must come out right all the same."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import literal, select, update
from sqlalchemy.orm import Session

from domain import dates
from domain.lifecycle import Answer, OrderKind, Through
from domain.notices import Kind
from domain.ports import BillingReceipt
from models import BillingOrder, Campaign, Case, MagicLink, Member, Message
from models.base import UTCDateTime
from services import billing_answers, billing_asking, campaigns, decisions, purging, returning, warning
from services.mail import bounces, dispatch, recording
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import ACCEPTED, accept_mails, case_of, close, kinds_to, opened, orders_of, purge

JULY_1 = at("2026-07-01 06:00")


def moved_to(session: Session, settings: Settings, member: Member, email: str, now: object) -> None:
    session.execute(update(Member).where(Member.id == member.id).values(email=email, email_key=email))
    warning.address_changed(session, settings, now)  # type: ignore[arg-type]
    session.commit()


@pytest.mark.parametrize("then", ["approve", "cancel"])
def test_a_keep_before_the_campaign_opens_closes_like_any_other(
    session: Session, settings: Settings, then: str
) -> None:
    member = factories.dormant(session)
    factories.live_feed(session, NOW)
    campaign = campaigns.draft(session, settings, "2026-06", NOW)
    decisions.answer(session, settings, case_of(session, member).id, Answer.KEEP, Through.ACCOUNT, NOW)
    {"approve": campaigns.approve, "cancel": campaigns.cancel}[then](session, settings, "2026-06", NOW)
    session.commit()
    close(session, settings, JULY_1)
    session.refresh(campaign)
    assert (case_of(session, member).state, campaign.state) == (
        "kept",
        "closed" if then == "approve" else "cancelled",
    )


def test_a_fact_that_did_not_hold_for_a_day_does_not_lose_the_warning(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.execute(update(Member).values(subscription_status="past_due"))
    assert accept_mails(session, settings, NOW) == []
    session.execute(update(Member).values(subscription_status="active"))
    warning.remind(session, settings, at("2026-06-04 08:00"))
    session.commit()
    assert accept_mails(session, settings, at("2026-06-04 08:01")) == [Kind.WARNING]
    assert warning.remind(session, settings, at("2026-06-24 08:00")) == 1
    session.execute(update(Member).values(subscription_status="past_due"))
    assert accept_mails(session, settings, at("2026-06-24 08:01")) == []
    session.execute(update(Member).values(subscription_status="active"))
    assert warning.remind(session, settings, at("2026-06-25 08:00")) == 1
    session.commit()
    assert accept_mails(session, settings, at("2026-06-25 08:01")) == [Kind.REMINDER]
    assert close(session, settings, JULY_1).lapsed == 1
    session.refresh(member)
    assert member.status == "lapsed"


def test_a_warning_that_failed_is_tried_again_with_the_next_deadline(session: Session, settings: Settings) -> None:
    factories.dormant(session)
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.execute(update(Message).values(state="failed"))
    session.commit()
    assert close(session, settings, JULY_1).rolled == 1
    assert accept_mails(session, settings, JULY_1) == [Kind.WARNING]


def test_scenario_13_a_receipt_that_waits_follows_the_new_address(session: Session, settings: Settings) -> None:
    member = factories.dormant(session, email="old@example.org")
    session.commit()
    opened(session, settings, NOW)
    decisions.answer(session, settings, case_of(session, member).id, Answer.KEEP, Through.LINK, NOW)
    session.execute(update(Member).values(email="new@example.org", email_key="new@example.org"))
    session.commit()
    for notices in (True, False):
        # Nothing with a link goes to an address that is not theirs.
        assert dispatch.claim(session, settings, NOW, 10, notices=notices) == []
    session.commit()
    warning.address_changed(session, settings, NOW)
    session.commit()
    [claimed] = dispatch.claim(session, settings, NOW, 10)
    assert (claimed.kind, claimed.to_address) == (Kind.RECEIPT_KEEP, "new@example.org")


def test_an_own_end_survives_a_complete_list_without_the_member(session: Session, settings: Settings) -> None:
    from services.files import member_upsert, staging

    member = factories.dormant(session)
    other = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    decisions.answer(session, settings, case_of(session, member).id, Answer.LAPSE, Through.LINK, NOW)
    session.commit()
    from sqlalchemy import BigInteger

    table = staging.temporary("absent_member", [("member_id", BigInteger())])
    with staging.staged(session, table, [(member.id,), (other.id,)]):
        assert member_upsert.end_absent(session, table, NOW) == 1
    session.commit()
    close(session, settings, JULY_1)
    session.refresh(member)
    assert member.status == "lapsed"
    assert member.keep_until is not None


def test_scenario_35_returning_elsewhere_takes_the_stop_and_the_farewell_back(
    session: Session, settings: Settings
) -> None:
    unsent, tried, done = (factories.dormant(session) for _ in range(3))
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    for member, values in ((tried, {"attempts": 1}), (done, {"attempts": 1, "state": "done", "done_at": JULY_1})):
        session.execute(update(BillingOrder).where(BillingOrder.member_id == member.id).values(**values))
    session.execute(update(Member).values(paid_through=at("2026-09-01")))
    assert returning.returned_elsewhere(session, settings, at("2026-07-02")) == 3
    session.commit()
    assert orders_of(session, unsent) == [("stop", "superseded")]
    assert orders_of(session, tried) == [("stop", "queued"), ("undo", "queued")]
    assert orders_of(session, done) == [("stop", "done")], "it came before the payment"
    assert accept_mails(session, settings, at("2026-07-02")) == []


@pytest.mark.parametrize(
    ("paid_through", "heard_at", "refunded"),
    [
        (None, "2026-07-01 06:00", False),
        (None, "2026-07-03 06:00", True),
        ("2026-06-30 22:00", "2026-07-01 06:00", True),
        ("2026-07-10", "2026-07-09", False),
        ("2026-07-10", "2026-08-20", True),
    ],
)
def test_a_charge_made_before_the_provider_heard_of_the_stop_is_refunded(
    session: Session, settings: Settings, paid_through: str | None, heard_at: str, refunded: bool
) -> None:
    member = factories.dormant(session, paid_through=at(paid_through) if paid_through else None)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    session.commit()
    [claimed] = billing_asking.claim(session, at(heard_at), 10)
    billing_answers.record(session, claimed, BillingReceipt("r-1"), at(heard_at))
    session.commit()
    wanted = [("stop", "done"), ("refund", "queued")] if refunded else [("stop", "done")]
    assert orders_of(session, member) == wanted
    session.refresh(member)
    if refunded:
        assert (
            session.scalar(select(BillingOrder.since).where(BillingOrder.kind == OrderKind.REFUND))
            == member.access_ends_at
        )


def test_scenario_39_a_late_last_chance_names_a_day_on_which_all_is_still_there(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    session.execute(update(BillingOrder).values(state="done", done_at=JULY_1))
    accept_mails(session, settings, JULY_1)
    late = at("2027-05-03 10:00")
    purging.warn_purge(session, settings, late)
    session.commit()
    [claimed] = dispatch.claim(session, settings, late, 10)
    assert claimed.deadline_at is not None
    named = dates.named_day(claimed.deadline_at, settings.zone)
    assert named.isoformat() == "2027-05-16"
    recording.record(session, settings, claimed, ACCEPTED, late)
    session.commit()
    on_that_day = dates.start_of_day(named, settings.zone) + timedelta(hours=23)
    assert purge(session, settings, on_that_day) == 0
    link = session.scalars(
        select(MagicLink).where(MagicLink.purpose == "come_back").order_by(MagicLink.id.desc())
    ).first()
    assert link is not None
    assert link.expires_at > on_that_day
    session.refresh(member)
    assert returning.quote(member, settings, on_that_day).kind == "restart"


def test_scenario_12_who_is_warned_while_the_campaign_is_cancelled_hears_that_nothing_ends(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session)
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    [claimed] = dispatch.claim(session, settings, NOW, 10)
    session.commit()
    campaigns.cancel(session, settings, "2026-06", NOW)
    session.commit()
    recording.record(session, settings, claimed, ACCEPTED, NOW)
    session.commit()
    assert kinds_to(session, member) == ["warning", "withdrawn"]


def test_a_held_campaign_sends_nothing_and_ends_nothing(session: Session, settings: Settings) -> None:
    silent, used = factories.dormant(session), factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    campaigns.hold(session, settings, "2026-06", at("2026-06-20"))
    factories.live_feed(session, at("2026-06-25"))
    campaigns.release(session, settings, "2026-06", at("2026-06-25"))
    campaigns.hold(session, settings, "2026-06", at("2026-06-25"))
    session.execute(update(Member).where(Member.id == used.id).values(last_used_at=at("2026-06-26")))
    session.commit()
    assert accept_mails(session, settings, at("2026-06-27")) == []
    close(session, settings, at("2026-08-01"))
    assert accept_mails(session, settings, at("2026-08-01")) == []
    assert case_of(session, silent).state == case_of(session, used).state == "open"
    factories.live_feed(session, at("2026-08-02"))
    campaigns.release(session, settings, "2026-06", at("2026-08-02"))
    session.commit()
    close(session, settings, at("2026-09-01"))
    assert (case_of(session, silent).state, case_of(session, used).state) == ("lapsed", "returned")


def test_scenario_14_a_bounce_reverses_although_the_address_has_changed_since(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session, email="old@example.org")
    session.commit()
    opened(session, settings, NOW)
    warned = session.scalar(select(Message.id).where(Message.kind == "warning"))
    close(session, settings, JULY_1)
    moved_to(session, settings, member, "new@example.org", JULY_1)
    bounces.bounced(session, settings, warned or 0, at("2026-07-02"))
    session.commit()
    session.refresh(member)
    assert (member.status, member.mail_state) == ("active", "good")
    assert case_of(session, member).state == "unreachable"


def test_an_end_at_the_moment_of_the_draft_is_one_case(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    factories.live_feed(session, NOW)
    decisions.end_membership(session, settings, member.id, Through.ACCOUNT, NOW)
    session.commit()
    campaigns.draft(session, settings, "2026-06", NOW)
    session.commit()
    assert len(session.scalars(select(Case).where(Case.member_id == member.id)).all()) == 1
    assert session.scalar(select(Campaign.dormant_count)) == 0


def said_ended(session: Session, member: Member) -> None:
    """The nightly file after our stop: the service lists the subscription as ended."""
    session.execute(update(Member).where(Member.id == member.id).values(subscription_status="ended"))
    session.commit()


def settled(session: Session, now: datetime) -> None:
    while claimed := billing_asking.claim(session, now, 10):
        for one in claimed:
            billing_answers.record(session, one, BillingReceipt(f"done {one.key}"), now)
        session.commit()


@pytest.mark.parametrize("paid_through", [None, "2026-09-15 10:00"])
def test_scenario_34_who_came_back_after_a_file_said_ended_is_billed_and_can_end_again(
    session: Session, settings: Settings, paid_through: str | None
) -> None:
    """The file's word is about the subscription before: the order makes it run again, and an end has to stop it."""
    member = factories.dormant(session, paid_through=None if paid_through is None else at(paid_through))
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, at("2026-06-30 22:05"))
    settled(session, at("2026-06-30 22:05"))
    said_ended(session, member)
    back = at("2026-08-03 10:00")
    session.refresh(member)
    kind = returning.order(session, settings, member.id, returning.quote(member, settings, back), back).kind
    session.commit()
    settled(session, back)
    session.refresh(member)
    assert (orders_of(session, member)[-1], member.subscription_status) == ((kind, "done"), "active")
    decisions.end_membership(session, settings, member.id, Through.ACCOUNT, back + timedelta(hours=1))
    assert orders_of(session, member)[-1] == (OrderKind.STOP, "queued")


def test_scenario_19_an_end_after_a_reversal_stops_though_a_file_said_ended(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, at("2026-06-30 22:05"))
    settled(session, at("2026-06-30 22:05"))
    said_ended(session, member)
    use = select(literal(member.id).label("member_id"), literal(at("2026-06-30 21:00"), UTCDateTime()).label("used_at"))
    assert returning.reverse_for_use(session, settings, use, JULY_1) == 1
    session.commit()
    settled(session, JULY_1)
    session.refresh(member)
    decisions.end_membership(session, settings, member.id, Through.ACCOUNT, JULY_1 + timedelta(hours=1))
    assert [kind for kind, _ in orders_of(session, member)] == [OrderKind.STOP, OrderKind.UNDO, OrderKind.STOP]


def test_scenario_36_erasing_who_came_back_elsewhere_stops_what_they_pay_since(
    session: Session, settings: Settings
) -> None:
    """The stop on record is of the membership before: it stops nothing of the one that was paid since."""
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, at("2026-06-30 22:05"))
    settled(session, at("2026-06-30 22:05"))
    session.execute(update(Member).values(paid_through=at("2026-08-20 10:00")))
    assert returning.returned_elsewhere(session, settings, at("2026-07-21 06:00")) == 1
    session.commit()
    assert purging.erase(session, settings, member.id, at("2026-07-25 09:00")) is False
    assert orders_of(session, member)[-1] == (OrderKind.STOP, "queued")
