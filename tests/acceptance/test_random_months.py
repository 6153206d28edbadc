"""Random months: whatever people, jobs and the weather do, in whatever order, the promises hold after every step.

Imports, use in time and late, answers, old links, bounces, changed addresses, exemptions, holds, jobs early, late and
twice, a clock that jumps ahead, returns, erasures and purges; on both databases. What is checked is what was promised,
from what the test itself has seen happen, not what the code believes.
"""

import shutil
import tempfile
from collections import Counter, defaultdict
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
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app import create_app
from domain import dates
from domain.errors import Refused
from domain.lifecycle import Answer, Through
from domain.ports import MailResult
from models import BillingOrder, Campaign, Case, Event, Member, Message, db
from services import campaigns, closing, decisions, purging, returning, settling, warning
from services.activity import import_activity
from services.importing import import_members
from services.library import export_libraries
from services.library import load as load_library
from services.mail import bounces, dispatch, recording
from tests import factories
from tests.conftest import knows_statements, make_settings

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
ACCEPTED = MailResult(accepted=True, code=250, reply="250 queued")
DEAD = MailResult(accepted=False, code=550, reply="550 no such user", permanent=True, recipient_refused=True)
BUSY = MailResult(accepted=False, code=451, reply="451 try later")


@dataclass
class Seen:
    """What this test has seen happen to one member."""

    external_id: str
    library: dict[str, Any]
    uses: list[datetime] = field(default_factory=list)
    keep_until: datetime | None = None
    erased: bool = False
    paid_elsewhere: bool = False
    """Came back at the service itself, which started the subscription again without us."""


happened: Counter[str] = Counter()
"""What the random months have reached, over all of a run: a test of promises that nothing puts in danger is none."""


MEMBER = st.integers(0, 30)


