"""What draft, opening, close and imports cost here, against the same work as bare SQL in the same run.

    python -m benchmarks.campaign [--members N] [--dormant N] [--close N] [--database sqlite|postgresql|both]

Ours and bare take turns on the same database, so that what else the machine does meets both. Exit 1 where the median of
the ratios is over its limit. docs/benchmarks.md says what is compared.
"""

import argparse
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks import databases, files, work
from benchmarks.databases import Database

LIMITS = {"draft": 1.5, "approve": 1.5, "close": 1.5, "members import": 3.0, "activity import": 3.0}
MEMORY_MB = 150
LOCK_SECONDS = 0.5
GROWTH = 2.0
TENFOLD = 10_000_000
"""From so many members on, draft is also held against a tenth of them with as many dormant."""

PAIRS = (5, 15)
SECONDS = 6.0
"""Pairs are measured until so many seconds are spent, at least and at most so often."""

LONG = (2, 60.0)
"""Of what takes long so few pairs are enough, once so many seconds are spent: it averages by itself."""


@dataclass(slots=True)
class Report:
    missed: list[str] = field(default_factory=list)

    def ratio(self, name: str, pairs: list[tuple[float, float]]) -> None:
        ours, bare = (median(side) for side in zip(*pairs, strict=True))
        ratio, limit = median(one / other for one, other in pairs), LIMITS[name]
        self._line(
            f"{name:<34}{ours:>9.3f} s{bare:>9.3f} s{ratio:>9.2f}{limit:>8.1f}{len(pairs):>7}", ratio <= limit, name
        )

    def figure(self, name: str, value: float, limit: float, unit: str) -> None:
        self._line(f"{name:<34}{value:>9.3g} {unit:<20}{limit:>18.3g}", value <= limit, name)

    def at_least(self, name: str, value: float, least: float) -> None:
        self._line(f"{name:<58}{value:>9.2f}{least:>9.2f}", value >= least, name)

    def mention(self, name: str, pairs: list[tuple[float, float]], limit: float) -> None:
        """A time alone says as much of the machine as of the code: over its limit it is shown, and no failure."""
        ours, bare = (median(side) for side in zip(*pairs, strict=True))
        ratio = median(one / other for one, other in pairs)
        over = "  over" if ours > limit else ""
        print(
            f"  {name:<34}{ours:>9.3f} s{bare:>9.3f} s{ratio:>9.2f}{f'{limit} s':>8}{len(pairs):>7}{over}", flush=True
        )

    def end(self) -> int:
        print(f"\nMissed: {', '.join(self.missed)}" if self.missed else "\nEvery limit is held.")
        return 1 if self.missed else 0

    def _line(self, text: str, held: bool, name: str) -> None:
        print(f"  {text:<76}{'' if held else '  MISSED'}", flush=True)
        if not held:
            self.missed.append(name)


def take_turns(
    ours: Callable[[], None], bare: Callable[[], None], between: Callable[[], None]
) -> list[tuple[float, float]]:
    """Seconds of ours and of bare, pair by pair, each first in every other pair. The first pair warms up."""
    pairs: list[tuple[float, float]] = []
    spent = 0.0
    for turn in range(PAIRS[1] + 1):
        seconds = {}
        for side in (ours, bare) if turn % 2 else (bare, ours):
            start = perf_counter()
            side()
            seconds[side] = perf_counter() - start
            between()
        if turn or sum(seconds.values()) > SECONDS:
            pairs.append((seconds[ours], seconds[bare]))
            spent += sum(seconds.values())
        if (len(pairs) >= PAIRS[0] and spent > SECONDS) or (len(pairs) >= LONG[0] and spent > LONG[1]):
            break
    return pairs


def measure(make: Callable[[str], Database], arguments: argparse.Namespace, report: Report) -> None:
    database = make("round")
    members, dormant, closing = arguments.members, arguments.dormant, arguments.close
    print(f"\n{title(database)}: {members:,} members, {dormant:,} dormant, a close of {closing:,} cases")
    print(f"  {'':<34}{'ours':>11}{'bare':>11}{'ratio':>9}{'limit':>8}{'pairs':>7}")
    databases.fill(database, members, dormant)

    with work.Draft(database, members, dormant) as draft:
        pairs = take_turns(draft.ours, draft.bare, draft.undo)
        report.ratio("draft", pairs)
        approval = draft.approval()
        report.ratio("approve", take_turns(approval.ours, approval.bare, approval.undo))
        approval.end()
    if members >= TENFOLD:
        small = make("tenth")
        databases.fill(small, members // 10, dormant)
        with work.Draft(small, members // 10, dormant) as tenth:
            fewer = take_turns(tenth.ours, tenth.bare, tenth.undo)
        growth = median(ours for ours, _ in pairs) / median(ours for ours, _ in fewer)
        report.figure(f"draft against {members // 10:,} members", growth, GROWTH, "x")

    with work.Close(database, members, closing) as close:
        report.ratio("close", take_turns(close.ours, close.bare, close.undo))
        report.mention("longest write lock of the close", close.longest, LOCK_SECONDS)

    count = min(members, arguments.rows)
    listed = files.members(database.folder / "members.csv", count)
    used = files.activity(database.folder / "activity.csv", count, members, timedelta(0))
    for name, piece in (
        ("draft", ("draft", database.url, members, dormant)),
        ("close", ("close", database.url, members, closing)),
        ("members import", ("members", make("imported").url, listed)),
        ("activity import", ("activity", database.url, used)),
    ):
        report.figure(f"peak memory of {name}", peak_mb(database.folder, *piece), MEMORY_MB, "MB")
    with work.Members(lambda: make("imported"), listed) as imports:
        report.ratio("members import", take_turns(imports.ours, imports.bare, imports.undo))
    days = (files.activity(used, count, members, timedelta(days=n)) for n in range(1, 1000))
    with work.Activity(database, days) as activity:
        report.ratio("activity import", take_turns(activity.ours, activity.bare, activity.undo))


def peak_mb(folder: Path, *piece: object) -> float:
    """The most memory that a process of its own has held that does one piece of ours, once."""
    command = [sys.executable, "-m", "benchmarks.peak", str(folder), *map(str, piece)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    return float(done.stdout.split()[-1])


def title(database: Database) -> str:
    if database.dialect == "sqlite":
        return f"SQLite {database.one('SELECT sqlite_version()')}"
    return f"PostgreSQL {str(database.one('SHOW server_version')).split()[0]}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("campaign")
    group.add_argument("--members", type=int, default=100_000, help="members in the database (100,000)")
    group.add_argument("--dormant", type=int, default=5_000, help="how many of them are dormant (5,000)")
    group.add_argument("--close", type=int, default=5_000, help="cases that end at the month end (5,000)")
    group.add_argument("--rows", type=int, default=1_000_000, help="at most so many rows are imported (1,000,000)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    return run(parser.parse_args())


def run(arguments: argparse.Namespace) -> int:
    if not 2 * max(arguments.dormant, arguments.close) <= arguments.members:
        sys.exit("more than half of the members cannot be dormant")
    print(f"Python {platform.python_version()}; medians, and the median of the ratios of the pairs")
    report = Report()
    for dialect in ("sqlite", "postgresql") if arguments.database == "both" else (arguments.database,):
        with databases.maker(dialect) as make:
            measure(make, arguments, report)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
