"""One piece of ours, once, in a process of its own; prints the most memory it held, in MB. For benchmarks.campaign."""

import re
import resource
import sys
from pathlib import Path

from benchmarks import work
from benchmarks.databases import Database


def main(folder: str, piece: str, url: str, *arguments: str) -> None:
    database = Database(url, Path(folder))
    work_of = {
        "draft": lambda: work.Draft(database, *map(int, arguments)),
        "close": lambda: work.Close(database, *map(int, arguments)),
        "members": lambda: work.Members(lambda: database, Path(arguments[0])),
        "activity": lambda: work.Activity(database, iter([Path(arguments[0])])),
    }
    with work_of[piece]() as one:
        one.ours()
    if piece in ("draft", "close"):
        work.empty(database)
    print(peak_mb())


def peak_mb() -> float:
    # On Linux ru_maxrss begins with what the process that started this one held; VmHWM is this program's own.
    status = Path("/proc/self/status")
    own = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return (int(own[1]) if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
