"""Mail goes out: claim a batch, render, send on several connections, record each reply before its line sends another.

1. A batch is claimed with a lease, and the claim is committed.
2. Each message is rendered and handed to a line (services/mail/lines.py), which hands it to the server.
3. What the server said is recorded and committed, for all lines that have heard since the last time in one transaction;
   only then do those lines get their next messages. No transaction waits for a server.

One thread does it all, but for what the database can do meanwhile (services/mail/desk.py). A crash can send as many
messages twice as there were lines. Whoever records asks which rounds are open: of one that is held, no more goes out
than is on its way.

One message's failure never stops another's. What cannot be rendered is failed with its reason. When the server is away
for one message, those that are on their way and one that is sent next tell which of the two it is: if any gets an
answer, the first message is at fault and is backed off like any temporary failure; if none does, the server is away,
nothing counts against anybody, and the run ends.
"""

import gc
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from jinja2 import TemplateError
from sqlalchemy.orm import Session

from domain.ports import Clock, Mailer
from models import to_disk
from services.mail import dispatch, letters
from services.mail.desk import Batch, Desk, Ready
from services.mail.dispatch import Claimed
from services.mail.lines import LOOK_EVERY, Lines, Sent
from services.mail.recording import Answered
from services.mail.words import Facts
from settings import Settings

BATCH = 50
"""So many are claimed at first: few enough that a sign-in mail never waits long behind a batch of notices."""

HANDFUL = 20
"""So many are rendered at a time: enough that it is done quickly, few enough that no line waits long for it."""

MOST = 250
FAST, SLOW = timedelta(seconds=0.1), timedelta(seconds=0.5)
"""A batch that is gone sooner is followed by one of twice the size, and one that takes longer by one of half of it."""

LOOK_AGAIN = timedelta(minutes=1)
"""So often a run that goes on for hours looks whether what it has sent comes back in numbers."""

SELDOM = 10_000
"""So many objects more, and Python looks for circles of them that nobody needs. Usual are 700 or 2,000."""

NOT_TO_BE_RENDERED = (TemplateError, LookupError, ValueError, TypeError)


@dataclass(slots=True)
class Delivered:
    """What came of a run. ``server_down`` is why it ended early, None if it did not."""

    sent: int = 0
    again: int = 0
    failed: int = 0
    server_down: str | None = None
    notices_wait: bool = field(default=False, compare=False)
    """By the hour or the day, none was allowed when this run looked last."""


def deliver(
    session: Session,
    settings: Settings,
    mailer: Mailer,
    clock: Clock,
    commit: Callable[[], None],
    enough: Callable[[], bool],
    wait: Callable[[float], None] = time.sleep,
) -> Delivered:
    """Send what is due until nothing is, the server is away, or ``enough``. Needs an application context.

    ``wait`` passes the seconds until MAIL_RATE allows more.
    """
    with (
        _seldom_collecting(),
        Lines(mailer, settings.mail_connections) as lines,
        Desk(session, settings, clock, commit) as desk,
    ):
        run = _Run(settings, clock, desk, lines)
        desk.open()
        run.work(enough, wait)
        lines.say_goodbye()
        desk.hold_if_many_refused()
        # While notices may not go anyway, by the hour or the day, no tick looks through a round's queue.
        if run.done.server_down is None and not run.done.notices_wait:
            desk.retire()
    if run.done.sent:
        to_disk(session)
    return run.done


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """A batch that is claimed is thousands of objects, and next to none of all that a run makes is in a circle: to look
    for circles whenever there are hundreds more takes a fiftieth of its time.
    """
    usual, *others = gc.get_threshold()
    # Of 0 it never looks.
    gc.set_threshold(max(usual, SELDOM) if usual else usual, *others)
    try:
        yield
    finally:
        gc.set_threshold(usual, *others)


