"""Statements that PostgreSQL works at while who asked them does something else."""

import os
import select as system
import socket
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection, Engine, String, bindparam, column, create_engine, func, literal, select, table, text
from sqlalchemy.exc import DBAPIError

from adapters.mail.smtp import SmtpMailer
from domain.ports import MailResult
from models import Event, Message, db
from models.under_way import Rows, UnderWay
from services.installation import installed
from services.mail import dispatch
from services.mail.delivery import deliver
from services.mail.desk import Desk
from tests.conftest import NOW
from tests.faults.unkind import Unkind
from tests.services.support import ACCEPTED, written
from tests.services.test_lines import queue

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

NOTES = table("notes", column("word"))
SAYS = bindparam("says", type_=String())
WRITE = NOTES.insert().values(word=SAYS).returning(NOTES.c.word)
READ = select(NOTES.c.word, literal("100 %"), func.length(SAYS)).order_by(NOTES.c.word)


PREPARED = text("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'dormouse%'")
OF_THAT_NAME = "SELECT count(*) FROM pg_stat_activity WHERE application_name = :name AND datname = current_database()"


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Iterator[Flask]:
    app = make_app(mail_connections=6)
    with app.app_context():
        yield app


@pytest.fixture
def paper(app: Flask) -> Engine:
    with db.engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (word varchar CHECK (word <> 'wrong'))"))
    return db.engine


@pytest.fixture
def notes(paper: Engine) -> Iterator[UnderWay]:
    notes = UnderWay(paper, "notes", [WRITE, READ])
    yield notes
    notes.close()


def asked(under_way: UnderWay, **values: Any) -> list[Rows | None]:
    under_way.ask(values)
    while not under_way.is_over():
        system.select([under_way.fileno()], [], [], 60)
    return under_way.answers


def test_each_sees_what_the_one_before_has_done_and_they_can_be_asked_again(notes: UnderWay) -> None:
    assert asked(notes, says="a %s") == [[("a %s",)], [("a %s", "100 %", "4")]]
    assert asked(notes, says="zß") == [[("zß",)], [("a %s", "100 %", "2"), ("zß", "100 %", "2")]]
    assert asked(notes, says=None) == [
        [(None,)],
        [("a %s", "100 %", None), ("zß", "100 %", None), (None, "100 %", None)],
    ]


def state(connection: Connection) -> tuple[Any, ...]:
    line = connection.connection.driver_connection.pgconn  # type: ignore[union-attr]
    settings = [connection.scalar(text(f"SHOW {name}")) for name in ("application_name", "enable_seqscan")]
    return (line.nonblocking, line.pipeline_status, *settings)


def test_who_asks_the_same_next_finds_it_prepared_and_others_find_the_connection_as_it_was(paper: Engine) -> None:
    with paper.connect() as before:
        as_it_was = state(before)
    notes = UnderWay(paper, "notes", [WRITE, READ])
    asked(notes, says="first")
    backend = notes._line.backend_pid
    notes.close()
    with paper.connect() as other:
        assert other.scalar(text("SELECT pg_backend_pid()")) == backend
        assert state(other) == as_it_was
        other.execute(NOTES.insert().values(word="second"))
        other.commit()
        assert other.scalar(PREPARED) == 2
    again = UnderWay(paper, "notes", [READ, WRITE])
    assert again._line.backend_pid == backend
    assert asked(again, says="third") == [[("first", "100 %", "5"), ("second", "100 %", "5")], [("third",)]]
    again.close()
    with paper.connect() as other:
        assert other.scalar(PREPARED) == 2
        # So does psycopg where a transaction is rolled back.
        other.exec_driver_sql("DEALLOCATE ALL")
        other.commit()
    again = UnderWay(paper, "notes", [READ])
    assert len(asked(again, says=None)[0] or ()) == 3
    again.close()


def test_where_one_has_failed_the_next_begins_anew(paper: Engine) -> None:
    """What was prepared may not fit the tables any more."""
    answers = []
    for _ in range(3):
        notes = UnderWay(paper, "notes", [READ])
        answers += asked(notes, says="x")
        notes.close()
        with paper.begin() as another:
            another.execute(text("ALTER TABLE notes ALTER word TYPE char(9)"))
    assert answers == [[], None, []]


