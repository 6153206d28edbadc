"""Who runs a period, and what is written down of it.

Inserting the key (job, period) into ``job_run`` decides which of many processes runs a period of a calendar job. It
holds a lease while it works, renewed with every step it commits; when that has run out, another takes over, and the
first, should it still be alive, finds its token gone at its next commit and stops without committing. A failure is
written down and tried again later. Queue jobs need none of this: they run everywhere at once, guarded row by row.

``job_run`` gates only what the tick starts. What a job does depends on the rows it finds: run twice, it does it once.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import Flask
from sqlalchemy import and_, func, or_, select, true, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from domain.errors import NotFound
from jobs import timetable
from jobs.bodies import BODIES, Context, Result, perform
from jobs.timetable import Due
from jobs.watch import Watch
from models import JobRun, db, for_writing, insert
from services.installation import Installation

LEASE = timedelta(minutes=15)
WAIT = timedelta(minutes=15)
"""How long a job whose time has not come, such as a close that waits for the use feed, is left alone."""

FIRST_BACKOFF = timedelta(minutes=1)
LONGEST_BACKOFF = timedelta(hours=1)

TRIES = 4
"""Two transactions that met in the wrong order: one of them is told to begin anew, which is no failure."""

QUEUE_PERIOD = "queue"

log = logging.getLogger("dormouse.jobs")


class LeaseLost(Exception):
    """Another process has taken the period over: what was not committed yet is its business now."""


class Interrupted(Exception):
    """This process is asked to end: the rest of the period is for whoever comes next."""


def never() -> bool:
    return False


def watch(app: Flask) -> None:
    """Look whether somebody has set the clock. Whoever looks after taking the time acts on none that is in doubt."""
    seen: Watch = app.extensions.setdefault("dormouse_watch", Watch(app))
    seen.look()


def run_due(app: Flask, enough: Callable[[], bool] = never) -> None:
    """Run every calendar job that is due and not done, one after another; a failing one does not stop the others."""
    watch(app)
    for due in _pending(app):
        if enough():
            return
        try:
            _run_period(app, due, enough)
        except Exception:
            # It is written down in job_run and tried again; here it only must not keep the next job from its turn.
            log.exception("%s for %s failed", due.job, due.period)


def run_queue(app: Flask, name: str, enough: Callable[[], bool] = never) -> str:
    """Run a queue job until its queue is empty or ``enough``; returns the line that says what came of it."""
    with app.app_context():
        session, clock = db.session(), _installation(app).clock
        started = clock.now()
        try:
            result = _perform(app, session, name, started, session.commit, enough)
        except Exception as error:
            session.rollback()
            _note_queue(session, name, started, clock.now(), {"error": _line(error)})
            raise
        _note_queue(session, name, started, clock.now(), {"result": result.text, "error": None})
        return result.text


def run_polled(app: Flask, name: str, enough: Callable[[], bool] = never) -> None:
    """Have a look outside, unless a process does so now or has done so a moment ago; raises what the look raises."""
    now = _installation(app).clock.now()
    with app.app_context():
        row = db.session.get(JobRun, (name, QUEUE_PERIOD))
        if row is not None and _held(row, now):
            return
    _run_period(app, Due(name, QUEUE_PERIOD, now), enough)


def run(app: Flask, name: str, now: datetime, enough: Callable[[], bool] = never) -> str:
    """Run a job now, whatever ``job_run`` says, and count its present period as done; for operators and the demo.

    ``enough`` is for queue jobs: the others come to their end.
    """
    if name in timetable.QUEUE or name in timetable.EVERY:
        return run_queue(app, name, enough)
    if name not in BODIES:
        raise NotFound(f'there is no job "{name}"; there are {", ".join(timetable.ALL)}')
    with app.app_context():
        session, settings = db.session(), _installation(app).settings
        result = _perform(app, session, name, now, session.commit, never)
        if result.finished:
            for due in timetable.due(now, settings.zone, settings.campaign_day):
                if due.job == name:
                    _note_done(session, due, now, result)
        session.commit()
        return result.text


def _pending(app: Flask) -> list[Due]:
    """What is due without being done, in progress or waiting for its next try."""
    installation = _installation(app)
    now, settings = installation.clock.now(), installation.settings
    with app.app_context():
        session = db.session()
        present = timetable.due(now, settings.zone, settings.campaign_day)
        rows = session.scalars(select(JobRun).where(JobRun.period.in_({due.period for due in present})))
        known = {(row.job, row.period): row for row in rows}
        in_progress = {key[0] for key, row in known.items() if row.lease_token and _held(row, now)}

        def waits(due: Due) -> bool:
            row = known.get((due.job, due.period))
            if due.job == timetable.DRAFT and timetable.CLOSE in in_progress:
                return True
            return row is not None and (row.finished_at is not None or _held(row, now))

        return [due for due in present if not waits(due)]


def _held(row: JobRun, now: datetime) -> bool:
    return row.lease_until is not None and row.lease_until > now


def _run_period(app: Flask, due: Due, enough: Callable[[], bool]) -> None:
    with app.app_context():
        session, clock = db.session(), _installation(app).clock
        now = clock.now()
        for_writing(session)
        if due.job == timetable.DRAFT:
            _skip_missed(session, app, now)
        token = _take(session, due, now)
        session.commit()
        if token is None:
            return
        lease = _Lease(session, due, token, clock.now, enough)
        try:
            result = _perform(app, session, due.job, now, lease.commit, enough)
            lease.end(result.text, done=result.finished, wait=timetable.EVERY.get(due.job, WAIT))
        except LeaseLost:
            session.rollback()
            log.warning("%s for %s was taken over by another process", due.job, due.period)
        except Interrupted:
            session.rollback()
            lease.end("interrupted", done=False, wait=timedelta(0))
        except Exception as error:
            session.rollback()
            lease.fail(error)
            raise


def _perform(
    app: Flask, session: Session, name: str, now: datetime, commit: Callable[[], None], enough: Callable[[], bool]
) -> Result:
    """The body, begun anew when the database asks for that. Leaves what it has not committed to the caller."""
    watch(app)
    context = Context(session, _installation(app), now, commit, enough)
    for tries_left in reversed(range(TRIES)):
        try:
            result = perform(name, context)
            session.flush()
            return result
        except DBAPIError as error:
            session.rollback()
            if not tries_left or not _may_begin_anew(error):
                raise
            log.info("%s begins anew: %s", name, _line(error))
    raise AssertionError("the last try returns or raises")


def _may_begin_anew(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) in ("40P01", "40001") or "is locked" in str(error.orig)


def _take(session: Session, due: Due, now: datetime) -> str | None:
    """Insert the period's key, or take over a lease that has run out; None when the period is another's, or done."""
    token = secrets.token_hex(16)
    taken = {"started_at": now, "lease_token": token, "lease_until": now + LEASE}
    statement = (
        insert(session, JobRun)
        .values(job=due.job, period=due.period, due_at=due.at, attempts=1, **taken)
        .on_conflict_do_update(
            index_elements=["job", "period"],
            set_={**taken, "attempts": JobRun.attempts + 1},
            where=and_(
                true() if due.job in timetable.EVERY else JobRun.finished_at.is_(None),
                or_(JobRun.lease_until.is_(None), JobRun.lease_until <= now),
            ),
        )
        .returning(JobRun.attempts)
    )
    return None if session.scalar(statement) is None else token


def _skip_missed(session: Session, app: Flask, now: datetime) -> None:
    last = session.scalar(select(func.max(JobRun.period)).where(JobRun.job == timetable.DRAFT))
    for month in timetable.missed_months(last, now, _installation(app).settings.zone):
        session.execute(
            insert(session, JobRun)
            .values(job=timetable.DRAFT, period=month, finished_at=now, result="skipped")
            .on_conflict_do_nothing()
        )


@dataclass(frozen=True, slots=True)
class _Lease:
    """A period that this process works on, for as long as its token stands in the row."""

    session: Session
    due: Due
    token: str
    clock: Callable[[], datetime]
    enough: Callable[[], bool]

    def commit(self) -> None:
        """Commit a step and renew the lease in one transaction: without the lease nothing is committed."""
        self._write(lease_until=self.clock() + LEASE)
        self.session.commit()
        if self.enough():
            raise Interrupted

    def end(self, text: str, *, done: bool, wait: timedelta) -> None:
        if not self.session.in_transaction():
            for_writing(self.session)
        now = self.clock()
        self._write(
            result=text,
            error=None,
            lease_token=None,
            lease_until=now + wait if self.due.job in timetable.EVERY or not done else None,
            finished_at=now if done else None,
            attempts=0 if self.due.job in timetable.EVERY else JobRun.attempts,
        )
        self.session.commit()

    def fail(self, error: BaseException) -> None:
        for_writing(self.session)
        attempts = self.session.scalar(select(JobRun.attempts).where(*self._mine())) or 1
        wait = min(FIRST_BACKOFF * (1 << min(attempts - 1, 10)), LONGEST_BACKOFF)
        self.session.execute(
            update(JobRun)
            .where(*self._mine())
            .values(error=_line(error), lease_token=None, lease_until=self.clock() + wait)
        )
        self.session.commit()

    def _mine(self) -> list:
        return [JobRun.job == self.due.job, JobRun.period == self.due.period, JobRun.lease_token == self.token]

    def _write(self, **values: object) -> None:
        if not self.session.execute(update(JobRun).where(*self._mine()).values(**values)).rowcount:
            raise LeaseLost


def _note_done(session: Session, due: Due, now: datetime, result: Result) -> None:
    """What an operator ran counts for the present period, unless a process is working on it just now."""
    done = {"started_at": now, "finished_at": now, "lease_until": None, "result": result.text, "error": None}
    session.execute(
        insert(session, JobRun)
        .values(job=due.job, period=due.period, due_at=due.at, attempts=1, **done)
        .on_conflict_do_update(index_elements=["job", "period"], set_=done, where=and_(JobRun.lease_token.is_(None)))
    )


def _note_queue(session: Session, name: str, started: datetime, finished: datetime, outcome: dict[str, object]) -> None:
    for_writing(session)
    noted = {"started_at": started, "finished_at": finished, **outcome}
    session.execute(
        insert(session, JobRun)
        .values(job=name, period=QUEUE_PERIOD, attempts=1, **noted)
        .on_conflict_do_update(index_elements=["job", "period"], set_={**noted, "attempts": JobRun.attempts + 1})
    )
    session.commit()


def _line(error: BaseException) -> str:
    """What went wrong, in one line; of a database only its own words, without the statement and its values."""
    said = error.orig if isinstance(error, DBAPIError) else error
    return f"{type(said).__name__}: {' '.join(str(said).split())}"[:500]


def _installation(app: Flask) -> Installation:
    installation: Installation = app.extensions["dormouse"]
    return installation
