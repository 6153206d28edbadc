"""What is measured: each piece of work as ours, as bare SQL, and how to take it back so that it can be done again."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

from flask import Flask
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from benchmarks import bare
from benchmarks.databases import NOW, Database
from domain import dates
from domain.policy import cutoffs
from models import db, for_writing
from services import campaigns, closing
from services.activity import import_activity
from services.importing import import_members
from services.installation import installed
from settings import Settings

MONTH = "2026-06"


class Work(AbstractContextManager["Any"]):
    """Both connections to one database stay open, as those of a process that serves do."""

    def __init__(self, database: Database, concerned: int = 0, members: int = 1) -> None:
        self.database = database
        # The breaker is asked in earnest, and would hold a round of more than its percentage.
        self.app: Flask = database.app(max_dormant_percent=max(2, ceil(200 * concerned / members)))
        self._context = self.app.app_context()
        self._context.push()
        self.session: Session = db.session()
        self.settings: Settings = installed().settings
        self.connection = database.connect()

    def __exit__(self, *exc: object) -> None:
        db.session.remove()
        db.engine.dispose()
        self.connection.close()
        self._context.pop()

    def expect(self, query: str, count: int) -> None:
        found = self.database.one(query)
        if found != count:
            raise AssertionError(f"{found} instead of {count}: {query}")


class Draft(Work):
    def __init__(self, database: Database, members: int, dormant: int) -> None:
        super().__init__(database, dormant, members)
        self._dormant = dormant

    def ours(self) -> None:
        for_writing(self.session)
        campaigns.draft(self.session, self.settings, MONTH, NOW)
        self.session.commit()

    def bare(self) -> None:
        bounds = cutoffs(self.settings.policy, NOW)
        bare.draft(self.database, self.connection, MONTH, NOW, (bounds.never_used, bounds.stopped_using))

    def undo(self) -> None:
        self.expect("SELECT count(*) FROM member_case", self._dormant)
        self.expect("SELECT count(*) FROM event WHERE code = 'case_opened'", self._dormant)
        self.expect("SELECT count(*) FROM campaign WHERE state = 'draft'", 1)
        empty(self.database)

    def approval(self) -> "Approve":
        """The draft, to be approved again and again; its ``end`` takes the draft back."""
        self.ours()
        return Approve(self, self._dormant)


class Approve:
    def __init__(self, draft: Draft, dormant: int) -> None:
        self._draft, self._dormant = draft, dormant
        self._campaign = draft.database.one("SELECT id FROM campaign")

    def ours(self) -> None:
        for_writing(self._draft.session)
        campaigns.approve(self._draft.session, self._draft.settings, MONTH, NOW)
        self._draft.session.commit()

    def bare(self) -> None:
        deadline = dates.month_end_with_notice(NOW, 14, self._draft.settings.zone)
        bare.approve(self._draft.database, self._draft.connection, self._campaign, NOW, deadline)

    def undo(self) -> None:
        self._draft.expect("SELECT count(*) FROM message WHERE kind = 'warning'", self._dormant)
        self._draft.database.run(
            "DELETE FROM message",
            "DELETE FROM event WHERE code <> 'case_opened'",
            "UPDATE member_case SET deadline_at = NULL",
            "UPDATE campaign SET state = 'draft', opened_at = NULL, deadline_at = NULL",
        )
        self._draft.database.tidy()

    def end(self) -> None:
        empty(self._draft.database)


class Close(Work):
    """Cases of an open campaign, warned in time, evenly spread over the members; nobody answers."""

    def __init__(self, database: Database, members: int, cases: int) -> None:
        super().__init__(database, cases, members)
        self._cases = cases
        self.longest: list[tuple[float, float]] = []
        """Of each turn, the longest write lock of ours and of bare."""
        self._held: dict[str, float] = {}
        self._deadline = dates.month_end_with_notice(NOW, 14, self.settings.zone)
        self._at = self._deadline + timedelta(hours=1)
        self._warned_by = dates.warned_by(self._deadline, 14, self.settings.zone)
        at, warned = database.instant, database.instant(NOW + timedelta(hours=1))
        database.run(
            "INSERT INTO campaign (month, state, policy, drafted_at, opened_at, deadline_at, dormant_count)"
            f" VALUES ('{MONTH}', 'open', '{{}}', {at(NOW)}, {at(NOW)}, {at(self._deadline)}, {cases})",
            "INSERT INTO member_case (campaign_id, member_id, rule, opened_at, found_joined_at, found_last_used_at,"
            " found_sign_of_life_at, found_plan, found_price_minor, found_currency, found_billing_interval, address,"
            " warned_at, warned_to, deadline_at)"
            f" SELECT (SELECT id FROM campaign), id, 'never_used', {at(NOW)}, joined_at, last_used_at,"
            " last_sign_of_life_at, plan, price_minor, currency, billing_interval, email,"
            f" {warned}, email, {at(self._deadline)} FROM member WHERE member.id % {members // cases} = 0"
            f" ORDER BY member.id LIMIT {cases}",
            "INSERT INTO message (once_key, kind, member_id, case_id, campaign_id, locale, to_address, priority,"
            " created_at, due_at, state, attempts, message_id, smtp_reply, sent_at)"
            " SELECT 'warning:' || public_id || ':1', 'warning', member_id, id, campaign_id, 'en', address, 5,"
            f" {at(NOW)}, {at(NOW)}, 'sent', 1, '<' || public_id || '@lumio.example>', '250 ok', {warned}"
            " FROM member_case",
            f"UPDATE use_feed SET last_event_at = {at(self._at)}",
        )
        database.tidy()

    def __exit__(self, *exc: object) -> None:
        empty(self.database)
        super().__exit__(*exc)

    def ours(self) -> None:
        held = Transactions()
        with held.of(self.session):

            def commit() -> None:
                self.session.commit()
                held.ended()

            closing.close(self.session, self.settings, self._at, commit)
        self._hold("ours", held.longest)

    def bare(self) -> None:
        keep_until = dates.keep_until(self._deadline, self.settings.keep_months, self.settings.zone)
        longest = bare.close(self.database, self.connection, self._deadline, self._warned_by, keep_until, self._at)
        self._hold("bare", longest)

    def _hold(self, side: str, longest: float) -> None:
        self._held[side] = longest
        if len(self._held) == 2:
            self.longest.append((self._held["ours"], self._held["bare"]))
            self._held = {}

    def undo(self) -> None:
        self.expect("SELECT count(*) FROM member WHERE status = 'lapsed'", self._cases)
        self.expect("SELECT count(*) FROM member_case WHERE state = 'lapsed'", self._cases)
        self.expect("SELECT count(*) FROM billing_order", self._cases)
        self.expect("SELECT count(*) FROM message WHERE kind = 'lapsed'", self._cases)
        self.expect("SELECT count(*) FROM event WHERE code = 'case_closed'", self._cases)
        self.database.run(
            "DELETE FROM billing_order",
            "DELETE FROM message WHERE kind <> 'warning'",
            "DELETE FROM event",
            "UPDATE member_case SET state = 'open', closed_at = NULL, batch = NULL",
            "UPDATE member SET status = 'active', lapsed_at = NULL, access_ends_at = NULL, keep_until = NULL"
            " WHERE status = 'lapsed'",
            "UPDATE campaign SET state = 'open', closed_at = NULL, paying_count = NULL",
        )
        self.database.tidy()


class Transactions:
    """How long the longest transaction that writes is open: on SQLite nobody else writes meanwhile."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._began: float | None = None

    def of(self, session: Session) -> AbstractContextManager[None]:
        return _Listening(session.get_bind().engine, self._begins)

    def _begins(self, connection: Connection) -> None:
        self._began = perf_counter() if connection.get_execution_options().get("for_writing") else None

    def ended(self) -> None:
        if self._began is not None:
            self.longest = max(self.longest, perf_counter() - self._began)
            self._began = None


