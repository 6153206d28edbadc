"""Each of ours once, in a process of its own; prints the most memory it has held, in MB. For benchmarks.campaign."""

import resource
import sys
from datetime import timedelta
from pathlib import Path

from benchmarks import files, work
from benchmarks.databases import Database


def main(url: str, empty_url: str, folder: Path, members: int, dormant: int, closing: int) -> None:
    database = Database(url, folder)
    path = folder / "members.csv"
    with path.open(encoding="utf-8") as lines:
        count = sum(1 for _ in lines) - 1
    # No draft here: the uses just imported have left nobody dormant. A close and an import hold more anyway.
    with work.Close(database, members, closing) as close:
        close.ours()
    uses = files.activity(folder / "activity.csv", count, members, timedelta(days=2000))
    with work.Activity(database, iter([uses]), count) as activity:
        activity.ours()
    with work.Members(lambda: Database(empty_url, folder), path, count) as imports:
        imports.ours()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    url, empty_url, folder, *sizes = sys.argv[1:]
    main(url, empty_url, Path(folder), *(int(size) for size in sizes))
