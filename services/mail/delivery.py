"""Mail goes out: claim a batch, render, send on several connections, record each reply before its line sends another.

1. A batch is claimed with a lease, its facts are read off, and the claim is committed.
2. Each message is rendered and handed to a line (services/mail/lines.py), which hands it to the server.
3. What the server said is recorded and committed, for all lines that have heard since the last time in one transaction;
   only then do those lines get their next messages. No transaction waits for a server.

One thread does it all, and records when it has nothing else to do; where the database is a server of its own
(PostgreSQL), another claims meanwhile (``_Desk``). A crash can send as many messages twice as there were lines. The
transaction that records looks which rounds are open: of one that is held, no more goes out than is on its way.

One message's failure never stops another's. What cannot be rendered is failed with its reason. When the server is away
for one message, those that are on their way and one that is sent next tell which of the two it is: if any gets an
answer, the first message is at fault and is backed off like any temporary failure; if none does, the server is away,
nothing counts against anybody, and the run ends.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Self

from jinja2 import TemplateError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from domain.notices import NOTICES
from domain.ports import Clock, Mailer, Prepared
from models import for_writing
from services.mail import dispatch, letters, pace, recording, refusals
from services.mail.dispatch import Claimed
from services.mail.lines import LOOK_EVERY, Line, Lines, Sent
from services.mail.recording import Answered
from services.mail.words import Facts
from settings import Settings

BATCH = 50
"""So many are claimed at first: few enough that a sign-in mail never waits long behind a batch of notices."""

HANDFUL = 20
"""So many are rendered at a time: enough that it is done quickly, few enough that no line waits long for it."""

MOST = 250
FAST, SLOW = timedelta(seconds=0.5), timedelta(seconds=2)
"""A batch that is gone sooner is followed by one of twice the size, and one that takes longer by one of half of it."""

NOT_TO_BE_RENDERED = (TemplateError, LookupError, ValueError, TypeError)


@dataclass(slots=True)
class Delivered:
    """What came of a run. ``server_down`` is why it ended early, None if it did not."""

    sent: int = 0
    again: int = 0
    failed: int = 0
    server_down: str | None = None


@dataclass(slots=True)
class _Ready:
    """A claimed message with its facts; ``mail`` once it is rendered.

    ``doubt`` says in which doubt whether the server is there it was sent to find out, if it was.
    """

    claimed: Claimed
    facts: Facts
    claimed_at: datetime
    mail: Prepared | None = None
    doubt: int | None = None


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
    with Lines(mailer, settings.mail_connections) as lines, _Desk(session, settings, clock, commit) as desk:
        run = _Run(settings, clock, desk, lines)
        desk.hold_if_many_refused()
        run.work(enough, wait)
        desk.hold_if_many_refused()
        # While notices may not go anyway, by the hour or the day, no tick looks through a round's queue.
        if run.done.server_down is None and not run.notices_wait:
            desk.retire()
    return run.done


class _Run:
    """What is sent, by whom, and what came of it. It touches no database but through the desk."""

    def __init__(self, settings: Settings, clock: Clock, desk: "_Desk", lines: Lines) -> None:
        self.done = Delivered()
        self.notices_wait = False
        self._settings = settings
        self._clock = clock
        self._desk = desk
        self._lines = lines
        self._stock: deque[_Ready] = deque()
        self._batch = max(BATCH, settings.mail_connections)
        self._claimed_at: datetime | None = None
        self._claiming: Future[_Batch] | None = None
        self._claimed_alone = False
        self._queue_is_empty = self._nothing_is_left = False
        self._to_record: list[Sent] = []
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
                # In the end nothing is prepared: what is given back could be claimed, and given back, for ever.
                if not (moved or (not to_the_end and self._prepare())):
                    # What was answered is written down when there is nothing else to do: the more, the less for each.
                    if self._to_record:
                        self._record_what_came()
                    else:
                        self._lines.go_on(LOOK_EVERY)
                self._take(self._lines.heard())
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

    def _next(self) -> _Ready | None:
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
        if len(self._stock) < ahead and not self._suspicions:
            self._claim()
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
        now, look_first = self._clock.now(), self._many_refused
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
        """And free the lines that it came on."""
        came, self._to_record = self._to_record, []
        self._record([(sent.of.claimed, sent.result) for sent in came], [sent.line for sent in came])

    def _receive(self) -> None:
        """Take what is being claimed; waits for it."""
        if self._claiming is not None:
            batch, self._claiming = self._claiming.result(), None
            self._pause, self.notices_wait = batch.pause, batch.notices_wait
            self._queue_is_empty = batch.is_last
            # What has become due while the last lines were at work has been looked for, too.
            self._nothing_is_left = batch.is_last and not batch.ready and self._claimed_alone and not self._lines.in_use
            self._stock.extend(batch.ready)

    def _render(self, several: list[_Ready]) -> None:
        """What cannot be rendered is no longer there afterwards, and that is on record."""
        try:
            mails = letters.compose_all(
                self._settings, [(ready.claimed, ready.facts) for ready in several], self._clock.now()
            )
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
            ready: _Ready = one.of
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
            cleared = [(claimed, replace(result, server_down=False)) for claimed, result in self._suspicions]
            self._suspicions.clear()
            self._doubt += 1
            self._record(cleared)

    def _settle(self) -> None:
        """Nobody could tell, or the server is away: that counts against no message."""
        if self._suspicions:
            suspicions, self._suspicions = self._suspicions, []
            self._record(suspicions)

    def _record(self, answered: Sequence[Answered], came_on: Sequence[Line] = ()) -> None:
        """Once it is on record, the lines that it came on are free."""
        still_open = self._desk.record(answered)
        self._claimed_alone = False
        self._count(answered)
        for line in came_on:
            self._lines.free_again(line)
        if came_on:
            self._lines.all_is_well(len(came_on))
        self._only(still_open)

    def _count(self, answered: Sequence[Answered]) -> None:
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

    def _give_back(self, ready: list[_Ready]) -> None:
        if ready:
            claimed = [one.claimed for one in ready]
            self._desk.give_back(claimed)
            gone = {one.id for one in claimed}
            self._stock = deque(ready for ready in self._stock if ready.claimed.id not in gone)
            # It can be claimed again, unless its round is stopped.
            self._queue_is_empty = self._nothing_is_left = False

    def _lease_is_half_over(self, ready: _Ready) -> bool:
        return self._clock.now() - ready.claimed_at > dispatch.LEASE / 2


@dataclass(frozen=True, slots=True)
class _Batch:
    """What was claimed; ``pause`` is how long MAIL_RATE wants to be waited for, if it does."""

    ready: list[_Ready]
    is_last: bool
    pause: timedelta | None
    notices_wait: bool


class _Desk:
    """What uses the database while a run lasts, one transaction after the other.

    Where a server does the work (PostgreSQL), claims have a thread and a session of their own: a claim takes as long as
    many mails to be worded. All else is done by who sends, in few statements; handing the interpreter to another thread
    and back, at each of them, takes longer than what could go on beside it. Where this process does the work of the
    database as well (SQLite), that is so of claims, too. So whoever waits for a lock keeps all lines waiting; what is
    said on them meanwhile is heard afterwards.
    """

    def __init__(self, session: Session, settings: Settings, clock: Clock, commit: Callable[[], None]) -> None:
        self._session = self._of_claims = session
        self._settings = settings
        self._clock = clock
        self._commit = self._commit_claim = commit
        self._thread: ThreadPoolExecutor | None = None
        if session.get_bind().dialect.name == "postgresql":
            self._thread = ThreadPoolExecutor(1, "dormouse mail claims")
            # Of the application whose mails these are.
            self._context = copy_context()
            self._of_claims = Session(session.get_bind())
            self._commit_claim = self._of_claims.commit

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._thread is not None:
            self._thread.shutdown()
            self._of_claims.close()

    def begin_claim(self, most: int, look_first: bool, then: Callable[[], None]) -> "Future[_Batch]":
        """Claim up to so many. ``then`` is called when they are claimed, by another thread where there is one."""
        claiming: Future[_Batch] = Future()
        if self._thread is not None:
            claiming = self._thread.submit(self._context.run, self._claim, most, look_first)
        else:
            claiming.set_result(self._claim(most, look_first))
        claiming.add_done_callback(lambda _: then())
        return claiming

    def _claim(self, most: int, look_first: bool) -> _Batch:
        """Up to so many. ``look_first``: of what went before so much was refused that the round may have to be held."""
        session, now = self._of_claims, self._clock.now()
        for_writing(session)
        if look_first:
            refusals.hold_if_many(session, self._settings, now)
            self._commit_claim()
            for_writing(session)
        allowed = pace.allowance(session, self._settings, now, most)
        limit = allowed.notices or most
        claimed = dispatch.claim(session, self._settings, now, limit, notices=allowed.notices > 0)
        pace.spend(session, self._settings, now, _notices(claimed))
        self._commit_claim()
        return _Batch(
            [_Ready(one, Facts.of(one), now) for one in claimed],
            len(claimed) < limit or allowed.wait is not None,
            allowed.wait,
            allowed.notices == 0 and allowed.wait is None,
        )

    def record(self, answered: Sequence[Answered]) -> frozenset[int]:
        """Write down what the server has said; returns the rounds that are open."""
        try:
            return self._write(answered)
        except (DBAPIError, recording.NotAlike):
            # What was sent must not be sent again because of what another message met: each once more, by itself.
            self._session.rollback()
        lost: DBAPIError | None = None
        for one in answered:
            try:
                still_open = self._write_alone(one)
            except DBAPIError as error:
                self._session.rollback()
                lost = error
        if lost is not None:
            raise lost
        return still_open

    def _write_alone(self, one: Answered) -> frozenset[int]:
        try:
            return self._write([one])
        except DBAPIError:
            # A deadlock, say: the second time it is over.
            self._session.rollback()
            return self._write([one])

    def fail(self, claimed: Claimed, reason: str) -> None:
        for_writing(self._session)
        recording.fail(self._session, claimed, reason, self._clock.now())
        self._commit()

    def give_back(self, claimed: list[Claimed]) -> None:
        for_writing(self._session)
        dispatch.give_back(self._session, claimed)
        pace.give_back(self._session, self._settings, self._clock.now(), _notices(claimed))
        self._commit()

    def hold_if_many_refused(self) -> None:
        for_writing(self._session)
        refusals.hold_if_many(self._session, self._settings, self._clock.now())
        self._commit()

    def retire(self) -> None:
        for_writing(self._session)
        dispatch.retire(self._session, self._settings, self._clock.now())
        self._commit()

    def _write(self, answered: Sequence[Answered]) -> frozenset[int]:
        for_writing(self._session)
        now = self._clock.now()
        still_open = recording.record_all(self._session, self._settings, answered, now)
        untried = _notices([claimed for claimed, result in answered if result.server_down])
        pace.give_back(self._session, self._settings, now, untried)
        self._commit()
        return still_open


def _stands_still(claimed: Claimed, open_rounds: frozenset[int]) -> bool:
    return (
        claimed.kind in dispatch.STOP_WITH_THEIR_ROUND
        and claimed.campaign is not None
        and claimed.campaign.id not in open_rounds
    )


def _notices(claimed: list[Claimed]) -> int:
    return sum(one.kind in NOTICES for one in claimed)
