"""Connections to the mail server, worked at once: each sends one message at a time.

Who sends watches all lines that are open, and says on each what follows what the server has said (``go_on``), in turns
with what else there is to do: so a message costs no waking of a thread, which would cost as much as to word it. What
has to wait for something else, a connection to be opened above all, is done by threads beside it.

Whoever hands a message over hears of its result in ``heard``, and says when the line is ``free_again``: when the result
is on record.
"""

import select
import socket
import threading
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, NamedTuple, Self

from domain.ports import Mail, Mailer, MailExchange, MailResult, Prepared

GROW_AFTER = 200
"""Answers after which a server that had taken no more connections is asked for more again."""

LOOK_EVERY = 0.1
"""After so many seconds each line is asked whether its time is over."""


class Sent(NamedTuple):
    """``of`` is what was handed over with the mail."""

    of: Any
    result: MailResult
    line: "Line"


class Lines:
    """At first one line; once that has had an answer, at most ``most``. A context manager."""

    def __init__(self, mailer: Mailer, most: int) -> None:
        self._mailer = mailer
        self._most = self._ceiling = most
        self._allowed = 1
        self._answers = 0
        self._lines: list[Line] = []
        self._idle: list[Line] = []
        self._closing: list[threading.Event] = []
        self._hands = Hands()
        self._watched: dict[int, Line] = {}
        self._system = select.poll()
        self._look_at = 0.0
        self._news = False
        self._heard: deque[Sent] = deque()
        self._from_threads: deque[Sent | None] = deque()
        self._bell, self._ringing = socket.socketpair()
        self._system.register(self._bell, select.POLLIN)
        self.in_use = 0
        """Lines that are not free: what they sent is under way, or not on record yet."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.say_goodbye()
            for closed in self._closing:
                closed.wait()
        finally:
            self._hands.no_more()
            self._bell.close()
            self._ringing.close()

    def say_goodbye(self) -> None:
        """Nothing more is sent: have all lines closed meanwhile."""
        while self._lines:
            self._closing.append(self._lines.pop().close())

    @property
    def free(self) -> bool:
        return self.in_use < self._allowed

    def prepare(self, mails: Sequence[Mail]) -> Sequence[Prepared]:
        """What can be done for several mails before they are sent; raises ValueError."""
        return self._mailer.prepare(mails)

    def send(self, of: object, mail: Prepared) -> None:
        """Hand a message to a line that is ``free``; returns at once."""
        if not self._idle:
            self._lines.append(Line(self._mailer, self._hands, self._put))
            self._idle.append(self._lines[-1])
        self.in_use += 1
        line = self._idle.pop()
        line.of, line.mail = of, mail
        if line.begin():
            self._watched[line.fileno] = line
            self._system.register(line.fileno, select.POLLIN)
            self._go_on(line)

    def go_on(self, seconds: float = 0.0) -> bool:
        """Whatever line has heard something goes on. Waits so many seconds for one that has, or for a ``ring``.

        False: none has, and nobody has rung.
        """
        found = self._system.poll(seconds * 1000)
        for fileno, _ in found:
            if fileno in self._watched:
                self._go_on(self._watched[fileno])
            elif fileno == self._bell.fileno():
                self._bell.recv(4096)
            else:
                self._news = True
        while self._from_threads:
            sent = self._from_threads.popleft()
            if sent is None:
                # A mistake of ours, which the thread has raised.
                raise RuntimeError("a line to the mail server has broken down")
            self._heard.append(sent)
        if monotonic() >= self._look_at:
            for line in list(self._watched.values()):
                self._go_on(line)
            self._look_at = monotonic() + LOOK_EVERY
        return bool(found)

    def watch(self, fileno: int) -> None:
        """Whoever waits in ``go_on`` waits for this as well, until ``unwatch``: see ``has_news``."""
        self._system.register(fileno, select.POLLIN)
        # Something may have been read from it already.
        self._news = True

    def has_news(self) -> bool:
        """Whether its owner is to look at what is watched; to look each time takes as long as to hear a server."""
        news, self._news = self._news, False
        return news

    def unwatch(self, fileno: int) -> None:
        self._system.unregister(fileno)

    def ring(self) -> None:
        """From any thread: whoever waits in ``go_on`` waits no more."""
        # Where an error has ended the run, nobody waits any more for what is still being sent.
        with suppress(OSError):
            self._ringing.send(b"!")

    def heard(self) -> list[Sent]:
        """What has become of the messages that an answer has come to, or none can come to any more."""
        found = list(self._heard)
        self._heard.clear()
        for sent in found:
            sent.line.answers = not sent.result.server_down
        return found

    def free_again(self, line: "Line") -> None:
        """What it sent is on record, or does not have to be."""
        self.in_use -= 1
        self._idle.append(line)

    def all_is_well(self, answers: int) -> None:
        """So many messages got an answer: more may be sent at once."""
        self._answers += answers
        if self._answers >= GROW_AFTER:
            self._answers = 0
            self._ceiling = min(self._most, self._ceiling * 2)
        self._allowed = self._ceiling

    def one_at_a_time(self) -> None:
        """Until all is well again: somebody has to find out whether the server is there."""
        self._allowed = 1

    def do_without(self, line: "Line") -> bool:
        """Close a free line that got no connection, if there are others that have one. False: it is the only one."""
        if not any(other.answers for other in self._lines if other is not line):
            return False
        self._lines.remove(line)
        self._idle.remove(line)
        self._closing.append(line.close())
        self._ceiling = max(1, len(self._lines))
        self._allowed = min(self._allowed, self._ceiling)
        self._answers = 0
        return True

    def _go_on(self, line: "Line") -> None:
        result = line.exchange.go_on()
        if result is None:
            return
        self._system.unregister(line.fileno)
        del self._watched[line.fileno]
        if result.server_down and line.exchange.untold:
            # The server closes a connection that was idle, or had carried enough: nothing to tell anybody of.
            line.send_apart()
        else:
            self._heard.append(Sent(line.of, result, line))

    def _put(self, sent: Sent | None) -> None:
        self._from_threads.append(sent)
        self.ring()


class Line:
    """A connection, and what is under way on it."""

    of: object
    mail: Prepared
    exchange: MailExchange
    fileno: int

    def __init__(self, mailer: Mailer, hands: "Hands", put: Callable[[Sent | None], None]) -> None:
        self.answers = False
        self._hands = hands
        self._put = put
        self._session = mailer.connect()
        self._connection = self._session.__enter__()
        self._apart: threading.Event | None = None
        """Tells when what was last sent by a thread is over."""

    def begin(self) -> bool:
        """Send what is under way, without waiting. False: only ``send_apart`` can, and does."""
        exchange = self._connection.begin(self.mail)
        if exchange is None:
            self.send_apart()
            return False
        self.exchange, self.fileno = exchange, exchange.fileno()
        return True

    def send_apart(self) -> None:
        over = threading.Event()
        self._hands.do(lambda: self._send(over))
        self._apart = over

    def close(self) -> threading.Event:
        """Say goodbye, after what a thread may be sending: no word may come to stand in the middle of a text.

        Returns at once what tells when that is over.
        """
        closed = threading.Event()
        self._hands.do(lambda: self._close(closed))
        return closed

    def _send(self, over: threading.Event) -> None:
        sent = None
        try:
            sent = Sent(self.of, self._connection.send(self.mail), self)
        finally:
            self._put(sent)
            over.set()

    def _close(self, closed: threading.Event) -> None:
        try:
            if self._apart is not None:
                self._apart.wait()
            self._session.__exit__(None, None, None)
        finally:
            closed.set()


class Hands:
    """Threads for what has to be waited for: one that is free does what comes next, and there are others where none is,
    for each connection is opened again every so often.

    Nobody waits for them when the process ends, as for those of an executor: what they were sending is taken up again
    after its lease. And nobody waits until one is at work, as where ``threading`` begins it: that takes as long as to
    word some mails.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._free: SimpleQueue[None] = SimpleQueue()

    def do(self, work: Callable[[], None]) -> None:
        """Returns at once."""
        try:
            self._free.get_nowait()
        except Empty:
            start_new_thread(self._go_on, (work,))
        else:
            self._work.put(work)

    def no_more(self) -> None:
        """Each ends after what it is doing; nobody waits for it."""
        self._work.put(None)

    def _go_on(self, work: Callable[[], None] | None) -> None:
        while work is not None:
            work()
            self._free.put(None)
            work = self._work.get()
        # So does the next one.
        self._work.put(None)
