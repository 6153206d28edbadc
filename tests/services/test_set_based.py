"""What a round costs does not depend on how many members it concerns: no row of it passes through Python.

Statements are counted as the driver gets them; and the plans of those that meet large tables are held to their indexes.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session

from app import create_app
from benchmarks import databases
from benchmarks.databases import Database
from domain.ports import Subscription
from models import Case, Member, Message, db, for_writing
from services import campaigns, closing, provider_news, returning, warning
from services.installation import installed
from services.mail import dispatch, recording
from services.outgoing import sending
from settings import Settings
from tests import factories
from tests.conftest import make_settings
from tests.factories import at
from tests.postgres import Lender
from tests.services.support import ACCEPTED

MEMBERS = 20_000
JUNE, JULY = at("2026-06-03 08:00"), at("2026-07-03 08:00")
REMINDER = at("2026-07-25 08:00")
MONTH_END = at("2026-08-01 03:00")

Statements = list[tuple[str, Any]]


@pytest.fixture(params=["sqlite", "postgresql"])
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Database]]:
    """``make_database(dormant)``: a database of 20,000 members, or so many, of whom so many are dormant."""
    with ExitStack() as stack:

        def make(dormant: int, members: int = MEMBERS) -> Database:
            if request.param == "sqlite":
                path = tmp_path / f"{dormant}-{len(list(tmp_path.iterdir()))}.db"
                path.write_bytes(request.getfixturevalue("sqlite_template").read_bytes())
                url = f"sqlite:///{path}"
            else:
                url = stack.enter_context(request.getfixturevalue("postgres_lender").one())
            database = Database(url, tmp_path)
            databases.fill(database, members, dormant)
            return database

        yield make


@contextmanager
def serving(database: Database) -> Iterator[tuple[Session, Settings]]:
    app = create_app(make_settings(database.url, database.folder, max_dormant_percent=100))
    with app.app_context():
        yield db.session(), installed().settings
        db.session.remove()
        db.engine.dispose()


@contextmanager
def watched(session: Session) -> Iterator[Statements]:
    """The statements that reach the driver, with what they are given."""
    seen: Statements = []

    def see(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        seen.append((statement, parameters))

    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", see)
    yield seen
    event.remove(engine, "before_cursor_execute", see)


def everybody_is_warned(session: Session, now: datetime) -> None:
    """What delivery writes, without delivering."""
    factories.live_feed(session, now)
    session.execute(
        update(Message)
        .where(Message.state.in_(["queued", "sending"]))
        .values(state="sent", sent_at=now, smtp_reply="250 ok", lease_token=None, lease_until=None)
    )
    session.execute(
        update(Case).where(Case.closed_at.is_(None)).values(warned_at=Case.opened_at, warned_to=Case.address)
    )
    session.commit()


def a_round(database: Database, dormant: int) -> dict[str, int]:
    """A round that is cancelled and one that goes to its end; how many statements each step took."""
    counts: dict[str, int] = {}
    with serving(database) as (session, settings):

        def step(name: str, act: Callable[..., Any]) -> None:
            with watched(session) as seen:
                for_writing(session)
                act(session, settings)
                session.commit()
            counts[name] = len(seen)

        factories.live_feed(session, JUNE)
        session.commit()
        step("draft", partial(campaigns.draft, month="2026-06", now=JUNE))
        step("approve", partial(campaigns.approve, month="2026-06", now=JUNE))
        everybody_is_warned(session, JUNE)
        step("cancel", partial(campaigns.cancel, month="2026-06", now=JUNE))
        factories.live_feed(session, JULY)
        session.commit()
        step("draft again", partial(campaigns.draft, month="2026-07", now=JULY))
        step("approve again", partial(campaigns.approve, month="2026-07", now=JULY))
        everybody_is_warned(session, JULY)
        step("remind", partial(warning.remind, now=REMINDER))
        everybody_is_warned(session, MONTH_END)
        with watched(session) as seen:
            closing.close(session, settings, MONTH_END, session.commit)
        counts["close"] = len(seen)

        kinds = dict(session.execute(select(Message.kind, func.count()).group_by(Message.kind)).all())
        assert kinds == {"warning": 2 * dormant, "withdrawn": dormant, "reminder": dormant, "lapsed": dormant}
        states = dict(session.execute(select(Case.state, func.count()).group_by(Case.state)).all())
        assert states == {"withdrawn": dormant, "lapsed": dormant}
        assert session.scalar(select(func.count()).where(Member.status == "lapsed")) == dormant
    return counts


def test_a_round_of_ten_times_the_members_takes_no_statement_more(
    make_database: Callable[[int], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WINDOW", "FIRST_WINDOW"):
        monkeypatch.setattr(closing, name, 2_000)
    monkeypatch.setattr(closing, "LONGEST_LOCK", 3600.0)
    few, many = (a_round(make_database(dormant), dormant) for dormant in (200, 2_000))
    assert many == few
    assert max(many.values()) < 60


def test_closing_takes_as_many_statements_for_each_window(
    make_database: Callable[[int], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = {}
    monkeypatch.setattr(closing, "LONGEST_LOCK", 3600.0)
    for windows in (1, 2, 5):
        for name in ("WINDOW", "FIRST_WINDOW"):
            monkeypatch.setattr(closing, name, 1_000 // windows)
        taken[windows] = a_round(make_database(1_000), 1_000)
    assert taken[5]["close"] - taken[1]["close"] == 4 * (taken[2]["close"] - taken[1]["close"])
    others = [{name: count for name, count in counts.items() if name != "close"} for counts in taken.values()]
    assert others == [others[0]] * 3


def test_a_close_does_not_look_in_each_window_through_all_it_has_ended(
    postgres_lender: Lender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL plans by what it has last counted, which was before anybody had lapsed."""
    monkeypatch.setattr(closing, "WINDOW", 50)
    with postgres_lender.one() as url:
        database = Database(url, tmp_path)
        databases.fill(database, MEMBERS, 1_000)
        with serving(database) as (session, settings):
            for_writing(session)
            factories.live_feed(session, JULY)
            campaigns.draft(session, settings, "2026-07", JULY)
            campaigns.approve(session, settings, "2026-07", JULY)
            everybody_is_warned(session, MONTH_END)
            database.tidy()
            closing.close(session, settings, MONTH_END, session.commit)
            assert session.scalar(select(func.count()).where(Member.status == "lapsed")) == 1_000
        looked = database.one(
            "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'ix_member_keep_until'"
        )
    assert looked <= 2_000


