"""What the pages of a member cost, against a bare Flask page with one query, served alike in the same run.

    python -m benchmarks.pages [--members N] [--requests N] [--database sqlite|postgresql] [--processor]

Both are served by gunicorn with one process and asked over one connection that stays open, one request after the other,
in turns: so many of ours, so many of the bare page. ``--processor`` asks both without a server, and counts what
each takes of the processor, which depends little on what else the machine does. docs/benchmarks.md says what is
compared.
"""

import argparse
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from statistics import median, quantiles
from time import monotonic, perf_counter, process_time, sleep

from flask import Flask
from sqlalchemy import update

from benchmarks import databases
from benchmarks.campaign import title
from benchmarks.databases import Database
from benchmarks.served import bare_page
from domain.links import Purpose
from models import Campaign, Case, ListItem, Member, Profile, SavedList, db
from services import check_in, magic_links
from services.installation import installed

TURN = 50
TITLES = 40
START_SECONDS = 60


def prepared(database: Database) -> tuple[dict[str, str], dict[str, str]]:
    """The paths to ask for by name, and the cookies of two of them: a member with a question, one without, one gone."""
    now = datetime.now(UTC)
    app = database.app()
    with app.app_context():
        session, settings = db.session(), installed().settings
        asked, using, gone = session.query(Member).order_by(Member.id).limit(3).all()
        ended = now - timedelta(days=30)
        later = now + timedelta(days=270)
        values = {"status": "lapsed", "lapsed_at": ended, "access_ends_at": ended, "keep_until": later}
        session.execute(update(Member).where(Member.id == gone.id).values(**values))
        campaign = Campaign(
            month="2026-06", state="open", policy={}, drafted_at=ended, opened_at=ended, dormant_count=1
        )
        session.add(campaign)
        session.flush()
        case = Case(
            member_id=asked.id,
            campaign_id=campaign.id,
            rule="never_used",
            opened_at=ended,
            found_joined_at=asked.joined_at,
            found_sign_of_life_at=asked.last_sign_of_life_at,
            address=asked.email,
            warned_at=ended,
            warned_to=asked.email,
            deadline_at=now + timedelta(days=20),
        )
        session.add(case)
        for owner in (asked, using, gone):
            _library(owner)
        session.flush()
        session.refresh(case)
        link = check_in.token(settings, case.public_id, case.address_generation)
        assert gone.email is not None
        back = magic_links.mint(session, Purpose.COME_BACK, gone.id, gone.email, later, now)
        session.commit()
        cookies = {}
        for name, member in (("account with the notice", asked), ("account", using)):
            with app.test_client() as client:
                with client.session_transaction() as signed:
                    signed["_user_id"] = f"{member.public_id}.{member.session_generation}"
                found = client.get_cookie("dormouse")
            assert found is not None
            cookies[name] = f"dormouse={found.value}"
        session.rollback()
        db.engine.dispose()
    paths = {
        "account": "/account",
        "account with the notice": "/account",
        "check-in": f"/check-in/{link}",
        "come-back": f"/come-back/{back}",
    }
    return paths, cookies


