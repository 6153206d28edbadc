"""The only place that reads the clock."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

# Since the machine started, suspension included; nobody can set it. Where it is missing, macOS for one, CLOCK_MONOTONIC
# is the nearest thing.
UPTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def booted_at(self) -> datetime:
        return datetime.now(UTC) - timedelta(seconds=time.clock_gettime(UPTIME))


class ShiftedClock:
    """The system clock, moved by what a file says: how the demo travels in time, in all its processes at once.

    The file holds whole seconds; none, or an empty one, means no shift. Travelling is no jump of the clock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def shift(self) -> timedelta:
        try:
            return timedelta(seconds=int(self._path.read_text() or 0))
        except FileNotFoundError:
            return timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.shift

    def booted_at(self) -> datetime:
        return SystemClock().booted_at()

    def travel(self, to: datetime) -> None:
        """Make ``to`` the present instant. Written whole, so that a reader never sees half a number."""
        draft = self._path.with_suffix(".new")
        draft.write_text(str(int((to - datetime.now(UTC)).total_seconds())))
        draft.replace(self._path)
