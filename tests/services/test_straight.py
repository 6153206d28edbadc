"""Replies that are written down by SQLite's driver alone are as those that SQLAlchemy writes down, or not written."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from threading import current_thread
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import DateTime, Engine, String, bindparam, column, literal, select, table, text, update
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoneIsFree
from sqlalchemy.orm import Session

from domain.notices import Kind
from domain.ports import MailResult
from models import Campaign, Case, Event, Message, base, db, for_writing, straight
from models.straight import Straight
from services import campaigns, outbox
from services.installation import installed
from services.mail import desk as desk_module
from services.mail import dispatch, recording
from services.mail.desk import MANY, Desk
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.services.support import ACCEPTED
from tests.services.test_lines import queue

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

NOTES = table("notes", column("word", String()), column("at", DateTime()))
WRITE = NOTES.insert().values(word=bindparam("says", type_=String()), at=bindparam("at", type_=base.UTCDateTime()))
READ = select(NOTES.c.word, NOTES.c.at, literal("always")).order_by(NOTES.c.word)


@pytest.fixture
def notes(app: Flask) -> Iterator[Straight]:
    with db.engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (word varchar CHECK (word <> 'wrong'), at datetime)"))
    notes = Straight(db.engine, [WRITE, READ])
    yield notes
    notes.close()


@pytest.fixture
def path(database_url: str) -> Path:
    return Path(database_url.removeprefix("sqlite:///"))


def writes(*words: str) -> Callable[[Straight], list[Any]]:
    def work(notes: Straight) -> list[Any]:
        for word in words:
            notes.execute(WRITE, {"says": word, "at": NOW})
        return notes.execute(READ, {}).fetchall()

    return work


def read() -> list[str]:
    with db.engine.connect() as connection:
        return list(connection.execute(text("SELECT word FROM notes ORDER BY word")).scalars())


def test_what_is_done_is_committed_and_as_sqlalchemy_would_store_it(notes: Straight) -> None:
    assert notes.transaction(writes("b", "a")) == [
        (word, NOW.strftime("%Y-%m-%d %H:%M:%S.%f"), "always") for word in ("a", "b")
    ]
    assert read() == ["a", "b"]
    assert notes.begin_if_free()


def test_what_fails_or_is_not_wanted_is_not_written(notes: Straight) -> None:
    assert notes.transaction(writes("a", "wrong")) is None
    assert notes.transaction(lambda notes: writes("b")(notes) and None) is None
    notes.begin_if_free()
    writes("c")(notes)
    notes.take_back()
    assert read() == []
    assert notes.transaction(writes("d"))
    assert read() == ["d"]


def test_who_does_not_wait_is_told_that_another_writes(notes: Straight, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not notes.begin_if_free()
        other.execute("ROLLBACK")
        assert notes.begin_if_free()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        # What has begun goes on.
        assert notes.begin_if_free()
        notes.transaction(writes("a"))
        other.execute("BEGIN IMMEDIATE")


def test_who_waits_has_the_lock_when_it_is_free(notes: Straight, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.straight.BUSY_TIMEOUT_MS", 10_000)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(base, "sleep", lambda seconds: other.execute("ROLLBACK"))
        assert notes.transaction(writes("a"))
    assert read() == ["a"]


def test_the_log_is_brought_over_by_a_thread(
    notes: Straight, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(straight, "ROWS_IN_LOG", 3)
    by: list[str] = []

    def noted(engine: Engine) -> None:
        by.append(current_thread().name.rpartition("_")[0])
        base.bring_over(engine)

    monkeypatch.setattr(straight, "bring_over", noted)
    notes.transaction(writes("a"))
    notes.transaction(writes("b", "c"))
    notes.transaction(writes("d"))
    notes.close()
    assert by == ["dormouse log"]
    without_log = shutil.copy(path, tmp_path / "without-log.db")
    with closing(sqlite3.connect(without_log)) as copied:
        words = [word for (word,) in copied.execute("SELECT word FROM notes ORDER BY word")]
    assert words[:3] == ["a", "b", "c"]


def test_the_log_does_not_grow_for_ever_whatever_the_thread_comes_to(
    notes: Straight, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(straight, "bring_over", lambda engine: None)
    much = {"says": "x" * base.LOG_PAGES * 1500, "at": NOW}
    for _ in range(12):
        notes.transaction(lambda notes: notes.execute(WRITE, much))
    # Of 4 kB each; the whole is more than four times as much.
    assert Path(f"{path}-wal").stat().st_size < 2 * base.LOG_PAGES * 4096


def test_a_log_that_cannot_be_brought_over_keeps_nobody_from_writing(
    notes: Straight, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(straight, "ROWS_IN_LOG", 1)
    tried: list[Engine] = []

    def fails(engine: Engine) -> None:
        tried.append(engine)
        raise (OperationalError("PRAGMA", {}, Exception("disk I/O error")) if len(tried) % 2 else NoneIsFree())

    monkeypatch.setattr(straight, "bring_over", fails)
    for word in "abc":
        assert notes.transaction(writes(word))
        assert notes._bringing is not None
        notes._bringing.result()
    assert len(tried) == 3
    assert read() == ["a", "b", "c"]


def claimed_warnings(session: Session, count: int) -> list[dispatch.Claimed]:
    here = installed()
    factories.live_feed(session, NOW)
    for number in range(count):
        factories.dormant(session, email=f"m{number}@example.org")
    session.commit()
    campaigns.draft(session, here.settings, "2026-06", NOW)
    campaigns.approve(session, here.settings, "2026-06", NOW)
    session.commit()
    for_writing(session)
    claimed = dispatch.claim(session, here.settings, NOW, count)
    session.commit()
    assert {one.kind for one in claimed} == {Kind.WARNING}
    return claimed


def test_a_group_is_written_down_as_sqlalchemy_writes_it(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    here, claimed = installed(), claimed_warnings(session, 2 * MANY)
    [round_] = session.scalars(select(Campaign.id)).all()
    session.rollback()
    with Desk(session, here.settings, here.clock, session.commit) as desk:
        monkeypatch.setattr(desk_module, "MANY", MANY + 1)
        assert desk.record([(one, ACCEPTED) for one in claimed[:MANY]]) == {round_}
        monkeypatch.setattr(desk_module, "MANY", MANY)
        monkeypatch.setattr(recording, "record_all", lambda *_: pytest.fail("SQLAlchemy"))
        assert desk.record([(one, ACCEPTED) for one in claimed[MANY:]]) == {round_}
    message = [Message.state, Message.sent_at, Message.smtp_reply, Message.lease_token, Message.lease_until]
    case = [Case.warned_at, Case.told_it_continues, Case.deadline_at, Case.warned_to == Case.address]
    happened = [Event.at, Event.detail, Event.campaign_id, Event.member_id == Case.member_id]
    written = session.execute(
        select(*message, *case, *happened)
        .select_from(Case)
        .join(Message, Message.case_id == Case.id)
        .join(Event, (Event.case_id == Case.id) & (Event.code == "mail_accepted"))
    ).all()
    assert len(written) == 2 * MANY
    assert len(set(map(tuple, written))) == 1


def test_of_a_group_of_which_one_is_another_s_the_others_are_written_down(session: Session) -> None:
    here, claimed = installed(), claimed_warnings(session, MANY + 1)
    session.execute(update(Message).where(Message.id == claimed[2].id).values(lease_token="another's"))
    session.commit()
    with Desk(session, here.settings, here.clock, session.commit) as desk:
        desk.record([(one, ACCEPTED) for one in claimed])
    assert session.scalars(select(Message.id).where(Message.state == "sending")).all() == [claimed[2].id]
    assert session.scalars(select(Case.id).where(Case.warned_at.is_(None))).all() == [claimed[2].case.id]


def test_of_a_group_of_which_one_case_is_closed_its_reader_is_told(session: Session) -> None:
    """What is not alike, is not written down in one go: what follows from one would be missing."""
    here, claimed = installed(), claimed_warnings(session, MANY + 1)
    session.execute(update(Case).where(Case.id == claimed[1].case.id).values(state="withdrawn", closed_at=NOW))
    session.commit()
    with Desk(session, here.settings, here.clock, session.commit) as desk:
        desk.record([(one, ACCEPTED) for one in claimed])
    assert session.scalars(select(Message.case_id).where(Message.kind == Kind.WITHDRAWN)).all() == [claimed[1].case.id]
    assert len(session.scalars(select(Message.id).where(Message.state == "sent")).all()) == MANY + 1


def test_a_warning_accepted_too_late_for_its_day_has_its_reader_told_another(session: Session, app: Flask) -> None:
    here, claimed = installed(), claimed_warnings(session, MANY)
    late = here.clock.now() + timedelta(days=20)
    with Desk(session, here.settings, FrozenClock(late), session.commit) as desk:
        desk.record([(one, ACCEPTED) for one in claimed])
    assert len(session.scalars(select(Message.id).where(Message.kind == Kind.DEADLINE_MOVED)).all()) == MANY


def test_a_refusal_among_many_is_recorded_as_one(session: Session) -> None:
    here = installed()
    queue(session, MANY + 1)
    for_writing(session)
    claimed = dispatch.claim(session, here.settings, NOW, MANY + 1)
    session.commit()
    later = MailResult(accepted=False, code=451, reply="451 later")
    with Desk(session, here.settings, here.clock, session.commit) as desk:
        assert desk.is_free()
        desk.record([(claimed[0], later), *((one, ACCEPTED) for one in claimed[1:])])
    assert session.scalars(select(Message.id).where(Message.state == "queued")).all() == [claimed[0].id]
    assert len(session.scalars(select(Message.id).where(Message.state == "sent")).all()) == MANY


def test_the_address_of_a_mail_about_an_erasure_goes_with_it(session: Session) -> None:
    here = installed()
    for number in range(MANY):
        member = factories.member(session, email=f"m{number}@example.org")
        outbox.put(session, kind=Kind.ERASED, once_key=f"e:{number}", now=NOW, member=member)
    session.commit()
    for_writing(session)
    claimed = dispatch.claim(session, here.settings, NOW, MANY)
    session.commit()
    with Desk(session, here.settings, here.clock, session.commit) as desk:
        desk.record([(one, ACCEPTED) for one in claimed])
    assert set(map(tuple, session.execute(select(Message.state, Message.to_address)))) == {("sent", None)}


def test_what_fails_as_it_is_written_straight_is_written_by_the_session(session: Session, path: Path) -> None:
    """One row that cannot be written down keeps no other from it."""
    here = installed()
    queue(session, MANY + 1)
    for_writing(session)
    claimed = dispatch.claim(session, here.settings, NOW, MANY + 1)
    session.execute(
        text(
            "CREATE TRIGGER stubborn BEFORE UPDATE OF sent_at ON message"
            f" WHEN NEW.id = {claimed[3].id} BEGIN SELECT RAISE(ABORT, 'stubborn'); END"
        )
    )
    session.commit()
    with (
        Desk(session, here.settings, here.clock, session.commit) as desk,
        pytest.raises(DBAPIError, match="stubborn"),
    ):
        desk.record([(one, ACCEPTED) for one in claimed])
    session.rollback()
    assert session.scalars(select(Message.id).where(Message.state == "sending")).all() == [claimed[3].id]
    assert len(session.scalars(select(Event.id).where(Event.code == "mail_accepted")).all()) == MANY
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")


def test_a_parameter_that_is_not_given_is_a_mistake(notes: Straight) -> None:
    with pytest.raises(KeyError, match="at"):
        notes.transaction(lambda notes: notes.execute(WRITE, {"says": "a"}))
    # And holds no lock.
    assert notes.transaction(writes("b"))


def test_where_no_connection_is_to_be_had_the_session_writes_it_down(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = installed()
    queue(session, 2 * MANY)
    for_writing(session)
    claimed = dispatch.claim(session, here.settings, NOW, 2 * MANY)
    session.commit()
    asked: list[object] = []

    def none(engine: object) -> Straight:
        asked.append(engine)
        raise OperationalError("connect", {}, Exception("unable to open database file"))

    monkeypatch.setattr(recording, "straight", none)
    with Desk(session, here.settings, here.clock, session.commit) as desk:
        for some in (claimed[:MANY], claimed[MANY:]):
            assert desk.is_free()
            desk.record([(one, ACCEPTED) for one in some])
    assert len(asked) == 1
    assert len(session.scalars(select(Message.id).where(Message.state == "sent")).all()) == 2 * MANY
