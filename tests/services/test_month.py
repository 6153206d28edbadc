"""A month from draft to its end, and what follows: the main road, on both databases."""

from sqlalchemy import literal, select, update
from sqlalchemy.orm import Session

from domain import dates
from domain.lifecycle import Answer, Through
from models import BillingOrder, Case, Event, Message
from models.base import UTCDateTime
from services import campaigns, decisions, purging, returning
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import accept_mails, case_of, close, kinds_to, opened, orders_of, purge

MONTH_END = at("2026-06-30 22:00")  # 1 July 00:00 in Berlin


def test_a_silent_warned_member_lapses_at_month_end(session: Session, settings: Settings) -> None:
    silent = factories.dormant(session)
    using = factories.using(session)
    session.commit()
    campaign = opened(session, settings, NOW)
    assert campaign.deadline_at == MONTH_END
    assert kinds_to(session, silent) == ["warning"]
    assert kinds_to(session, using) == []

    assert close(session, settings, at("2026-06-30 21:59")).lapsed == 0
    assert close(session, settings, at("2026-06-30 22:05")).lapsed == 1
    session.refresh(silent)
    assert (silent.status, silent.lapsed_at, silent.access_ends_at) == ("lapsed", MONTH_END, MONTH_END)
    assert dates.named_day(silent.keep_until, settings.zone).isoformat() == "2027-04-30"
    assert case_of(session, silent).state == "lapsed"
    assert kinds_to(session, silent) == ["warning", "lapsed"]
    assert orders_of(session, silent) == [("stop", "queued")]
    session.refresh(campaign)
    assert campaign.state == "closed"
    codes = session.scalars(select(Event.code).where(Event.member_id == silent.id).order_by(Event.id)).all()
    assert codes == ["case_opened", "mail_accepted", "case_closed"]


def test_the_very_first_run_can_only_warn(session: Session, settings: Settings) -> None:
    silent = factories.dormant(session)
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    session.commit()
    assert close(session, settings, NOW).lapsed == 0
    campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    assert close(session, settings, NOW).lapsed == 0
    session.refresh(silent)
    assert silent.status == "active"


def test_a_keep_is_a_sign_of_life_and_closes_the_case_as_kept(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    decisions.answer(session, settings, case_of(session, member).id, Answer.KEEP, Through.LINK, NOW)
    session.commit()
    accept_mails(session, settings, NOW)
    close(session, settings, at("2026-07-01 06:00"))
    session.refresh(member)
    assert (member.status, member.last_kept_at) == ("active", NOW)
    assert case_of(session, member).state == "kept"
    assert kinds_to(session, member) == ["warning", "receipt_keep"]


def test_an_unwarned_case_rolls_on_to_a_later_deadline(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    assert close(session, settings, at("2026-07-01 06:00")).rolled == 1
    case = case_of(session, member)
    assert (case.state, case.deadline_at) == ("open", at("2026-07-31 22:00"))
    accept_mails(session, settings, at("2026-07-02 06:00"))
    assert close(session, settings, at("2026-08-01 06:00")).lapsed == 1


def test_scenario_19_late_use_reverses_a_silent_lapse(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, at("2026-07-01 06:00"))
    member.last_used_at = at("2026-06-30 21:00")
    session.flush()
    uses = select(
        literal(member.id).label("member_id"), literal(at("2026-06-30 21:00"), UTCDateTime()).label("used_at")
    )
    assert returning.reverse_for_use(session, settings, uses, at("2026-07-01 09:00")) == 1
    session.commit()
    session.refresh(member)
    assert member.status == "active"
    assert case_of(session, member).state == "returned"
    assert orders_of(session, member) == [("stop", "superseded")]
    assert kinds_to(session, member) == ["warning", "lapsed", "returned"]
    states = dict(session.execute(select(Message.kind, Message.state).where(Message.member_id == member.id)).all())
    assert states["lapsed"] == "obsolete"


def test_coming_back_and_purge(session: Session, settings: Settings) -> None:
    back, gone = factories.dormant(session), factories.dormant(session)
    factories.library(session, back)
    factories.library(session, gone)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, at("2026-07-01 06:00"))
    accept_mails(session, settings, at("2026-07-01 06:00"))
    later = at("2026-09-10 12:00")
    session.refresh(back)
    quoted = returning.quote(back, settings, later)
    assert (quoted.kind, quoted.first_charge_at) == ("restart", later)
    returning.order(session, settings, back.id, quoted, later)
    session.commit()
    session.refresh(back)
    assert (back.status, back.returned_at) == ("active", later)
    assert orders_of(session, back) == [("stop", "queued"), ("refund", "queued"), ("restart", "queued")]

    notice = at("2027-04-02 12:00")
    assert purging.warn_purge(session, settings, notice) == 1
    session.commit()
    accept_mails(session, settings, notice)
    assert purge(session, settings, at("2027-05-01 12:00")) == 0, "the stop is unfinished"
    session.execute(update(BillingOrder).values(state="done", done_at=later))
    assert purge(session, settings, at("2027-04-30 12:00")) == 0
    assert purge(session, settings, at("2027-05-01 12:00")) == 1
    session.refresh(gone)
    assert (gone.status, gone.email, gone.external_id) == ("purged", None, None)
    assert session.scalar(select(Case.address).where(Case.member_id == gone.id)) is None
