"""Bounces from a mailbox: taken once, in whatever way a run ends, and nothing that is nobody's is lost."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from adapters.mail.imap import ImapMailbox, ImapVisit
from app import create_app
from domain.errors import MailboxAway
from jobs import runner
from models import Event, JobRun, Member, Message, db
from services.installation import Ports
from services.mail import collecting
from services.mail.collecting import Collected
from settings import Settings
from tests import factories
from tests.conftest import NOW, make_settings
from tests.doubles import FrozenClock
from tests.imap import ImapServer
from tests.services.support import case_of, opened
from tests.services.test_bounces import MESSAGE_ID, PUBLIC_ID, raw

AWAY = b"Subject: Out of office\nAuto-Submitted: auto-replied\n\nI am away.\n"
UNKNOWN = raw("postfix-unknown-user").replace(PUBLIC_ID.encode(), b"f" * 32)


@pytest.fixture(scope="module")
def server() -> Iterator[ImapServer]:
    server = ImapServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def mailbox(server: ImapServer) -> ImapMailbox:
    server.empty("INBOX")
    server.empty("Aside")
    return server.mailbox()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"bounce_address": "bounces@lumio.example"})


@pytest.fixture
def warned(session: Session, settings: Settings) -> Member:
    """One member whose warning, the one of the reports, was accepted."""
    member = factories.dormant(session, email="mia@dead.example")
    session.commit()
    opened(session, settings, NOW)
    session.execute(update(Message).values(public_id=PUBLIC_ID, message_id=MESSAGE_ID))
    session.commit()
    return member


@pytest.fixture
def collect(session: Session, settings: Settings, mailbox: ImapMailbox, clock: FrozenClock) -> Callable[..., Collected]:
    def run(commit: Callable[[], None] = session.commit, enough: Callable[[], bool] = lambda: False) -> Collected:
        session.rollback()
        return collecting.collect(session, settings, mailbox, clock, commit, enough)

    return run


def bounces_on_record(session: Session) -> int:
    session.expire_all()
    return len(session.scalars(select(Event).where(Event.code == "mail_bounced")).all())


def test_reports_are_taken_and_the_rest_is_left_to_a_person(
    session: Session, server: ImapServer, warned: Member, collect: Callable[..., Collected]
) -> None:
    server.put(AWAY, raw("postfix-delayed"), raw("postfix-unknown-user"), UNKNOWN)
    assert collect() == Collected(taken=2, aside=2)
    assert server.subjects() == []
    assert server.subjects("Aside") == ["Out of office", "Undelivered Mail Returned to Sender"]
    session.expire_all()
    assert (warned.mail_state, case_of(session, warned).state) == ("bounced", "unreachable")
    assert collect() == Collected()


def test_why_a_mail_came_back_is_kept_beside_the_reply(
    session: Session, server: ImapServer, warned: Member, collect: Callable[..., Collected]
) -> None:
    server.put(raw("postfix-unknown-user"))
    collect()
    assert session.scalars(select(Message.smtp_reply)).one() == (
        "250 2.0.0 queued; came back: 550 5.1.1 <mia@dead.example>: Recipient address rejected: User unknown in virtual"
        " mailbox table"
    )


def test_a_run_that_ends_between_commit_and_mailbox_takes_nothing_twice(
    session: Session, server: ImapServer, warned: Member, collect: Callable[..., Collected]
) -> None:
    server.put(raw("postfix-unknown-user"))

    def committed_and_cut() -> None:
        session.commit()
        server.hang_up()

    with pytest.raises(MailboxAway):
        collect(committed_and_cut)
    assert (bounces_on_record(session), len(server.subjects())) == (1, 1)
    assert collect() == Collected(taken=1)
    assert (bounces_on_record(session), server.subjects()) == (1, [])


def test_a_run_that_ends_before_its_commit_loses_nothing(
    session: Session, server: ImapServer, warned: Member, collect: Callable[..., Collected]
) -> None:
    server.put(raw("postfix-unknown-user"))

    def killed() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(killed)
    session.rollback()
    assert (bounces_on_record(session), len(server.subjects())) == (0, 1)
    assert collect() == Collected(taken=1)
    assert bounces_on_record(session) == 1


def test_a_report_that_overtakes_our_own_record_waits_in_the_mailbox(
    session: Session, server: ImapServer, warned: Member, collect: Callable[..., Collected], clock: FrozenClock
) -> None:
    session.execute(update(Message).values(state="sending", lease_token="x", lease_until=NOW))
    session.commit()
    server.put(raw("postfix-unknown-user"), raw("arf-abuse"))
    assert collect() == Collected(later=2)
    session.execute(update(Message).values(state="sent", lease_token=None, lease_until=None))
    session.commit()
    assert collect() == Collected(taken=2)


def test_a_report_that_was_made_to_fail_stops_no_other(
    server: ImapServer, warned: Member, collect: Callable[..., Collected]
) -> None:
    made = raw("postfix-unknown-user").replace(b"message/delivery-status", b"message/global-delivery-status")
    server.put(made.replace(b"Reporting-MTA: ", b"Reporting-MTA: x\x1eArrival-Date: "), UNKNOWN, raw("arf-abuse"))
    assert collect() == Collected(taken=2, aside=1)
    assert warned.mail_state == "bounced"


def test_one_mail_that_cannot_be_taken_stops_no_other(
    session: Session,
    server: ImapServer,
    warned: Member,
    collect: Callable[..., Collected],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a mail must look like for that is not known: here reading one of them fails."""
    server.put(b"Subject: odd\n\n", raw("postfix-unknown-user"))
    read = collecting.bounce_mail.read

    def fails_at_odd(mail: bytes) -> object:
        if b"odd" in mail:
            raise ValueError("odd")
        return read(mail)

    monkeypatch.setattr(collecting.bounce_mail, "read", fails_at_odd)
    assert collect() == Collected(taken=1, aside=1)
    assert server.subjects("Aside") == ["odd"]


