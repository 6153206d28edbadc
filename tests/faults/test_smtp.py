"""Mail servers at their worst, at the level where it counts: who has got which mail, who is warned, what is tried when.

What a single connection makes of each reply is in tests/adapters/test_smtp.py.
"""

import ssl
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from adapters.mail.smtp import SmtpMailer
from domain.notices import Kind
from models import Member, Message
from services import campaigns, outbox
from services.installation import installed
from services.mail import delivery
from services.mail.delivery import Delivered
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.faults.unkind import DROP, HANG, Moment, Stage, Unkind
from tests.services.support import case_of, close, kinds_to

HERE = Path(__file__).parent
SOON, PATIENTLY = 1.0, 60.0
"""The time limits of each step here, in seconds: of a server that hangs, and of one that a busy machine holds up."""


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What is recorded is recorded on both databases alike: tests/services/test_delivery.py."""
    return sqlite_url


def mailer(
    app: Flask,
    server: Unkind | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    timeout: float = PATIENTLY,
    **config: object,
) -> SmtpMailer:
    port = {} if server is None else {"MAIL_SERVER": "127.0.0.1", "MAIL_PORT": server.port}
    app.config.update({**port, **config})
    return SmtpMailer(app, timeout=timeout, tls=tls)


def deliver(session: Session, through: SmtpMailer) -> Delivered:
    here = installed()
    session.rollback()
    return delivery.deliver(session, here.settings, through, here.clock, session.commit, lambda: False)


def queue(session: Session, *addresses: str) -> None:
    for address in addresses:
        member = factories.member(session, email=address)
        outbox.put(session, kind=Kind.WELCOME_BACK, once_key=f"welcome_back:{member.id}", now=NOW, member=member)
    session.commit()


def found(session: Session, address: str = "mia@example.org") -> Message:
    session.rollback()
    row = session.scalars(select(Message).where(Message.to_address == address)).one()
    session.refresh(row)
    return row


def at_stage(stage: Stage, what: str, address: str = "mia@example.org") -> Callable[[Moment], str | None]:
    """Misbehave at a stage: before RCPT with everybody, from then on with one recipient only."""

    def decide(moment: Moment) -> str | None:
        early = stage in (Stage.GREETING, Stage.EHLO, Stage.MAIL)
        return what if moment.stage == stage and (early or moment.recipient == address) else None

    return decide


# The server is not there


@pytest.mark.parametrize("where", [("127.0.0.1", 1), ("mail.nowhere.invalid", 25), ("::1", 1)])
def test_a_server_that_cannot_be_reached_costs_nobody_an_attempt(
    app: Flask, session: Session, clock: FrozenClock, where: tuple[str, int]
) -> None:
    """Refused, or no such name; everything waits, and goes out when the server is back."""
    queue(session, *(f"m{number}@example.org" for number in range(60)))
    through = mailer(app, MAIL_SERVER=where[0], MAIL_PORT=where[1])
    done = deliver(session, through)
    assert (done.sent, done.failed) == (0, 0)
    assert done.server_down is not None
    assert f"{where[0]}:{where[1]}" in done.server_down
    session.rollback()
    assert set(session.execute(select(Message.state, Message.attempts)).all()) == {("queued", 0)}
    clock.tick(minutes=2)
    with Unkind() as server:
        assert deliver(session, mailer(app, server)).sent == 60
        assert len(server.kept) == 60


def test_while_a_server_is_down_a_run_asks_twice_and_leaves_the_rest_alone(app: Flask, session: Session) -> None:
    """The circuit: two messages tell that it is the server's fault; three hundred need not find out one by one."""
    queue(session, *(f"m{number}@example.org" for number in range(300)))
    with Unkind(lambda moment: "421 4.3.2 closing" if moment.stage == Stage.GREETING else None) as server:
        done = deliver(session, mailer(app, server))
        assert (done.sent, done.again, done.failed) == (0, 2, 0)
        assert "4.3.2 closing" in (done.server_down or "")
        assert server.connections == 2


# It hangs, or hangs up


