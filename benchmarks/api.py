"""What the API costs here, over HTTP, against the least that could answer, in the same run.

    python -m benchmarks.api [--members N] [--seconds N] [--database sqlite|postgresql|both]

The notice is held against a bare Flask endpoint with one query by key (benchmarks/bare_api.py), each served by gunicorn
with one worker of four threads; uses in batches of 1,000 against the raw import of the same rows (benchmarks/bare.py).
Ours and bare take turns. Exit 1 where the median of the ratios is under its limit.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from threading import Thread
from time import perf_counter

from adapters.clock import SystemClock
from benchmarks import bare, databases, files
from benchmarks.campaign import Report, title
from benchmarks.databases import Database
from domain import dates
from domain.scopes import Scope
from models import db, for_writing
from services import api_keys

ASKED_EACH = 50
"""One of so many members has a notice to show: more stop a round by themselves (MAX_DORMANT_PERCENT)."""
CONNECTIONS = 4
BATCH = 1_000
BATCHES = 50
NOTICE, ACTIVITY = 0.7, 0.3
ROOT = Path(__file__).resolve().parent.parent


def measure(database: Database, arguments: argparse.Namespace, report: Report) -> None:
    print(f"\n{title(database)}: {arguments.members:,} members, one of {ASKED_EACH} has a notice")
    databases.fill(database, arguments.members, max(1, arguments.members // 100))
    now = SystemClock().now()
    _ask(database)
    with database.app().app_context():
        for_writing(db.session())
        settings = database.app().extensions["dormouse"].settings
        key = api_keys.create(db.session(), settings, "benchmark", list(Scope), now + timedelta(days=1), now)
        db.session.commit()
        db.engine.dispose()
    with (
        _served(database, "app:create_app()") as ours,
        _served(database, f"benchmarks.bare_api:create_app('{database.url}')") as theirs,
    ):
        headers = {"Authorization": f"Bearer {key}"}
        _notices(ours, theirs, headers, arguments, report)
        _activity(database, ours, headers, arguments.members, report)


def _notices(ours: int, theirs: int, headers: dict[str, str], arguments: argparse.Namespace, report: Report) -> None:
    rates: list[tuple[float, float]] = []
    slowest: list[tuple[float, float]] = []
    for turn in range(arguments.turns + 1):
        found = {}
        for port, base in ((ours, "/api/v1"), (theirs, ""))[:: 1 if turn % 2 else -1]:
            found[port] = _load(port, base, headers, arguments.members, arguments.seconds)
        # The first turn warms up.
        if turn:
            (our_rate, our_p99), (their_rate, their_p99) = found[ours], found[theirs]
            rates.append((our_rate, their_rate))
            slowest.append((our_p99, their_p99))
    _say(report, "notice", rates, "requests/s", NOTICE)
    our_p99, their_p99 = (median(side) * 1000 for side in zip(*slowest, strict=True))
    print(f"  {'notice, p99':<24}{our_p99:>11.1f}{their_p99:>11.1f} ms", flush=True)


def _load(port: int, base: str, headers: dict[str, str], members: int, seconds: float) -> tuple[float, float]:
    """Requests a second, and the 99th percentile of what one took, over a few connections at once."""
    times: list[float] = []
    ends = perf_counter() + seconds

    rest = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    def ask(first: int) -> None:
        number = first
        with socket.create_connection(("127.0.0.1", port)) as connection:
            while (began := perf_counter()) < ends:
                number += CONNECTIONS
                path = f"{base}/members/m-{number * 7919 % members + 1}/notice"
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{rest}\r\n".encode())
                _receive(connection)
                times.append(perf_counter() - began)

    threads = [Thread(target=ask, args=(n,)) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(times) / seconds, quantiles(times, n=100)[98]


def _receive(connection: socket.socket) -> None:
    """Read one answer off, and no more than that has to be understood of it: the client shares the machine."""
    answer = connection.recv(65_536)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head[9:12] in (b"200", b"204"), head
    _, found, length = head.lower().partition(b"content-length: ")
    missing = (int(length.partition(b"\r")[0]) if found else 0) - len(body)
    while missing > 0:
        missing -= len(connection.recv(65_536))


def _activity(database: Database, port: int, headers: dict[str, str], members: int, report: Report) -> None:
    """Uses by 50 requests, and as 50 files, each its own transaction; all of them are news in each turn."""
    rows = min(BATCH * BATCHES, members)
    rates: list[tuple[float, float]] = []
    raw = database.connect()
    for turn in range(6):
        path = files.activity(database.folder / "uses.csv", rows, members, timedelta(days=turn))
        header, *lines = path.read_text().splitlines()
        batches = [[line.split(",") for line in lines[start : start + BATCH]] for start in range(0, rows, BATCH)]
        pieces = [database.folder / f"uses-{start}.csv" for start in range(0, rows, BATCH)]
        for start, piece in zip(range(0, rows, BATCH), pieces, strict=True):
            piece.write_text("\n".join([header, *lines[start : start + BATCH]]) + "\n")
        bodies = [
            json.dumps({"uses": [{"external_id": who, "used_at": when, "type": "play"} for who, when in batch]})
            for batch in batches
        ]
        began = perf_counter()
        _post(port, headers, bodies)
        took = perf_counter() - began
        database.run("UPDATE member SET last_used_at = NULL")
        database.tidy()
        began = perf_counter()
        for piece in pieces:
            bare.activity(database, raw, piece)
        took_raw = perf_counter() - began
        database.run("UPDATE member SET last_used_at = NULL")
        database.tidy()
        if turn:
            rates.append((rows / took, rows / took_raw))
    raw.close()
    _say(report, "activity, batches of 1,000", rates, "uses/s", ACTIVITY)


def _post(port: int, headers: dict[str, str], bodies: list[str]) -> None:
    connection = HTTPConnection("127.0.0.1", port)
    for body in bodies:
        connection.request("POST", "/api/v1/activity", body, {**headers, "Content-Type": "application/json"})
        answer = connection.getresponse()
        found = json.loads(answer.read())
        assert found["updated"] == BATCH, found
    connection.close()


def _say(report: Report, name: str, pairs: list[tuple[float, float]], unit: str, limit: float) -> None:
    ours, theirs = (median(side) for side in zip(*pairs, strict=True))
    ratio = median(one / other for one, other in pairs)
    text = f"{name:<24}{ours:>11,.0f}{theirs:>11,.0f} {unit:<12}{ratio:>6.2f}   at least {limit}"
    held = ratio >= limit
    print(f"  {text}{'' if held else '  MISSED'}", flush=True)
    if not held:
        report.missed.append(name)


def _ask(database: Database) -> None:
    """An open round with a live case of each fiftieth member, warned and silent, whose deadline is ahead."""
    now = SystemClock().now()
    deadline = dates.next_month_end(now + timedelta(days=31), database.app().extensions["dormouse"].settings.zone)
    at = database.instant
    database.run(
        "INSERT INTO campaign (month, state, policy, drafted_at, opened_at, deadline_at, dormant_count)"
        f" VALUES ('2026-06', 'open', '{{}}', {at(now)}, {at(now)}, {at(deadline)}, 1)",
        "INSERT INTO member_case (campaign_id, member_id, rule, opened_at, found_joined_at, found_last_used_at,"
        " found_sign_of_life_at, found_plan, found_price_minor, found_currency, found_billing_interval, address,"
        " warned_at, warned_to, deadline_at)"
        f" SELECT (SELECT id FROM campaign), id, 'never_used', {at(now)}, joined_at, last_used_at,"
        " last_sign_of_life_at, plan, price_minor, currency, billing_interval, email,"
        f" {at(now)}, email, {at(deadline)} FROM member WHERE id % {ASKED_EACH} = 0",
    )
    database.tidy()


@contextmanager
def _served(database: Database, application: str) -> Iterator[int]:
    """The port on which gunicorn serves an application, with the settings of the benchmarks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    settings = {
        "INSTANCE_PATH": str(database.folder),
        "DATABASE_URL": database.url,
        "SECRET_KEY": "a key for benchmarks, long enough to sign with",
        "PUBLIC_URL": "http://members.example.org",
        "SCHEDULER": "off",
        "API_RATE": "1000000",
    }
    # Their own configuration starts a scheduler, which is not measured here.
    command = [sys.executable, "-m", "gunicorn", "--config", "python:benchmarks", "--bind", f"127.0.0.1:{port}"]
    command += ["--worker-class", "gthread", "--threads", str(CONNECTIONS), "--log-level", "error", application]
    server = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings})
    try:
        _wait(port, server)
        yield port
    finally:
        server.terminate()
        server.wait()


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        connection = HTTPConnection("127.0.0.1", port)
        try:
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            return
        except ConnectionError:
            continue
        finally:
            connection.close()
    raise SystemExit("the server did not start")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=100_000, help="members in the database (100,000)")
    parser.add_argument("--seconds", type=float, default=3, help="how long each turn asks for notices (3)")
    parser.add_argument("--turns", type=int, default=5, help="how often ours and bare are asked (5)")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    arguments = parser.parse_args()
    report = Report()
    for dialect in ("sqlite", "postgresql") if arguments.database == "both" else (arguments.database,):
        with databases.maker(dialect) as make:
            measure(make("api"), arguments, report)
    print(f"\nMissed: {', '.join(report.missed)}" if report.missed else "\nEvery limit is held.")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
