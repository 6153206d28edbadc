"""Mail goes out: claim a batch, render, send on several connections, record each reply before its line sends another.

1. A batch is claimed with a lease, its facts are read off, and the claim is committed.
2. Each message is rendered here and handed to a line (services/mail/lines.py), which hands it to the server.
3. What the server said is recorded here and committed, for all lines that heard at the same moment in one transaction;
   only then do those lines get their next messages. No transaction waits for a server.

So there is one thread that uses the database, and a crash can send as many messages twice as there were lines. In the
same transaction it looks which rounds are open: of one that is held, no more goes out than is on its way.

One message's failure never stops another's. What cannot be rendered is failed with its reason. When the server is away
for one message, those that are on their way and one that is sent next tell which of the two it is: if any gets an
answer, the first message is at fault and is backed off like any temporary failure; if none does, the server is away,
nothing counts against anybody, and the run ends.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from jinja2 import TemplateError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from domain.notices import NOTICES
from domain.ports import Clock, Mail, Mailer
from models import for_writing
from services.mail import dispatch, letters, pace, recording, refusals
from services.mail.dispatch import Claimed
from services.mail.lines import Lines, Sent
from services.mail.recording import Answered
from services.mail.words import Facts
from settings import Settings

BATCH = 50
"""So many are claimed at first: few enough that a sign-in mail never waits long behind a batch of notices."""

MOST = 1000
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
    mail: Mail | None = None
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
    with Lines(mailer, settings.mail_connections) as lines:
        run = _Run(session, settings, clock, commit, lines)
        run.hold_if_many_refused()
        run.work(enough, wait)
    run.hold_if_many_refused()
    # While notices may not go anyway, by the hour or the day, a round's queue is not looked through every few seconds.
    if run.done.server_down is None and not run.notices_wait:
        for_writing(session)
        dispatch.retire(session, settings, clock.now())
        commit()
    return run.done


class _Run:
    def __init__(
        self, session: Session, settings: Settings, clock: Clock, commit: Callable[[], None], lines: Lines
    ) -> None:
        self.done = Delivered()
        self.notices_wait = False
        self._session = session
        self._settings = settings
        self._clock = clock
        self._commit = commit
        self._lines = lines
        self._stock: deque[_Ready] = deque()
        self._batch = max(BATCH, settings.mail_connections)
        self._claimed_at: datetime | None = None
        self._queue_is_empty = False
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
            if over or self.done.server_down is not None:
                self._give_back_all()
            if self._lines.in_flight:
                self._prepare()
                self._take(self._lines.results())
            elif over or self.done.server_down is not None:
                break
            elif self._pause is not None:
                wait(self._pause.total_seconds())
                self._queue_is_empty = False
            elif self._queue_is_empty:
                break
        self._settle()

    def _next(self) -> _Ready | None:
        """The next message, rendered; None where there is none to send now."""
        while True:
            if self._stock and self._lease_is_half_over(self._stock[0]):
                self._give_back_all()
            if not self._stock:
                if (self._queue_is_empty or self._many_refused) and self._lines.in_flight:
                    return None
                self._claim()
            if not self._stock:
                return None
            ready = self._stock.popleft()
            if self._render(ready):
                return ready

    def _prepare(self) -> None:
        """While all lines are busy, render what they will send next, and claim what comes after that."""
        for ready in list(islice(self._stock, self._settings.mail_connections)):
            if not self._render(ready):
                self._stock.remove(ready)
        few = len(self._stock) < self._settings.mail_connections
        if few and not (self._queue_is_empty or self._many_refused or self._suspicions):
            self._claim()

    @property
    def _many_refused(self) -> bool:
        """Of what was claimed last, so many that it is time to look at the whole round before more is claimed."""
        return self._refused * 100 > self._settings.max_bounce_percent * self._tried

    def _claim(self) -> None:
        session, now = self._session, self._clock.now()
        if self._many_refused:
            self.hold_if_many_refused()
        self._tried = self._refused = 0
        if self._claimed_at is not None:
            if now - self._claimed_at < FAST:
                self._batch = min(MOST, self._batch * 2)
            elif now - self._claimed_at > SLOW:
                self._batch = max(self._settings.mail_connections, self._batch // 2)
        self._claimed_at = now
        for_writing(session)
        allowed = pace.allowance(session, self._settings, now, self._batch)
        self._pause = allowed.wait
        self.notices_wait = allowed.notices == 0 and allowed.wait is None
        limit = allowed.notices or self._batch
        claimed = dispatch.claim(session, self._settings, now, limit, notices=allowed.notices > 0)
        pace.spend(session, self._settings, now, _notices(claimed))
        self._commit()
        self._queue_is_empty = len(claimed) < limit or self._pause is not None
        self._stock.extend(_Ready(one, Facts.of(one), now) for one in claimed)

    def hold_if_many_refused(self) -> None:
        for_writing(self._session)
        refusals.hold_if_many(self._session, self._settings, self._clock.now())
        self._commit()

    def _render(self, ready: _Ready) -> bool:
        """False: it cannot be rendered, and that is on record."""
        if ready.mail is not None:
            return True
        claimed, now = ready.claimed, self._clock.now()
        try:
            ready.mail = letters.compose(self._settings, claimed, ready.facts, now)
            return True
        except NOT_TO_BE_RENDERED as error:
            for_writing(self._session)
            recording.fail(self._session, claimed, f"cannot be rendered: {type(error).__name__}: {error}", now)
            self._commit()
            self.done.failed += 1
            return False

    def _take(self, sent: list[Sent]) -> None:
        """Record what came back, in the order in which it did."""
        answered: list[Answered] = []
        down: list[Answered] = []
        for one in sent:
            ready: _Ready = one.of
            result = one.result
            if not result.server_down:
                answered += [*self._cleared(), (ready.claimed, result)]
            elif result.unconnected and self._lines.do_without(one.line):
                self._stock.appendleft(ready)
            elif self._suspicions and ready.doubt == self._doubt:
                down.append((ready.claimed, result))
            else:
                self._suspicions.append((ready.claimed, result))
                self._lines.one_at_a_time()
        if answered:
            self._record(answered)
            self._lines.all_is_well(len(answered))
        if down:
            self._settle()
            self._record(down)

    def _cleared(self) -> list[Answered]:
        """The server is there: what it was away for, was at fault itself."""
        cleared = [(claimed, replace(result, server_down=False)) for claimed, result in self._suspicions]
        self._suspicions.clear()
        self._doubt += 1
        return cleared

    def _settle(self) -> None:
        """Nobody could tell, or the server is away: that counts against no message."""
        if self._suspicions:
            suspicions, self._suspicions = self._suspicions, []
            self._record(suspicions)

    def _record(self, answered: Sequence[Answered]) -> None:
        try:
            self._write(answered)
        except DBAPIError:
            # What was sent must not be sent again because of what another message met: each once more, by itself.
            self._session.rollback()
            for one in answered:
                self._write([one])
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

    def _write(self, answered: Sequence[Answered]) -> None:
        for_writing(self._session)
        now = self._clock.now()
        recording.record_all(self._session, self._settings, answered, now)
        untried = _notices([claimed for claimed, result in answered if result.server_down])
        pace.give_back(self._session, self._settings, now, untried)
        still_open = dispatch.open_rounds(self._session)
        self._commit()
        if still_open != self._open:
            self._open = still_open
            self._give_back([ready.claimed for ready in self._stock if _stands_still(ready.claimed, still_open)])

    def _give_back_all(self) -> None:
        self._give_back([ready.claimed for ready in self._stock])

    def _give_back(self, claimed: list[Claimed]) -> None:
        if claimed:
            for_writing(self._session)
            dispatch.give_back(self._session, claimed)
            pace.give_back(self._session, self._settings, self._clock.now(), _notices(claimed))
            self._commit()
            gone = {one.id for one in claimed}
            self._stock = deque(ready for ready in self._stock if ready.claimed.id not in gone)

    def _lease_is_half_over(self, ready: _Ready) -> bool:
        return self._clock.now() - ready.claimed_at > dispatch.LEASE / 2


def _stands_still(claimed: Claimed, open_rounds: frozenset[int]) -> bool:
    """An operator has stopped the round since the claim: what is not on its way yet waits."""
    return (
        claimed.kind in dispatch.STOP_WITH_THEIR_ROUND
        and claimed.campaign is not None
        and claimed.campaign.id not in open_rounds
    )


def _notices(claimed: list[Claimed]) -> int:
    return sum(one.kind in NOTICES for one in claimed)
