"""Several connections at once: what one of them does, or meets, changes nothing of what is promised of each mail."""

import socket
import sqlite3
import threading
from _thread import start_new_thread
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any, Self

import pytest
from flask import Flask
from sqlalchemy import Engine, NullPool, create_engine, func, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from adapters.mail.smtp import SmtpMailer
from domain.notices import Kind
from domain.ports import MailResult
from models import Campaign, Event, Message, db, for_writing
from services import campaigns, outbox
from services.installation import installed
from services.mail import delivery, dispatch, letters
from services.mail.delivery import Delivered
from services.mail.desk import Desk, Ready
from services.mail.lines import Hands, Line, Lines
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.faults.unkind import DROP, Moment, Stage, Unkind

LINES = 6


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Iterator[Flask]:
    app = make_app(mail_connections=LINES)
    with app.app_context():
        yield app


@pytest.fixture
def session(app: Flask) -> Session:
    return db.session()


def deliver(
    session: Session,
    server: Unkind,
    *,
    commit: Callable[[], None] | None = None,
    enough: Callable[[], bool] | None = None,
    time_limit: float = 60,
) -> Delivered:
    here = installed()
    app = Flask("mail")
    app.config.update(here.settings.flask_config() | {"MAIL_SERVER": "127.0.0.1", "MAIL_PORT": server.port})
    with app.app_context():
        mailer = SmtpMailer(app, timeout=time_limit)
    session.rollback()
    return delivery.deliver(
        session, here.settings, mailer, here.clock, commit or session.commit, enough or (lambda: False)
    )


def queue(session: Session, count: int) -> list[str]:
    names = [f"m{number}@example.org" for number in range(count)]
    for name in names:
        member = factories.member(session, email=name)
        outbox.put(session, kind=Kind.WELCOME_BACK, once_key=f"w:{member.id}", now=NOW, member=member)
    session.commit()
    return names


def states(session: Session) -> Counter[tuple[str, int]]:
    session.rollback()
    return Counter((state, attempts) for state, attempts in session.execute(select(Message.state, Message.attempts)))


def recipients(server: Unkind) -> list[str]:
    return sorted(to for to, _ in server.kept)


def test_all_lines_work_and_each_mail_goes_out_once(session: Session) -> None:
    names = queue(session, 80)
    with Unkind() as server:
        assert deliver(session, server) == Delivered(sent=80)
        assert recipients(server) == sorted(names)
        assert 2 <= server.connections <= LINES
    assert states(session) == {("sent", 1): 80}


