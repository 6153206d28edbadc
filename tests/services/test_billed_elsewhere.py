"""What an app store or a partner bills by itself is not ended here: whoever wants its end is told where that is."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain.lifecycle import Answer, Through
from domain.ports import Page, Subscription
from models import LocalCharge, Member
from services import books, campaigns, decisions, provider_news, purging, reconciling, reports
from services.notice import State, notice_for, standing
from services.reconciling import Kind
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import accept_mails, case_of, close, kinds_to, opened, orders_of

JULY = at("2026-07-01 10:00")
STORE = "App Store"


@pytest.fixture
def member(session: Session) -> Member:
    """Dormant, and billed by a store."""
    return factories.dormant(session, billed_by=STORE)


def seen(session: Session, settings: Settings, member: Member, now: Any = NOW) -> State:
    case = case_of(session, member)
    found = standing(session, settings, type(case).id == case.id, now)
    assert found is not None
    return found.state


def test_silence_ends_nothing_that_a_store_bills(session: Session, settings: Settings, member: Member) -> None:
    ours = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    notice = notice_for(session, settings, member, NOW)
    assert notice is not None
    assert (notice.billed_by, notice.ends_by_silence) == (STORE, False)
    assert close(session, settings, JULY).lapsed == 1
    session.refresh(ours)
    case = case_of(session, member)
    assert (ours.status, member.status, case.state, case.answer) == ("lapsed", "active", "told", None)
    assert (member.lapsed_at, member.access_ends_at, member.keep_until) == (None, None, None)
    assert (orders_of(session, member), kinds_to(session, member)) == ([], ["warning", "told"])
    assert seen(session, settings, member, JULY) is State.TOLD


def test_an_end_of_ones_own_is_kept_as_an_answer_and_orders_nothing(
    session: Session, settings: Settings, member: Member
) -> None:
    session.commit()
    opened(session, settings, NOW)
    case = case_of(session, member)
    decisions.answer(session, settings, case.id, Answer.LAPSE, Through.LINK, NOW)
    assert seen(session, settings, member) is State.TOLD
    notice = notice_for(session, settings, member, NOW)
    assert notice is not None
    assert notice.state is State.TOLD
    decisions.answer(session, settings, case.id, Answer.KEEP, Through.LINK, NOW)
    assert seen(session, settings, member) is State.KEPT
    decisions.answer(session, settings, case.id, Answer.LAPSE, Through.LINK, NOW)
    session.commit()
    close(session, settings, JULY)
    assert (case_of(session, member).state, member.status) == ("told", "active")
    assert orders_of(session, member) == []
    # A page of a round that is over cannot end it either, and says so.
    assert seen(session, settings, member, JULY) is State.TOLD


def test_who_was_warned_too_late_rolls_on_and_who_used_it_has_returned(
    session: Session, settings: Settings, member: Member
) -> None:
    late = factories.dormant(session, billed_by=STORE)
    session.commit()
    opened(session, settings, NOW)
    case = case_of(session, late)
    case.warned_at = at("2026-06-29 10:00")
    member.last_used_at = at("2026-06-20")
    session.commit()
    close(session, settings, JULY)
    assert (case_of(session, member).state, case_of(session, late).state) == ("returned", "open")


def test_what_the_store_ceased_to_bill_is_stopped_at_the_end(
    session: Session, settings: Settings, member: Member
) -> None:
    session.commit()
    opened(session, settings, NOW)
    decisions.answer(session, settings, case_of(session, member).id, Answer.LAPSE, Through.LINK, NOW)
    member.billed_by = None
    session.commit()
    close(session, settings, JULY)
    session.refresh(member)
    assert (member.status, orders_of(session, member)) == ("lapsed", [("stop", "queued")])


def test_who_was_told_is_asked_again_a_year_later(session: Session, settings: Settings, member: Member) -> None:
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY)
    factories.live_feed(session, JULY)
    assert campaigns.draft(session, settings, "2026-07", JULY).dormant_count == 0
    assert reports.preview(session, settings, JULY).out_by_reason == {"told": 1}
    next_year = at("2027-08-01 10:00")
    factories.live_feed(session, next_year)
    assert campaigns.draft(session, settings, "2027-08", next_year).dormant_count == 1


def test_our_books_charge_nobody_whom_a_store_charges(session: Session, settings: Settings, member: Member) -> None:
    member.paid_through = NOW - timedelta(hours=1)
    session.commit()
    books.charge_due(session, settings, NOW, session.commit)
    assert session.scalar(select(func.count()).select_from(LocalCharge)) == 0


def test_an_erasure_waits_for_nobody_and_its_mail_says_who_goes_on_charging(
    session: Session, settings: Settings, member: Member
) -> None:
    session.commit()
    assert purging.erase(session, settings, member.id, NOW)
    session.commit()
    assert orders_of(session, member) == []
    assert kinds_to(session, member) == ["erased"]
    assert accept_mails(session, settings, NOW)


class Told:
    """A provider that tells of these."""

    def __init__(self, *subscriptions: Subscription) -> None:
        self._subscriptions = subscriptions

    def list(self, cursor: str | None, *, limit: int, now: Any) -> Page:
        return Page(self._subscriptions, None)


def test_the_provider_says_who_bills(session: Session, settings: Settings) -> None:
    moved = factories.using(session, billing_ref="moved")
    ended = factories.lapsed(session, billing_ref="ended")
    twice = factories.using(session, billing_ref="twice", billed_by=STORE)
    told = factories.using(session, billing_ref="told", billed_by=STORE)
    decisions.end_membership(session, settings, told.id, Through.ACCOUNT, NOW)
    factories.using(session, billing_ref="not there", billed_by=STORE)
    session.commit()
    provider: Any = Told(
        *(Subscription(ref, "active", billed_by=STORE) for ref in ("moved", "ended", "told")),
        Subscription("twice", "active"),
    )
    found = list(reconciling.reconcile(session, settings, provider, NOW, session.commit, fix=True))
    assert {(one.billing_ref, one.kind, one.repaired) for one in found} == {
        ("moved", Kind.FACTS_DIFFER, True),
        ("ended", Kind.CHARGED_ELSEWHERE, False),
        ("twice", Kind.CHARGED_TWICE, False),
    }
    session.expire_all()
    assert (moved.billed_by, ended.status, twice.billed_by) == (STORE, "lapsed", STORE)
    provider_news.apply(session, settings, Subscription("moved", "active"), NOW)
    assert moved.billed_by is None
