"""What a run of the faults has seen, for docs/reliability.md: ``python -m tests.faults.figures`` adds it up."""

import os
from pathlib import Path

NAME = "DORMOUSE_FAULTS_FIGURES"


def note(kills: int, duplicates: int, connections: int) -> None:
    """One story, after which nothing was lost."""
    if NAME in os.environ:
        with Path(os.environ[NAME]).open("a") as file:
            file.write(f"{kills} {duplicates} {kills * connections}\n")


def main() -> None:
    stories = [tuple(map(int, line.split())) for line in Path(os.environ[NAME]).read_text().splitlines()]
    kills, duplicates, limit = (sum(column) for column in zip(*stories, strict=True))
    print(f"{len(stories)} stories, {kills} kills, {duplicates} duplicates (at most {limit}), 0 losses")


if __name__ == "__main__":
    main()
