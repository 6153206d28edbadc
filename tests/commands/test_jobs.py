"""`flask jobs`: each job, when it last ran with what result, when it is next due; and running one."""

import json
from datetime import timedelta

from click.testing import Result
from flask import Flask
from sqlalchemy.orm import Session

from jobs import timetable
from models import JobRun, db
from tests.doubles import FrozenClock


def jobs(app: Flask, *words: str) -> Result:
    result: Result = app.test_cli_runner().invoke(args=["jobs", *words])
    # A process would have ended here, and its look at the database with it.
    db.session.rollback()
    return result


def listed(app: Flask) -> dict[str, dict[str, object]]:
    return {one["job"]: one for one in json.loads(jobs(app, "list", "--json").stdout)}


def test_every_job_of_the_contract_can_be_run_and_is_listed(app: Flask) -> None:
    names = [
        "draft-campaign",
        "deliver",
        "remind",
        "close",
        "settle-billing",
        "send-events",
        "warn-purge",
        "purge",
    ]
    assert list(listed(app)) == names
    assert {one["state"] for one in listed(app).values()} == {"never"}
    for name in names:
        result = jobs(app, "run", name)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(f"{name}: ")
    assert {one["state"] for one in listed(app).values()} == {"done"}
    assert "06-03 12:00" in jobs(app, "list").stdout


def test_the_next_time_is_said_in_the_time_of_the_service(app: Flask) -> None:
    assert listed(app)["close"]["next_due_at"] == "2026-05-31T22:00:00+00:00"
    for name in timetable.CALENDAR:
        jobs(app, "run", name)
    assert listed(app)["close"]["next_due_at"] == "2026-06-03T22:00:00+00:00"
    assert listed(app)["draft-campaign"]["next_due_at"] == "2026-06-30T22:00:00+00:00"
    assert listed(app)["deliver"]["next_due_at"] is None
    assert "2026-06-04 00:00" in jobs(app, "list").stdout


def test_a_failure_and_its_next_try_are_shown(app: Flask, session: Session, clock: FrozenClock) -> None:
    again = clock.now() + timedelta(minutes=4)
    session.add(
        JobRun(job="purge", period="2026-06-03", started_at=clock.now(), lease_until=again, error="ValueError: no good")
    )
    session.commit()
    row = listed(app)["purge"]
    assert (row["state"], row["error"], row["next_due_at"]) == ("failed", "ValueError: no good", again.isoformat())
    assert row["late"] is True
    assert "ValueError: no good" in jobs(app, "list").stdout


def test_a_job_at_work_is_called_running(app: Flask, session: Session, clock: FrozenClock) -> None:
    until = clock.now() + timedelta(minutes=4)
    session.add(JobRun(job="purge", period="2026-06-03", started_at=clock.now(), lease_token="x", lease_until=until))
    session.commit()
    row = listed(app)["purge"]
    assert (row["state"], row["late"]) == ("running", False)


def test_a_job_that_does_not_exist_is_refused(app: Flask) -> None:
    result = jobs(app, "run", "tidy")
    assert result.exit_code == 1
    assert result.stderr.startswith('Error: there is no job "tidy"; there are draft-campaign, ')


def test_only_mail_is_sent_by_several_processes(app: Flask) -> None:
    result = jobs(app, "run", "close", "--workers", "2")
    assert result.exit_code == 2
    assert "--workers is for deliver" in result.output
