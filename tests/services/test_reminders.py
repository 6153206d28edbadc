"""A member may want no more reminders without deciding anything: none goes out, and silence means what it meant."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.errors import NotFound
from domain.lifecycle import Answer, Through
from models import Event, Member, Message
from services import decisions, warning
from settings import Settings
from tests import factories
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import accept_mails, case_of, close, kinds_to, opened

REMINDING = at("2026-06-24 10:00")
LAST_DAYS = at("2026-06-29 10:00")


@pytest.fixture
def member(session: Session, settings: Settings, clock: FrozenClock) -> Member:
    row = factories.dormant(session)
    session.commit()
    opened(session, settings, clock.now())
    return row


def test_without_it_a_member_gets_both_further_notices(session: Session, settings: Settings, member: Member) -> None:
    for instant in (REMINDING, LAST_DAYS):
        warning.remind(session, settings, instant)
        session.commit()
        accept_mails(session, settings, instant)
    assert kinds_to(session, member) == ["warning", "reminder", "last_call"]


def test_whoever_declines_gets_none_and_lapses_by_silence_all_the_same(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    assert warning.decline_reminders(session, case_of(session, member).id, True, clock.now())
    for instant in (REMINDING, LAST_DAYS):
        assert warning.remind(session, settings, instant) == 0
    session.commit()
    close(session, settings, at("2026-07-01 06:00"))
    session.refresh(member)
    assert member.status == "lapsed"


def test_a_reminder_that_waits_already_does_not_go_out(session: Session, settings: Settings, member: Member) -> None:
    assert warning.remind(session, settings, REMINDING) == 1
    warning.decline_reminders(session, case_of(session, member).id, True, REMINDING)
    session.commit()
    assert accept_mails(session, settings, REMINDING) == []
    reminder = session.scalars(select(Message).where(Message.kind == "reminder")).one()
    session.refresh(reminder)
    assert reminder.state == "obsolete"


def test_it_can_be_taken_back_and_a_second_press_changes_nothing(
    session: Session, settings: Settings, member: Member
) -> None:
    case_id = case_of(session, member).id
    assert warning.decline_reminders(session, case_id, True, REMINDING)
    assert not warning.decline_reminders(session, case_id, True, REMINDING)
    assert warning.decline_reminders(session, case_id, False, REMINDING)
    assert not warning.decline_reminders(session, case_id, False, REMINDING)
    assert warning.remind(session, settings, REMINDING) == 1
    codes = session.scalars(select(Event.code).where(Event.code.like("reminders%")).order_by(Event.id))
    assert list(codes) == ["reminders_declined", "reminders_wanted"]


def test_an_answered_case_has_nothing_to_decline(session: Session, settings: Settings, member: Member) -> None:
    case = case_of(session, member)
    decisions.answer(session, settings, case.id, Answer.KEEP, Through.LINK, REMINDING)
    assert not warning.decline_reminders(session, case.id, True, REMINDING)
    with pytest.raises(NotFound):
        warning.decline_reminders(session, case.id + 1, True, REMINDING)


def test_another_address_has_declined_nothing(session: Session, settings: Settings, member: Member) -> None:
    warning.decline_reminders(session, case_of(session, member).id, True, REMINDING)
    member.email, member.email_key = "new@example.org", "new@example.org"
    session.flush()
    warning.address_changed(session, settings, REMINDING)
    assert case_of(session, member).reminders_declined_at is None