def test_the_first_draft_does_not_look_for_each_member_through_what_it_has_written(
    postgres_lender: Lender, tmp_path: Path
) -> None:
    """An empty table PostgreSQL would read whole for each of them, and this statement fills it meanwhile."""
    with postgres_lender.one() as url:
        database = Database(url, tmp_path)
        databases.fill(database, MEMBERS, 1_000)
        with serving(database) as (session, settings):
            for_writing(session)
            assert campaigns.draft(session, settings, "2026-07", JULY).dormant_count == 1_000
            session.commit()
        looked = database.one("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'member_case'")
    assert looked <= 4


def test_where_a_window_takes_long_the_next_are_smaller_and_grow_again() -> None:
    assert closing._next_size(closing.WINDOW, 4 * closing.LONGEST_LOCK) == closing.WINDOW // 4
    assert closing._next_size(closing.WINDOW, 3600.0) == closing.SMALLEST_WINDOW
    assert closing._next_size(500, 0.01) == 1000
    assert 620 <= closing._next_size(500, closing.LONGEST_LOCK * 0.8) <= 625, "it aims at what it holds, not past it"
    assert closing._next_size(closing.WINDOW, 0.01) == closing.WINDOW


def plans(session: Session, act: Callable[[], Any], part: str) -> str:
    """How the database carries out the statements of an act that hold ``part``, asked right before each is run."""
    found: list[str] = []
    sqlite = session.get_bind().dialect.name == "sqlite"

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if part in statement:
            other = connection.connection.cursor()
            other.execute(f"{'EXPLAIN QUERY PLAN' if sqlite else 'EXPLAIN'} {statement}", parameters)
            found.extend(" ".join(map(str, row)) for row in other.fetchall())
            other.close()

    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", explain)
    act()
    session.commit()
    event.remove(engine, "before_cursor_execute", explain)
    assert found
    return "\n".join(found)


def reads_all_of(table: str, plan: str) -> bool:
    """Whether a plan reads a whole table; going along an index from end to end is another thing."""
    return re.search(rf"SCAN {table}(?! USING)\b|Seq Scan on {table}\b", plan) is not None


