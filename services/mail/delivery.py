"""Mail goes out: claim a batch, render and send one after another, record each reply before the next is sent.

1. A batch is claimed with a lease, its facts are read off, and the claim is committed.
2. Each message is rendered and handed to the server with no transaction open.
3. What the server said is recorded and committed; only then does the connection carry the next message.

One message's failure never stops another's. What cannot be rendered is failed with its reason. When the server is away
for one message, the next one tells which of the two it was: if that one gets an answer, the first message is at fault
and is backed off like any temporary failure; if not, the server is away, nothing counts against anybody, and the run
ends.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from jinja2 import TemplateError
from sqlalchemy.orm import Session

from domain.notices import NOTICES
from domain.ports import Clock, Mail, MailConnection, Mailer, MailResult
from models import for_writing
from services.mail import dispatch, letters, pace, refusals
from services.mail.dispatch import Claimed
from services.mail.words import Facts
from settings import Settings

BATCH = 50
"""So many are claimed at once: few enough that a sign-in mail never waits long behind a batch of notices."""

NOT_TO_BE_RENDERED = (TemplateError, LookupError, ValueError, TypeError)


@dataclass(slots=True)
class Delivered:
    """What came of a run. ``server_down`` is why it ended early, None if it did not."""

    sent: int = 0
    again: int = 0
    failed: int = 0
    server_down: str | None = None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A claimed message with its facts, which no longer needs the session that claimed it."""

    claimed: Claimed
    facts: Facts


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
    run = _Run(session, settings, clock, commit)
    run.hold_if_many_refused()
    with mailer.connect() as connection:
        while run.done.server_down is None and not enough():
            batch = run.claim()
            if batch:
                run.send(batch, connection, enough)
            elif run.pause is not None:
                wait(run.pause.total_seconds())
            else:
                break
    run.settle_suspect(server_is_down=True)
    run.hold_if_many_refused()
    if run.done.server_down is None:
        for_writing(session)
        dispatch.retire(session, settings, clock.now())
        commit()
    return run.done


class _Run:
    def __init__(self, session: Session, settings: Settings, clock: Clock, commit: Callable[[], None]) -> None:
        self.done = Delivered()
        self._session = session
        self._settings = settings
        self._clock = clock
        self._commit = commit
        self._claimed_at = clock.now()
        self._suspect: tuple[Claimed, MailResult] | None = None
        self.pause: timedelta | None = None
        """After how long notices may go on, if it is the rate that holds them back."""

    def claim(self) -> list[_Ready]:
        session = self._session
        for_writing(session)
        self._claimed_at = now = self._clock.now()
        allowed = pace.allowance(session, self._settings, now, BATCH)
        self.pause = allowed.wait
        claimed_now = dispatch.claim(
            session, self._settings, now, allowed.notices or BATCH, notices=allowed.notices > 0
        )
        pace.spend(session, self._settings, now, _notices(claimed_now))
        batch = [_Ready(claimed, Facts.of(claimed)) for claimed in claimed_now]
        # What is read of them later is what was claimed: no query, and no transaction while a server is talked to.
        session.flush()
        for ready in batch:
            claimed = ready.claimed
            for row in (claimed.case, claimed.member, claimed.campaign, claimed.operator):
                if row is not None and row in session:
                    session.expunge(row)
        self._commit()
        return batch

    def send(self, batch: list[_Ready], connection: MailConnection, enough: Callable[[], bool]) -> None:
        refused_before = self.done.failed
        self._send(batch, connection, enough)
        if (self.done.failed - refused_before) * 100 > self._settings.max_bounce_percent * len(batch):
            self.hold_if_many_refused()

    def hold_if_many_refused(self) -> None:
        for_writing(self._session)
        refusals.hold_if_many(self._session, self._settings, self._clock.now())
        self._commit()

    def _send(self, batch: list[_Ready], connection: MailConnection, enough: Callable[[], bool]) -> None:
        for position, ready in enumerate(batch):
            if enough() or self._lease_is_half_over():
                self._give_back(batch[position:])
                return
            mail = self._mail(ready)
            if mail is None:
                continue
            result = connection.send(mail)
            if not result.server_down:
                self.settle_suspect(server_is_down=False)
                self._record(ready.claimed, result)
            elif self._suspect is None:
                self._suspect = (ready.claimed, result)
            else:
                self.settle_suspect(server_is_down=True)
                self._record(ready.claimed, result)
                self._give_back(batch[position + 1 :])
                return

    def settle_suspect(self, *, server_is_down: bool) -> None:
        """Record the message for which the server was away, now that it is known whether it is."""
        if self._suspect is not None:
            claimed, result = self._suspect
            self._suspect = None
            self._record(claimed, replace(result, server_down=server_is_down))

    def _mail(self, ready: _Ready) -> Mail | None:
        claimed, now = ready.claimed, self._clock.now()
        try:
            return letters.compose(self._settings, claimed, ready.facts, now)
        except NOT_TO_BE_RENDERED as error:
            for_writing(self._session)
            dispatch.fail(self._session, claimed, f"cannot be rendered: {type(error).__name__}: {error}", now)
            self._commit()
            self.done.failed += 1
            return None

    def _record(self, claimed: Claimed, result: MailResult) -> None:
        for_writing(self._session)
        now = self._clock.now()
        dispatch.record(self._session, self._settings, claimed, result, now)
        if result.server_down:
            pace.give_back(self._session, self._settings, now, _notices([claimed]))
        self._commit()
        if result.accepted:
            self.done.sent += 1
        elif result.server_down:
            self.done.again += 1
            self.done.server_down = result.reply
        elif result.permanent:
            self.done.failed += 1
        else:
            self.done.again += 1

    def _give_back(self, rest: list[_Ready]) -> None:
        if rest:
            for_writing(self._session)
            now, claimed = self._clock.now(), [ready.claimed for ready in rest]
            dispatch.give_back(self._session, claimed, now)
            pace.give_back(self._session, self._settings, now, _notices(claimed))
            self._commit()

    def _lease_is_half_over(self) -> bool:
        return self._clock.now() - self._claimed_at > dispatch.LEASE / 2


def _notices(claimed: list[Claimed]) -> int:
    return sum(one.kind in NOTICES for one in claimed)
