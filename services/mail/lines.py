"""Connections to the mail server, worked at once: each by a thread of its own, which sends one message at a time.

Whoever hands a message over hears of its result in ``results``; the line that sent it gets its next one after that,
when the result is on record. The threads touch no database.
"""

import threading
from collections import deque
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Self

from domain.ports import Mail, Mailer, MailResult

GROW_AFTER = 200
"""Answers after which a server that had taken no more connections is asked for more again."""

TOGETHER = 0.002
"""So many seconds an answer waits for others: many written down together cost little more than few."""


@dataclass(frozen=True, slots=True)
class Sent:
    """``of`` is what was handed over with the mail."""

    of: Any
    result: MailResult
    line: "_Line"


class Lines:
    """At first one line; with every answer, up to twice as many, and at most ``most``. A context manager."""

    def __init__(self, mailer: Mailer, most: int) -> None:
        self._mailer = mailer
        self._most = self._ceiling = most
        self._allowed = 1
        self._answers = 0
        self._lines: list[_Line] = []
        self._idle: list[_Line] = []
        self._answered = _Answered()
        self.in_flight = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for line in self._lines:
            line.end()
        for line in self._lines:
            line.thread.join()

    @property
    def free(self) -> bool:
        return self.in_flight < self._allowed

    def send(self, of: object, mail: Mail) -> None:
        """Hand a message to a line that is ``free``; returns at once."""
        if not self._idle:
            self._lines.append(_Line(self._mailer, self._answered))
            self._idle.append(self._lines[-1])
        self.in_flight += 1
        self._idle.pop().send(of, mail)

    def results(self) -> list[Sent]:
        """Wait for a result; that and all others that come with it. Their lines are free as of now."""
        found = self._answered.wait(max(1, self.in_flight // 2))
        self.in_flight -= len(found)
        for sent in found:
            self._idle.append(sent.line)
            sent.line.answers = not sent.result.server_down
        return found

    def all_is_well(self, answers: int) -> None:
        """So many messages got an answer: more may be sent at once."""
        self._answers += answers
        if self._answers >= GROW_AFTER:
            self._answers = 0
            self._ceiling = min(self._most, self._ceiling * 2)
        self._allowed = min(self._ceiling, max(1, self._allowed * 2))

    def one_at_a_time(self) -> None:
        """Until all is well again: somebody has to find out whether the server is there."""
        self._allowed = 1

    def do_without(self, line: "_Line") -> bool:
        """Close a line that got no connection, if there are others that have one. False: it is the only one."""
        if not any(other.answers for other in self._lines if other is not line):
            return False
        self._lines.remove(line)
        self._idle.remove(line)
        line.end()
        self._ceiling = max(1, len(self._lines))
        self._allowed = min(self._allowed, self._ceiling)
        self._answers = 0
        return True


class _Answered:
    """What the lines have heard. Who waits is woken once for many: each waking costs as much as to render a mail."""

    def __init__(self) -> None:
        self._heard: deque[Sent | None] = deque()
        self._awaited = 1
        self._bell = threading.Lock()
        self._bell.acquire()

    def put(self, sent: Sent | None) -> None:
        self._heard.append(sent)
        if sent is None or len(self._heard) >= self._awaited:
            self._ring()

    def wait(self, awaited: int) -> list[Sent]:
        """At least one; ``awaited``, if they come at about the same time."""
        self._awaited = awaited
        if len(self._heard) < awaited:
            self._bell.acquire(timeout=TOGETHER)
        if not self._heard:
            self._awaited = 1
            while not self._heard:
                self._bell.acquire()
        found = [self._heard.popleft() for _ in range(len(self._heard))]
        if None in found:
            # A mistake of ours, which the thread has raised.
            raise RuntimeError("a line to the mail server has broken down")
        return [sent for sent in found if sent is not None]

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:
            # It rings already.
            pass


class _Line:
    """A thread that is not waited for when the process ends: what it was sending is taken up again after its lease."""

    def __init__(self, mailer: Mailer, answered: _Answered) -> None:
        self.answers = False
        self._session = mailer.connect()
        self._inbox: SimpleQueue[tuple[object, Mail] | None] = SimpleQueue()
        self._answered = answered
        self.thread = threading.Thread(target=self._work, name="dormouse mail", daemon=True)
        self.thread.start()

    def send(self, of: object, mail: Mail) -> None:
        self._inbox.put((of, mail))

    def end(self) -> None:
        self._inbox.put(None)

    def _work(self) -> None:
        with self._session as connection:
            while (handed := self._inbox.get()) is not None:
                of, mail = handed
                sent = None
                try:
                    sent = Sent(of, connection.send(mail), self)
                finally:
                    self._answered.put(sent)
