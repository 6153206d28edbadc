"""How fast mail goes out: the warnings of a round from the outbox to a mail server, against mails without an outbox.

    python -m benchmarks.mail [--messages N] [--processes 1,2] [--connections N] [--database sqlite|postgresql|both]

Ours, and (a) Flask-Mail one by one, (b) one connection with messages of the standard library, (c) the same bytes made
before through the same client, take turns; so what else the machine does meets all of them. Exit 1 where a ratio of the
medians, or the memory, is over its limit. docs/benchmarks.md says what is compared.
"""

import argparse
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

from benchmarks import databases
from benchmarks.campaign import Report, title
from benchmarks.databases import NOW, Database
from models import db, for_writing
from services import campaigns
from services.installation import installed

HERE = Path(__file__).parent.parent
MONTH = "2026-06"
TURNS = 4
SLOW_TURNS = 3
"""Of a third of them each: a turn begins with one connection, which takes as long at any number of messages."""
OF_LIMIT, OF_LIMIT_SLOW = 0.4, 0.9
TIMES_STDLIB = 4.0
MEMORY_MB = 120
GROWTH_MB = 10
SENDER = """
import runpy, sys
sys.modules["pygments"] = None
runpy.run_module("benchmarks.sender", run_name="__main__", alter_sys=True)
"""
"""Pygments is there in a development environment only, where Mako, which comes with Alembic, would load it: 5 MB."""

SLOW_MS, SLOW_CONNECTIONS, SLOW_RATE = 20, 40, 600