def _library(owner: Member) -> None:
    session = db.session()
    profile = Profile(member_id=owner.id, position=0, name="Mia", settings={"subtitles": "de"})
    session.add(profile)
    session.flush()
    for order in range(2):
        saved = SavedList(
            member_id=owner.id, profile_id=profile.id, position=order, kind="favourites", name="Favourites"
        )
        session.add(saved)
        session.flush()
        session.add_all(
            ListItem(member_id=owner.id, list_id=saved.id, position=place, ref=f"t-{place}", title=f"Title {place}")
            for place in range(TITLES // 2)
        )


@contextmanager
def served(database: Database, which: str) -> Iterator[HTTPConnection]:
    """gunicorn with one process and one open connection to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "BENCH_DATABASE": database.url, "BENCH_FOLDER": str(database.folder)}
    command = [sys.executable, "-m", "gunicorn", "--workers", "1", "--threads", "2", "--log-level", "error"]
    command += ["--keep-alive", "75", "--bind", f"127.0.0.1:{port}", f"benchmarks.served:{which}()"]
    with subprocess.Popen(command, env=environment) as process:
        connection = HTTPConnection("127.0.0.1", port)
        try:
            _listening(connection)
            yield connection
        finally:
            connection.close()
            process.terminate()


def _listening(connection: HTTPConnection) -> None:
    until = monotonic() + START_SECONDS
    while True:
        try:
            connection.connect()
        except ConnectionRefusedError:
            if monotonic() > until:
                raise
            sleep(0.1)
        else:
            return


def ask(connection: HTTPConnection, path: str, cookie: str | None, times: int) -> list[float]:
    """Seconds of each of so many requests."""
    headers = {"Host": "members.example.org", **({"Cookie": cookie} if cookie else {})}
    seconds = []
    for _ in range(times):
        start = perf_counter()
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        seconds.append(perf_counter() - start)
        if answer.status != 200:
            raise AssertionError(f"{path.split('/')[1]}: {answer.status}")
    return seconds


def measure(database: Database, members: int, requests: int) -> None:
    databases.fill(database, members, max(1, members // 20))
    paths, cookies = prepared(database)
    print(f"\n{title(database)}: {members:,} members, {requests} requests a page")
    print(f"  {'':<28}{'requests/s':>12}{'p50':>10}{'p99':>10}{'bare/s':>10}{'bare p99':>11}{'times the bare':>16}")
    with served(database, "ours") as us, served(database, "bare") as plain:
        ask(plain, "/member/1", None, TURN)
        for name, path in paths.items():
            ask(us, path, cookies.get(name), TURN)
            ours: list[float] = []
            bare: list[float] = []
            while len(ours) < requests:
                ours += ask(us, path, cookies.get(name), TURN)
                bare += ask(plain, f"/member/{len(ours) % members + 1}", None, TURN)
            print(
                f"  {name:<28}{len(ours) / sum(ours):>12.0f}{_ms(median(ours)):>10}{_ms(_p99(ours)):>10}"
                f"{len(bare) / sum(bare):>10.0f}{_ms(_p99(bare)):>11}{median(ours) / median(bare):>16.1f}",
                flush=True,
            )


def processor(database: Database, members: int, requests: int) -> None:
    """What one request takes of the processor, asked by Flask's own test client."""
    databases.fill(database, members, max(1, members // 20))
    paths, cookies = prepared(database)
    print(f"\n{title(database)}: {members:,} members, {requests} requests a page; ms of the processor, ours and bare")
    ours = database.app()
    bare = _taken(bare_page(database), "/member/1", None, requests)
    for name, path in paths.items():
        taken = _taken(ours, path, cookies.get(name), requests)
        print(f"  {name:<28}{taken:>8.2f}{bare:>8.2f}{taken / bare:>8.1f} times the bare", flush=True)


def _taken(app: Flask, path: str, cookie: str | None, times: int) -> float:
    client = app.test_client(use_cookies=False)
    headers = {"Host": "members.example.org", **({"Cookie": cookie} if cookie else {})}
    begun = 0.0
    for number in range(TURN + times):
        if number == TURN:
            begun = process_time()
        with client.get(path, headers=headers) as answer:
            assert answer.status_code == 200, path
    return (process_time() - begun) / times * 1000


def _p99(seconds: list[float]) -> float:
    return quantiles(seconds, n=100)[98]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=100_000, help="members in the database (100,000)")
    parser.add_argument("--requests", type=int, default=500, help="requests to each page, and as many to the bare one")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--processor", action="store_true", help="what a request takes of the processor, unserved")
    arguments, _others = parser.parse_known_args()
    print(f"Python {platform.python_version()}; one process of gunicorn each, one connection, in turns of {TURN}")
    for dialect in ("sqlite", "postgresql") if arguments.database == "both" else (arguments.database,):
        with databases.maker(dialect) as make:
            measured = processor if arguments.processor else measure
            measured(make("pages"), arguments.members, arguments.requests)
    return 0


if __name__ == "__main__":
    sys.exit(main())
