"""When jobs run: a tick, in the processes that serve pages, or in one that does nothing else (``flask scheduler``).

Every process that ticks does the same, and none relies on being alone: the database decides who runs what (runner.py).
One thread runs the calendar jobs in their order, and one each queue job, so a long delivery never delays a month end.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from time import monotonic

import click
from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask
from flask.cli import run_command
from flask.helpers import get_debug_flag
from sqlalchemy.exc import DBAPIError
from werkzeug.serving import is_running_from_reloader

from domain.errors import DormouseError
from jobs import report, runner, timetable
from models import db
from services.installation import Installation

TICK = timedelta(seconds=10)
SETTLING = 1.0
"""Seconds before the first tick: a server that finds its port in use has ended by then."""

BUDGET = 240.0
"""Seconds after which a queue job leaves the rest to its next turn, so that what it reports is never old."""

STOP_WITHIN = 8.0
"""Seconds a process that is asked to end waits for what is being worked on; after that leases hand it to others."""

log = logging.getLogger("dormouse.jobs")


def start_where_pages_are_served(app: Flask) -> None:
    """Give the application its jobs, and start ticking if, and once, this process serves pages.

    ``flask run`` is seen here, and of its two processes with the reloader only the one that serves. Under gunicorn the
    worker's hook starts it (gunicorn.conf.py), after the fork; a process of any other server starts with its first
    request. Other commands and tests never do.
    """
    jobs = Jobs(app)
    app.extensions["dormouse_jobs"] = jobs
    if not jobs.installation.settings.scheduler:
        return
    context = click.get_current_context(silent=True)
    if context is None:
        app.before_request(jobs.start_when_serving)
    elif context.command is run_command and _serves(context):
        jobs.start()


def _serves(context: click.Context) -> bool:
    reloads = context.params.get("reload")
    with_reloader = get_debug_flag() if reloads is None else reloads
    return not with_reloader or is_running_from_reloader()


class Jobs:
    """What the commands, the server's hooks and the demo use of this package: ``extensions["dormouse_jobs"]``."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._pid: int | None = None
        self._starting = threading.Lock()
        self._stopping = threading.Event()
        self._only_me = threading.Lock()
        self._scheduler: BackgroundScheduler | None = None
        self._workers = {
            "calendar": _Worker("calendar", lambda: runner.run_due(app, self._stopping.is_set)),
            **{name: _Worker(name, lambda name=name: self._run_queue(name)) for name in timetable.QUEUE},
            **{name: _Worker(name, lambda name=name: self._run_polled(name)) for name in self._polled()},
        }

    @property
    def installation(self) -> Installation:
        found: Installation = self._app.extensions["dormouse"]
        return found

    def run(self, name: str, now: datetime) -> str:
        """Run one job in this thread and return the line that says what came of it. SIGTERM ends a queue job early."""
        if name not in timetable.QUEUE or threading.current_thread() is not threading.main_thread():
            return runner.run(self._app, name, now)
        before = signal.signal(signal.SIGTERM, lambda *_: self._stopping.set())
        try:
            return runner.run(self._app, name, now, self._stopping.is_set)
        finally:
            signal.signal(signal.SIGTERM, before)

    def run_in_processes(self, name: str, count: int, say: Callable[[str], None]) -> int:
        """Run a queue job in so many processes at once, each of which says its line; returns how many failed.

        A signal that asks this process to end is handed on to them.
        """
        with self._app.app_context():
            db.session.remove()
            # What is open must not be shared.
            db.engine.dispose()
        own = multiprocessing.get_context("fork")
        workers = [own.Process(target=self._say, args=(name, say)) for _ in range(count)]
        for worker in workers:
            worker.start()

        def end(*_: object) -> None:
            for worker in workers:
                worker.terminate()

        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for worker in workers:
                worker.join()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return sum(worker.exitcode != 0 for worker in workers)

    def _say(self, name: str, say: Callable[[str], None]) -> None:
        say(self.run(name, self.installation.clock.now()))

    def overview(self, now: datetime) -> list[report.JobState]:
        settings = self.installation.settings
        idle = set(timetable.EVERY) - set(self._polled())
        jobs = [job for job in timetable.ALL if job not in idle]
        return report.overview(db.session(), settings.zone, settings.campaign_day, now, jobs)

    def start_when_serving(self) -> None:
        if not self._app.testing:
            self.start()

    def start(self) -> None:
        """Begin to tick in this process; asked again, or in the parent of a fork, nothing more happens."""
        with self._starting:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self._scheduler = BackgroundScheduler(timezone=UTC, daemon=True)
            self._scheduler.add_job(
                self.tick,
                "interval",
                seconds=TICK.total_seconds(),
                max_instances=1,
                coalesce=True,
                misfire_grace_time=None,
            )
            self._scheduler.start()
            first = threading.Timer(SETTLING, self.tick)
            first.daemon = True
            first.start()
            self._app.extensions["dormouse_wake"] = self.wake
        log.info("the scheduler has started in process %s", self._pid)

    def tick(self) -> None:
        """Let each worker that is idle look for work."""
        if not self._stopping.is_set() and not self._only_me.locked():
            for worker in self._workers.values():
                worker.look()

    def wake(self) -> None:
        """Mail and billing orders that were just committed go out now; returns at once."""
        if self._only_me.locked():
            return
        for name in timetable.QUEUE:
            self._workers[name].look(again=True)

    @contextmanager
    def nobody_else(self) -> Iterator[None]:
        """Inside, only the caller works in this process: the demo travels in time without being overtaken by a tick."""
        with self._only_me:
            for worker in self._workers.values():
                worker.join(STOP_WITHIN)
            yield

    def serve_alone(self) -> None:
        """Tick until SIGTERM or Ctrl-C, in the foreground; then end what is being worked on, within ten seconds."""
        ends = {signal.SIGTERM, signal.SIGINT}
        # Blocked before the first thread starts, so that they are waited for here and interrupt nobody's work.
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        self.start()
        signal.sigwait(ends)
        self.stop()

    def stop(self) -> None:
        """Start nothing more, and wait a little for what is being worked on."""
        self._stopping.set()
        if self._pid != os.getpid() or self._scheduler is None:
            return
        self._scheduler.shutdown(wait=False)
        until = monotonic() + STOP_WITHIN
        for worker in self._workers.values():
            worker.join(max(0.0, until - monotonic()))

    def _run_queue(self, name: str) -> None:
        runner.run_queue(self._app, name, self._for_a_while())

    def _run_polled(self, name: str) -> None:
        runner.run_polled(self._app, name, self._for_a_while())

    def _for_a_while(self) -> Callable[[], bool]:
        until = monotonic() + BUDGET
        return lambda: self._stopping.is_set() or monotonic() >= until

    def _polled(self) -> list[str]:
        """What this installation looks at outside."""
        return [timetable.COLLECT] if self.installation.mailbox is not None else []


class _Worker:
    """A thread when there is something to do, and never two: whoever asks while it works is served right after."""

    def __init__(self, name: str, work: Callable[[], object]) -> None:
        self._name, self._work = name, work
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._again = False

    def look(self, *, again: bool = False) -> None:
        with self._lock:
            if self._thread is not None:
                self._again = self._again or again
                return
            self._thread = threading.Thread(target=self._loop, name=f"dormouse {self._name}", daemon=True)
            self._thread.start()

    def join(self, seconds: float) -> None:
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _loop(self) -> None:
        while True:
            self._work_once()
            with self._lock:
                if not self._again:
                    self._thread = None
                    return
                self._again = False

    def _work_once(self) -> None:
        try:
            self._work()
        except DBAPIError as error:
            # No schema yet, or no database at the moment: one line, and the next tick tries again.
            log.error("%s cannot use the database: %s", self._name, " ".join(str(error.orig).split()))
        except DormouseError as error:
            log.error("%s: %s", self._name, error)
        except Exception:
            # A thread has nobody to raise to; the next tick tries again.
            log.exception("%s failed", self._name)
