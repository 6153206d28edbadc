"""Where each job stands: what `flask jobs list`, the doctor and health checks show."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs import timetable
from models import JobRun
from services import timekeeping

LATE = timedelta(hours=1)
"""Late is a calendar job that is due for longer and not worked on, or a queue job that has not looked for so long."""


@dataclass(frozen=True, slots=True)
class JobState:
    """The last run of a job that is on record, and its next. ``next_due_at`` of a queue job is None: at any tick."""

    job: str
    period: str | None
    started_at: datetime | None
    finished_at: datetime | None
    state: str
    """``never``, ``running``, ``done``, ``skipped``, ``failed`` or ``waiting``."""
    result: str | None
    error: str | None
    next_due_at: datetime | None
    late: bool


def overview(
    session: Session, zone: tzinfo, campaign_day: int, now: datetime, jobs: Iterable[str] = timetable.ALL
) -> list[JobState]:
    """One line for each of the jobs, in the order of the contract."""
    present = timetable.due(now, zone, campaign_day)
    states = [_state(session, job, present, zone, campaign_day, now) for job in jobs]
    jump = timekeeping.doubt(session)
    if jump is None:
        return states
    said = timekeeping.sentence(jump, zone)
    return [replace(one, state="waiting", result=said) if one.job in timetable.FINAL else one for one in states]


def _state(
    session: Session, job: str, present: list[timetable.Due], zone: tzinfo, campaign_day: int, now: datetime
) -> JobState:
    last = session.scalar(
        select(JobRun)
        .where(JobRun.job == job)
        # Skipped months have no start and come last; the newest start is the newest run on both databases.
        .order_by(JobRun.started_at.is_(None), JobRun.started_at.desc(), JobRun.period.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )
    if job in timetable.QUEUE or job in timetable.EVERY:
        looked_at = None if last is None else last.finished_at or last.started_at
        next_due, late = None, looked_at is not None and now - looked_at > LATE
    else:
        next_due, late = _next(session, job, present, zone, campaign_day, now)
    return JobState(
        job=job,
        period=None if last is None else last.period,
        started_at=None if last is None else last.started_at,
        finished_at=None if last is None else last.finished_at,
        state=_word(last, now),
        result=None if last is None else last.result,
        error=None if last is None else last.error,
        next_due_at=next_due,
        late=late,
    )


def _next(
    session: Session, job: str, present: list[timetable.Due], zone: tzinfo, campaign_day: int, now: datetime
) -> tuple[datetime, bool]:
    """When the job will be looked at next, and whether a period of it has been due for too long."""
    for due in (one for one in present if one.job == job):
        row = session.get(JobRun, (job, due.period))
        if row is None:
            return due.at, now - due.at > LATE
        if row.finished_at is None:
            # In progress, or waiting for its next try.
            again = row.lease_until or due.at
            return max(again, now), row.lease_token is None and now - due.at > LATE
    return timetable.next_due(job, now, zone, campaign_day), False


def _word(row: JobRun | None, now: datetime) -> str:
    if row is None:
        return "never"
    if row.lease_token is not None and row.lease_until is not None and row.lease_until > now:
        return "running"
    if row.error is not None:
        return "failed"
    if row.finished_at is None:
        return "waiting"
    return "skipped" if row.result == "skipped" else "done"
