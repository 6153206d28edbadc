"""Bounces and complaints fetched from the mailbox they come to, where no mail server hands them over.

1. A mail is read, with no transaction open.
2. What it reports is written down, and committed.
3. Only then it leaves the mailbox: what was taken is deleted, what is no report of a message of ours is put aside.

A process that is killed in between finds the mail again, and taking a report twice changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from domain.ports import Clock, Mailbox, WaitingMail
from models import for_writing
from services.mail import bounce_mail, bounces
from settings import Settings

NOT_TO_BE_TAKEN = (DataError, IntegrityError, *bounce_mail.NO_REPORT)
"""What a mail that nobody has thought of may cause: a person looks at it, and the others are taken."""


@dataclass(slots=True)
class Collected:
    """What became of the mails of one visit; ``later`` overtook the record of the message they are about."""

    taken: int = 0
    aside: int = 0
    later: int = 0


def collect(
    session: Session,
    settings: Settings,
    mailbox: Mailbox,
    clock: Clock,
    commit: Callable[[], None],
    enough: Callable[[], bool],
) -> Collected:
    """Take what waits in the mailbox until nothing does, or ``enough``. Raises MailboxAway; what was taken stays so."""
    done = Collected()
    with mailbox.visit() as visit:
        for mail in visit.waiting():
            if enough():
                break
            try:
                ours = _take(session, settings, mail, clock, commit)
            except bounces.TooEarly:
                session.rollback()
                done.later += 1
                continue
            except NOT_TO_BE_TAKEN:
                session.rollback()
                ours = False
            if ours:
                visit.take_out(mail)
                done.taken += 1
            else:
                visit.put_aside(mail)
                done.aside += 1
    return done


def _take(session: Session, settings: Settings, mail: WaitingMail, clock: Clock, commit: Callable[[], None]) -> bool:
    """Whether it was a report about a message of ours; what it says is committed then."""
    report = bounce_mail.read(mail.raw)
    for_writing(session)
    outcome = bounces.take(session, settings, report, clock.now())
    commit()
    return outcome.ours
