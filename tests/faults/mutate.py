"""Break the code on purpose, one thing at a time, and see whether the tests notice: ``make mutate``.

    python -m tests.faults.mutate [WORD …]

With words, only those mutations whose description or file has one of them. Works on copies of the tree; the checkout
stays as it is. Exit 1 when a mutation survived, or when a test is red without any.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.faults.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parent.parent.parent
COPIES = int(os.environ.get("WORKERS", "2"))
LONGEST = 600
"""Seconds after which a mutated run counts as red: what never ends is not what it was."""


def main() -> int:
    words = [word.lower() for word in sys.argv[1:]]
    chosen = [
        one for one in MUTATIONS if not words or any(word in f"{one.broken} {one.file}".lower() for word in words)
    ]
    if not chosen:
        print("No mutation is about that.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(COPIES):
            copies.put(copy(Path(folder) / str(number)))
        print(f"{len(chosen)} mutations; first their tests as they are …", flush=True)
        with ThreadPoolExecutor(COPIES) as pool:
            whole = sorted({(one.tests, one.on) for one in chosen})
            red = [name for name, failed in pool.map(lambda one: (one[0], run(copies, *one)), whole) if failed]
            if red:
                print("Red without any mutation:\n  " + "\n  ".join(red))
                return 1
            survived = sum(not caught for caught in pool.map(lambda one: try_one(copies, one), chosen))
    print(f"{len(chosen) - survived} caught, {survived} survived")
    return 1 if survived else 0


def copy(folder: Path) -> Path:
    """What git knows of the tree, changes included."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            shutil.copymode(source, target)
    return folder


def try_one(copies: "SimpleQueue[Path]", mutation: Mutation) -> bool:
    failed = run(copies, mutation.tests, mutation.on, mutation)
    where = f"by {', '.join(failed[:3])}" if failed else ""
    print(f"  {'caught  ' if failed else 'SURVIVED'}  {mutation.broken} {where}", flush=True)
    return bool(failed)


def run(copies: "SimpleQueue[Path]", tests: str, on: str, mutation: Mutation | None = None) -> list[str]:
    """The names of the tests that failed, in a copy that is taken for as long, with or without a mutation."""
    tree = copies.get()
    file = tree / (mutation.file if mutation else "app.py")
    whole = file.read_text()
    try:
        if mutation:
            file.write_text(whole.replace(mutation.old, mutation.new, 1))
        path, _, name = tests.partition("::")
        expression = " and ".join(part for part in (name, on) if part)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", path, "-k", expression]
        environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        environment["PYTEST_DEBUG_TEMPROOT"] = str(tree.parent)
        try:
            done = subprocess.run(
                command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False
            )
        except subprocess.TimeoutExpired:
            return ["what no longer ends"]
        if done.returncode == 0:
            return []
        lines = [line.split(" ")[1] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return [line.rpartition("::")[2] for line in lines] or [f"pytest's exit {done.returncode}"]
    finally:
        file.write_text(whole)
        copies.put(tree)


if __name__ == "__main__":
    sys.exit(main())
