"""The only place that reads the clock."""

from datetime import UTC, datetime, timedelta
from pathlib import Path


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class ShiftedClock:
    """The system clock, moved by what a file says: how the demo travels in time, in all its processes at once.

    The file holds whole seconds; none, or an empty one, means no shift.
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

    def travel(self, to: datetime) -> None:
        """Make ``to`` the present instant. Written whole, so that a reader never sees half a number."""
        draft = self._path.with_suffix(".new")
        draft.write_text(str(int((to - datetime.now(UTC)).total_seconds())))
        draft.replace(self._path)
