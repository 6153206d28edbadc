"""Stopped too early, started too late, restarted again and again: a month end is late then, and complete, and once."""

import signal
from collections import Counter
from collections.abc import Callable
from threading import Event

from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from adapters.mail.smtp import TIMEOUT_SECONDS
from jobs import runner
from jobs.scheduler import STOP_WITHIN
from models import Case, JobRun, Member, Message
from models import Event as Happened
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.faults.harness import KILLED, PATIENCE, Site, check, eventually
from tests.services.support import case_of, opened

MONTH_END = at("2026-06-30 22:00")


def runs(session: Session) -> dict[tuple[str, str], JobRun]:
    session.rollback()
    return {(row.job, row.period): row for row in session.scalars(select(JobRun))}


def feed(session: Session, clock: FrozenClock) -> None:
    factories.live_feed(session, clock.now())
    session.commit()


def test_stopped_before_month_end_and_started_three_days_later(
    app: Flask, session: Session, settings: Settings, clock: FrozenClock
) -> None:
    """It ends as of the last day it named, late; and until it has ended, a use counts."""
    silent, uses = factories.dormant(session), factories.dormant(session)
    opened(session, settings, NOW)
    session.commit()
    runner.run_due(app)
    clock.travel(at("2026-07-03 08:00"))
    uses.last_used_at = at("2026-07-02 20:00")
    feed(session, clock)
    runner.run_due(app)

    assert (case_of(session, silent).state, silent.lapsed_at) == ("lapsed", MONTH_END)
    assert silent.keep_until == at("2027-04-30 22:00")
    assert (case_of(session, uses).state, uses.status) == ("returned", "active")
    late = runs(session)["close", "2026-06"]
    assert (late.due_at, late.started_at, late.finished_at) == (MONTH_END, clock.now(), clock.now())
    assert late.result == "1 lapsed, 1 closed otherwise, 0 rolled on"


def test_stopped_over_two_month_ends(app: Flask, session: Session, settings: Settings, clock: FrozenClock) -> None:
    """The month that went by undrafted is not made up for, and nobody is ended for a day that was not named."""
    silent = factories.dormant(session)
    opened(session, settings, NOW)
    session.commit()
    runner.run_due(app)
    newly_dormant = factories.dormant(session, joined_at=at("2025-07-15"))
    clock.travel(at("2026-08-10 08:00"))
    feed(session, clock)
    runner.run_due(app)
    runner.run_due(app)

    assert (case_of(session, silent).state, silent.lapsed_at) == ("lapsed", MONTH_END)
    asked = case_of(session, newly_dormant)
    assert (asked.state, newly_dormant.status) == ("open", "active")
    found = runs(session)
    assert {period: row.result for (job, period), row in found.items() if job == "draft-campaign"} == {
        "2026-06": "2026-06: open, 1 dormant",
        "2026-07": "skipped",
        "2026-08": "2026-08: draft, 1 dormant",
    }
    late = found["close", "2026-07"]
    assert (late.due_at, late.started_at) == (at("2026-07-31 22:00"), clock.now())
    assert Counter(session.scalars(select(Happened.code)))["case_closed"] == 1


def begin(site: Site, number: int) -> list[str]:
    names = [f"silent-{n}" for n in range(number)]
    with site.session() as session:
        for name in names:
            factories.dormant(session, external_id=name, email=f"{name}@example.org", billing_ref=name)
        factories.live_feed(session, site.now)
    site.run("draft-campaign")
    return names


def count(site: Site, what: object) -> int:
    with site.session() as session:
        return session.scalar(select(func.count()).select_from(what)) or 0  # type: ignore[arg-type]


def test_restarted_every_few_seconds_through_a_month_end(site: Site, long: bool) -> None:
    names = begin(site, 5)
    site.run("deliver")
    site.travel(at("2026-06-28 08:00"))
    site.run("remind", "deliver")
    site.travel(at("2026-06-30 21:50"))
    with site.session() as session:
        factories.live_feed(session, site.now)
    for restart in range(10 if long else 4):
        if restart == 1:
            site.travel(MONTH_END)
        began = site.now
        with site.running("flask", "scheduler") as process:
            eventually(lambda began=began: ticked(site, began))  # type: ignore[misc]
            if restart % 2:
                site.kill(process)
                assert process.wait(PATIENCE) == KILLED
            else:
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0
    site.wait_for_leases()
    with site.running("flask", "scheduler"):
        eventually(lambda: finished(site, "close", "2026-06"))
    site.wait_for_leases()
    site.run("settle-billing", "deliver")
    with site.session() as session:
        assert (
            session.scalar(select(JobRun.due_at).where(JobRun.job == "close", JobRun.period == "2026-06")) == MONTH_END
        )
    kinds = {name: ["warning", "last_call", "lapsed"] for name in names}
    check(site, kinds=kinds, orders={name: ["stop"] for name in names})