@pytest.mark.parametrize("what", [HANG, DROP])
@pytest.mark.parametrize("stage", [Stage.GREETING, Stage.EHLO, Stage.MAIL])
def test_a_server_that_fails_before_any_recipient_is_away(
    app: Flask, session: Session, clock: FrozenClock, stage: Stage, what: str
) -> None:
    queue(session, "a@example.org", "mia@example.org", "z@example.org")
    with Unkind(at_stage(stage, what)) as server:
        done = deliver(session, mailer(app, server, timeout=SOON if what == HANG else PATIENTLY))
        assert (done.sent, done.failed) == (0, 0)
        assert done.server_down is not None
        server.decide = lambda moment: None
        clock.tick(minutes=2)
        assert deliver(session, mailer(app, server)) == Delivered(sent=3)
        assert sorted(to for to, _ in server.kept) == ["a@example.org", "mia@example.org", "z@example.org"]


@pytest.mark.parametrize("what", [HANG, DROP])
@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.DATA, Stage.DOT, Stage.KEPT])
def test_one_recipient_at_whom_the_line_is_lost_stops_nobody(
    app: Flask, session: Session, clock: FrozenClock, stage: Stage, what: str
) -> None:
    """The others go out on a new connection; hers is tried again later, with the same Message-ID."""
    queue(session, "a@example.org", "mia@example.org", "z@example.org")
    with Unkind(at_stage(stage, what)) as server:
        done = deliver(session, mailer(app, server, timeout=SOON if what == HANG else PATIENTLY))
        assert (done.sent, done.again, done.failed, done.server_down) == (2, 1, 0, None)
        message = found(session)
        assert (message.state, message.attempts) == ("queued", 1)
        assert message.due_at > NOW
        kept_before = server.to("mia@example.org")
        # Only a server that had kept it and could not say so gets it twice: SMTP has no once.
        assert kept_before == (1 if stage == Stage.KEPT else 0)
        server.decide = lambda moment: None
        clock.tick(minutes=10)
        assert deliver(session, mailer(app, server)) == Delivered(sent=1)
        mine = [text for to, text in server.kept if to == "mia@example.org"]
    assert len(mine) == kept_before + 1
    assert {_message_id(text) for text in mine} == {message.message_id}


def test_a_line_that_is_lost_after_the_reply_loses_and_doubles_nothing(app: Flask, session: Session) -> None:
    names = [f"m{number}@example.org" for number in range(6)]
    queue(session, *names)
    with Unkind(lambda moment: DROP if moment.stage == Stage.AFTER else None) as server:
        assert deliver(session, mailer(app, server)) == Delivered(sent=6)
        assert [to for to, _ in server.kept] == names
        assert server.connections == 6


def test_a_server_that_takes_thirty_messages_a_connection_gets_a_new_one(app: Flask, session: Session) -> None:
    names = [f"m{number}@example.org" for number in range(100)]
    queue(session, *names)
    too_many = "421 4.7.0 too many messages in this connection"
    with Unkind(lambda m: too_many if m.stage == Stage.MAIL and m.message > 30 else None) as server:
        assert deliver(session, mailer(app, server)) == Delivered(sent=100)
        assert [to for to, _ in server.kept] == names
        assert server.connections == 4


# It says no


@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.DATA, Stage.DOT])
@pytest.mark.parametrize(
    ("reply", "state"),
    [
        ("450 4.2.1 mailbox busy", "queued"),
        ("451 4.3.0 try again", "queued"),
        ("452 4.2.2 over quota", "queued"),
        ("550 5.1.1 no such user", "bounced"),
        ("552 5.2.2 mailbox full", "failed"),
        ("554 5.7.1 rejected", "failed"),
    ],
)
def test_a_refusal_is_on_record_and_stops_nobody(
    app: Flask, session: Session, stage: Stage, reply: str, state: str
) -> None:
    """For now: tried again later. For good: never again; of the address, and not of the text: a hard bounce."""
    queue(session, "a@example.org", "mia@example.org", "z@example.org")
    with Unkind(at_stage(stage, reply)) as server:
        done = deliver(session, mailer(app, server))
        assert (done.sent, done.server_down, server.connections) == (2, None, 1)
        assert [to for to, _ in server.kept] == ["a@example.org", "z@example.org"]
    message = found(session)
    if state == "bounced" and stage != Stage.RCPT:
        state = "failed"
    assert message.state == state
    assert message.smtp_reply == reply
    assert (message.due_at > NOW) == (state == "queued")
    # Nothing but her message waits: the server and the others are not held up for it.
    member = session.scalars(select(Member).where(Member.email == "mia@example.org")).one()
    assert member.mail_state == ("bounced" if state == "bounced" else "good")


