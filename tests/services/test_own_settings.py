"""An address changes once it is proven, the old one hears of it, and no file undoes what a member has chosen."""

from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.devices import Device
from domain.errors import BadValue, Refused
from domain.links import Purpose
from domain.ports import MailResult
from models import Event, MagicLink, Member, Message, SignIn
from services import magic_links, own_settings, sign_ins
from services.mail import bounces, dispatch, recording
from services.mail.dispatch import Claimed
from services.own_settings import Confirmed
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.filing import COLUMNS, Files
from tests.services.support import ACCEPTED, accept_mails, case_of, close, kinds_to, opened, purge


@pytest.fixture
def member(session: Session) -> Member:
    row = factories.dormant(session, email="old@example.org", external_id="m-7")
    session.commit()
    return row


@pytest.fixture
def files(session: Session, settings: Settings, tmp_path: Path) -> Files:
    return Files(session, settings, tmp_path, NOW)


def asked(session: Session, settings: Settings, member: Member, address: str, now: datetime) -> str:
    """The token in the mail that went to the new address."""
    assert own_settings.request_change(session, member.id, address, now)
    return mailed(session, settings, "new_address", address, now)


def mailed(session: Session, settings: Settings, kind: str, address: str, now: datetime) -> str:
    """The token in the one mail of a kind that waits."""
    session.commit()
    [claimed] = [one for one in dispatch.claim(session, settings, now, 10) if one.kind == kind]
    dispatch.give_back(session, [claimed])
    session.commit()
    assert claimed.to_address == address
    assert claimed.link is not None
    return claimed.link.rpartition("/")[2]


def half(session: Session, settings: Settings, member: Member, address: str, now: datetime) -> str:
    """Confirmed at the new address; the token in the mail that then went to the present one."""
    token = asked(session, settings, member, address, now)
    confirmed = own_settings.confirm(session, settings, token, now)
    assert confirmed is not None
    assert not confirmed.holds
    session.refresh(member)
    assert member.email is not None
    return mailed(session, settings, "old_address", member.email, now)


def change(session: Session, settings: Settings, member: Member, address: str, now: datetime) -> None:
    token = half(session, settings, member, address, now)
    confirmed = own_settings.confirm(session, settings, token, now)
    assert confirmed is not None
    assert confirmed.holds
    session.commit()


