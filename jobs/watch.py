"""Has somebody set the clock while this process ran? Then what must not happen too early waits for an operator.

The wall clock is held against the time the machine has been up, which counts on while it is suspended and which nobody
can set. A new process begins with the clock as it finds it: downtime is no jump.
"""

from datetime import datetime, timedelta
from threading import Lock

from flask import Flask

from models import db, for_writing
from services import timekeeping
from services.installation import Installation

JUMP = timedelta(minutes=59)
"""Clocks are put right by seconds. What a wrong time zone makes of one, an hour, is a jump."""


class Watch:
    def __init__(self, app: Flask) -> None:
        self._app = app
        self._booted_at: datetime | None = None
        self._looking = Lock()

    def look(self) -> None:
        """Write down a jump since the last look. Until that has been committed, nobody who looks goes on."""
        installation: Installation = self._app.extensions["dormouse"]
        with self._looking:
            booted_at = installation.clock.booted_at()
            before = self._booted_at or booted_at
            if abs(booted_at - before) >= JUMP:
                self._note(installation.clock.now(), booted_at - before)
            self._booted_at = booted_at

    def _note(self, found: datetime, by: timedelta) -> None:
        with self._app.app_context():
            session = db.session()
            for_writing(session)
            timekeeping.note_jump(session, found - by, found)
            session.commit()
