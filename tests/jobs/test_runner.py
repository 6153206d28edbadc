"""Who runs a period, what is written down, and what happens when runs fail, crash, overlap or are asked to end."""

import logging
from collections.abc import Callable
from datetime import timedelta
from threading import Barrier, Thread
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from domain.errors import NotFound
from jobs import runner, timetable
from jobs.bodies import BODIES, Context, Result
from models import Campaign, Event, JobRun, db, for_writing
from services import events
from tests import factories
from tests.doubles import FrozenClock
from tests.factories import at


def job_run(session: Session, job: str, period: str) -> JobRun | None:
    session.rollback()
    return session.get(JobRun, (job, period), populate_existing=True)


def effects(session: Session, code: str) -> int:
    session.rollback()
    return session.scalar(select(func.count()).select_from(Event).where(Event.code == code)) or 0


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[Context], Result]], None]:
    """``only(job, body)``: this job does what the test says, every other calendar job nothing."""

    def replace(job: str, body: Callable[[Context], Result]) -> None:
        for name in timetable.CALENDAR:
            monkeypatch.setitem(BODIES, name, body if name == job else lambda context: Result("nothing"))

    return replace


def leaves_a_trace(context: Context) -> Result:
    for_writing(context.session)
    events.record(context.session, "trace", context.now)
    return Result("left a trace")


def test_a_first_tick_runs_every_calendar_job_for_real(app: Flask, session: Session) -> None:
    factories.dormant(session)
    factories.live_feed(session, at("2026-06-02"))
    session.commit()

    runner.run_due(app)

    rows = session.scalars(select(JobRun).order_by(JobRun.job, JobRun.period)).all()
    assert [(row.job, row.period, row.error) for row in rows] == [
        ("close", "2026-05", None),
        ("close", "2026-06-03", None),
        ("draft-campaign", "2026-06", None),
        ("purge", "2026-06-03", None),
        ("remind", "2026-06-03", None),
        ("warn-purge", "2026-06-03", None),
    ]
    assert all(row.finished_at is not None and row.lease_token is None for row in rows)
    assert session.scalars(select(Campaign.month)).all() == ["2026-06"]


def test_a_period_runs_once_and_the_next_one_again(
    app: Flask, session: Session, clock: FrozenClock, only: Callable[..., None]
) -> None:
    only("purge", leaves_a_trace)
    runner.run_due(app)
    runner.run_due(app)
    assert effects(session, "trace") == 1
    clock.tick(days=1)
    runner.run_due(app)
    assert effects(session, "trace") == 2