class _Run:
    """What is sent, by whom, and what came of it. It touches no database but through the desk."""

    def __init__(self, settings: Settings, clock: Clock, desk: Desk, lines: Lines) -> None:
        self.done = Delivered()
        self._settings = settings
        self._clock = clock
        self._desk = desk
        self._lines = lines
        self._stock: deque[Ready] = deque()
        self._batch = max(BATCH, settings.mail_connections)
        self._claimed_at: datetime | None = None
        self._looked_at = clock.now()
        self._claiming: Future[Batch] | None = None
        self._claimed_alone = False
        self._queue_is_empty = self._nothing_is_left = False
        self._to_record: list[Sent] = []
        self._recording: list[Sent] = []
        self._recorded_on: int | None = None
        self._suspicions: list[Answered] = []
        self._doubt = 0
        self._open: frozenset[int] | None = None
        self._tried = self._refused = 0
        self._pause: timedelta | None = None

    def work(self, enough: Callable[[], bool], wait: Callable[[float], None]) -> None:
        over = False
        while True:
            while not over and self.done.server_down is None and self._lines.free:
                over = enough()
                ready = None if over else self._next()
                if ready is None or ready.mail is None:
                    break
                ready.doubt = self._doubt if self._suspicions else None
                self._lines.send(ready, ready.mail)
            to_the_end = over or self.done.server_down is not None
            if to_the_end:
                self._give_back_all()
            if self._lines.in_use or self._claiming is not None:
                moved = self._lines.go_on()
                if not moved:
                    self._do_something_else(to_the_end)
                self._take(self._lines.heard())
                if self._recording and self._lines.has_news() and (still_open := self._desk.recorded()) is not None:
                    self._is_recorded(still_open)
                if self._claiming is not None and self._claiming.done():
                    self._receive()
            elif to_the_end:
                break
            elif self._pause is not None:
                wait(self._pause.total_seconds())
                self._queue_is_empty = self._nothing_is_left = False
            elif self._nothing_is_left:
                break
        self._settle()

    def _do_something_else(self, to_the_end: bool) -> None:
        """No line has said anything: write down what they have said before, or prepare what comes next; else wait."""
        if self._to_record and not self._recording and self._desk.works_apart:
            # That goes on by itself, the sooner it has begun the better.
            self._record_what_came()
        elif self._recording and self._only_the_record_is_waited_for:
            # Whatever is begun now takes longer, and the lines that are free then would wait for it.
            self._lines.go_on(LOOK_EVERY)
        # In the end nothing is prepared: what is given back could be claimed, and given back, for ever.
        elif not to_the_end and self._prepare():
            pass
        elif self._to_record and not self._recording:
            # Where it takes this thread's own time, it is done when there is nothing else: the more, the less for each.
            self._record_what_came()
        elif to_the_end or not self._render_ahead(2 * self._settings.mail_connections):
            self._lines.go_on(LOOK_EVERY)

    @property
    def _only_the_record_is_waited_for(self) -> bool:
        """The server keeps most lines waiting, and what goes out on those that are free next is rendered.

        They are rendered in the order in which they go out: where the last of them is, all are.
        """
        here, next_ones = len(self._to_record) + len(self._recording), len(self._recording)
        if 2 * here >= self._lines.in_use or len(self._stock) < next_ones:
            return False
        return self._stock[next_ones - 1].mail is not None

    def _next(self) -> Ready | None:
        """The next message, rendered; None where there is none to send now."""
        while True:
            if self._stock and self._lease_is_half_over(self._stock[0]):
                self._give_back_all()
            if not self._stock:
                if not self._nothing_is_left:
                    self._claim()
                return None
            if self._stock[0].mail is not None:
                return self._stock.popleft()
            self._prepare()

    def _prepare(self) -> bool:
        """Render some of those that come next, and claim what comes after them. False: there is nothing to do."""
        ahead = self._settings.mail_connections
        # What goes on by itself is begun so early that it is over when it is needed, once a batch has gone out well:
        # of a round that is refused little is claimed before it is looked at.
        early = self._desk.works_apart and self.done.sent >= self._batch and not self._refused
        enough = self._batch if early else ahead
        if len(self._stock) < enough and not self._suspicions:
            if self._to_record and not self._desk.works_apart:
                # It takes this thread's own time, and so does a claim: no line has to wait for both.
                self._record_what_came()
                return True
            self._claim()
        return self._render_ahead(ahead)

    def _render_ahead(self, ahead: int) -> bool:
        """Render some of those that are not yet, of the next so many. False: all are."""
        unrendered = [ready for ready in islice(self._stock, ahead) if ready.mail is None][:HANDFUL]
        self._render(unrendered)
        # What cannot be rendered has left the stock, and as much may follow it as there is: no line waits for that.
        return any(ready.mail is not None for ready in unrendered)

    @property
    def _many_refused(self) -> bool:
        """Of what was claimed last, so many that it is time to look at the whole round before more is claimed."""
        return self._refused * 100 > self._settings.max_bounce_percent * self._tried

    def _claim(self) -> None:
        """Have the next batch claimed, if there is one, and it is time for it."""
        if self._claiming is not None or ((self._queue_is_empty or self._many_refused) and self._lines.in_use):
            return
        now = self._clock.now()
        look_first = self._many_refused or now - self._looked_at >= LOOK_AGAIN
        if look_first:
            self._looked_at = now
        self._tried = self._refused = 0
        if self._claimed_at is not None:
            if now - self._claimed_at < FAST:
                self._batch = min(MOST, self._batch * 2)
            elif now - self._claimed_at > SLOW:
                self._batch = max(self._settings.mail_connections, self._batch // 2)
        self._claimed_at = now
        self._claimed_alone = not self._lines.in_use
        self._claiming = self._desk.begin_claim(self._batch, look_first, self._lines.ring)

    def _record_what_came(self) -> None:
        """Have it written down, and then free the lines that it came on."""
        if not self._desk.is_free() and self._render_ahead(MOST):
            # Another process writes; there is something to do until it is done.
            return
        self._recording, self._to_record = self._to_record, []
        answered = [(sent.of.claimed, sent.result) for sent in self._recording]
        self._recorded_on = self._desk.begin_record(answered)
        if self._recorded_on is None:
            self._is_recorded(self._desk.record(answered))
        else:
            self._lines.watch(self._recorded_on)

    def _is_recorded(self, still_open: frozenset[int]) -> None:
        if self._recorded_on is not None:
            self._lines.unwatch(self._recorded_on)
        came, self._recording = self._recording, []
        for sent in came:
            self._lines.free_again(sent.line)
        self._lines.all_is_well(len(came))
        self._count([(sent.of.claimed, sent.result) for sent in came])
        self._only(still_open)

    def _receive(self) -> None:
        """Take what is being claimed; waits for it."""
        if self._claiming is not None:
            batch, self._claiming = self._claiming.result(), None
            self._pause, self.done.notices_wait = batch.pause, batch.notices_wait
            self._queue_is_empty = batch.is_last
            # What has become due while the last lines were at work has been looked for, too.
            self._nothing_is_left = batch.is_last and not batch.ready and self._claimed_alone and not self._lines.in_use
            self._stock.extend(batch.ready)

    def _render(self, several: list[Ready]) -> None:
        """What cannot be rendered is no longer there afterwards, and that is on record."""
        try:
            with_facts = [(ready.claimed, Facts.of(ready.claimed)) for ready in several]
            mails = letters.compose_all(self._settings, with_facts, self._clock.now())
            for ready, mail in zip(several, self._lines.prepare(mails), strict=True):
                ready.mail = mail
        except NOT_TO_BE_RENDERED as error:
            if len(several) > 1:
                for ready in several:
                    self._render([ready])
                return
            [failed] = several
            reason = f"cannot be rendered: {type(error).__name__}: {error}"
            self._desk.fail(failed.claimed, reason)
            self.done.failed += 1
            self._stock.remove(failed)

    def _take(self, sent: list[Sent]) -> None:
        """What came back, in the order in which it did. What the server has answered is written down in its turn."""
        down: list[Answered] = []
        for one in sent:
            ready: Ready = one.of
            result = one.result
            if not result.server_down:
                self._clear()
                self._to_record.append(one)
                continue
            self._lines.free_again(one.line)
            if result.unconnected and self._lines.do_without(one.line):
                self._stock.appendleft(ready)
            elif self._suspicions and ready.doubt == self._doubt:
                down.append((ready.claimed, result))
            else:
                self._suspicions.append((ready.claimed, result))
                self._lines.one_at_a_time()
        if down:
            self._settle()
            self._record(down)

    def _clear(self) -> None:
        """The server is there: what it was away for, was at fault itself."""
        if self._suspicions:
            cleared = [(claimed, result._replace(server_down=False)) for claimed, result in self._suspicions]
            self._suspicions.clear()
            self._doubt += 1
            self._record(cleared)

    def _settle(self) -> None:
        """Nobody could tell, or the server is away: that counts against no message."""
        if self._suspicions:
            suspicions, self._suspicions = self._suspicions, []
            self._record(suspicions)

    def _record(self, answered: Sequence[Answered]) -> None:
        still_open = self._desk.record(answered)
        self._count(answered)
        self._only(still_open)

    def _count(self, answered: Sequence[Answered]) -> None:
        self._claimed_alone = False
        for _, result in answered:
            self._tried += 1
            if result.accepted:
                self.done.sent += 1
            elif result.server_down:
                self.done.again += 1
                self.done.server_down = result.reply
            elif result.permanent:
                self.done.failed += 1
                self._refused += 1
            else:
                self.done.again += 1

    def _only(self, still_open: frozenset[int]) -> None:
        """An operator has stopped a round since the claim: what is not on its way yet waits."""
        if still_open != self._open:
            self._open = still_open
            # It may have been claimed before the round was stopped, and not been taken yet.
            self._receive()
            self._give_back([ready for ready in self._stock if _stands_still(ready.claimed, still_open)])

    def _give_back_all(self) -> None:
        self._receive()
        self._give_back(list(self._stock))

    def _give_back(self, ready: list[Ready]) -> None:
        if ready:
            claimed = [one.claimed for one in ready]
            self._desk.give_back(claimed)
            gone = {one.id for one in claimed}
            self._stock = deque(ready for ready in self._stock if ready.claimed.id not in gone)
            # It can be claimed again, unless its round is stopped.
            self._queue_is_empty = self._nothing_is_left = False

    def _lease_is_half_over(self, ready: Ready) -> bool:
        return self._clock.now() - ready.claimed_at > dispatch.LEASE / 2


def _stands_still(claimed: Claimed, open_rounds: frozenset[int]) -> bool:
    return (
        claimed.kind in dispatch.STOP_WITH_THEIR_ROUND
        and claimed.campaign is not None
        and claimed.campaign.id not in open_rounds
    )