def test_what_meets_large_tables_goes_by_their_indexes(
    make_database: Callable[[int], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows that are narrow against the tables, as 2,000 of a million are.
    monkeypatch.setattr(closing, "WINDOW", 20)
    database = make_database(500)
    with serving(database) as (session, settings):

        def run(act: Callable[..., Any], **more: Any) -> Callable[[], Any]:
            def go() -> None:
                for_writing(session)
                act(session, settings, **more)

            return go

        factories.live_feed(session, JUNE)
        session.commit()

        draft = plans(session, run(campaigns.draft, month="2026-06", now=JUNE), "INSERT INTO member_case")
        assert "ix_member_never_used" in draft
        assert "ix_member_stopped_using" in draft
        assert not reads_all_of("member", draft)

        run(campaigns.approve, month="2026-06", now=JUNE)()
        session.commit()
        # The cases and mails of an earlier year, among which those of this month are few.
        year_ago = database.instant(at("2025-06-03"))
        database.run(
            "INSERT INTO campaign (month, state, policy, drafted_at, cancelled_at, dormant_count)"
            f" VALUES ('2025-06', 'cancelled', '{{}}', {year_ago}, {year_ago}, {MEMBERS})",
            "INSERT INTO member_case (campaign_id, member_id, rule, opened_at, state, closed_at, deadline_at)"
            f" SELECT (SELECT id FROM campaign WHERE month = '2025-06'), id, 'never_used', {year_ago}, 'withdrawn',"
            f" {year_ago}, {year_ago} FROM member",
            "INSERT INTO message (once_key, kind, member_id, to_address, priority, created_at, due_at, state, sent_at,"
            " smtp_reply) SELECT 'welcome_back:' || id, 'welcome_back', id, email, 2, joined_at, joined_at, 'sent',"
            " joined_at, '250 ok' FROM member",
        )
        database.tidy()
        claim = plans(session, run(dispatch.claim, now=JUNE, limit=10), "WITH chosen")
        assert "ix_message_queued" in claim
        assert not reads_all_of("message", claim)
        assert not reads_all_of("member", claim)

        everybody_is_warned(session, JUNE)
        database.tidy()
        factories.live_feed(session, at("2026-07-01 03:00"))
        session.commit()

        def close() -> None:
            closing.close(session, settings, at("2026-07-01 03:00"), session.commit)

        everything = plans(session, close, "member_case")
        assert any(index in everything for index in ("ix_member_case_due", "uq_member_case_live"))
        assert "ix_message_case_id" in everything
        for table in ("member", "member_case", "message"):
            assert not reads_all_of(table, everything), everything


def test_a_claim_looks_at_no_more_mails_than_it_takes(make_database: Callable[..., Database]) -> None:
    """A whole round is due at one instant: to sort it, or to join it, would be to read all of it for each claim."""
    database = make_database(4_000, 8_000)
    with serving(database) as (session, settings):
        factories.live_feed(session, JUNE)
        session.commit()
        for_writing(session)
        campaigns.draft(session, settings, "2026-06", JUNE)
        campaigns.approve(session, settings, "2026-06", JUNE)
        session.commit()
        database.tidy()

        def claim() -> None:
            for_writing(session)
            claimed.extend(dispatch.claim(session, settings, JUNE, 200))

        claimed: list[dispatch.Claimed] = []
        plan = plans(session, claim, "WITH chosen")
        assert len(claimed) == 200
        assert plan.count("ix_message_queued") == 1
        assert not re.search("Sort|TEMP B-TREE|Hash (Left|Right) Join", plan), plan
        for table in ("member", "member_case", "message"):
            assert not reads_all_of(table, plan), plan

        def record() -> None:
            for_writing(session)
            recording.record_all(session, settings, [(one, ACCEPTED) for one in claimed[:40]], JUNE)

        plan = plans(session, record, "smtp_reply")
        assert not reads_all_of("message", plan), plan

        # Of a round that is held nothing goes out: a sign-in mail does not have to wait until all of it is looked at.
        for_writing(session)
        campaigns.hold(session, settings, "2026-06", JUNE)
        session.commit()

        def claim_while_held() -> None:
            for_writing(session)
            assert dispatch.claim(session, settings, JUNE, 10) == []

        assert re.search(r"priority ?<", plans(session, claim_while_held, "WITH chosen"))


def test_what_is_asked_again_and_again_goes_by_an_index(make_database: Callable[..., Database]) -> None:
    """By a provider's word, by each come-back, by each tick, by each link that is deleted."""
    database = make_database(10, 4_000)
    long_ago = database.instant(at("2025-06-03"))
    database.run(
        "INSERT INTO billing_order (key, member_id, kind, created_at, due_at, state, done_at)"
        f" SELECT 'stop:' || id, id, 'stop', {long_ago}, {long_ago}, 'done', {long_ago} FROM member",
        "INSERT INTO outgoing_event (type, at, member_id, due_at, state, done_at)"
        f" SELECT 'member.kept', {long_ago}, id, {long_ago}, 'done', {long_ago} FROM member",
        "INSERT INTO message (once_key, kind, member_id, to_address, priority, created_at, due_at, state, sent_at,"
        " smtp_reply) SELECT 'welcome_back:' || id, 'welcome_back', id, email, 2, joined_at, joined_at, 'sent',"
        " joined_at, '250 ok' FROM member",
        f"UPDATE member SET status = 'lapsed', lapsed_at = {long_ago}, access_ends_at = {long_ago},"
        f" keep_until = {database.instant(at('2026-12-31'))} WHERE id = (SELECT min(id) FROM member)",
    )
    database.tidy()
    with serving(database) as (session, settings):
        found = Subscription("sub_4711", "active")
        heard = plans(session, lambda: provider_news.apply(session, settings, found, JUNE), "FROM member")
        assert not reads_all_of("member", heard), heard

        lapsed = session.scalars(select(Member).where(Member.status == "lapsed")).one()
        quoted = returning.quote(lapsed, settings, JUNE)
        back = plans(session, lambda: returning.order(session, settings, lapsed.id, quoted, JUNE), "LIKE")
        assert not reads_all_of("billing_order", back), back

        sent = plans(session, lambda: sending.claim(session, JUNE, 8), "WITH due")
        assert not reads_all_of("outgoing_event", sent), sent

        # What a foreign key asks of this table before a link may go.
        of_a_link = select(Message.id).where(Message.magic_link_id == 1)
        deleted = plans(session, lambda: session.execute(of_a_link).all(), "magic_link_id")
        assert not reads_all_of("message", deleted), deleted