def test_scenario_42_two_schedulers_leave_one_trace_a_day(
    make_app: Callable[..., Flask], clock: FrozenClock, only: Callable[..., None]
) -> None:
    """Two applications, as two machines would be, each ticking in two threads at the same instant, for thirty days."""
    only("remind", leaves_a_trace)
    apps = [make_app(), make_app()]
    days, threads_each = 30, 2
    together = Barrier(len(apps) * threads_each, action=lambda: clock.tick(days=1))

    def tick(app: Flask) -> None:
        for _ in range(days):
            together.wait()
            runner.run_due(app)

    threads = [Thread(target=tick, args=(app,)) for app in apps for _ in range(threads_each)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with apps[0].app_context():
        assert effects(db.session(), "trace") == days
        errors = db.session.scalars(select(JobRun.error).where(JobRun.error.is_not(None))).all()
        assert errors == []


def test_scenario_09_after_a_downtime_only_this_month_is_drafted(
    app: Flask, session: Session, clock: FrozenClock
) -> None:
    runner.run_due(app)
    clock.travel(at("2026-10-20 09:00"))
    runner.run_due(app)

    drafts = session.scalars(select(JobRun).where(JobRun.job == timetable.DRAFT).order_by(JobRun.period)).all()
    assert [(row.period, row.result) for row in drafts[1:-1]] == [
        ("2026-07", "skipped"),
        ("2026-08", "skipped"),
        ("2026-09", "skipped"),
    ]
    assert session.scalars(select(Campaign.month).order_by(Campaign.month)).all() == ["2026-06", "2026-10"]


def test_scenario_09_a_first_start_skips_nothing(app: Flask, session: Session, clock: FrozenClock) -> None:
    clock.travel(at("2026-06-29 09:00"))
    runner.run_due(app)
    assert session.scalars(select(JobRun.period).where(JobRun.job == timetable.DRAFT)).all() == ["2026-06"]


def test_a_failure_is_written_down_stops_no_other_and_is_tried_again_later(
    app: Flask,
    session: Session,
    clock: FrozenClock,
    only: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(context: Context) -> Result:
        leaves_a_trace(context)
        raise ValueError("no good\nat all")

    only("close", fails)
    with caplog.at_level(logging.CRITICAL):
        runner.run_due(app)
    row = job_run(session, "close", "2026-06-03")
    assert row is not None
    assert (row.error, row.finished_at, row.lease_token, row.attempts) == ("ValueError: no good at all", None, None, 1)
    assert effects(session, "trace") == 0
    purged = job_run(session, "purge", "2026-06-03")
    assert purged is not None
    assert purged.finished_at is not None

    only("close", leaves_a_trace)
    clock.tick(seconds=59)
    runner.run_due(app)
    assert effects(session, "trace") == 0
    clock.tick(seconds=1)
    runner.run_due(app)
    row = job_run(session, "close", "2026-06-03")
    assert row is not None
    assert (row.error, row.result, row.attempts) == (None, "left a trace", 2)
    assert row.finished_at is not None


def test_the_waits_after_failures_grow_to_an_hour(
    app: Flask, session: Session, clock: FrozenClock, only: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    def fails(context: Context) -> Result:
        raise ValueError

    only("purge", fails)
    waits = []
    for _ in range(9):
        with caplog.at_level(logging.CRITICAL):
            runner.run_due(app)
        row = job_run(session, "purge", "2026-06-03")
        assert row is not None
        assert row.lease_until is not None
        waits.append((row.lease_until - clock.now()) // timedelta(minutes=1))
        clock.travel(row.lease_until)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_who_saw_a_period_free_before_another_took_it_does_not_get_it(
    app: Flask, session: Session, clock: FrozenClock, only: Callable[..., None]
) -> None:
    """Between looking what is due and taking it, another process may have been quicker, and be at work, or done."""
    (due,) = [one for one in timetable.due(clock.now(), ZoneInfo("Europe/Berlin"), 1) if one.job == "purge"]
    tokens: list[str | None] = []

    def take() -> None:
        with app.app_context():
            for_writing(db.session())
            tokens.append(runner._take(db.session(), due, clock.now()))
            db.session.commit()

    def at_work(context: Context) -> Result:
        take()
        return Result("done")

    only("purge", at_work)
    runner.run_due(app)
    take()
    clock.tick(hours=1)
    take()
    assert tokens == [None, None, None]


def test_a_lease_that_ran_out_is_taken_over_and_its_first_holder_commits_nothing_more(
    app: Flask, session: Session, clock: FrozenClock, only: Callable[..., None]
) -> None:
    steps: list[str] = []

    def slow(context: Context) -> Result:
        steps.append("slow")
        leaves_a_trace(context)
        if len(steps) == 1:
            context.session.rollback()
            clock.tick(minutes=15)
            runner.run_due(app)  # as another process would, once the lease has run out
            leaves_a_trace(context)
        context.commit()
        return Result("done")

    only("purge", slow)
    runner.run_due(app)

    assert steps == ["slow", "slow"]
    assert effects(session, "trace") == 1
    row = job_run(session, "purge", "2026-06-03")
    assert row is not None
    assert (row.result, row.error, row.attempts) == ("done", None, 2)


def test_a_lease_is_renewed_with_every_step(
    app: Flask, session: Session, clock: FrozenClock, only: Callable[..., None]
) -> None:
    def long(context: Context) -> Result:
        for _ in range(5):
            leaves_a_trace(context)
            clock.tick(minutes=10)
            context.commit()
        return Result("done")

    only("purge", long)
    runner.run_due(app)
    row = job_run(session, "purge", "2026-06-03")
    assert row is not None
    assert (row.result, row.attempts) == ("done", 1)


def test_who_is_asked_to_end_leaves_the_rest_of_the_period_free(
    app: Flask, session: Session, only: Callable[..., None]
) -> None:
    ending: list[bool] = []

    def two_steps(context: Context) -> Result:
        leaves_a_trace(context)
        ending.append(True)
        context.commit()
        leaves_a_trace(context)
        return Result("done")

    only("close", two_steps)
    runner.run_due(app, lambda: bool(ending))
    assert effects(session, "trace") == 1
    row = job_run(session, "close", "2026-05")
    assert row is not None
    assert (row.result, row.finished_at, row.lease_token) == ("interrupted", None, None)

    only("close", leaves_a_trace)
    runner.run_due(app)
    row = job_run(session, "close", "2026-05")
    assert row is not None
    assert row.finished_at is not None


def test_what_waits_is_tried_again_until_it_is_done(
    app: Flask, session: Session, clock: FrozenClock, only: Callable[..., None]
) -> None:
    only("close", lambda context: Result("waiting for the use feed", finished=False))
    runner.run_due(app)
    only("close", leaves_a_trace)
    runner.run_due(app)
    assert effects(session, "trace") == 0
    clock.tick(minutes=15)
    runner.run_due(app)
    assert effects(session, "trace") == 2  # the month end's period, and the day's


def test_the_draft_waits_for_a_close_in_progress(app: Flask, session: Session, clock: FrozenClock) -> None:
    session.add(JobRun(job="close", period="2026-05", lease_token="x", lease_until=clock.now() + timedelta(minutes=5)))
    session.commit()
    runner.run_due(app)
    assert job_run(session, timetable.DRAFT, "2026-06") is None
    clock.tick(minutes=5)
    runner.run_due(app)
    assert job_run(session, timetable.DRAFT, "2026-06") is not None


def test_a_transaction_that_the_database_sends_back_begins_anew(
    app: Flask, session: Session, only: Callable[..., None]
) -> None:
    tries: list[int] = []

    def meets_another(context: Context) -> Result:
        tries.append(1)
        leaves_a_trace(context)
        if len(tries) < 3:
            if db.engine.dialect.name == "postgresql":
                context.session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$"))
            with db.engine.connect() as second:
                assert second.connection.driver_connection is not None
                second.connection.driver_connection.execute("PRAGMA busy_timeout = 0")
                second.execute(update(JobRun).values(result="never"))
        return Result("done")

    only("purge", meets_another)
    runner.run_due(app)
    assert len(tries) == 3
    assert effects(session, "trace") == 1


def test_running_a_job_by_hand_always_runs_it_and_counts_for_the_period(
    app: Flask, session: Session, clock: FrozenClock, only: Callable[..., None]
) -> None:
    only("purge", leaves_a_trace)
    assert runner.run(app, "purge", clock.now()) == "left a trace"
    assert runner.run(app, "purge", clock.now()) == "left a trace"
    assert effects(session, "trace") == 2
    runner.run_due(app)
    assert effects(session, "trace") == 2


def test_running_a_job_by_hand_does_not_end_the_turn_of_a_process_at_work(
    app: Flask, session: Session, clock: FrozenClock, only: Callable[..., None]
) -> None:
    only("purge", leaves_a_trace)
    until = clock.now() + timedelta(minutes=5)
    session.add(JobRun(job="purge", period="2026-06-03", lease_token="x", lease_until=until))
    session.commit()
    runner.run(app, "purge", clock.now())
    row = job_run(session, "purge", "2026-06-03")
    assert row is not None
    assert (row.lease_token, row.finished_at) == ("x", None)


def test_a_job_that_does_not_exist_is_named_with_those_that_do(app: Flask, clock: FrozenClock) -> None:
    with pytest.raises(NotFound, match='no job "tidy"; there are draft-campaign, deliver'):
        runner.run(app, "tidy", clock.now())


def test_a_queue_job_has_one_row_that_tells_of_its_last_run(
    app: Flask, session: Session, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(context: Context) -> Result:
        raise ValueError("no good")

    assert runner.run_queue(app, "settle-billing") == "0 done, 0 to try again, 0 failed"
    clock.tick(minutes=1)
    with monkeypatch.context() as broken:
        broken.setitem(BODIES, "settle-billing", fails)
        with pytest.raises(ValueError):
            runner.run_queue(app, "settle-billing")
    row = job_run(session, "settle-billing", "queue")
    assert row is not None
    assert (row.error, row.finished_at) == ("ValueError: no good", clock.now())

    runner.run_queue(app, "settle-billing")
    assert session.scalar(select(func.count()).select_from(JobRun)) == 1
    row = job_run(session, "settle-billing", "queue")
    assert row is not None
    assert row.error is None
