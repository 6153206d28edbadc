"""Mails that were on their way when what they say was overtaken: the next try asks anew whether it still holds."""

from datetime import timedelta

from sqlalchemy import literal, select, update
from sqlalchemy.orm import Session

from domain.lifecycle import Answer, Through
from domain.notices import Kind
from domain.ports import MailResult
from models import BillingOrder, Event, Message
from models.base import UTCDateTime
from services import campaigns, decisions, returning
from services.mail import dispatch, recording
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import accept_mails, case_of, close, opened

JULY_1 = at("2026-07-01 06:00")
LATER = MailResult(False, 451, "451 4.7.1 greylisted, try again later")


def test_scenario_19_a_farewell_that_was_being_sent_when_the_end_was_reversed_goes_to_nobody(
    session: Session, settings: Settings
) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    session.execute(update(BillingOrder).values(state="done", done_at=JULY_1))
    [claimed] = dispatch.claim(session, settings, JULY_1, 10)
    assert claimed.kind is Kind.LAPSED
    used_at = at("2026-06-30 21:00")
    use = select(literal(member.id).label("member_id"), literal(used_at, UTCDateTime()).label("used_at"))
    assert returning.reverse_for_use(session, settings, use, JULY_1) == 1
    recording.record(session, settings, claimed, LATER, JULY_1)
    session.commit()
    later = JULY_1 + timedelta(hours=1)
    assert Kind.LAPSED not in [one.kind for one in dispatch.claim(session, settings, later, 10)], "its claim asks"
    session.rollback()
    assert Kind.LAPSED not in accept_mails(session, settings, later)
    assert session.scalars(select(Message.state).where(Message.kind == Kind.LAPSED)).one() == "obsolete"


def test_scenario_11_a_later_day_is_not_told_to_who_has_answered_meanwhile(
    session: Session, settings: Settings
) -> None:
    answered, silent = factories.dormant(session), factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    campaigns.hold(session, settings, "2026-06", at("2026-06-20"))
    released = at("2026-07-03 08:00")
    campaigns.release(session, settings, "2026-06", released)
    session.commit()
    decisions.answer(session, settings, case_of(session, answered).id, Answer.KEEP, Through.LINK, released)
    session.commit()
    claimed = dispatch.claim(session, settings, released, 10)
    assert {(one.kind, one.member.id) for one in claimed} == {
        (Kind.DEADLINE_MOVED, silent.id),
        (Kind.RECEIPT_KEEP, answered.id),
    }
    session.rollback()
    accept_mails(session, settings, released)
    moved = select(Message.state).where(Message.kind == Kind.DEADLINE_MOVED)
    assert session.scalars(moved.where(Message.member_id == answered.id)).one() == "obsolete"
    assert session.scalars(moved.where(Message.member_id == silent.id)).one() == "sent"


def test_of_a_mail_that_cannot_be_rendered_only_who_holds_it_writes(session: Session, settings: Settings) -> None:
    factories.dormant(session)
    opened(session, settings, NOW)
    session.execute(update(Message).values(state="sending", lease_token="another", lease_until=JULY_1))
    one = session.scalars(select(Message)).one()
    claimed = dispatch.Claimed(
        id=one.id, public_id=one.public_id, kind=Kind.WARNING, locale=None, to_address="x@example.org", attempts=1,
        lease_token="mine", message_id="<m>", deadline_at=None, created_at=NOW,
    )  # fmt: skip
    recording.fail(session, claimed, "cannot be rendered", NOW)
    assert session.scalars(select(Event).where(Event.code == "mail_failed")).all() == []