class _Listening(AbstractContextManager[None]):
    def __init__(self, engine: Any, begins: Callable[[Connection], None]) -> None:
        self._of = engine, "begin", begins

    def __enter__(self) -> None:
        event.listen(*self._of)

    def __exit__(self, *exc: object) -> None:
        event.remove(*self._of)


class Members(Work):
    """The first import, into an empty database that every turn gets anew."""

    def __init__(self, make: Callable[[], Database], path: Path) -> None:
        super().__init__(make())
        self._make, self._path = make, path
        self._count = _rows(path)

    def ours(self) -> None:
        counts = import_members(self.session, self.settings, self._path, NOW, commit=self.session.commit).counts
        assert counts.created == self._count, counts

    def bare(self) -> None:
        bare.members(self.database, self.connection, self._path)

    def undo(self) -> None:
        self.expect("SELECT count(*) FROM member", self._count)
        self.__exit__()
        super().__init__(self._make())


class Activity(Work):
    """A day's uses, of members who were all seen before; every turn has a later day."""

    def __init__(self, database: Database, days: Iterator[Path]) -> None:
        super().__init__(database)
        self._days, self._path, self._now = days, next(days), NOW + timedelta(days=5000)
        self._count = _rows(self._path)

    def ours(self) -> None:
        counts = import_activity(self.session, self.settings, self._path, self._now, commit=self.session.commit)
        assert counts.updated == self._count, counts

    def bare(self) -> None:
        bare.activity(self.database, self.connection, self._path)

    def undo(self) -> None:
        self._path = next(self._days)
        self.database.tidy()


def _rows(path: Path) -> int:
    with path.open(encoding="utf-8") as lines:
        return sum(1 for _ in lines) - 1


def empty(database: Database) -> None:
    """No round, as before the first."""
    tables = ("billing_order", "message", "event", "member_case", "campaign")
    database.run(*(f"DELETE FROM {table}" for table in tables))
    database.tidy()