def test_greylisting_delays_and_loses_nothing(app: Flask, session: Session, clock: FrozenClock) -> None:
    """Everybody is sent away at first sight, and let in when they come again."""
    names = [f"m{number}@example.org" for number in range(20)]
    queue(session, *names)
    with Unkind() as server:
        server.decide = lambda moment: (
            "450 4.7.1 greylisted, come again"
            if moment.stage == Stage.RCPT and server.tried.count(moment.recipient) == 1
            else None
        )
        assert deliver(session, mailer(app, server)) == Delivered(again=20)
        assert deliver(session, mailer(app, server)) == Delivered()
        clock.tick(minutes=5)
        assert deliver(session, mailer(app, server)) == Delivered(sent=20)
        assert sorted(to for to, _ in server.kept) == sorted(names)


def test_one_that_always_fails_among_hundreds_is_backed_off_alone(
    app: Flask, session: Session, clock: FrozenClock
) -> None:
    queue(session, *(f"m{number}@example.org" for number in range(150)), "mia@example.org")
    queue(session, *(f"n{number}@example.org" for number in range(150)))
    waits = []
    with Unkind(at_stage(Stage.RCPT, "451 4.3.0 never")) as server:
        assert deliver(session, mailer(app, server)) == Delivered(sent=300, again=1)
        for _ in range(6):
            message = found(session)
            waits.append(message.due_at - clock.now())
            clock.travel(message.due_at)
            assert deliver(session, mailer(app, server)) == Delivered(again=1)
        assert server.to("mia@example.org") == 0
        assert len({to for to, _ in server.kept}) == 300
        assert len(server.kept) == 300
    assert all(later > earlier for earlier, later in pairwise(waits))
    assert max(waits) <= timedelta(hours=6)


# Encryption


@pytest.mark.parametrize(("certificate", "why"), [("expired.pem", "expired"), ("another-name.pem", "127.0.0.1")])
def test_a_certificate_that_is_expired_or_of_somebody_else_gets_no_mail(
    app: Flask, session: Session, certificate: str, why: str
) -> None:
    """Also where its signer is trusted; nobody is warned, and nothing counts against a member."""
    queue(session, "mia@example.org", "z@example.org")
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(HERE / certificate)
    trusting = ssl.create_default_context(cafile=HERE / certificate)
    with Unkind(tls=theirs) as server:
        done = deliver(session, mailer(app, server, tls=trusting, MAIL_USE_SSL=True))
        assert server.kept == []
    assert "certificate" in (done.server_down or "")
    assert why in (done.server_down or "")
    assert (found(session).state, found(session).attempts) == ("queued", 0)


# And the promise


def test_a_warning_that_is_accepted_too_late_moves_the_deadline_and_never_the_member(
    app: Flask, session: Session, settings: Settings, clock: FrozenClock
) -> None:
    """Weeks of a server that is away, then one that greylists: whoever was not warned in time does not lapse."""
    factories.live_feed(session, NOW)
    intime, late, never = (
        factories.dormant(session, email=f"{name}@example.org") for name in ("intime", "late", "never")
    )
    session.commit()
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    with Unkind() as server:
        server.decide = lambda moment: (
            "451 4.3.0 later" if moment.stage == Stage.RCPT and not moment.recipient.startswith("intime") else None
        )
        assert deliver(session, mailer(app, server)) == Delivered(sent=1, again=2)
        clock.tick(days=20)
        server.decide = lambda moment: (
            "451 4.3.0 later" if moment.stage == Stage.RCPT and moment.recipient.startswith("never") else None
        )
        deliver(session, mailer(app, server))
        clock.travel(NOW + timedelta(days=28))
        close(session, settings, clock.now())
        assert [member.status for member in _anew(session, intime, late, never)] == ["lapsed", "active", "active"]
        assert case_of(session, late).deadline_at > case_of(session, intime).deadline_at  # type: ignore[operator]
        assert case_of(session, never).warned_at is None
        deliver(session, mailer(app, server))
        clock.travel(NOW + timedelta(days=60))
        close(session, settings, clock.now())
        assert [member.status for member in _anew(session, late, never)] == ["lapsed", "active"]
    assert "warning" in kinds_to(session, never)


def _anew(session: Session, *members: Member) -> list[Member]:
    session.rollback()
    return [session.get_one(Member, member.id, populate_existing=True) for member in members]


def _message_id(text: bytes) -> str:
    return next(
        line.partition(b":")[2].strip().decode()
        for line in text.splitlines()
        if line.lower().startswith(b"message-id:")
    )
