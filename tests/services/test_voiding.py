"""A keep that a mail scanner pressed is taken back by an operator, and the member has not lost a day by it."""

import pytest
from sqlalchemy.orm import Session

from domain.errors import Refused
from domain.lifecycle import Answer, Through
from models import Case, Member
from services import check_in, decisions, evidence, notice
from services.mail import dispatch, letters
from services.mail.words import Facts
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import accept_mails, case_of, close, kinds_to, opened, orders_of

REASON = "pressed 22 seconds after the mail, from the scanner's network"


@pytest.fixture
def member(session: Session) -> Member:
    row = factories.dormant(session)
    session.commit()
    return row


def pressed(session: Session, settings: Settings, member: Member, *answers: Answer) -> Case:
    """The member's case after these answers by the link of the mail."""
    opened(session, settings, NOW)
    for answer in answers:
        decisions.answer(session, settings, case_of(session, member).id, answer, Through.LINK, NOW)
    accept_mails(session, settings, NOW)
    return case_of(session, member)


def test_a_keep_without_an_answer_before_is_asked_anew(session: Session, settings: Settings, member: Member) -> None:
    case = pressed(session, settings, member, Answer.KEEP)
    old_link = (case.public_id, case.address_generation)
    late = at("2026-06-20 10:00")
    decisions.void_keep(session, settings, member.id, REASON, late)
    session.commit()

    case = case_of(session, member)
    assert (case.answer, case.answered_at, case.warned_at, case.answer_note) == (None, None, None, REASON)
    assert member.last_kept_at is None
    # The link the machine knows shows nothing any more.
    assert (case.public_id, case.address_generation) != old_link
    assert check_in.token(settings, *old_link) != check_in.token(settings, case.public_id, case.address_generation)
    assert evidence.note(session, member.id) == REASON

    # The receipt had said that nothing ends, so a whole notice is due again: not this month's end any more.
    accept_mails(session, settings, late)
    assert kinds_to(session, member) == ["warning", "receipt_keep", "warning"]
    close(session, settings, at("2026-06-30 22:05"))
    assert member.status == "active"
    session.expire_all()
    assert case_of(session, member).deadline_at == at("2026-07-31 22:00")
    close(session, settings, at("2026-07-31 22:05"))
    session.expire_all()
    assert member.status == "lapsed"


def test_the_new_notice_says_why_it_comes(session: Session, settings: Settings, member: Member) -> None:
    pressed(session, settings, member, Answer.KEEP)
    decisions.void_keep(session, settings, member.id, REASON, NOW)
    session.commit()
    [claimed] = dispatch.claim(session, settings, NOW, 10)
    mail = letters.compose(settings, claimed, Facts.of(claimed), NOW)
    assert "not you but a program has pressed that button" in " ".join(mail.text.split())
    assert REASON not in mail.text


def test_an_end_that_was_turned_round_holds_again(session: Session, settings: Settings, member: Member) -> None:
    pressed(session, settings, member, Answer.LAPSE, Answer.KEEP)
    decisions.void_keep(session, settings, member.id, REASON, NOW)
    session.commit()
    case = case_of(session, member)
    assert (case.answer, case.answered_through, case.answer_note) == ("lapse", "operator", REASON)
    assert member.last_kept_at is None
    assert orders_of(session, member)[-1] == ("stop", "queued")
    assert kinds_to(session, member)[-1] == "receipt_lapse"


def test_voiding_twice_or_what_no_machine_pressed_is_refused(
    session: Session, settings: Settings, member: Member
) -> None:
    case = pressed(session, settings, member, Answer.KEEP)
    decisions.void_keep(session, settings, member.id, REASON, NOW)
    session.commit()
    with pytest.raises(Refused, match="no live case with this answer"):
        decisions.void_keep(session, settings, member.id, REASON, NOW)
    decisions.answer(session, settings, case.id, Answer.KEEP, Through.OPERATOR, NOW, "by phone")
    with pytest.raises(Refused, match="came through operator"):
        decisions.void_keep(session, settings, member.id, REASON, NOW)


def test_the_page_says_that_the_question_is_put_once_more(session: Session, settings: Settings, member: Member) -> None:
    case = pressed(session, settings, member, Answer.KEEP)
    decisions.void_keep(session, settings, member.id, REASON, NOW)
    session.commit()
    seen = notice.standing(session, settings, Case.id == case.id, NOW)
    assert seen is not None
    assert (seen.state, seen.voided) == (notice.State.OPEN, True)