class Sender:
    """A process that sends (benchmarks/sender.py)."""

    def __init__(self, way: str, database: Database, port: int, connections: int) -> None:
        command = [sys.executable, "-c", SENDER, way, str(database.folder), database.url, str(port)]
        self._process = subprocess.Popen(
            [*command, str(connections)], cwd=HERE, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        if self._out.readline() != "ready\n":
            raise RuntimeError(f"the sender {way!r} did not start")

    def __enter__(self) -> "Sender":
        return self

    def __exit__(self, *exc: object) -> None:
        self._in.close()
        self._process.wait()

    def begin(self, count: int) -> None:
        self._in.write(f"{count}\n")
        self._in.flush()

    def end(self) -> tuple[int, float]:
        """How many messages were sent, and the memory."""
        _, sent, memory = self._out.readline().split()
        return int(sent), float(memory)


class Way:
    """Some senders of one kind at once; each turn gives messages a second."""

    def __init__(self, senders: list[Sender]) -> None:
        self._senders = senders
        self.rates: list[float] = []
        self.memory: list[float] = []
        self.sent = 0

    def turn(self, count: int) -> None:
        began = perf_counter()
        for sender in self._senders:
            sender.begin(count // len(self._senders))
        ends = [sender.end() for sender in self._senders]
        seconds = perf_counter() - began
        self.sent += sum(sent for sent, _ in ends)
        self.rates.append(sum(sent for sent, _ in ends) / seconds)
        self.memory.append(max(memory for _, memory in ends))

    @property
    def rate(self) -> float:
        return median(self.rates)


def measure(make: Callable[[str], Database], arguments: argparse.Namespace, report: Report) -> None:
    shown = False
    for processes in arguments.processes:
        database = round_of(make(f"mail{processes}"), arguments.messages)
        if not shown:
            print(f"\n{title(database)}: {arguments.messages:,} warnings, medians of {TURNS} turns")
            shown = True
        with sink(0) as port:
            figures(database, port, arguments.connections, processes, arguments.messages, report)
    database = round_of(make("slow"), arguments.slow)
    with sink(SLOW_MS) as port:
        slowly(database, port, arguments.slow, report)


def figures(database: Database, port: int, connections: int, processes: int, messages: int, report: Report) -> None:
    due(database, 0)
    with ExitStack() as stack:

        def way(name: str, number: int = processes) -> Way:
            return Way([stack.enter_context(Sender(name, database, port, connections)) for _ in range(number)])

        limit, alone, stdlib, ours = way("prebuilt"), way("one by one"), way("stdlib"), way("ours")
        part = messages // TURNS
        for turn in range(TURNS):
            # The slow ones send fewer: they are at their speed at once.
            alone.turn(max(processes, part // 50))
            stdlib.turn(max(processes, part // 20))
            for one in (ours, limit) if turn % 2 else (limit, ours):
                if one is ours:
                    due(database, turn)
                one.turn(part)
    expect(database, ours.sent, messages)
    name = f"{processes} process{'es' if processes > 1 else ''}, {connections} connections"
    for label, one in (("ours", ours), ("(a) Flask-Mail one by one", alone), ("(b) one connection", stdlib)):
        print(f"  {f'{name}: {label}':<58}{one.rate:>9.0f}/s")
    print(f"  {f'{name}: (c) prebuilt':<58}{limit.rate:>9.0f}/s")
    report.at_least(f"{name}: of (c)", ours.rate / limit.rate, OF_LIMIT)
    report.at_least(f"{name}: times (b)", ours.rate / stdlib.rate, TIMES_STDLIB)
    report.figure(f"{name}: memory", max(ours.memory), MEMORY_MB, "MB")
    report.figure(f"{name}: its growth", ours.memory[-1] - ours.memory[0], GROWTH_MB, "MB")


def slowly(database: Database, port: int, messages: int, report: Report) -> None:
    due(database, 0, SLOW_TURNS)
    with (
        Sender("prebuilt", database, port, SLOW_CONNECTIONS) as prebuilt,
        Sender("ours", database, port, SLOW_CONNECTIONS) as sender,
    ):
        limit, ours = Way([prebuilt]), Way([sender])
        for turn in range(SLOW_TURNS):
            for one in (ours, limit) if turn % 2 else (limit, ours):
                if one is ours:
                    due(database, turn, SLOW_TURNS)
                one.turn(messages // SLOW_TURNS)
    expect(database, ours.sent, messages)
    name = f"{SLOW_MS} ms a command, {SLOW_CONNECTIONS} connections"
    print(f"  {f'{name}: ours':<58}{ours.rate:>9.0f}/s\n  {f'{name}: (c) prebuilt':<58}{limit.rate:>9.0f}/s")
    report.at_least(f"{name}: of (c)", ours.rate / limit.rate, OF_LIMIT_SLOW)
    report.at_least(f"{name}: a second", ours.rate, SLOW_RATE)


def round_of(database: Database, messages: int) -> Database:
    """An open round with so many warnings, none of which goes out yet: see ``due``."""
    databases.fill(database, 2 * messages, messages)
    app = database.app(max_dormant_percent=100)
    with app.app_context():
        session, settings = db.session(), installed().settings
        for_writing(session)
        campaigns.draft(session, settings, MONTH, NOW)
        campaigns.approve(session, settings, MONTH, NOW)
        session.commit()
        db.session.remove()
        db.engine.dispose()
    # What belongs to another turn is not in the queue: no run has to look through it.
    database.run("UPDATE message SET state = 'obsolete'")
    database.tidy()
    return database


def due(database: Database, turn: int, turns: int = TURNS) -> None:
    """Of the parts of a round this one may go out, as if it were the whole, and what is left of an earlier one."""
    database.run(f"UPDATE message SET state = 'queued' WHERE state = 'obsolete' AND id % {turns} <= {turn}")
    database.tidy()


def expect(database: Database, sent: int, messages: int) -> None:
    recorded = database.one("SELECT count(*) FROM message WHERE state = 'sent'")
    warned = database.one("SELECT count(*) FROM member_case WHERE warned_at IS NOT NULL")
    if not sent == recorded == warned == messages:
        raise AssertionError(f"{sent} sent, {recorded} recorded, {warned} warned of {messages}")


@contextmanager
def sink(milliseconds: int) -> Iterator[int]:
    """A mail server that forgets: smtp-sink of Postfix if it is there and may be quick, else our own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    found = None if milliseconds else shutil.which("smtp-sink", path="/usr/sbin:/usr/local/sbin:/usr/libexec/postfix")
    command = (
        [found, "-u", "nobody", "-m", "400", f"127.0.0.1:{port}", "400"]
        if found
        else [sys.executable, "-m", "benchmarks.sink", str(port), str(milliseconds)]
    )
    process = subprocess.Popen(command, cwd=HERE)
    try:
        until = perf_counter() + 30
        while not _listens(port):
            if perf_counter() > until:
                raise RuntimeError("the mail server for the benchmark does not start")
            sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("mail")
    group.add_argument("--messages", type=int, default=20_000, help="warnings to send (20,000)")
    group.add_argument("--slow", type=int, default=30_000, help="warnings to the server that takes its time (30,000)")
    group.add_argument("--connections", type=int, default=40, help="connections a process has open (40)")
    group.add_argument(
        "--processes", type=lambda text: [int(one) for one in text.split(",")], default=[1, 2], help="1,2"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    return run(parser.parse_args())


def run(arguments: argparse.Namespace) -> int:
    print(f"Python {platform.python_version()}; messages a second, and their ratios")
    report = Report()
    for dialect in ("sqlite", "postgresql") if arguments.database == "both" else (arguments.database,):
        with databases.maker(dialect) as make:
            measure(make, arguments, report)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
