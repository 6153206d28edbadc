"""What uses the database while mails are sent: claims them, and writes down what the server has said of each.

Whoever sends waits for as little of it as can be. Where a server does the work (PostgreSQL), replies are written down
by one statement that is asked and looked for among all the lines (models/under_way.py), and claims, which are several
statements with much to read, have a thread and a session of their own. Where this process does the work of the database
as well (SQLite), there is nothing to gain by that, but while another process writes there may be mails to word, and to
write down many replies takes a connection of its own (models/straight.py), with a thread for nothing but SQLite's log.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import sleep
from typing import Any, Self

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoneIsFree
from sqlalchemy.orm import Session

from domain.notices import NOTICES
from domain.ports import Clock, Prepared
from models import for_writing, for_writing_if_free
from models.straight import Straight
from services.mail import dispatch, pace, recording, refusals
from services.mail.dispatch import Claimed
from services.mail.recording import Answered
from settings import Settings

MANY = 5
"""So many replies at once show that it is worth a connection of its own to write them down."""

STEP_BACK = 0.0001
"""Seconds: as long as it takes another thread to notice."""


@dataclass(slots=True)
class Ready:
    """A claimed message; ``mail`` once it is rendered.

    ``doubt`` says in which doubt whether the server is there it was sent to find out, if it was.
    """

    claimed: Claimed
    claimed_at: datetime
    mail: Prepared | None = None
    doubt: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What was claimed; ``pause`` is how long MAIL_RATE wants to be waited for, if it does."""

    ready: list[Ready]
    is_last: bool
    pause: timedelta | None
    notices_wait: bool


