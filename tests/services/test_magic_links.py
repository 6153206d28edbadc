"""Random links: for one purpose, once, for as long as promised, and only while the address is theirs."""

from datetime import datetime
from threading import Barrier, Thread

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain.addresses import address_key
from domain.errors import TooMany
from domain.links import Purpose
from models import MagicLink, Member, Message, db, for_writing
from services import magic_links
from settings import Settings
from tests import factories
from tests.doubles import FrozenClock

IP = "192.0.2.1"


def messages(session: Session) -> list[Message]:
    return list(session.scalars(select(Message).order_by(Message.id)))


def signing_in(session: Session, member: Member, now: datetime) -> str:
    assert member.email is not None
    return magic_links.mint(session, Purpose.SIGN_IN, member.id, member.email, now.replace(minute=now.minute + 15), now)


def test_a_known_address_gets_one_mail_and_no_row_holds_its_token(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    member = factories.member(session, email="mia@example.org")
    magic_links.request_sign_in(session, settings, "mia@example.org", IP, clock.now())
    [message] = messages(session)
    assert (message.kind, message.member_id, message.to_address) == ("sign_in", member.id, "mia@example.org")
    link = session.get_one(MagicLink, message.magic_link_id)
    assert link.token_hash is None
    token = magic_links.mint_into(session, link.id, clock.now())
    session.refresh(link)
    assert link.token_hash is not None
    assert token not in link.token_hash
    assert magic_links.look(session, Purpose.SIGN_IN, token, clock.now()) is link


@pytest.mark.parametrize("asked", ["  MIA@Example.ORG ", "mia@example.org"])
def test_an_address_is_known_however_it_is_written(
    session: Session, settings: Settings, clock: FrozenClock, asked: str
) -> None:
    factories.member(session, email="mia@example.org")
    magic_links.request_sign_in(session, settings, asked, IP, clock.now())
    assert len(messages(session)) == 1


def test_an_address_of_an_international_host_is_known_in_both_spellings(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    factories.member(session, email="mia@bücher.example", email_key=address_key("mia@bücher.example"))
    for asked in ("mia@BÜCHER.example", "mia@xn--bcher-kva.example"):
        magic_links.request_sign_in(session, settings, asked, IP, clock.now())
    assert len(messages(session)) == 2


@pytest.mark.parametrize("status", ["active", "ended"])
def test_any_membership_can_be_signed_in_to(
    session: Session, settings: Settings, clock: FrozenClock, status: str
) -> None:
    member = factories.member(session, status=status)
    assert member.email is not None
    magic_links.request_sign_in(session, settings, member.email, IP, clock.now())
    assert len(messages(session)) == 1


def test_a_shared_address_gets_one_mail(session: Session, settings: Settings, clock: FrozenClock) -> None:
    for _ in range(3):
        factories.member(session, email="family@example.org")
    magic_links.request_sign_in(session, settings, "family@example.org", IP, clock.now())
    assert len(messages(session)) == 1
    assert len(magic_links.memberships(session, "family@example.org")) == 3


def test_a_stranger_gets_nothing_and_costs_the_same_statements(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    factories.member(session, email="mia@example.org")
    session.commit()
    statements: dict[str, list[str]] = {}
    for asked in ("mia@example.org", "nobody@example.org"):
        seen = statements.setdefault(asked, [])

        @db.event.listens_for(db.engine, "before_cursor_execute")
        def count(connection, cursor, statement, *rest, seen=seen):  # type: ignore[no-untyped-def]
            if not statement.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK TO")):
                seen.append(statement)

        magic_links.request_sign_in(session, settings, asked, IP, clock.now())
        session.commit()
        db.event.remove(db.engine, "before_cursor_execute", count)
    known, unknown = statements.values()
    assert len(known) == len(unknown)
    assert [one.split()[0] for one in known] == [one.split()[0] for one in unknown]
    assert [message.to_address for message in messages(session)] == ["mia@example.org"]


@pytest.mark.parametrize("asked", ["mia@example.org", "nobody@example.org"])
def test_an_address_gets_five_mails_an_hour_known_or_not(
    session: Session, settings: Settings, clock: FrozenClock, asked: str
) -> None:
    factories.member(session, email="mia@example.org")
    for n in range(8):
        magic_links.request_sign_in(session, settings, asked, f"192.0.2.{n}", clock.now())
        clock.tick(minutes=1)
    requests = session.scalar(select(func.count()).select_from(MagicLink))
    assert requests == 5
    clock.tick(minutes=55)
    magic_links.request_sign_in(session, settings, asked, "192.0.2.99", clock.now())
    assert len(messages(session)) == (6 if asked == "mia@example.org" else 0)


def test_one_ip_asks_thirty_times_an_hour(session: Session, settings: Settings, clock: FrozenClock) -> None:
    for n in range(30):
        magic_links.request_sign_in(session, settings, f"somebody{n}@example.org", IP, clock.now())
    with pytest.raises(TooMany):
        magic_links.request_sign_in(session, settings, "another@example.org", IP, clock.now())
    magic_links.request_sign_in(session, settings, "another@example.org", "192.0.2.2", clock.now())
    clock.tick(minutes=61)
    magic_links.request_sign_in(session, settings, "another@example.org", IP, clock.now())


def test_what_strangers_asked_for_is_forgotten_after_an_hour(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    magic_links.request_sign_in(session, settings, "nobody@example.org", IP, clock.now())
    clock.tick(minutes=61)
    magic_links.request_sign_in(session, settings, "other@example.org", IP, clock.now())
    assert session.scalar(select(func.count()).select_from(MagicLink)) == 1


def test_the_address_and_the_ip_of_a_request_are_not_on_record(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    magic_links.request_sign_in(session, settings, "nobody@example.org", IP, clock.now())
    link = session.scalars(select(MagicLink)).one()
    written = " ".join(str(getattr(link, column.key)) for column in MagicLink.__table__.columns)
    assert "nobody" not in written
    assert IP not in written


def test_looking_never_consumes_and_consuming_does_once(session: Session, clock: FrozenClock) -> None:
    token = signing_in(session, factories.member(session), clock.now())
    for _ in range(3):
        assert magic_links.look(session, Purpose.SIGN_IN, token, clock.now()) is not None
    used = magic_links.consume(session, Purpose.SIGN_IN, token, clock.now())
    assert used is not None
    assert used.used_at == clock.now()
    assert magic_links.consume(session, Purpose.SIGN_IN, token, clock.now()) is None
    assert magic_links.look(session, Purpose.SIGN_IN, token, clock.now()) is None


def test_a_link_expires_to_the_second(session: Session, clock: FrozenClock) -> None:
    token = signing_in(session, factories.member(session), clock.now())
    clock.tick(minutes=14, seconds=59)
    assert magic_links.look(session, Purpose.SIGN_IN, token, clock.now()) is not None
    clock.tick(seconds=1)
    assert magic_links.consume(session, Purpose.SIGN_IN, token, clock.now()) is None


@pytest.mark.parametrize("purpose", [Purpose.ERASE, Purpose.COME_BACK])
def test_a_link_serves_no_other_purpose(session: Session, clock: FrozenClock, purpose: Purpose) -> None:
    token = signing_in(session, factories.member(session), clock.now())
    assert magic_links.look(session, purpose, token, clock.now()) is None
    assert magic_links.consume(session, purpose, token, clock.now()) is None
    assert magic_links.look(session, Purpose.SIGN_IN, token, clock.now()) is not None


def test_a_changed_address_kills_its_links(session: Session, clock: FrozenClock) -> None:
    member = factories.member(session)
    token = signing_in(session, member, clock.now())
    member.email = member.email_key = "new@example.org"
    session.flush()
    assert magic_links.look(session, Purpose.SIGN_IN, token, clock.now()) is None
    assert magic_links.consume(session, Purpose.SIGN_IN, token, clock.now()) is None


@pytest.mark.parametrize("token", ["", "x", "ü" * 43, "a" * 5000])
def test_what_is_no_token_is_no_link(session: Session, clock: FrozenClock, token: str) -> None:
    factories.member(session)
    assert magic_links.look(session, Purpose.SIGN_IN, token, clock.now()) is None


def test_a_mail_that_is_claimed_again_gets_a_new_token_and_the_first_one_dies(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    factories.member(session, email="mia@example.org")
    magic_links.request_sign_in(session, settings, "mia@example.org", IP, clock.now())
    link_id = messages(session)[0].magic_link_id
    assert link_id is not None
    first = magic_links.mint_into(session, link_id, clock.now())
    second = magic_links.mint_into(session, link_id, clock.now())
    assert magic_links.look(session, Purpose.SIGN_IN, first, clock.now()) is None
    assert magic_links.look(session, Purpose.SIGN_IN, second, clock.now()) is not None


def test_a_links_time_runs_from_its_mail_not_from_the_request(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    factories.member(session, email="mia@example.org")
    magic_links.request_sign_in(session, settings, "mia@example.org", IP, clock.now())
    link_id = messages(session)[0].magic_link_id
    assert link_id is not None
    clock.tick(minutes=40)
    token = magic_links.mint_into(session, link_id, clock.now())
    clock.tick(minutes=14)
    assert magic_links.look(session, Purpose.SIGN_IN, token, clock.now()) is not None
    clock.tick(minutes=1)
    assert magic_links.look(session, Purpose.SIGN_IN, token, clock.now()) is None


def test_of_two_who_consume_at_once_one_gets_it(app: Flask, session: Session, clock: FrozenClock) -> None:
    token = signing_in(session, factories.member(session), clock.now())
    session.commit()
    together, got = Barrier(4), []

    def consume() -> None:
        with app.app_context(), Session(db.engine) as own:
            together.wait(timeout=60)
            for_writing(own)
            got.append(magic_links.consume(own, Purpose.SIGN_IN, token, clock.now()) is not None)
            own.commit()

    threads = [Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False, False, False, True]


def test_an_address_changed_between_look_and_consume_wins(app: Flask, session: Session, clock: FrozenClock) -> None:
    """The address is a condition of the statement that consumes, not only of the look before it."""
    member = factories.member(session)
    token = signing_in(session, member, clock.now())
    session.commit()
    changed: list[bool] = []

    @db.event.listens_for(db.engine, "before_cursor_execute")
    def change_first(connection, cursor, statement, *rest):  # type: ignore[no-untyped-def]
        if statement.startswith("UPDATE magic_link") and not changed:
            changed.append(True)
            cursor.execute("UPDATE member SET email_key = 'new@example.org'")

    try:
        assert magic_links.consume(session, Purpose.SIGN_IN, token, clock.now()) is None
    finally:
        db.event.remove(db.engine, "before_cursor_execute", change_first)
    assert changed


def test_asking_for_erasure_is_limited_too(session: Session, clock: FrozenClock) -> None:
    member = factories.member(session)
    assert [magic_links.request_erase(session, member, clock.now()) for _ in range(6)] == [True] * 5 + [False]
    assert {message.kind for message in messages(session)} == {"erase_confirm"}