def test_nothing_changes_before_the_links_at_both_addresses_are_used(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    first = asked(session, settings, member, "New@example.org", clock.now())
    assert own_settings.confirm(session, settings, first, clock.now()) == Confirmed(
        "New@example.org", holds=False, another=True
    )
    session.commit()
    assert own_settings.confirm(session, settings, first, clock.now()) is None, "used up, though no other is made yet"
    second = mailed(session, settings, "old_address", "old@example.org", clock.now())
    session.refresh(member)
    assert member.email == "old@example.org"
    assert own_settings.confirm(session, settings, first, clock.now()) is None, "once"
    assert own_settings.confirm(session, settings, second, clock.now()) == Confirmed(
        "New@example.org", holds=True, another=True
    )
    session.commit()
    session.refresh(member)
    assert (member.email, member.email_key) == ("New@example.org", "new@example.org")
    notice = session.scalars(select(Message).where(Message.kind == "address_changed")).one()
    assert notice.to_address == "old@example.org"
    assert session.scalars(select(MagicLink.new_address)).all() == [None, None]
    assert own_settings.confirm(session, settings, second, clock.now()) is None, "once"


def test_whoever_did_not_ask_for_it_says_so_and_everybody_is_signed_out(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    sign_ins.begin(session, member, Device.OTHER, clock.now())
    token = half(session, settings, member, "new@example.org", clock.now())
    generation = member.session_generation
    assert own_settings.refuse(session, token, clock.now())
    session.commit()
    session.refresh(member)
    assert (member.email, member.session_generation) == ("old@example.org", generation + 1)
    assert session.scalars(select(SignIn)).all() == []
    assert session.scalars(select(MagicLink.new_address)).all() == [None, None]
    assert not own_settings.refuse(session, token, clock.now()), "once"
    assert own_settings.confirm(session, settings, token, clock.now()) is None, "refused is refused"


def test_at_the_new_address_nobody_is_signed_out(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    token = asked(session, settings, member, "new@example.org", clock.now())
    assert not own_settings.refuse(session, token, clock.now())
    assert own_settings.confirm(session, settings, token, clock.now()) is not None


def test_the_second_link_dies_after_an_hour_of_its_own(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    token = asked(session, settings, member, "new@example.org", clock.now())
    clock.tick(minutes=50)
    assert own_settings.confirm(session, settings, token, clock.now()) is not None
    clock.tick(minutes=50)
    second = mailed(session, settings, "old_address", "old@example.org", clock.now())
    clock.tick(minutes=59)
    assert magic_links.look(session, Purpose.NEW_ADDRESS, second, clock.now()) is not None
    clock.tick(minutes=1)
    assert own_settings.confirm(session, settings, second, clock.now()) is None
    session.refresh(member)
    assert member.email == "old@example.org"


def token_in(claimed: Claimed) -> str:
    assert claimed.link is not None
    return claimed.link.rpartition("/")[2]


def test_a_second_copy_of_the_mail_to_the_new_address_does_not_stand_for_the_present_one(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    """The thief's server takes the mail, answers 451, and gets it again once the first copy's link was used."""
    assert own_settings.request_change(session, member.id, "new@example.org", clock.now())
    session.commit()
    [first] = dispatch.claim(session, settings, clock.now(), 10)
    session.commit()
    recording.record(session, settings, first, MailResult(accepted=False, code=451, reply="451 later"), clock.now())
    session.commit()
    confirmed = own_settings.confirm(session, settings, token_in(first), clock.now())
    assert confirmed is not None
    session.commit()
    clock.tick(minutes=2)
    again = [one for one in dispatch.claim(session, settings, clock.now(), 10) if one.to_address == "new@example.org"]
    session.commit()
    for one in again:
        own_settings.confirm(session, settings, token_in(one), clock.now())
        session.commit()
    session.refresh(member)
    assert member.email == "old@example.org"


def test_a_late_copy_of_the_first_mail_does_not_kill_the_link_at_the_present_address(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    """A crash between acceptance and record (promise 5): the first mail goes out again after its lease."""
    assert own_settings.request_change(session, member.id, "new@example.org", clock.now())
    session.commit()
    [first] = dispatch.claim(session, settings, clock.now(), 10)
    session.commit()
    clock.tick(minutes=5)
    own_settings.confirm(session, settings, token_in(first), clock.now())
    session.commit()
    [second] = dispatch.claim(session, settings, clock.now(), 10)
    session.commit()
    recording.record(session, settings, second, ACCEPTED, clock.now())
    session.commit()
    clock.tick(minutes=6)
    dispatch.claim(session, settings, clock.now(), 10)
    session.commit()
    confirmed = own_settings.confirm(session, settings, token_in(second), clock.now())
    assert confirmed is not None
    assert confirmed.holds


def test_whoever_complained_of_the_question_is_still_asked(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    half(session, settings, member, "evil@example.org", clock.now())
    accept_mails(session, settings, clock.now())
    sent = session.scalars(select(Message).where(Message.kind == "old_address")).one()
    assert bounces.bounced(session, settings, sent.id, clock.now(), "abuse", complaint=True)
    session.commit()
    token = asked(session, settings, member, "evil@example.org", clock.now())
    own_settings.confirm(session, settings, token, clock.now())
    session.commit()
    session.refresh(member)
    assert member.email == "old@example.org"


def test_scenario_29_a_row_id_that_comes_again_hides_no_question(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    """SQLite gives the highest id again once its row is deleted."""
    half(session, settings, member, "new@example.org", clock.now())
    accept_mails(session, settings, clock.now())
    member.erase_requested_at, member.status = clock.now(), "ended"
    purge(session, settings, clock.now())
    accept_mails(session, settings, clock.now())
    other = factories.using(session, email="other@example.org", external_id="m-8")
    token = asked(session, settings, other, "fresh@example.org", clock.now())
    assert own_settings.confirm(session, settings, token, clock.now()) is not None
    session.commit()
    asked_there = session.scalars(select(Message.member_id).where(Message.kind == "old_address").order_by(Message.id))
    assert list(asked_there) == [member.id, other.id]


def test_a_refusal_ends_the_other_changes_on_their_way_too(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    asked(session, settings, member, "two@example.org", clock.now())
    accept_mails(session, settings, clock.now())
    token = half(session, settings, member, "one@example.org", clock.now())
    assert own_settings.refuse(session, token, clock.now())
    session.commit()
    assert set(session.scalars(select(MagicLink.new_address)).all()) == {None}


def test_a_question_that_leads_nowhere_any_more_is_not_sent(
    files: Files, session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    token = asked(session, settings, member, "new@example.org", clock.now())
    own_settings.confirm(session, settings, token, clock.now())
    session.commit()
    files.members(f"{COLUMNS}\nm-7,third@example.org,2025-01-15\n")
    session.commit()
    assert "old_address" not in [one.kind for one in dispatch.claim(session, settings, clock.now(), 10)]
    dispatch.retire(session, settings)
    assert session.scalars(select(Message.state).where(Message.kind == "old_address")).all() == ["obsolete"]


def test_where_the_question_comes_back_the_new_address_alone_is_enough_the_next_time(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    half(session, settings, member, "new@example.org", clock.now())
    [one] = [one for one in dispatch.claim(session, settings, clock.now(), 10) if one.kind == "old_address"]
    gone = MailResult(accepted=False, code=550, reply="550 no such user", permanent=True, recipient_refused=True)
    recording.record(session, settings, one, gone, clock.now())
    session.commit()
    token = asked(session, settings, member, "new@example.org", clock.now())
    confirmed = own_settings.confirm(session, settings, token, clock.now())
    assert confirmed is not None
    assert confirmed.holds


def test_whoever_is_erased_meanwhile_changes_nothing_any_more(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    token = half(session, settings, member, "new@example.org", clock.now())
    member.erase_requested_at = clock.now()
    session.commit()
    assert own_settings.asked_about(session, token, clock.now()) is None
    assert own_settings.confirm(session, settings, token, clock.now()) is None
    assert not own_settings.refuse(session, token, clock.now())


def test_an_address_that_nobody_has_confirmed_is_forgotten_after_a_day(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    asked(session, settings, member, "stranger@example.org", clock.now())
    clock.tick(hours=24)
    purge(session, settings, clock.now())
    assert session.scalars(select(MagicLink.new_address)).all() == ["stranger@example.org"]
    clock.tick(hours=2)
    purge(session, settings, clock.now())
    assert session.scalars(select(MagicLink.new_address)).all() == [None]


def test_what_was_asked_and_answered_is_on_record(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    token = half(session, settings, member, "new@example.org", clock.now())
    own_settings.refuse(session, token, clock.now())
    accept_mails(session, settings, clock.now())
    change(session, settings, member, "new@example.org", clock.now())
    codes = session.scalars(select(Event.code).where(Event.code.like("email%")).order_by(Event.id)).all()
    assert codes == ["email_change_refused", "email_changed"]


def test_an_address_that_takes_no_mail_is_not_asked(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    member.mail_state = "bounced"
    token = asked(session, settings, member, "new@example.org", clock.now())
    confirmed = own_settings.confirm(session, settings, token, clock.now())
    assert confirmed is not None
    assert confirmed.holds
    session.commit()
    session.refresh(member)
    assert (member.email, member.mail_state) == ("new@example.org", "good")
    assert session.scalars(select(Message.kind).where(Message.kind == "old_address")).all() == []


def test_the_link_dies_after_an_hour_and_with_an_earlier_change(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    first = asked(session, settings, member, "one@example.org", clock.now())
    accept_mails(session, settings, clock.now())
    change(session, settings, member, "two@example.org", clock.now())
    assert own_settings.confirm(session, settings, first, clock.now()) is None
    session.commit()
    accept_mails(session, settings, clock.now())
    third = asked(session, settings, member, "three@example.org", clock.now())
    clock.tick(hours=1)
    assert own_settings.confirm(session, settings, third, clock.now()) is None
    session.refresh(member)
    assert member.email == "two@example.org"


def test_a_bounced_address_is_good_again_once_it_is_proven(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    member.mail_state = "bounced"
    token = asked(session, settings, member, "old@example.org", clock.now())
    confirmed = own_settings.confirm(session, settings, token, clock.now())
    assert confirmed == Confirmed("old@example.org", holds=True, another=False)
    session.refresh(member)
    assert kinds_to(session, member) == ["new_address"], "nobody is told that mails go elsewhere"
    assert member.mail_state == "good"


@pytest.mark.parametrize("wanted", ["", "mia", "OLD@example.org", "a b@example.org"])
def test_what_is_no_other_address_is_refused(session: Session, member: Member, wanted: str) -> None:
    with pytest.raises(BadValue):
        own_settings.request_change(session, member.id, wanted, NOW)


def test_five_mails_an_hour_are_enough(session: Session, member: Member, clock: FrozenClock) -> None:
    sent = [own_settings.request_change(session, member.id, f"n{n}@example.org", clock.now()) for n in range(6)]
    assert sent == [True] * 5 + [False]


def test_whoever_is_being_erased_changes_nothing(session: Session, member: Member) -> None:
    member.erase_requested_at = NOW
    session.flush()
    with pytest.raises(Refused):
        own_settings.request_change(session, member.id, "new@example.org", NOW)


def test_scenario_13_a_live_case_warns_the_new_address_and_counts_from_there(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    opened(session, settings, clock.now())
    before = case_of(session, member).address_generation
    clock.travel(at("2026-06-20 10:00"))
    change(session, settings, member, "new@example.org", clock.now())
    case = case_of(session, member)
    assert (case.address, case.address_generation, case.warned_at) == ("new@example.org", before + 1, None)
    accept_mails(session, settings, clock.now())
    assert kinds_to(session, member).count("warning") == 2
    close(session, settings, at("2026-07-01 06:00"))
    session.refresh(member)
    assert member.status == "active", "eleven days are no notice"


def test_a_file_that_does_not_know_of_the_change_leaves_it(
    files: Files, session: Session, settings: Settings, member: Member
) -> None:
    change(session, settings, member, "new@example.org", NOW)
    files.members(f"{COLUMNS}\nm-7,OLD@example.org,2025-01-15\n")
    session.refresh(member)
    assert (member.email, member.email_key) == ("new@example.org", "new@example.org")


def test_a_file_that_knows_a_third_address_wins(
    files: Files, session: Session, settings: Settings, member: Member
) -> None:
    change(session, settings, member, "new@example.org", NOW)
    files.members(f"{COLUMNS}\nm-7,third@example.org,2025-01-15\n")
    session.refresh(member)
    assert (member.email, member.email_replaced_key) == ("third@example.org", None)


def test_once_a_file_has_the_new_address_going_back_is_a_change_like_any_other(
    files: Files, session: Session, settings: Settings, member: Member
) -> None:
    change(session, settings, member, "new@example.org", NOW)
    files.members(f"{COLUMNS}\nm-7,new@example.org,2025-01-15\n")
    files.members(f"{COLUMNS}\nm-7,old@example.org,2025-01-15\n")
    session.refresh(member)
    assert member.email == "old@example.org"


def test_a_chosen_language_is_that_of_mails_and_outlives_files(
    files: Files, session: Session, settings: Settings, member: Member
) -> None:
    own_settings.choose_language(session, member.id, "de", NOW)
    session.commit()
    files.members(f"{COLUMNS},locale\nm-7,old@example.org,2025-01-15,en\n")
    opened(session, settings, NOW)
    assert session.scalars(select(Message.locale).where(Message.kind == "warning")).all() == ["de"]


def test_scenario_38_a_purge_leaves_no_address_of_a_change(
    session: Session, settings: Settings, member: Member, clock: FrozenClock
) -> None:
    change(session, settings, member, "new@example.org", clock.now())
    accept_mails(session, settings, clock.now())
    asked(session, settings, member, "other@example.org", clock.now())
    member.erase_requested_at = clock.now()
    member.status = "ended"
    purge(session, settings, clock.now())
    session.refresh(member)
    assert (member.status, member.email_replaced_key) == ("purged", None)
    assert session.scalars(select(MagicLink)).all() == []
    left = session.scalars(select(Message.to_address).where(Message.to_address.is_not(None))).all()
    assert left in ([], ["new@example.org"]), "only the mail that confirms the erasure"
