"""Random months: whatever people, jobs and the weather do, in whatever order, the promises hold after every step.

Imports, use in time and late, answers, old links, bounces, changed addresses, exemptions, holds, jobs early, late and
twice, a clock that jumps ahead, returns, erasures and purges; on both databases. What is checked is what was promised,
from what the test itself has seen happen, not what the code believes.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, literal, select, update
from sqlalchemy.orm import Session

from app import create_app
from domain import dates
from domain.errors import Refused
from domain.lifecycle import Answer, Through
from domain.ports import MailResult
from models import BillingOrder, Campaign, Case, Event, Member, Message, db
from models.base import UTCDateTime
from services import billing, bounces, campaigns, closing, decisions, dispatch, purging, returning, warning
from services.library import load as load_library
from tests import factories
from tests.conftest import copied_postgres, make_settings

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
ACCEPTED = MailResult(accepted=True, code=250, reply="250 queued")
DEAD = MailResult(accepted=False, code=550, reply="550 no such user", permanent=True, recipient_refused=True)
BUSY = MailResult(accepted=False, code=451, reply="451 try later")


@dataclass
class Seen:
    """What this test has seen happen to one member."""

    library: dict[str, Any]
    uses: list[datetime] = field(default_factory=list)
    accepted: dict[str, list[datetime]] = field(default_factory=dict)
    """Address → when a warning to it was accepted."""
    ended_by_wish: bool = False
    keep_until: datetime | None = None
    erased: bool = False


class Months(RuleBasedStateMachine):
    fresh_app: Callable[[], Any]
    members = Bundle("members")

    @initialize()
    def begin(self) -> None:
        self.opening = type(self).fresh_app()
        self.app: Flask = self.opening.__enter__()
        self.context = self.app.app_context()
        self.context.push()
        self.session: Session = db.session()
        self.settings = self.app.extensions["dormouse"].settings
        self.now = START
        self.seen: dict[int, Seen] = {}
        self.number = 0

    def teardown(self) -> None:
        if hasattr(self, "context"):
            db.session.remove()
            self.context.pop()
            self.opening.__exit__(None, None, None)

    # Members and what they do

    @rule(
        target=members,
        months=st.integers(1, 40),
        used=st.one_of(st.none(), st.integers(0, 40)),
        paid_days=st.one_of(st.none(), st.integers(-10, 400)),
        price=st.sampled_from([1299, 1299, 1299, 0]),
    )
    def joins(self, months: int, used: int | None, paid_days: int | None, price: int) -> int:
        joined = self.now - timedelta(days=30 * months)
        last_used = None if used is None else max(joined, self.now - timedelta(days=30 * used))
        self.number += 1
        row = factories.member(
            self.session,
            external_id=f"r-{self.number}",
            email=f"r{self.number}@example.org",
            joined_at=joined,
            last_used_at=last_used,
            price_minor=price,
            paid_through=None if paid_days is None else self.now + timedelta(days=paid_days),
        )
        factories.library(self.session, row, items=2)
        self.session.commit()
        self.seen[row.id] = Seen(load_library(self.session, row.id), [last_used] if last_used else [])
        self.session.commit()
        return row.id

    @rule(who=members, hours_ago=st.sampled_from([0, 1, 30, 24 * 20]))
    def uses(self, who: int, hours_ago: int) -> None:
        used_at = self.now - timedelta(hours=hours_ago)
        row = self.session.get(Member, who)
        assert row is not None
        if row.status == "purged" or self.seen[who].erased or used_at < row.joined_at:
            self.session.commit()
            return
        self.session.execute(
            update(Member)
            .where(Member.id == who)
            .values(last_used_at=func.coalesce(Member.last_used_at, literal(used_at, UTCDateTime())))
        )
        self.session.execute(
            update(Member).where(Member.id == who, Member.last_used_at < used_at).values(last_used_at=used_at)
        )
        found = select(literal(who).label("member_id"), literal(used_at, UTCDateTime()).label("used_at"))
        returning.reverse_for_use(self.session, self.settings, found, self.now)
        self.session.commit()
        self.seen[who].uses.append(used_at)

    @rule(who=members, wish=st.sampled_from(list(Answer)))
    def answers_the_latest_case(self, who: int, wish: Answer) -> None:
        case_id = self.session.scalar(select(func.max(Case.id)).where(Case.member_id == who))
        if case_id is not None:
            self._try(lambda: decisions.answer(self.session, self.settings, case_id, wish, Through.LINK, self.now))

    @rule(who=members, wish=st.sampled_from(list(Answer)))
    def clicks_an_old_link(self, who: int, wish: Answer) -> None:
        case_id = self.session.scalar(select(func.min(Case.id)).where(Case.member_id == who))
        if case_id is not None:
            self._try(lambda: decisions.answer(self.session, self.settings, case_id, wish, Through.LINK, self.now))

    @rule(who=members)
    def ends_without_being_asked(self, who: int) -> None:
        self._try(lambda: decisions.end_membership(self.session, self.settings, who, Through.ACCOUNT, self.now))

    @rule(who=members)
    def comes_back(self, who: int) -> None:
        def order() -> None:
            row = self.session.get_one(Member, who)
            quoted = returning.quote(row, self.settings, self.now)
            returning.order(self.session, self.settings, who, quoted, self.now)

        self._try(order)

    @rule(who=members)
    def is_erased(self, who: int) -> None:
        if not self.seen[who].erased and self.session.get_one(Member, who).status != "purged":
            purging.erase(self.session, self.settings, who, self.now)
            self.seen[who].erased = True
        self.session.commit()

    @rule(who=members, address=st.integers(0, 2))
    def changes_address(self, who: int, address: int) -> None:
        email = f"r{who}-{address}@example.org"
        self.session.execute(
            update(Member)
            .where(Member.id == who, Member.status != "purged", Member.email != email)
            .values(email=email, email_key=email, mail_state="good")
        )
        warning.address_changed(self.session, self.settings, self.now)
        self.session.commit()

    @rule(who=members, reason=st.sampled_from(["asked by phone", None]))
    def is_exempted(self, who: int, reason: str | None) -> None:
        if self.session.get_one(Member, who).status != "purged":
            decisions.exempt(self.session, who, reason, self.now)
        self.session.commit()

    # Time and what it drives

    @rule(days=st.sampled_from([0, 1, 6, 10, 16, 31]), hours=st.integers(0, 23))
    def time_passes(self, days: int, hours: int) -> None:
        self.now += timedelta(days=days, hours=hours)

    @rule(months=st.sampled_from([2, 5, 11]))
    def the_clock_jumps_ahead(self, months: int) -> None:
        self.now += timedelta(days=30 * months)

    @rule(feed=st.booleans())
    def drafts_and_opens(self, feed: bool) -> None:
        if feed:
            factories.live_feed(self.session, self.now)
        month = dates.month_of(self.now, self.settings.zone)
        campaigns.draft(self.session, self.settings, month, self.now)
        self._try(lambda: campaigns.approve(self.session, self.settings, month, self.now))

    @precondition(lambda self: self.seen)
    @rule(what=st.sampled_from(["hold", "release", "release", "cancel"]), pick=st.integers(0, 5))
    def an_operator_steps_in(self, what: str, pick: int) -> None:
        months = list(self.session.scalars(select(Campaign.month).order_by(Campaign.month)))
        if months:
            act = {"hold": campaigns.hold, "release": campaigns.release, "cancel": campaigns.cancel}[what]
            self._try(lambda: act(self.session, self.settings, months[pick % len(months)], self.now))

    @rule(result=st.sampled_from([ACCEPTED, ACCEPTED, ACCEPTED, BUSY, DEAD]), crash=st.booleans())
    def mail_goes_out(self, result: MailResult, crash: bool) -> None:
        dispatch.retire(self.session, self.settings, self.now)
        claimed = dispatch.claim(self.session, self.settings, self.now, 20)
        facts = [(one, one.member.id if one.member else None, one.to_address) for one in claimed]
        self.session.commit()
        for index, (one, who, address) in enumerate(facts):
            if crash and index == len(facts) - 1:
                break  # what a process held that died; the lease runs out
            mine = dispatch.record(self.session, self.settings, one, result, self.now)
            self.session.commit()
            if mine and result is ACCEPTED and one.kind == "warning" and who is not None:
                self.seen[who].accepted.setdefault(address, []).append(self.now)

    @rule(pick=st.integers(0, 50))
    def an_accepted_mail_bounces(self, pick: int) -> None:
        sent = list(self.session.scalars(select(Message.id).where(Message.state == "sent").order_by(Message.id)))
        if sent:
            chosen = self.session.get_one(Message, sent[pick % len(sent)])
            if chosen.kind == "warning" and chosen.to_address is not None:
                self.seen[chosen.member_id or 0].accepted.pop(chosen.to_address, None)
            bounces.bounced(self.session, self.settings, chosen.id, self.now)
        self.session.commit()

    @rule()
    def reminders_are_queued(self) -> None:
        warning.remind(self.session, self.settings, self.now)
        self.session.commit()

    @rule(feed=st.booleans(), twice=st.booleans())
    def close_runs(self, feed: bool, twice: bool) -> None:
        if feed:
            factories.live_feed(self.session, self.now)
        self.session.commit()
        for _ in range(1 + twice):
            closing.close(self.session, self.settings, self.now, self.session.commit)

    @rule()
    def billing_is_settled(self) -> None:
        self.session.commit()
        ports = self.app.extensions["dormouse"]
        clock = type("At", (), {"now": lambda _, now=self.now: now})()
        billing.settle(self.session, ports.billing, clock, self.session.commit, lambda: False)

    @rule()
    def purge_runs(self) -> None:
        purging.warn_purge(self.session, self.settings, self.now)
        self.session.commit()
        purging.purge(self.session, self.settings, self.now, self.session.commit)

    # What must hold

    @invariant()
    def the_promises_hold(self) -> None:
        if not hasattr(self, "session"):
            return
        self.session.expire_all()
        for who, seen in self.seen.items():
            row = self.session.get_one(Member, who)
            cases = list(self.session.scalars(select(Case).where(Case.member_id == who).order_by(Case.id)))
            for case in cases:
                if case.state == "lapsed" and case.answer is None:
                    self._warned_in_time(seen, case, row)
                    self._unused(seen, case, row)
            if row.status == "lapsed":
                assert row.keep_until is not None
                assert any(case.state == "lapsed" for case in cases), "nobody lapses without a case"
                seen.keep_until = row.keep_until
                assert load_library(self.session, who) == seen.library, "what they had is what they find"
                assert self._last_order(who) == "stop", "no charge after the end"
            if row.status == "active":
                assert load_library(self.session, who) == seen.library
                live = [case for case in cases if case.closed_at is None]
                wants_out = any(case.answer == "lapse" for case in live)
                assert wants_out or self._last_order(who) in (None, "undo", "restart"), (
                    "an active member is not stopped"
                )
            if row.status == "purged":
                assert seen.erased or (seen.keep_until is not None and seen.keep_until <= self.now)
                assert load_library(self.session, who)["profiles"] == []
        assert self.session.scalar(select(func.count()).select_from(Message)) == self.session.scalar(
            select(func.count(func.distinct(Message.once_key)))
        )
        closed = self.session.scalar(
            select(func.count()).select_from(Case).where(Case.state == "lapsed", Case.answer.is_(None))
        )
        ended = self.session.scalar(
            select(func.count()).select_from(Event).where(Event.code == "case_closed", Event.detail == "lapsed")
        )
        assert (ended or 0) >= (closed or 0), "every end is on record"
        self.session.commit()

    def _warned_in_time(self, seen: Seen, case: Case, row: Member) -> None:
        assert case.warned_at is not None
        assert case.deadline_at is not None
        if row.status == "purged":
            return
        assert case.warned_to is not None
        days = (
            dates.local_day(case.deadline_at, self.settings.zone) - dates.local_day(case.warned_at, self.settings.zone)
        ).days
        assert days >= self.settings.min_notice_days
        if row.status == "lapsed" and row.lapsed_at == case.deadline_at:
            # Unless it is older than the fortnight in which a bounce reverses, its warning has not bounced.
            assert case.warned_at in seen.accepted.get(case.warned_to, [case.warned_at])

    def _unused(self, seen: Seen, case: Case, row: Member) -> None:
        if row.status != "lapsed" or row.lapsed_at != case.deadline_at:
            return
        assert case.found_sign_of_life_at is not None
        assert case.closed_at is not None
        assert not [used for used in seen.uses if case.found_sign_of_life_at < used < case.closed_at]

    def _last_order(self, who: int) -> str | None:
        return self.session.scalar(
            select(BillingOrder.kind)
            .where(BillingOrder.member_id == who, BillingOrder.state != "superseded")
            .order_by(BillingOrder.id.desc())
            .limit(1)
        )

    def _try(self, act: Callable[[], object]) -> None:
        """What is refused changes nothing and is no failure."""
        try:
            act()
        except Refused:
            self.session.rollback()
        else:
            self.session.commit()


@pytest.fixture
def fresh_apps(request: pytest.FixtureRequest, postgres: str) -> dict[str, Callable[[], Any]]:
    template: Path = request.getfixturevalue("sqlite_template")

    @contextmanager
    def on_sqlite() -> Iterator[Flask]:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(template, f"{folder}/dormouse.db")
            app = create_app(make_settings(f"sqlite:///{folder}/dormouse.db", Path(folder), max_dormant_percent=100))
            yield app
            with app.app_context():
                db.engine.dispose()

    @contextmanager
    def on_postgresql() -> Iterator[Flask]:

        with (
            copied_postgres(postgres, request.getfixturevalue("postgres_template")) as url,
            tempfile.TemporaryDirectory() as folder,
        ):
            app = create_app(make_settings(url, Path(folder), max_dormant_percent=100))
            yield app
            with app.app_context():
                db.engine.dispose()

    return {"sqlite": on_sqlite, "postgresql": on_postgresql}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_promises_hold_in_random_months(database: str, fresh_apps: dict[str, Callable[[], Any]]) -> None:
    machine = type("MonthsOn" + database, (Months,), {"fresh_app": staticmethod(fresh_apps[database])})
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(max_examples=40, stateful_step_count=40, phases=[Phase.generate, Phase.shrink]),
    )
