"""Carrying out billing orders: several at once, at the pace the provider allows, each failure on its own.

Who asks is another matter than who writes: orders are claimed and their outcomes written by the calling thread, in
transactions of their own, and the provider is asked by others, with no transaction open. The pace is a GCRA as that of
mail (services/mail/pace.py): a claim takes so many instants of the common row, and each order is asked for at its own.
"""

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Event
from time import monotonic

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.errors import BillingClosed, BillingError, BillingPending, BillingTemporary
from domain.ports import Billing, BillingReceipt, Clock
from models import BillingPace, change, for_writing, insert
from services import billing_answers, billing_asking
from services.billing_answers import Settled
from services.billing_asking import Claimed

log = logging.getLogger("dormouse.billing")

AHEAD = timedelta(seconds=1)
"""Orders are claimed so long before their turn: what a process that dies had claimed waits for its lease."""

LOOKS_EVERY = 0.05
"""Seconds."""

GIVES_UP_AFTER = 20
"""So many answers in a row that did not come: the provider is away, and the rest is left to the next run."""

_ROW = 1


@dataclass(frozen=True, slots=True)
class Pace:
    """``rate`` orders a second at most, all processes together; None: as fast as they are answered."""

    connections: int = 1
    rate: float | None = None


def settle(
    session: Session,
    provider: Billing,
    clock: Clock,
    commit: Callable[[], None],
    enough: Callable[[], bool],
    pace: Pace = Pace(),
) -> Settled:
    """Carry out what is due, until nothing is, ``enough`` says to stop, or the provider is away."""
    run = _Run(session, provider, clock, commit, pace)
    with ThreadPoolExecutor(pace.connections, thread_name_prefix="dormouse billing") as threads:
        while True:
            run.write_down()
            stopping = enough() or run.closed or run.silent >= GIVES_UP_AFTER
            if stopping:
                run.give_back()
            elif run.needs_more():
                run.claim()
            run.begin(threads)
            if not run.asked and not run.waiting and (stopping or run.nothing_due):
                return replace(run.settled, closed=run.closed)
            run.rest()


class _Run:
    def __init__(
        self, session: Session, provider: Billing, clock: Clock, commit: Callable[[], None], pace: Pace
    ) -> None:
        self._session, self._provider, self._clock, self._commit, self._pace = session, provider, clock, commit, pace
        self.waiting: deque[tuple[float, Claimed]] = deque()
        """Claimed, with the instant of the machine's own clock at which each may be asked for."""
        self.asked: dict[Future[BillingReceipt | BillingError], Claimed] = {}
        self.settled = Settled()
        self.silent = 0
        self.nothing_due = False
        self.closed = False
        """The provider's address has said that it takes no more orders."""
        self._look_at = 0.0

    def needs_more(self) -> bool:
        if self._pace.rate is None:
            return len(self.waiting) < self._pace.connections
        now = monotonic()
        # By half a second ahead the next ones are claimed before the last of these has its turn.
        return now >= self._look_at and (not self.waiting or self.waiting[-1][0] - now < AHEAD.total_seconds() / 2)

    def claim(self) -> None:
        for_writing(self._session)
        now = self._clock.now()
        most, turn = self._turns(now)
        claimed = billing_asking.claim(self._session, now, most) if most else []
        if claimed and self._pace.rate:
            self._take_turns(turn, len(claimed))
        self._commit()
        self.nothing_due = most > 0 and not claimed
        # Where all turns are taken, or nothing is due while others are being asked for, a look costs a transaction.
        self._look_at = 0.0 if claimed else monotonic() + LOOKS_EVERY
        begin = monotonic() + (turn - now).total_seconds()
        step = 1 / self._pace.rate if self._pace.rate else 0.0
        self.waiting += [(begin + step * place, one) for place, one in enumerate(claimed)]

    def begin(self, threads: ThreadPoolExecutor) -> None:
        while self.waiting and len(self.asked) < self._pace.connections and self.waiting[0][0] <= monotonic():
            _, one = self.waiting.popleft()
            self.asked[threads.submit(billing_asking.ask, self._provider, one, self._clock.now())] = one

    def rest(self) -> None:
        """Until an answer comes, or the next order's turn."""
        turn = self.waiting[0][0] - monotonic() if self.waiting and len(self.asked) < self._pace.connections else None
        if self.asked:
            wait(self.asked, timeout=LOOKS_EVERY if turn is None else max(turn, 0), return_when=FIRST_COMPLETED)
        elif turn is not None and turn > 0:
            Event().wait(turn)
        elif not self.waiting and not self.nothing_due:
            # The turns of the next second are all taken, by other processes as well.
            Event().wait(LOOKS_EVERY)

    def write_down(self) -> None:
        """The outcomes that have come, in one transaction: what a crash loses of them is asked for again by its key."""
        done = [future for future in self.asked if future.done()]
        if not done:
            return
        for_writing(self._session)
        now = self._clock.now()
        for future in done:
            self._count(self.asked.pop(future), _outcome(future), now)
        self._commit()

    def give_back(self) -> None:
        if self.waiting:
            for_writing(self._session)
            billing_asking.give_back(self._session, [one for _, one in self.waiting])
            self._commit()
            self.waiting.clear()

    def _count(self, one: Claimed, outcome: BillingReceipt | BillingError, now: datetime) -> None:
        mine = billing_answers.record(self._session, one, outcome, now)
        self.closed = self.closed or isinstance(outcome, BillingClosed)
        unanswered = isinstance(outcome, BillingTemporary) and not isinstance(outcome, BillingPending)
        self.silent = self.silent + 1 if unanswered else 0
        self.settled = self.settled.plus(outcome) if mine else self.settled

    def _turns(self, now: datetime) -> tuple[int, datetime]:
        """How many orders may be claimed now, and the turn of the first of them."""
        rate = self._pace.rate
        if rate is None:
            return billing_asking.BATCH, now
        row = _row(self._session)
        turn = max(row.next_at or now, now)
        left = (AHEAD - (turn - now)).total_seconds() * rate
        return max(0, min(int(left), 1000)) or (1 if turn <= now else 0), turn

    def _take_turns(self, turn: datetime, count: int) -> None:
        assert self._pace.rate is not None
        _row(self._session).next_at = turn + timedelta(seconds=count / self._pace.rate)
        self._session.flush()


def _outcome(future: Future[BillingReceipt | BillingError]) -> BillingReceipt | BillingError:
    """An adapter that breaks over one order must not keep the others from being carried out."""
    broken = future.exception()
    if not isinstance(broken, Exception):
        return future.result()
    log.error("a billing order could not be asked for", exc_info=broken)
    return BillingTemporary(f"the adapter broke over it, see the log: {type(broken).__name__}")


def _row(session: Session) -> BillingPace:
    """The one row, locked where the database locks rows, and read anew."""
    this = select(BillingPace).where(BillingPace.id == _ROW)
    locked = this.with_for_update().execution_options(populate_existing=True)
    row = session.scalar(locked)
    if row is None:
        change(session, insert(session, BillingPace).values(id=_ROW).on_conflict_do_nothing())
        row = session.scalars(locked).one()
    return row