def test_a_plan_that_was_made_while_tables_were_small_goes_by_indexes(app: Flask) -> None:
    """It is kept until PostgreSQL has looked at them once more, and a first round may have gone out by then."""
    session, here = db.session(), installed()
    queue(session, 30)
    session.execute(text("ANALYZE message, member, member_case"))
    session.commit()
    with Desk(session, here.settings, here.clock, session.commit) as desk:
        for _ in range(10):
            claimed = dispatch.claim(session, here.settings, NOW, 3)
            session.commit()
            written(desk, [(one, ACCEPTED) for one in claimed])
        (record, *_), line = desk._apart._statements, desk._apart._line
        line.exit_pipeline_mode()
        plan = line.exec_(f"EXPLAIN EXECUTE {record.name}({', '.join(['NULL'] * len(record.parameters))})".encode())
        line.enter_pipeline_mode()
    lines = [plan.get_value(row, 0).decode() for row in range(plan.ntuples)]
    # Plainly or by a bitmap, as its few pages come out.
    assert any("pk_message" in said for said in lines), "\n".join(lines)
    assert not [said for said in lines if "Seq Scan on me" in said]


def test_where_its_statements_cannot_be_prepared_the_connection_is_the_pools_again(app: Flask) -> None:
    with pytest.raises(DBAPIError, match="nothing"):
        UnderWay(db.engine, "notes", [select(table("nothing", column("word")).c.word)])
    assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_it_is_seen_by_its_name(notes: UnderWay) -> None:
    found = text(OF_THAT_NAME).bindparams(name="notes")
    with db.engine.connect() as another:
        assert another.scalar(found) == 1


def test_one_that_fails_has_done_nothing_and_stops_no_other(notes: UnderWay) -> None:
    assert asked(notes, says="wrong") == [None, []]
    assert not notes.is_lost
    assert asked(notes, says="right") == [[("right",)], [("right", "100 %", "5")]]


def test_what_is_more_than_the_line_takes_at_once_is_asked_all_the_same(notes: UnderWay) -> None:
    much = "x" * 5_000_000
    assert asked(notes, says=much) == [[(much,)], [(much, "100 %", "5000000")]]


def test_a_connection_that_is_lost_is_over_before_and_after_it_is_asked(notes: UnderWay) -> None:
    with db.engine.connect() as another, another.begin():
        another.execute(text("LOCK TABLE notes"))
        notes.ask({"says": "waits"})
        assert not notes.is_over()
        cut_off(another)
        while not notes.is_over():
            system.select([notes.fileno()], [], [], 60)
    assert notes.is_lost
    assert notes.answers == [None, None]
    assert asked(notes, says="again") == [None, None]