class Months(RuleBasedStateMachine):
    fresh_app: Callable[[], Any]

    @initialize(
        months=st.lists(st.integers(13, 40), min_size=2, max_size=4),
        so_far=st.sampled_from(["nothing", "not warned", "asked", "asked", "lapsed", "lapsed", "nearly gone"]),
    )
    def begin(self, months: list[int], so_far: str) -> None:
        self.opening = type(self).fresh_app()
        self.app: Flask = self.opening.__enter__()
        self.context = self.app.app_context()
        self.context.push()
        self.session: Session = db.session()
        self.settings = self.app.extensions["dormouse"].settings
        self.now = START
        self.seen: dict[int, Seen] = {}
        self.accepted: dict[int, set[datetime]] = {}
        """Case → when this test saw a warning of it accepted."""
        self.number = 0
        for count in months:
            self._join(count, None, 20 if count % 2 else None, 1299)
        # Random steps seldom lead far: some stories begin in the middle, by the same road.
        if so_far != "nothing":
            self.a_round_begins(approve=True, mail=so_far != "not warned")
        if so_far in ("lapsed", "nearly gone"):
            self.a_month_ends(feed=True, late=0, who=0, before="nothing")
        if so_far == "nearly gone":
            self.the_last_chance_goes_out()

    def teardown(self) -> None:
        if hasattr(self, "context"):
            db.session.remove()
            self.context.pop()
            self.opening.__exit__(None, None, None)

    # Members and what they do

    @rule(
        months=st.integers(1, 40),
        used=st.one_of(st.none(), st.integers(0, 40)),
        paid_days=st.one_of(st.none(), st.integers(-10, 400)),
        price=st.sampled_from([1299, 1299, 1299, 0]),
    )
    def joins(self, months: int, used: int | None, paid_days: int | None, price: int) -> None:
        self._join(months, used, paid_days, price)

    def _join(self, months: int, used: int | None, paid_days: int | None, price: int) -> None:
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
        library = load_library(self.session, row.id)
        self.seen[row.id] = Seen(f"r-{self.number}", library, [last_used] if last_used else [])
        self.session.commit()

    @rule(who=MEMBER, hours_ago=st.sampled_from([0, 1, 30, 24 * 20]))
    def uses(self, who: int, hours_ago: int) -> None:
        who = self._member(who)
        seen, used_at = self.seen[who], self.now - timedelta(hours=hours_ago)
        self._import("activity", "external_id,used_at", f"{seen.external_id},{used_at.isoformat()}")
        if self.session.get_one(Member, who).status != "purged":
            seen.uses.append(used_at)
        self.session.commit()

    @rule(uses=st.sampled_from(["with", "without", "empty"]), paid_days=st.sampled_from([None, None, 45]))
    def the_master_file_arrives(self, uses: str, paid_days: int | None) -> None:
        """Everybody who is not erased, as the service knows them; sometimes paid for again, sometimes without uses."""
        rows = []
        for who, seen in self.seen.items():
            row = self.session.get_one(Member, who)
            if row.status == "purged" or row.erase_requested_at is not None:
                continue
            last = max(seen.uses).isoformat() if seen.uses and uses == "with" else ""
            paid = "" if paid_days is None else (self.now + timedelta(days=paid_days)).isoformat()
            lapsed_until = row.access_ends_at if row.status == "lapsed" else None
            if paid_days is not None and lapsed_until is not None:
                seen.paid_elsewhere |= self.now + timedelta(days=paid_days) > lapsed_until
                happened["paid elsewhere"] += seen.paid_elsewhere
            cells = [seen.external_id, row.email or "", row.joined_at.isoformat()]
            rows.append(",".join([*cells, *([] if uses == "without" else [last]), *([paid] if paid else [])]))
        header = "external_id,email,joined_at"
        header += "" if uses == "without" else ",last_used_at"
        header += "" if paid_days is None else ",paid_through"
        self._import("members", header, *rows)

    def _import(self, what: str, *lines: str) -> None:
        self.session.commit()
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            load = import_activity if what == "activity" else import_members
            load(self.session, self.settings, Path(file.name), self.now, commit=self.session.commit)

    def _member(self, pick: int) -> int:
        return list(self.seen)[pick % len(self.seen)]

    @rule(
        who=MEMBER,
        what=st.sampled_from(
            ["keep", "keep", "lapse", "old keep", "old lapse", "end", "come back", "come back", "move",
             "exempt", "not exempt", "erase"]
        ),
    )  # fmt: skip
    def somebody_acts(self, who: int, what: str) -> None:
        who = self._member(who)
        match what.split():
            case ["old", wish]:
                self._clicks_an_old_link(who, Answer(wish))
            case ["keep" | "lapse" as wish]:
                self._answers_the_latest_case(who, Answer(wish))
            case ["end"]:
                self._ends_without_being_asked(who)
            case ["come", _]:
                self._comes_back(who)
            case ["move"]:
                self._changes_address(who, len(self.accepted) % 3)
            case ["erase"]:
                self._is_erased(who)
            case _:
                self._is_exempted(who, "asked by phone" if what == "exempt" else None)

    def _answers_the_latest_case(self, who: int, wish: Answer) -> None:
        case_id = self.session.scalar(select(func.max(Case.id)).where(Case.member_id == who))
        if case_id is not None:
            self._try(lambda: decisions.answer(self.session, self.settings, case_id, wish, Through.LINK, self.now))

    def _clicks_an_old_link(self, who: int, wish: Answer) -> None:
        case_id = self.session.scalar(select(func.min(Case.id)).where(Case.member_id == who))
        if case_id is not None:
            self._try(lambda: decisions.answer(self.session, self.settings, case_id, wish, Through.LINK, self.now))

    def _ends_without_being_asked(self, who: int) -> None:
        self._try(lambda: decisions.end_membership(self.session, self.settings, who, Through.ACCOUNT, self.now))

    def _comes_back(self, who: int) -> None:

        def order() -> None:
            row = self.session.get_one(Member, who)
            quoted = returning.quote(row, self.settings, self.now)
            returning.order(self.session, self.settings, who, quoted, self.now)

        self._try(order)

    def _is_erased(self, who: int) -> None:
        if not self.seen[who].erased and self.session.get_one(Member, who).status != "purged":
            purging.erase(self.session, self.settings, who, self.now)
            self.seen[who].erased = True
        self.session.commit()

    def _changes_address(self, who: int, address: int) -> None:
        email = f"r{who}-{address}@example.org"
        self.session.execute(
            update(Member)
            .where(Member.id == who, Member.status != "purged", Member.email != email)
            .values(email=email, email_key=email, mail_state="good")
        )
        warning.address_changed(self.session, self.settings, self.now)
        self.session.commit()

    def _is_exempted(self, who: int, reason: str | None) -> None:
        if self.session.get_one(Member, who).status != "purged":
            decisions.exempt(self.session, who, reason, self.now)
        self.session.commit()

    # Time and what it drives

    @rule(days=st.sampled_from([0, 1, 6, 10, 16, 31]), hours=st.integers(0, 23))
    def time_passes(self, days: int, hours: int) -> None:
        self.now += timedelta(days=days, hours=hours)

    @rule(months=st.sampled_from([2, 5, None, None]))
    def much_time_passes(self, months: int | None) -> None:
        """The clock jumps ahead and nothing runs meanwhile; or ten months pass as they should."""
        if months is None:
            self.ten_months_pass()
        else:
            self.now += timedelta(days=30 * months)

    @rule(approve=st.sampled_from([True, True, False]), mail=st.sampled_from([True, True, False]))
    def a_round_begins(self, approve: bool, mail: bool) -> None:
        factories.live_feed(self.session, self.now)
        month = dates.month_of(self.now, self.settings.zone)
        campaigns.draft(self.session, self.settings, month, self.now)
        self.session.commit()
        if approve:
            self._try(lambda: campaigns.approve(self.session, self.settings, month, self.now))
        if mail:
            self._deliver(ACCEPTED, crash=False)

    @rule(
        feed=st.sampled_from([True, True, True, False]),
        late=st.sampled_from([0, 0, 60]),
        who=MEMBER,
        before=st.sampled_from(["nothing", "use", "use", "keep", "lapse", "move", "exempt", "not exempt"]),
    )
    def a_month_ends(self, feed: bool, late: int, who: int, before: str) -> None:
        """Somebody does something, the next deadline of anybody passes, and close runs, soon after or days late."""
        if before == "use":
            self.uses(who, 0)
        elif before != "nothing":
            self.somebody_acts(who, before)
        deadline = self.session.scalar(select(func.min(Case.deadline_at)).where(Case.closed_at.is_(None)))
        if deadline is not None:
            self.now = max(self.now, deadline + timedelta(minutes=5, hours=late))
            self._close(feed)
        self.session.commit()

    @rule()
    def ten_months_pass(self) -> None:
        """The next keep-until of anybody comes near, the last chance goes out, and the day passes."""
        keep_until = self.the_last_chance_goes_out()
        if keep_until is not None:
            self.now = max(self.now, keep_until + timedelta(hours=1))
            self.purge_runs()

    def the_last_chance_goes_out(self) -> datetime | None:
        keep_until: datetime | None = self.session.scalar(
            select(func.min(Member.keep_until)).where(Member.status == "lapsed")
        )
        if keep_until is not None:
            self.now = max(self.now, keep_until - timedelta(days=20))
            purging.warn_purge(self.session, self.settings, self.now)
            self._deliver(ACCEPTED, crash=False)
            self.billing_is_settled()
        self.session.commit()
        return keep_until

    @precondition(lambda self: self.seen)
    @rule(what=st.sampled_from(["hold", "release", "release", "cancel"]), pick=st.integers(0, 5))
    def an_operator_steps_in(self, what: str, pick: int) -> None:
        months = list(self.session.scalars(select(Campaign.month).order_by(Campaign.month)))
        if months:
            act = {"hold": campaigns.hold, "release": campaigns.release, "cancel": campaigns.cancel}[what]
            self._try(lambda: act(self.session, self.settings, months[pick % len(months)], self.now))

    def _deliver(self, result: MailResult, crash: bool) -> None:
        self.session.commit()
        dispatch.retire(self.session, self.settings)
        claimed = dispatch.claim(self.session, self.settings, self.now, 50)
        held = set(self.session.scalars(select(Campaign.id).where(Campaign.state == "held")))
        facts = [(one, one.case.id if one.case else None, one.campaign.id if one.campaign else None) for one in claimed]
        self.session.commit()
        for index, (one, case_id, campaign_id) in enumerate(facts):
            if one.kind in ("warning", "reminder", "last_call", "deadline_moved"):
                assert campaign_id not in held, "held means that nothing is sent"
            if crash and index == len(facts) - 1:
                break  # what a process held that died; the lease runs out
            mine = recording.record(self.session, self.settings, one, result, self.now)
            self.session.commit()
            if mine and result is ACCEPTED and one.kind == "warning" and case_id is not None:
                self.accepted.setdefault(case_id, set()).add(self.now)
                happened["warned"] += 1

    @rule(pick=st.integers(0, 50))
    def an_accepted_warning_bounces(self, pick: int) -> None:
        sent = list(
            self.session.scalars(
                select(Message.id).where(Message.state == "sent", Message.kind == "warning").order_by(Message.id)
            )
        )
        if sent:
            chosen = self.session.get_one(Message, sent[pick % len(sent)])
            case = self.session.get_one(Case, chosen.case_id)
            lately = (
                case.state == "lapsed"
                and case.answer is None
                and case.closed_at is not None
                and case.closed_at > self.now - timedelta(days=14)
            )
            bounces.bounced(self.session, self.settings, chosen.id, self.now)
            if lately and chosen.to_address is not None:
                happened["reversed by a bounce"] += 1
                assert self.session.get_one(Member, case.member_id, populate_existing=True).status != "lapsed"
        self.session.commit()

    @rule(
        what=st.sampled_from(["mail", "mail", "close", "settle", "purge", "remind"]),
        result=st.sampled_from([ACCEPTED, ACCEPTED, BUSY, DEAD]),
        maybe=st.booleans(),
    )
    def a_job_runs(self, what: str, result: MailResult, maybe: bool) -> None:
        match what:
            case "mail":
                self._deliver(result, crash=maybe)
            case "close":
                self._close(feed=maybe)
                self._close(feed=maybe)
            case "settle":
                self.billing_is_settled()
            case "purge":
                self.purge_runs()
            case _:
                self.reminders_are_queued()

    def reminders_are_queued(self) -> None:
        warning.remind(self.session, self.settings, self.now)
        self.session.commit()

    def _close(self, feed: bool) -> None:
        if feed:
            factories.live_feed(self.session, self.now)
        waiting = (
            select(Case.id)
            .join(Campaign)
            .where(Campaign.state == "held", Case.closed_at.is_(None), Case.answer.is_(None))
        )
        held = set(self.session.scalars(waiting))
        self.session.commit()
        done = closing.close(self.session, self.settings, self.now, self.session.commit)
        happened["lapsed"] += done.lapsed
        happened["rolled on"] += done.rolled
        assert held <= set(self.session.scalars(select(Case.id).where(Case.closed_at.is_(None)))), "held: nothing ends"
        self.session.commit()

    def billing_is_settled(self) -> None:
        self.session.commit()
        ports = self.app.extensions["dormouse"]
        clock = type("At", (), {"now": lambda _, now=self.now: now})()
        settling.settle(self.session, ports.billing, clock, self.session.commit, lambda: False)

    def purge_runs(self) -> None:
        purging.warn_purge(self.session, self.settings, self.now)
        self.session.commit()
        happened["purged"] += purging.purge(self.session, self.settings, self.now, self.session.commit)

    # What must hold

    @invariant()
    def the_promises_hold(self) -> None:
        if not hasattr(self, "session"):
            return
        self.session.expire_all()
        # All there is, read at once: it is asked after each step.
        rows = {row.id: row for row in self.session.scalars(select(Member))}
        cases_of: dict[int, list[Case]] = defaultdict(list)
        for case in self.session.scalars(select(Case).order_by(Case.id)):
            cases_of[case.member_id].append(case)
        libraries = {line["external_id"]: line for line in export_libraries(self.session)}
        last_orders = self._last_orders()
        for who, seen in self.seen.items():
            row, cases = rows[who], cases_of[who]
            for case in cases:
                if case.state == "lapsed" and case.answer is None:
                    self._warned_in_time(case)
                    self._unused(seen, case, row)
            if row.status == "lapsed":
                assert row.keep_until is not None
                assert any(case.state == "lapsed" for case in cases), "nobody lapses without a case"
                seen.keep_until = row.keep_until
                assert libraries.get(row.external_id) == seen.library, "what they had is what they find"
                assert last_orders.get(who) == "stop", "no charge after the end"
            if row.status == "active" and row.returned_at is not None:
                happened["came back"] += 1
            if any(case.state == "returned" for case in cases):
                happened["used it in time"] += 1
            if row.status == "active":
                assert libraries.get(row.external_id) == seen.library
                live = [case for case in cases if case.closed_at is None]
                wants_out = any(case.answer == "lapse" for case in live)
                assert wants_out or seen.paid_elsewhere or last_orders.get(who) in (None, "undo", "restart"), (
                    "an active member is not stopped"
                )
            if row.status == "purged":
                assert seen.erased or (seen.keep_until is not None and seen.keep_until <= self.now)
                assert row.external_id not in libraries
        assert self.session.scalar(select(func.count()).select_from(Message)) == self.session.scalar(
            select(func.count(func.distinct(Message.once_key)))
        )
        endless = (
            select(Case.id)
            .join(Campaign)
            .where(Case.closed_at.is_(None), Campaign.state.not_in(["draft", "held"]), Case.deadline_at.is_(None))
        )
        assert self.session.scalar(endless) is None, "a live case has a day on which it closes"
        over = select(Case.id).join(Campaign).where(Case.closed_at.is_(None), Campaign.state == "closed")
        assert self.session.scalar(over) is None, "a closed campaign has no live case"
        closed = self.session.scalar(
            select(func.count()).select_from(Case).where(Case.state == "lapsed", Case.answer.is_(None))
        )
        ended = self.session.scalar(
            select(func.count()).select_from(Event).where(Event.code == "case_closed", Event.detail == "lapsed")
        )
        assert (ended or 0) >= (closed or 0), "every end is on record"
        self.session.commit()

    def _warned_in_time(self, case: Case) -> None:
        assert case.warned_at is not None
        assert case.deadline_at is not None
        assert case.warned_at in self.accepted[case.id], "a server accepted it, and this test was there"
        zone = self.settings.zone
        days = (dates.local_day(case.deadline_at, zone) - dates.local_day(case.warned_at, zone)).days
        assert days >= self.settings.min_notice_days

    def _unused(self, seen: Seen, case: Case, row: Member) -> None:
        if row.status != "lapsed" or row.lapsed_at != case.deadline_at:
            return
        assert case.found_sign_of_life_at is not None
        assert case.closed_at is not None
        assert not [used for used in seen.uses if case.found_sign_of_life_at < used < case.closed_at]

    def _last_orders(self) -> dict[int, str]:
        orders = (
            select(BillingOrder.member_id, BillingOrder.kind)
            .where(BillingOrder.state != "superseded", BillingOrder.kind != "refund")
            .order_by(BillingOrder.id)
        )
        return {who: kind for who, kind in self.session.execute(orders)}

    def _try(self, act: Callable[[], object]) -> None:
        """What is refused changes nothing and is no failure."""
        try:
            act()
        except Refused:
            self.session.rollback()
        else:
            self.session.commit()


