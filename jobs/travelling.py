"""Journeys in time, in the demo: every morning that matters is lived through, one after another; nothing is skipped.

1. The clock is set to the next morning on which something falls due (demo.next_morning), or a week on.
2. The service's nightly file arrives, as it would from a service that is running: who used it.
3. The due calendar jobs run, and then the queues: notices, closes, charges, purges and their mails, each on its day.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol, cast

from flask import Flask

from jobs import runner, timetable
from models import db, for_writing
from services import books, demo
from services.installation import Installation

AFTERWARDS = timedelta(minutes=10)
"""One arrives a while after the mails: an answer within a minute of its mail is taken for a machine's."""


class TravellingClock(Protocol):
    def now(self) -> datetime: ...

    def travel(self, to: datetime) -> None: ...


def init_app(app: Flask) -> None:
    """Offer ``app.extensions["dormouse_travel"](to)`` to the pages and the command of the demo."""
    app.extensions["dormouse_travel"] = journey(app)


def journey(app: Flask) -> Callable[[datetime], None]:
    installation: Installation = app.extensions["dormouse"]
    clock = cast(TravellingClock, installation.clock)

    def travel(to: datetime) -> None:
        with app.extensions["dormouse_jobs"].nobody_else():
            if to <= clock.now():
                # The button was pressed twice: the second journey arrives where the first one went.
                return
            _open_books(app, installation)
            morning = clock.now()
            while morning < to:
                morning = _next_morning(app, installation, morning, to)
                clock.travel(morning)
                _nightly_file(app, installation)
                runner.run_due(app)
                for queue in timetable.QUEUE:
                    runner.run_queue(app, queue)
            clock.travel(to + AFTERWARDS)

    return travel


def _next_morning(app: Flask, installation: Installation, now: datetime, to: datetime) -> datetime:
    with app.app_context():
        morning = demo.next_morning(db.session(), installation.settings, now, to)
        db.session.rollback()
        return morning


def _open_books(app: Flask, installation: Installation) -> None:
    """The books see everybody before the time of what is paid flies by, as they do where every day is lived."""
    with app.app_context():
        session = db.session()
        for_writing(session)
        books.follow_members(session, installation.clock.now())
        session.commit()


def _nightly_file(app: Flask, installation: Installation) -> None:
    now = installation.clock.now()
    with app.app_context():
        session = db.session()
        uses = demo.uses_of_last_night(session, now)
        session.rollback()
        demo.report_uses(session, installation.settings, uses, now, session.commit)