def test_a_run_that_is_asked_to_end_leaves_the_rest(
    session: Session, server: ImapServer, warned: Member, collect: Callable[..., Collected]
) -> None:
    server.put(raw("postfix-delayed"), raw("postfix-unknown-user"))
    assert collect(enough=iter([False, True]).__next__) == Collected(taken=1)
    assert collect() == Collected(taken=1)


def test_no_transaction_is_open_while_the_mailbox_is_talked_to(
    session: Session,
    server: ImapServer,
    warned: Member,
    collect: Callable[..., Collected],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.put(raw("postfix-unknown-user"), AWAY, raw("postfix-delayed"))
    open_in: list[str] = []

    def watched(step: str) -> None:
        real = getattr(ImapVisit, step)

        def watching(visit: object, what: object) -> object:
            if session.in_transaction():
                open_in.append(step)
            return real(visit, what)

        monkeypatch.setattr(ImapVisit, step, watching)

    for step in ("take_out", "put_aside", "_read"):
        watched(step)
    assert collect() == Collected(taken=2, aside=1)
    assert open_in == []


# The job


@pytest.fixture
def polled(database_url: str, tmp_path: Path, clock: FrozenClock, mailbox: ImapMailbox) -> Iterator[Flask]:
    settings = make_settings(database_url, tmp_path, bounce_address="bounces@lumio.example")
    app = create_app(settings, Ports(clock=clock, mailbox=mailbox))
    app.testing = True
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


def row() -> JobRun:
    db.session.rollback()
    return db.session.scalars(select(JobRun).where(JobRun.job == "collect-bounces")).one()


def test_the_job_looks_once_a_minute_whoever_asks(polled: Flask, server: ImapServer, clock: FrozenClock) -> None:
    runner.run_polled(polled, "collect-bounces")
    assert row().result == "0 taken, 0 put aside"
    server.put(AWAY)
    runner.run_polled(polled, "collect-bounces")
    assert server.subjects() == ["Out of office"]
    clock.tick(minutes=1)
    runner.run_polled(polled, "collect-bounces")
    assert (row().result, row().error) == ("0 taken, 1 put aside", None)


def test_a_mailbox_that_is_away_is_said_to_be_and_looked_at_again(
    polled: Flask, server: ImapServer, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polled.extensions["dormouse"].mailbox, "_password", "changed")
    for _ in range(3):
        with pytest.raises(MailboxAway):
            runner.run_polled(polled, "collect-bounces")
        clock.tick(minutes=10)
    assert "AUTHENTICATIONFAILED" in (row().error or "")
    monkeypatch.undo()
    runner.run_polled(polled, "collect-bounces")
    assert (row().error, row().attempts) == (None, 0)


def test_by_hand_it_is_run_at_once(polled: Flask, server: ImapServer) -> None:
    server.put(AWAY)
    cli = polled.test_cli_runner()
    assert cli.invoke(args=["jobs", "run", "collect-bounces"]).output == "collect-bounces: 0 taken, 1 put aside\n"
    assert cli.invoke(args=["jobs", "run", "collect-bounces"]).output == "collect-bounces: 0 taken, 0 put aside\n"
    assert "collect-bounces" in cli.invoke(args=["jobs", "list"]).output


def test_without_a_mailbox_there_is_nothing_to_look_into(app: Flask) -> None:
    cli = app.test_cli_runner()
    assert "BOUNCE_IMAP_SERVER is not set" in cli.invoke(args=["jobs", "run", "collect-bounces"]).output
    assert "collect-bounces" not in cli.invoke(args=["jobs", "list"]).output


def test_two_at_once_do_not_both_look(polled: Flask, clock: FrozenClock) -> None:
    db.session.add(
        JobRun(job="collect-bounces", period="queue", lease_token="another", lease_until=NOW + timedelta(minutes=1))
    )
    db.session.commit()
    runner.run_polled(polled, "collect-bounces")
    assert row().lease_token == "another"
    clock.tick(minutes=2)
    runner.run_polled(polled, "collect-bounces")
    assert row().result == "0 taken, 0 put aside"