@pytest.fixture
def fresh_apps(request: pytest.FixtureRequest) -> dict[str, Callable[[], Any]]:
    template: Path = request.getfixturevalue("sqlite_template")

    @contextmanager
    def on_sqlite() -> Iterator[Flask]:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(template, f"{folder}/dormouse.db")
            app = create_app(make_settings(f"sqlite:///{folder}/dormouse.db", Path(folder), max_dormant_percent=100))
            with app.app_context():
                knows_statements(db.engine)
            yield app
            with app.app_context():
                db.engine.dispose()

    @contextmanager
    def on_postgresql() -> Iterator[Flask]:
        with request.getfixturevalue("postgres_lender").one() as url, tempfile.TemporaryDirectory() as folder:
            app = create_app(make_settings(url, Path(folder), max_dormant_percent=100))
            with app.app_context():
                knows_statements(db.engine)
            yield app
            with app.app_context():
                db.engine.dispose()

    return {"sqlite": on_sqlite, "postgresql": on_postgresql}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_promises_hold_in_random_months(database: str, fresh_apps: dict[str, Callable[[], Any]]) -> None:
    happened.clear()
    machine = type("MonthsOn" + database, (Months,), {"fresh_app": staticmethod(fresh_apps[database])})
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(max_examples=30, stateful_step_count=40, phases=[Phase.generate, Phase.shrink]),
    )
    reached = {"warned", "lapsed", "came back", "purged"}
    assert reached <= {what for what, count in happened.items() if count}, happened