def test_a_connection_that_is_opened_again_needs_no_new_thread(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To begin one takes as long as to word some mails."""
    queue(session, 120)
    begun: list[Hands] = []
    ended = threading.Semaphore(0)
    apart: list[Line] = []
    send, go_on = Line.send_apart, Hands._go_on

    def sends_apart(line: Line) -> None:
        apart.append(line)
        send(line)

    def to_its_end(hands: Hands, work: Callable[[], None]) -> None:
        begun.append(hands)
        go_on(hands, work)
        ended.release()

    monkeypatch.setattr(Line, "send_apart", sends_apart)
    monkeypatch.setattr(Hands, "_go_on", to_its_end)
    enough = "421 4.7.0 that was enough for this connection"
    with Unkind(lambda moment: enough if moment.stage == Stage.MAIL and moment.message > 2 else None) as server:
        assert deliver(session, server) == Delivered(sent=120)
    assert len(apart) >= 40
    # Beside those that are at work there may be as many that are nearly free.
    assert len(begun) <= 2 * LINES
    for _ in begun:
        assert ended.acquire(timeout=20)


class Slow:
    """A mailer whose sessions send by a thread, each until it is let go; ``seen`` is what has happened to them."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.sends = threading.Event()
        self.go = threading.Event()

    def connect(self) -> Self:
        return self

    prepare = written = begin = lambda *_: None

    def send(self, mail: object) -> MailResult:
        self.seen.append("begins to send")
        self.sends.set()
        assert self.go.wait(20)
        self.seen.append("has sent")
        return MailResult(accepted=True, code=250, reply="250 2.0.0 Ok")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.seen.append("says goodbye")


def test_no_line_says_goodbye_in_the_middle_of_what_it_sends() -> None:
    mailer: Any = Slow()
    with Lines(mailer, 1) as lines:
        lines.send("it", "a mail")
        assert mailer.sends.wait(20)
        lines.say_goodbye()
        # What is begun after the goodbye is over: so is that, if it has waited for nothing.
        after = threading.Event()
        lines._hands.do(after.set)
        assert after.wait(20)
        mailer.go.set()
    assert mailer.seen == ["begins to send", "has sent", "says goodbye"]


def test_what_is_watched_besides_is_looked_at_when_it_begins_and_when_it_has_something() -> None:
    mailer: Any = Slow()
    here, there = socket.socketpair()
    with here, there, Lines(mailer, 1) as lines:
        lines.watch(here.fileno())
        assert [lines.has_news(), lines.has_news()] == [True, False], "what has been read from it already shows no more"
        assert not lines.go_on()
        assert not lines.has_news()
        there.send(b"!")
        assert lines.go_on()
        assert lines.has_news()
        lines.ring()
        here.recv(1)
        assert lines.go_on()
        assert not lines.has_news()


@pytest.mark.parametrize(
    ("replies", "in_use", "rendered", "waits"),
    [(2, 5, 2, True), (2, 4, 2, False), (2, 5, 1, False), (2, 5, 0, False)],
    ids=["most lines wait for the server", "half of them", "one mail is not worded", "none is claimed"],
)
def test_where_only_the_record_is_waited_for_nothing_is_begun_that_takes_longer(
    session: Session, monkeypatch: pytest.MonkeyPatch, replies: int, in_use: int, rendered: int, waits: bool
) -> None:
    queue(session, 2)
    claimed = dispatch.claim(session, installed().settings, NOW, 2)
    session.rollback()
    waited: list[float] = []
    lines: Any = SimpleNamespace(in_use=in_use, go_on=waited.append)
    desk: Any = SimpleNamespace(works_apart=True)
    run = delivery._Run(installed().settings, FrozenClock(NOW), desk, lines)
    begun: list[str] = []
    monkeypatch.setattr(run, "_prepare", lambda: begun.append("something") or True)
    run._recording = [None] * replies  # type: ignore[list-item]
    if rendered:
        run._stock.extend(Ready(one, NOW, "a mail" if place < rendered else None) for place, one in enumerate(claimed))
    run._do_something_else(to_the_end=False)
    assert (waited, begun) == (([delivery.LOOK_EVERY], []) if waits else ([], ["something"]))


def test_where_no_thread_can_be_begun_the_run_ends_with_that(monkeypatch: pytest.MonkeyPatch) -> None:
    mailer: Any = Slow()
    refusals = iter([False, True])
    ended: list[str] = []

    def begin(work: Callable[..., object], given: tuple[Any, ...]) -> int:
        if next(refusals, False):
            mailer.go.set()
            raise RuntimeError("can't start new thread")
        return start_new_thread(work, given)

    def run() -> None:
        try:
            with Lines(mailer, 2) as lines:
                lines.all_is_well(0)
                lines.send("one", "a mail")
                assert mailer.sends.wait(20)
                lines.send("another", "a mail")
        except RuntimeError as error:
            ended.append(str(error))

    monkeypatch.setattr("services.mail.lines.start_new_thread", begin)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert ended == ["can't start new thread"]
    assert mailer.seen.count("says goodbye") == 2


@pytest.fixture
def another(database_url: str) -> Engine:
    """The database as somebody else sees it; any wait for a lock is over after twenty seconds."""
    sqlite = database_url.startswith("sqlite")
    within = {"timeout": 20} if sqlite else {"options": "-c lock_timeout=20s"}
    return create_engine(database_url, poolclass=NullPool, connect_args=within)


def test_no_line_sends_another_before_what_it_sent_is_on_record(session: Session, another: Engine) -> None:
    """Design promise 5, asked by the server itself: at each MAIL it looks into the database."""
    queue(session, 60)
    by_line: dict[int, list[str]] = defaultdict(list)
    early: list[str] = []

    def look(moment: Moment) -> None:
        if moment.stage == Stage.KEPT:
            by_line[moment.connection].append(moment.recipient)
        if moment.stage == Stage.MAIL and by_line[moment.connection]:
            last = by_line[moment.connection][-1]
            with another.connect() as other:
                state = other.scalar(text("SELECT state FROM message WHERE to_address = :last"), {"last": last})
            if state != "sent":
                early.append(last)

    with Unkind(look) as server:
        assert deliver(session, server).sent == 60
    assert early == []
    assert max(map(len, by_line.values())) > 1


def test_no_transaction_waits_for_a_server(session: Session, another: Engine) -> None:
    """Before each reply the server writes into the database: it would wait for ever for who waits for it."""
    queue(session, 30)
    locked: list[OperationalError] = []
    all_of_it = "BEGIN IMMEDIATE" if another.dialect.name == "sqlite" else "LOCK TABLE message IN EXCLUSIVE MODE"

    def write(moment: Moment) -> None:
        with another.connect() as other:
            try:
                other.exec_driver_sql(all_of_it)
            except OperationalError as error:
                locked.append(error)
            other.rollback()

    with Unkind(write) as server:
        assert deliver(session, server, time_limit=60).sent == 30
    assert locked == []


def test_a_server_that_takes_two_connections_gets_two_and_nobody_is_the_worse(session: Session) -> None:
    names = queue(session, 50)
    too_many = "421 4.7.0 too many connections from your host"
    with Unkind(lambda m: too_many if m.stage == Stage.GREETING and m.connection > 2 else None) as server:
        assert deliver(session, server) == Delivered(sent=50)
        assert recipients(server) == sorted(names)
    assert states(session) == {("sent", 1): 50}


@pytest.mark.parametrize("what", [DROP, "421 4.3.2 shutting down"])
def test_a_server_that_goes_away_in_the_middle_costs_nobody_an_attempt(
    session: Session, clock: FrozenClock, what: str
) -> None:
    names = queue(session, 60)
    with Unkind() as server:
        server.decide = lambda moment: (
            what if len(server.kept) >= 20 and moment.stage in (Stage.GREETING, Stage.MAIL) else None
        )
        done = deliver(session, server)
        assert done.server_down is not None
        assert (done.sent, done.failed) == (len(server.kept), 0)
        assert states(session)["queued", 0] == 60 - done.sent
        server.decide = lambda moment: None
        clock.tick(minutes=2)
        assert deliver(session, server) == Delivered(sent=60 - done.sent)
        assert recipients(server) == sorted(names)


def test_one_message_that_cuts_its_line_stops_no_other_line(session: Session) -> None:
    queue(session, 40)
    with Unkind(
        lambda moment: DROP if moment.stage == Stage.DOT and moment.recipient == "m7@example.org" else None
    ) as server:
        assert deliver(session, server) == Delivered(sent=39, again=1)
    assert states(session) == {("sent", 1): 39, ("queued", 1): 1}


def test_what_was_sent_is_written_down_although_the_first_try_to_do_so_fails(
    session: Session, another: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a deadlock, say, or as the line to the database is cut: were it lost, mails would go out again."""
    names = queue(session, 40)
    sqlite = another.dialect.name == "sqlite"
    # All of it by the session, whose commit can be made to fail.
    monkeypatch.setattr("services.mail.desk.MANY", 41)
    failed_at: list[int] = []

    def commit() -> None:
        sent = len(session.scalars(select(Message.id).where(Message.state == "sent")).all()) if sqlite else 0
        if sent and (not failed_at or sent > failed_at[-1] + 10):
            failed_at.append(sent)
            raise OperationalError("COMMIT", {}, Exception("deadlock detected"))
        session.commit()

    def cut(moment: Moment) -> None:
        # The line of groups is there once several have been answered at once; from then on, every ten mails.
        if moment.stage == Stage.KEPT and len(server.kept) > 10 * len(failed_at) and not sqlite:
            with another.connect() as other:
                found = other.scalars(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                        " AND application_name LIKE 'dormouse:%'"
                    )
                )
                failed_at.extend(found)

    with Unkind(cut) as server:
        assert deliver(session, server, commit=commit) == Delivered(sent=40)
        assert recipients(server) == sorted(names)
    assert len(failed_at) > (1 if sqlite else 0)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_while_another_process_writes_mails_are_worded(
    session: Session, another: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite, where one at a time can write. More is worded then than is needed next."""
    names = queue(session, 40)
    compose_all = letters.compose_all
    worded: list[int] = []
    path = str(another.url.database)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as writer, Unkind() as server:

        def lock(moment: Moment) -> None:
            if moment.stage == Stage.KEPT and len(server.kept) == 10:
                worded.clear()
                writer.execute("BEGIN IMMEDIATE")

        def counted(settings: Any, several: Any, now: Any) -> Any:
            worded.append(len(several))
            if writer.in_transaction and sum(worded) > 2 * LINES:
                writer.execute("ROLLBACK")
            return compose_all(settings, several, now)

        monkeypatch.setattr(letters, "compose_all", counted)
        server.decide = lock
        assert deliver(session, server) == Delivered(sent=40)
        assert recipients(server) == sorted(names)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_no_reply_waits_for_a_claim_to_be_written_down(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """On SQLite the thread that sends does both."""
    queue(session, 200)
    claim = delivery._Run._claim
    left: list[int] = []

    def looked_at(run: delivery._Run) -> None:
        if run._stock:
            left.append(len(run._to_record))
        claim(run)

    monkeypatch.setattr(delivery._Run, "_claim", looked_at)
    with Unkind() as server:
        assert deliver(session, server) == Delivered(sent=200)
    assert left
    assert not any(left)


def test_of_replies_that_are_not_alike_each_has_a_second_try_too(session: Session) -> None:
    """One has lost its lease, so each is written down by itself; then there is a deadlock."""
    here = installed()
    names = queue(session, 4)
    claimed = dispatch.claim(session, here.settings, NOW, 10)
    session.commit()
    session.execute(update(Message).where(Message.to_address == names[3]).values(lease_token="another's"))
    session.commit()
    commits: list[int] = []

    def commit() -> None:
        commits.append(len(commits))
        if len(commits) == 2:
            raise OperationalError("COMMIT", {}, Exception("deadlock detected"))
        session.commit()

    accepted = MailResult(accepted=True, code=250, reply="250 OK")
    with Desk(session, here.settings, here.clock, commit) as desk:
        desk.record([(one, accepted) for one in claimed])
    assert states(session) == {("sent", 1): 3, ("sending", 1): 1}
    assert len(session.scalars(select(Event.id).where(Event.code == "mail_accepted")).all()) == 3


def test_one_that_cannot_be_written_down_keeps_no_other_from_it(session: Session) -> None:
    here = installed()
    names = queue(session, 4)
    claimed = dispatch.claim(session, here.settings, NOW, 10)
    session.commit()

    def commit() -> None:
        if session.scalar(select(Message.state).where(Message.to_address == names[1])) == "sent":
            raise OperationalError("COMMIT", {}, Exception("disk I/O error"))
        session.commit()

    accepted = MailResult(accepted=True, code=250, reply="250 OK")
    with (
        Desk(session, here.settings, here.clock, commit) as desk,
        pytest.raises(OperationalError, match="disk I/O error"),
    ):
        desk.record([(one, accepted) for one in claimed])
    assert states(session) == {("sent", 1): 3, ("sending", 1): 1}


def test_a_reply_does_not_wait_for_all_that_cannot_be_rendered(session: Session, monkeypatch: Any) -> None:
    [good] = queue(session, 1)
    operator = factories.operator(session, email="operator@example.org")
    # No program writes such a month; a hand in the database might.
    broken = Campaign(month="2026-13", state="draft", policy={}, drafted_at=NOW, dormant_count=1)
    session.add(broken)
    session.flush()
    for number in range(400):
        outbox.put(
            session, kind=Kind.CAMPAIGN_READY, once_key=f"c:{number}", now=NOW, operator=operator, campaign=broken
        )
    session.execute(update(Message).where(Message.to_address == good).values(priority=0))
    session.commit()
    begin_record = Desk.begin_record
    failed_before: list[int] = []

    def counting(desk: Desk, answered: Any) -> Any:
        with db.engine.connect() as another:
            failed = select(func.count()).select_from(Message).where(Message.state == "failed")
            failed_before.append(another.execute(failed).scalar_one())
        return begin_record(desk, answered)

    monkeypatch.setattr(Desk, "begin_record", counting)
    with Unkind() as server:
        assert deliver(session, server) == Delivered(sent=1, failed=400)
    assert failed_before[0] < 200


def test_when_the_budget_is_over_what_is_under_way_is_recorded_and_the_rest_given_back(session: Session) -> None:
    queue(session, 60)
    with Unkind() as server:
        done = deliver(session, server, enough=lambda: len(server.kept) >= 15)
        assert 15 <= done.sent == len(server.kept) <= 15 + LINES
    assert states(session) == {("sent", 1): done.sent, ("queued", 0): 60 - done.sent}


def test_of_a_round_that_is_held_no_more_goes_out_than_is_on_its_way(make_app: Callable[..., Flask]) -> None:
    app, operators = (make_app(mail_connections=LINES, max_dormant_percent=100) for _ in range(2))
    held_at: list[int] = []

    def hold() -> bool:
        if len(server.kept) >= 15 and not held_at:
            with operators.app_context():
                for_writing(db.session())
                campaigns.hold(db.session(), installed().settings, "2026-06", NOW)
                db.session.commit()
            held_at.append(len(server.kept))
        return False

    with app.app_context(), Unkind() as server:
        session, settings = db.session(), installed().settings
        for number in range(60):
            factories.dormant(session, external_id=f"d{number}", email=f"d{number}@example.org")
        factories.live_feed(session, NOW)
        campaigns.draft(session, settings, "2026-06", NOW)
        campaigns.approve(session, settings, "2026-06", NOW)
        session.commit()
        done = deliver(session, server, enough=hold)
        assert held_at[0] <= done.sent == len(server.kept) <= held_at[0] + LINES
        assert states(session) == {("sent", 1): done.sent, ("queued", 0): 60 - done.sent}
        campaigns.release(session, settings, "2026-06", NOW)
        session.commit()
        assert deliver(session, server) == Delivered(sent=60 - done.sent)


def test_what_was_claimed_before_a_hold_and_not_taken_yet_goes_back(make_app: Callable[..., Flask]) -> None:
    """A thread that claims may be ahead of the one that sends: the hold is heard of before the batch is in hand."""
    app = make_app(mail_connections=LINES, max_dormant_percent=100)
    with app.app_context():
        session, here = db.session(), installed()
        for number in range(8):
            factories.dormant(session, external_id=f"d{number}", email=f"d{number}@example.org")
        factories.live_feed(session, NOW)
        campaigns.draft(session, here.settings, "2026-06", NOW)
        campaigns.approve(session, here.settings, "2026-06", NOW)
        session.commit()
        with (
            delivery.Lines(here.mailer, LINES) as lines,
            Desk(session, here.settings, here.clock, session.commit) as desk,
        ):
            run = delivery._Run(here.settings, here.clock, desk, lines)
            run._only(frozenset({1}))
            run._claim()
            assert run._claiming is not None
            run._claiming.result()
            assert session.scalars(select(Message.state).distinct()).all() == ["sending"]

            def hold() -> frozenset[int]:
                session.rollback()
                for_writing(session)
                campaigns.hold(session, here.settings, "2026-06", NOW)
                still_open = dispatch.open_rounds(session)
                session.commit()
                return still_open

            run._only(hold())
            assert not run._stock
        assert states(session) == {("queued", 0): 8}
