"""Time that misbehaves: month ends in awkward zones and years, and a clock that somebody sets while a process runs."""

from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs import runner
from models import Campaign, ClockJump, JobRun, Member, db
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import opened

JULY_1 = at("2026-07-01 06:00")


def said(app: Flask, *words: str) -> str:
    # A command is a process with a session of its own.
    db.session.rollback()
    result = app.test_cli_runner().invoke(args=[*words])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    db.session.rollback()
    return str(result.output)


def statuses(session: Session) -> list[str]:
    session.rollback()
    return list(session.scalars(select(Member.status).order_by(Member.id)))


@pytest.fixture
def asked(app: Flask, session: Session, settings: Settings, clock: FrozenClock) -> Member:
    """Somebody who has been warned, and a process that has looked at its clock."""
    member = factories.dormant(session)
    opened(session, settings, NOW)
    session.commit()
    runner.run_due(app)
    return member


def feed_alive(session: Session, now: datetime) -> None:
    factories.live_feed(session, now)
    session.commit()


def test_a_clock_set_forward_a_month_ends_nobody_until_an_operator_confirms_the_time(
    app: Flask, session: Session, clock: FrozenClock, asked: Member
) -> None:
    clock.jump(days=28)
    feed_alive(session, clock.now())
    runner.run_due(app)
    assert statuses(session) == ["active"]
    assert said(app, "jobs", "run", "close").startswith("close: waiting: the system clock jumped from 2026-06-03 12:00")
    assert said(app, "jobs", "run", "purge").startswith("purge: waiting: ")
    assert statuses(session) == ["active"]

    said(app, "jobs", "confirm-time")
    runner.run_due(app)
    assert statuses(session) == ["lapsed"]


def test_while_the_time_is_in_doubt_doctor_jobs_and_readyz_say_so(
    app: Flask, session: Session, clock: FrozenClock, asked: Member
) -> None:
    what = "the system clock jumped from 2026-06-03 12:00 to 2026-07-01 12:00; draft-campaign, close and purge wait"
    clock.jump(days=28)
    runner.run_due(app)
    jobs = said(app, "jobs", "list").splitlines()
    assert [line.split()[0] for line in jobs if what in line] == ["draft-campaign", "close", "purge"]
    assert f"BAD  clock: {what}" in said(app, "doctor")
    ready = app.test_client().get("/readyz")
    assert (ready.status_code, what in ready.text) == (503, True)

    assert "draft-campaign, close and purge go on" in said(app, "jobs", "confirm-time")
    for words in (("jobs", "list"), ("doctor",)):
        assert "jumped" not in said(app, *words)
    assert app.test_client().get("/readyz").status_code == 200
    assert said(app, "jobs", "confirm-time").startswith("The clock was not in doubt")


def test_a_clock_set_back_an_hour_is_noticed_and_one_put_right_by_seconds_is_not(
    app: Flask, session: Session, clock: FrozenClock, asked: Member
) -> None:
    clock.jump(seconds=40)
    runner.run_due(app)
    assert session.scalar(select(ClockJump)) is None
    session.rollback()
    clock.jump(hours=-1)
    runner.run_due(app)
    jump = session.scalars(select(ClockJump)).one()
    assert jump.expected_at - jump.noticed_at == timedelta(hours=1)


def test_downtime_and_suspension_are_no_jumps(app: Flask, session: Session, clock: FrozenClock, asked: Member) -> None:
    clock.tick(days=28)
    feed_alive(session, clock.now())
    runner.run_due(app)
    assert session.scalar(select(ClockJump)) is None
    assert statuses(session) == ["lapsed"]


def test_two_processes_write_one_jump_and_one_that_looks_after_the_confirmation_none(
    make_app: object, app: Flask, session: Session, clock: FrozenClock, asked: Member
) -> None:
    second: Flask = make_app()  # type: ignore[operator]
    third: Flask = make_app()  # type: ignore[operator]
    for other in (second, third):
        runner.run_due(other)
    clock.jump(days=28)
    runner.run_due(app)
    clock.tick(seconds=10)
    runner.run_due(second)
    assert len(session.scalars(select(ClockJump)).all()) == 1
    session.rollback()
    said(app, "jobs", "confirm-time")
    clock.tick(seconds=10)
    runner.run_due(third)
    assert session.scalar(select(ClockJump).where(ClockJump.confirmed_at.is_(None))) is None


def test_what_a_wrong_clock_put_off_is_due_once_the_time_is_confirmed(
    app: Flask, session: Session, clock: FrozenClock, asked: Member
) -> None:
    """Ahead by a month, the days to come were worked on, and work was leased, waits were written, for then."""
    clock.jump(days=28)
    runner.run_due(app)
    session.add(
        JobRun(job="close", period="2026-06-03b", lease_token="x", lease_until=clock.now() + timedelta(minutes=5))
    )
    session.commit()
    clock.jump(days=-28)
    runner.run_due(app)
    said(app, "jobs", "confirm-time")
    rows = session.scalars(select(JobRun)).all()
    assert {row.period for row in rows} >= {"2026-06-03", "2026-06"}
    assert [row.period for row in rows if row.due_at and row.due_at > clock.now()] == []
    assert [row.period for row in rows if row.lease_until and row.lease_until > clock.now() + timedelta(hours=1)] == []
    session.rollback()

    assert session.scalars(select(Campaign.month)).all() == ["2026-06"]

    clock.travel(JULY_1)
    feed_alive(session, clock.now())
    runner.run_due(app)
    assert statuses(session) == ["lapsed"]


def test_the_real_clock_stands_still_against_the_machines_start(app: Flask) -> None:
    from adapters.clock import ShiftedClock, SystemClock

    clock = SystemClock()
    assert abs(clock.booted_at() - clock.booted_at()) < timedelta(seconds=5)
    assert clock.booted_at() < clock.now() == clock.now().astimezone(UTC) or clock.now().tzinfo is UTC
    folder = app.extensions["dormouse"].settings.instance_path
    travelling = ShiftedClock(folder / "clock")
    before = travelling.booted_at()
    travelling.travel(travelling.now() + timedelta(days=300))
    assert abs(travelling.booted_at() - before) < timedelta(seconds=5)
