"""Time that misbehaves: month ends in awkward zones and years, and a clock that somebody sets while a process runs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs import runner
from models import Campaign, Case, ClockJump, JobRun, Member, Message, db
from models import Event as Happened
from services import campaigns
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock, Received, SmtpCatcher
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


def test_a_warning_waits_too_so_that_a_clock_that_is_behind_shortens_nobodys_notice(
    app: Flask, session: Session, settings: Settings, clock: FrozenClock, smtp: SmtpCatcher
) -> None:
    """On 20 June, with the clock at 31 May, a warning would name 30 June and count as a month old."""
    factories.dormant(session)
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    session.commit()
    runner.run_due(app)
    clock.travel(at("2026-06-20 10:00"))
    runner.run_due(app)
    clock.jump(days=-17)
    campaigns.approve(session, settings, "2026-06", clock.now())
    session.commit()
    runner.run_queue(app, "deliver")
    assert smtp.mails == []
    clock.jump(days=17)
    said(app, "jobs", "confirm-time")
    runner.run_queue(app, "deliver")
    assert len(smtp.mails) == 1
    assert session.scalars(select(Case.deadline_at)).one() == at("2026-07-31 22:00")
    session.rollback()


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


# Month ends, from the draft to the day after, in zones and years that are awkward

AWKWARD = {
    # Clocks go back on the last day itself: it has 25 hours, and half past two comes twice.
    "Berlin in autumn": ("Europe/Berlin", "2027-10", at("2027-10-31 23:00"), "31 October 2027", "31 August 2028"),
    "Kiritimati, UTC+14": ("Pacific/Kiritimati", "2026-06", at("2026-06-30 10:00"), "30 June 2026", "30 April 2027"),
    "Pago Pago, UTC-11": ("Pacific/Pago_Pago", "2026-06", at("2026-07-01 11:00"), "30 June 2026", "30 April 2027"),
    # On 1 October 2017 the clocks of Asunción went from midnight to one: the day began at one.
    "Asuncion without midnight": (
        "America/Asuncion",
        "2017-09",
        at("2017-10-01 04:00"),
        "30 September 2017",
        "31 July 2018",
    ),
    "Berlin in a leap year": (
        "Europe/Berlin",
        "2028-02",
        at("2028-02-29 23:00"),
        "29 February 2028",
        "31 December 2028",
    ),
    "Berlin in no leap year": (
        "Europe/Berlin",
        "2027-02",
        at("2027-02-28 23:00"),
        "28 February 2027",
        "31 December 2027",
    ),
}


@pytest.mark.parametrize(("zone", "month", "deadline", "last_day", "saved"), AWKWARD.values(), ids=list(AWKWARD))
def test_scenario_05_a_month_lived_through_from_draft_to_end(
    make_app: Callable[..., Flask],
    smtp: SmtpCatcher,
    clock: FrozenClock,
    zone: str,
    month: str,
    deadline: datetime,
    last_day: str,
    saved: str,
) -> None:
    app = make_app(service_timezone=zone, campaign_approval="auto")
    here = ZoneInfo(zone)
    first = datetime.fromisoformat(f"{month}-01").replace(hour=8, tzinfo=here)
    with app.app_context():
        session = db.session()
        member = factories.dormant(session, joined_at=add_years(first, -1))
        # Whoever joined a year before tomorrow is not due today, but next month.
        factories.dormant(session, joined_at=add_years(first + timedelta(days=1), -1))
        session.commit()
        member_id = member.id

        def lives(instant: datetime) -> str:
            clock.travel(instant)
            factories.live_feed(session, instant)
            session.commit()
            runner.run_due(app)
            # Who has ended is told once the provider has confirmed the stop.
            runner.run_queue(app, "settle-billing")
            runner.run_queue(app, "deliver")
            session.rollback()
            return str(session.get_one(Member, member_id, populate_existing=True).status)

        last_morning = (deadline - timedelta(hours=1)).astimezone(here).replace(hour=8)
        lives(first.astimezone(UTC))
        for days_before in (7, 6, 2, 1, 0):
            assert lives((last_morning - timedelta(days=days_before)).astimezone(UTC)) == "active"
        for half_hours in (-12, -6, -4, -2, -1):
            assert lives(deadline + timedelta(minutes=30 * half_hours)) == "active"
        assert lives(deadline - timedelta(microseconds=1)) == "active"
        assert lives(deadline) == "lapsed"
        for half_hours in (1, 2, 4):
            lives(deadline + timedelta(minutes=30 * half_hours))

        session.expire_all()
        ended = session.get_one(Member, member_id)
        assert ended.lapsed_at == deadline
        assert ended.keep_until is not None
        run = session.get_one(JobRun, ("close", month))
        assert (run.due_at, run.attempts) == (deadline, 1)
        closed = session.scalars(select(Happened.at).where(Happened.code == "case_closed")).all()
        assert closed == [deadline]
        texts = [body(mail) for mail in smtp.to(ended.email or "")]
        assert [last_day in text for text in texts] == [True] * 4
        assert saved in texts[-1]
        kinds = session.scalars(select(Message.kind).where(Message.member_id == member_id).order_by(Message.id)).all()
        assert kinds == ["warning", "reminder", "last_call", "lapsed"]
        session.rollback()


def test_scenario_05_joined_on_29_february_is_drafted_on_28_february(
    make_app: Callable[..., Flask], clock: FrozenClock
) -> None:
    """Twelve months after 29 February 2024, in the round of the 28th; and that late the end named is March's."""
    app = make_app(campaign_approval="auto", campaign_day=28)
    with app.app_context():
        session = db.session()
        member = factories.dormant(session, joined_at=at("2024-02-29 10:00"))
        factories.dormant(session, joined_at=at("2024-03-01 10:00"))
        session.commit()
        clock.travel(at("2025-02-28 08:00"))
        factories.live_feed(session, clock.now())
        session.commit()
        runner.run_due(app)
        runner.run_queue(app, "deliver")
        case = session.scalars(select(Case)).one()
        assert (case.member_id, case.deadline_at) == (member.id, at("2025-03-31 22:00"))
        session.rollback()


def add_years(day: datetime, years: int) -> datetime:
    return day.replace(year=day.year + years)


def body(mail: Received) -> str:
    part = mail.message.get_body(("plain",))
    assert part is not None
    return " ".join(str(part.get_content()).split())