def ticked(site: Site, since: object) -> bool:
    return count(site, select(JobRun).where(JobRun.period == "queue", JobRun.started_at > since).subquery()) > 0


def finished(site: Site, job: str, period: str) -> bool:
    one = select(JobRun).where(JobRun.job == job, JobRun.period == period, JobRun.finished_at.is_not(None))
    return count(site, one.subquery()) == 1


def test_sigterm_in_the_middle_of_a_batch_of_mail_ends_soon_with_nothing_half_done(site: Site) -> None:
    # So many that the process has ended its batch long before the last, however late a busy machine lets it notice.
    names = begin(site, 60)
    with site.running("flask", "scheduler") as process:

        def asked_to_end(accepted: int) -> None:
            if accepted == 7:
                process.send_signal(signal.SIGTERM)

        site.smtp.on_accepted = asked_to_end
        assert process.wait(PATIENCE) == 0
    sent = len(site.smtp.mails)
    assert 7 <= sent < 60
    with site.session() as session:
        rows = session.execute(select(Message.state, Message.attempts, Message.lease_token)).all()
        assert Counter(tuple(row) for row in rows) == {("sent", 1, None): sent, ("queued", 0, None): 60 - sent}
        assert session.scalar(select(func.count()).where(Case.warned_at.is_not(None))) == sent
    site.run("deliver")
    assert check(site, kinds={name: ["warning"] for name in names}, orders={}) == 0


def test_sigterm_while_the_mail_server_says_nothing_is_obeyed_before_it_does(site: Site) -> None:
    begin(site, 1)
    over = Event()
    with site.running("flask", "scheduler") as process:

        def asked_to_end(accepted: int) -> None:
            process.send_signal(signal.SIGTERM)
            over.wait(PATIENCE)

        site.smtp.on_accepted = asked_to_end
        assert process.wait(PATIENCE) == 0
    with site.session() as session:
        # Who had waited for the server until its time was up would have put the message back.
        assert session.scalars(select(Message.state)).all() == ["sending"]
    assert STOP_WITHIN < 10 < TIMEOUT_SECONDS
    site.smtp.on_accepted = None
    over.set()
    # The server has the mail, and nobody has heard that it does.
    site.was_cut_off()
    site.wait_for_leases()
    site.run("deliver")
    assert check(site, kinds={"silent-0": ["warning"]}, orders={}) == 1


def test_sigterm_in_the_middle_of_a_month_end_ends_with_whole_windows_and_the_next_one_goes_on(site: Site) -> None:
    names = begin(site, 40)
    site.run("deliver")
    site.travel(at("2026-07-01 02:00"))
    with site.session() as session:
        factories.live_feed(session, site.now)
    with site.running("flask", "scheduler", WINDOW="5", TERM_AT_EVENT="case_closed") as process:
        assert process.wait(PATIENCE) == 0
    with site.session() as session:
        lapsed = session.scalar(select(func.count()).where(Member.status == "lapsed")) or 0
        row = session.get_one(JobRun, ("close", "2026-06"))
        # What was asked to end has written down that it has, and keeps nobody waiting.
        assert (row.result, row.finished_at, row.lease_token) == ("interrupted", None, None)
    assert lapsed in range(5, 40, 5)
    with site.running("flask", "scheduler", WINDOW="5"):
        eventually(lambda: finished(site, "close", "2026-06"))
    site.wait_for_leases()
    site.run("settle-billing", "deliver")
    check(site, kinds={name: ["warning", "lapsed"] for name in names}, orders={name: ["stop"] for name in names})


def test_a_job_that_was_due_while_nothing_ran_is_said_to_be_late(
    make_app: Callable[..., Flask], app: Flask, session: Session, settings: Settings, clock: FrozenClock
) -> None:
    opened(session, settings, NOW)
    session.commit()
    runner.run_due(app)
    clock.travel(at("2026-07-03 08:00"))
    session.rollback()
    late = {one.job for one in app.extensions["dormouse_jobs"].overview(clock.now()) if one.late}
    assert late == {"draft-campaign", "remind", "close", "warn-purge", "purge"}
    session.rollback()
    feed(session, clock)
    runner.run_due(app)
    assert not any(one.late for one in app.extensions["dormouse_jobs"].overview(clock.now()))
