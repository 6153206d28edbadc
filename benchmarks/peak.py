"""One piece of ours, once, in a process of its own; prints the most memory it held, in MB. For benchmarks.campaign."""

import sys
from pathlib import Path

from benchmarks import work
from benchmarks.databases import Database
from benchmarks.memory import peak_mb


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


if __name__ == "__main__":
    main(*sys.argv[1:])