def test_what_fails_when_it_is_committed_has_failed(app: Flask) -> None:
    """It has answered by then."""
    with db.engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (word varchar UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
        connection.execute(text("INSERT INTO notes VALUES ('twice')"))
    notes = UnderWay(db.engine, "notes", [WRITE, READ])
    assert asked(notes, says="twice") == [None, [("twice", "100 %", "5")]]
    assert asked(notes, says="once")[0] == [("once",)]
    notes.close()


def test_it_is_closed_whatever_is_under_way(app: Flask, notes: UnderWay, caplog: pytest.LogCaptureFixture) -> None:
    others = UnderWay(db.engine, "others", [WRITE])
    with db.engine.connect() as another, another.begin():
        another.execute(text("LOCK TABLE notes"))
        others.ask({"says": "waits"})
        others.close()
    assert caplog.text == ""
    found = text(OF_THAT_NAME).bindparams(name="others")
    until = monotonic() + 60
    with db.engine.connect() as another:
        while another.scalar(found):
            another.rollback()
            assert monotonic() < until


def cut(under_way: UnderWay) -> None:
    """The line is gone, without a word."""
    with socket.socket(fileno=os.dup(under_way.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def cut_off(connection: Any) -> None:
    """All others that use the same database."""
    connection.execute(
        text(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    )


@pytest.mark.parametrize("how", ["told before", "gone before", "told while it waits", "gone while it waits"])
def test_what_was_asked_of_a_connection_that_is_lost_is_written_down_on_another(
    app: Flask, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """What was refused, too."""
    session, here = db.session(), installed()
    queue(session, 6)
    groups = [dispatch.claim(session, here.settings, NOW, 3) for _ in range(2)]
    session.commit()
    ask = UnderWay.ask

    def lost(under_way: UnderWay, values: Any) -> None:
        with db.engine.connect() as another, another.begin():
            if "waits" in how:
                another.execute(select(Message.id).with_for_update())
                ask(under_way, values)
            if "gone" in how:
                cut(under_way)
            cut_off(another)
            if "waits" not in how:
                ask(under_way, values)
        monkeypatch.setattr(UnderWay, "ask", ask)

    monkeypatch.setattr(UnderWay, "ask", lost)
    refused = MailResult(accepted=False, code=550, reply="550 no", permanent=True)
    with Desk(session, here.settings, here.clock, session.commit) as desk:
        for *accepted, other in groups:
            assert written(desk, [*((one, ACCEPTED) for one in accepted), (other, refused)]) == frozenset()
    states = sorted(session.scalars(select(Message.state)))
    assert states == ["failed"] * 2 + ["sent"] * 4
    assert len(session.scalars(select(Event.id).where(Event.code == "mail_accepted")).all()) == 4


def test_where_the_claims_cannot_end_well_what_writes_replies_down_is_closed_all_the_same(app: Flask) -> None:
    """Else it would go back to the pool as it is, for whoever comes next."""
    session, here = db.session(), installed()
    queue(session, 4)
    claimed = dispatch.claim(session, here.settings, NOW, 4)
    session.commit()
    ended: list[str] = []

    def cannot() -> None:
        ended.append("claims")
        raise ZeroDivisionError

    desk = Desk(session, here.settings, here.clock, session.commit)
    written(desk, [(one, ACCEPTED) for one in claimed])
    desk._of_claims.close = cannot  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        desk.__exit__()
    session.rollback()
    assert (ended, db.engine.pool.checkedout()) == (["claims"], 0)  # type: ignore[attr-defined]


def test_a_line_that_is_gone_is_not_watched(app: Flask) -> None:
    """Its number may be that of another line by then."""
    session, here = db.session(), installed()
    queue(session, 4)
    first, second = (dispatch.claim(session, here.settings, NOW, 2) for _ in range(2))
    session.commit()
    with Desk(session, here.settings, here.clock, session.commit) as desk:
        written(desk, [(one, ACCEPTED) for one in first])
        cut(desk._apart)
        assert desk.begin_record([(one, ACCEPTED) for one in second]) is None


def test_where_no_more_connections_are_to_be_had_those_there_are_will_do(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, here = db.session(), installed()
    queue(session, 4)
    claimed = dispatch.claim(session, here.settings, NOW, 4)
    session.commit()
    nowhere = create_engine("postgresql+psycopg:///?host=/nowhere")
    tried: list[str] = []

    def connect(under_way: UnderWay, engine: Any, name: str, statements: Any) -> None:
        tried.append(name)
        nowhere.connect()

    monkeypatch.setattr(UnderWay, "__init__", connect)
    with Desk(session, here.settings, here.clock, session.commit) as desk:
        for group in (claimed[:2], claimed[2:]):
            assert written(desk, [(one, ACCEPTED) for one in group]) == frozenset()
    assert session.scalars(select(Message.state)).all() == ["sent"] * 4
    assert len(tried) == 1, "to wait for a free one takes long"


def test_the_pool_gives_out_what_was_used_last(app: Flask) -> None:
    with db.engine.connect() as first, db.engine.connect() as second:
        backends = [connection.scalar(text("SELECT pg_backend_pid()")) for connection in (first, second)]
        second.close()
        first.close()
    with db.engine.connect() as again:
        assert again.scalar(text("SELECT pg_backend_pid()")) == backends[0]


@pytest.mark.parametrize(("mails", "opened"), [(1, 0), (2, 1)])
def test_for_a_single_mail_no_other_connection_is_taken(
    app: Flask, monkeypatch: pytest.MonkeyPatch, mails: int, opened: int
) -> None:
    """To sign in, say. Where there are more, it is taken for the first of them: nobody waits for another way."""
    session, here = db.session(), installed()
    queue(session, mails)
    sizes: list[int] = []
    ask = UnderWay.ask

    def asking(under_way: UnderWay, values: Any) -> None:
        sizes.append(values["messages"])
        ask(under_way, values)

    monkeypatch.setattr(UnderWay, "ask", asking)
    with Unkind() as server:
        app.config.update(MAIL_SERVER="127.0.0.1", MAIL_PORT=server.port)
        session.rollback()
        assert deliver(session, here.settings, SmtpMailer(app), here.clock, session.commit, lambda: False).sent == mails
    assert sizes[:1] == [1] * opened


def test_most_of_a_run_is_written_down_that_way(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    session, here = db.session(), installed()
    queue(session, 60)
    apart: list[int] = []
    ask = UnderWay.ask

    def counted(under_way: UnderWay, values: Any) -> None:
        apart.append(values["messages"])
        ask(under_way, values)

    monkeypatch.setattr(UnderWay, "ask", counted)
    with Unkind() as server:
        app.config.update(MAIL_SERVER="127.0.0.1", MAIL_PORT=server.port)
        session.rollback()
        mailer = SmtpMailer(app)
        assert deliver(session, here.settings, mailer, here.clock, session.commit, lambda: False).sent == 60
    assert sum(apart) > 40