class Desk:
    """One for each run. All else than what the module says waits, and so does whoever sends, for a lock as well.

    ``commit`` commits what is done by ``session``; what is written down on a connection of its own is committed there.
    """

    def __init__(self, session: Session, settings: Settings, clock: Clock, commit: Callable[[], None]) -> None:
        self._session = self._of_claims = session
        self._settings = settings
        self._clock = clock
        self._commit = self._commit_claim = commit
        self._has_begun = False
        self._straight: Straight | None = None
        self._never_straight = False
        self._thread: ThreadPoolExecutor | None = None
        self._asked: Sequence[Answered] = ()
        self._others: Sequence[Answered] = ()
        self._apart: Any = None
        self._never_apart = False
        self._more_follow = False
        if session.get_bind().dialect.name == "postgresql":
            self._thread = ThreadPoolExecutor(1, "dormouse mail claims")
            # Of the application whose mails these are.
            self._context = copy_context()
            self._of_claims = Session(session.get_bind())
            self._commit_claim = self._of_claims.commit

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        # Each, whatever another meets: a connection that is not closed would go back to the pool as it is.
        with ExitStack() as all_of_it:
            if self._straight is not None:
                all_of_it.callback(self._straight.close)
            all_of_it.callback(self._no_more_apart)
            if self._thread is not None:
                all_of_it.callback(self._of_claims.close)
                all_of_it.callback(self._thread.shutdown)

    def begin_claim(self, most: int, look_first: bool, then: Callable[[], None]) -> "Future[Batch]":
        """Claim up to so many. ``then`` is called when they are claimed, by another thread where there is one."""
        claiming: Future[Batch] = Future()
        if self._thread is not None:
            claiming = self._thread.submit(self._context.run, self._claim, most, look_first)
        else:
            claiming.set_result(self._claim(most, look_first))
        claiming.add_done_callback(lambda _: then())
        return claiming

    def _claim(self, most: int, look_first: bool) -> Batch:
        """Up to so many. ``look_first``: of what went before so much was refused that the round may have to be held."""
        session, now = self._of_claims, self._clock.now()
        for_writing(session)
        if look_first:
            refusals.hold_if_many(session, self._settings, now)
            self._commit_claim()
            for_writing(session)
        allowed = pace.allowance(session, self._settings, now, most)
        limit = allowed.notices or most
        claimed = dispatch.claim(
            session,
            self._settings,
            now,
            limit,
            notices=allowed.notices > 0,
            step_back=_step_back if self.works_apart else None,
        )
        pace.spend(session, self._settings, now, _notices(claimed))
        self._commit_claim()
        self._more_follow = self._more_follow or len(claimed) > 1
        return Batch(
            [Ready(one, now) for one in claimed],
            len(claimed) < limit or allowed.wait is not None,
            allowed.wait,
            allowed.notices == 0 and allowed.wait is None,
        )

    @property
    def works_apart(self) -> bool:
        """Whether ``begin_claim`` and ``begin_record`` begin what then goes on by itself."""
        return self._thread is not None

    def is_free(self) -> bool:
        """Whether ``record`` would wait for nobody. If so, it has to follow: its transaction has begun."""
        if self.works_apart:
            return True
        if self._straight is not None:
            return self._straight.begin_if_free()
        self._has_begun = for_writing_if_free(self._session)
        return self._has_begun

    def begin_record(self, answered: Sequence[Answered]) -> int | None:
        """Have it written down, without waiting: what to watch until ``recorded`` tells. None: ``record`` has to do it.

        That is so on SQLite, where one message alone was claimed, and of what more follows from than can be said
        beforehand.
        """
        accepted = [one for one in answered if one[1].accepted]
        if not self.works_apart or not (self._more_follow or len(accepted) > 1) or not accepted:
            return None
        values = recording.for_apart(self._settings, accepted, self._clock.now())
        if values is None or not self._can_be_asked_apart():
            return None
        self._asked = accepted
        self._others = [one for one in answered if not one[1].accepted]
        self._apart.ask(values)
        if self._apart.is_lost:
            self._no_more_apart()
            return None
        fileno: int = self._apart.fileno()
        return fileno

    def recorded(self) -> frozenset[int] | None:
        """Of what ``begin_record`` has begun: the rounds that are open, once it is written down."""
        if not self._apart.is_over():
            return None
        written, rounds = self._apart.answers
        if self._apart.is_lost:
            self._no_more_apart()
        if written is None or rounds is None:
            return self._each_by_itself([*self._asked, *self._others])
        return self.record(self._others) if self._others else frozenset(int(id_) for (id_,) in rounds)

    def _can_be_asked_apart(self) -> bool:
        if self._apart is None and not self._never_apart:
            # Only where it is used: on SQLite its driver does not have to be there.
            from models.under_way import UnderWay

            engine = self._session.get_bind()
            assert isinstance(engine, Engine)
            try:
                self._apart = UnderWay(engine, "dormouse: what mail servers said", recording.apart())
            except (DBAPIError, NoneIsFree):
                # The server takes no more connections, say: those that there are will do, for the rest of the run.
                self._never_apart = True
        return self._apart is not None

    def _no_more_apart(self) -> None:
        if self._apart is not None:
            self._apart.close()
            self._apart = None

    def record(self, answered: Sequence[Answered]) -> frozenset[int]:
        """Write down what the server has said; returns the rounds that are open."""
        still_open = self._record_straight(answered)
        if still_open is not None:
            return still_open
        try:
            return self._write(answered)
        except (DBAPIError, recording.NotAlike):
            self._session.rollback()
        return self._each_by_itself(answered)

    def _record_straight(self, answered: Sequence[Answered]) -> frozenset[int] | None:
        """The same of many on SQLite, in most cases; None where it has to be done otherwise."""
        if not self._can_go_straight(len(answered)):
            return None
        assert self._straight is not None
        return recording.record_straight(self._straight, self._settings, answered, self._clock.now())

    def _can_go_straight(self, replies: int) -> bool:
        if self._straight is None and not self._never_straight and replies >= MANY:
            engine = self._session.get_bind()
            assert isinstance(engine, Engine)
            self._never_straight = engine.dialect.name != "sqlite"
            if not self._never_straight:
                # The lock may have been taken on the session's connection.
                self._session.rollback()
                self._has_begun = False
                try:
                    self._straight = recording.straight(engine)
                except (DBAPIError, NoneIsFree):
                    # No file can be opened any more, say.
                    self._never_straight = True
        return self._straight is not None

    def _each_by_itself(self, answered: Sequence[Answered]) -> frozenset[int]:
        """What was sent must not be sent again because of what another message met."""
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

    def open(self) -> None:
        """What is to be seen to before the first claim of a run."""
        for_writing(self._session)
        pace.forget_the_day(self._session, self._settings)
        refusals.hold_if_many(self._session, self._settings, self._clock.now())
        self._commit()

    def hold_if_many_refused(self) -> None:
        for_writing(self._session)
        refusals.hold_if_many(self._session, self._settings, self._clock.now())
        self._commit()

    def retire(self) -> None:
        for_writing(self._session)
        dispatch.retire(self._session, self._settings)
        self._commit()

    def _write(self, answered: Sequence[Answered]) -> frozenset[int]:
        if not self._has_begun:
            for_writing(self._session)
        self._has_begun = False
        now = self._clock.now()
        still_open = recording.record_all(self._session, self._settings, answered, now)
        untried = _notices([claimed for claimed, result in answered if result.server_down])
        pace.give_back(self._session, self._settings, now, untried)
        self._commit()
        return still_open


def _step_back() -> None:
    """Let whoever sends have the interpreter: Python takes it away from a thread only after 5 ms."""
    sleep(STEP_BACK)


def _notices(claimed: list[Claimed]) -> int:
    return sum(one.kind in NOTICES for one in claimed)
