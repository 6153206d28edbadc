"""When mail does not arrive after all: a silent case ends as unreachable, and a lapse that rested on it is reversed."""

import re
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from domain.errors import DormouseError
from domain.lifecycle import CaseState, MailState, MessageState
from domain.notices import Kind
from domain.return_path import public_id_in
from models import Case, Event, Member, Message, change
from services import events, returning
from services.cases import lock
from services.mail.bounce_mail import Report, Verdict
from settings import Settings

SOFT_RETRY = timedelta(hours=12)
MOST_RETURNS = 3
"""A mail that has come back so often, each time after days at the relay, counts as one that cannot be delivered."""
ASTRAY = timedelta(hours=26)
"""No date of a server is further off that has nothing wrong but its time zone."""
LONGEST_REPLY = 500

_OURS = re.compile(r"<?([0-9a-f]{32})@")


class TooEarly(DormouseError):
    """The report came before it is on record that the message was accepted: to be handed over again in a minute."""


class Outcome(NamedTuple):
    """What came of a report, in one line, and whether it was one about a message of ours."""

    said: str
    ours: bool


def take(session: Session, settings: Settings, report: Report, now: datetime) -> Outcome:
    """Act on a bounce or complaint. Taking the same one again changes nothing. Raises TooEarly."""
    if report.verdict == Verdict.NOTHING:
        return Outcome("This is no report of a failed delivery or of a complaint; nothing was changed.", False)
    message = find(session, settings, report)
    if message is None:
        said = "This is about no message that is known here; nothing was changed."
        if report.return_paths and not report.message_ids and settings.bounce_address is None:
            said += " It names none by its Message-ID, and BOUNCE_ADDRESS, by which addresses would tell, is not set."
        return Outcome(said, False)
    return Outcome(_acted_on(session, settings, report, message, now), True)


def _acted_on(session: Session, settings: Settings, report: Report, message: Message, now: datetime) -> str:
    name = f"{message.kind} message {message.public_id}"
    if message.state == MessageState.SENDING:
        raise TooEarly(f"The {name} is being sent just now: hand this over again in a minute.")
    match report.verdict:
        case Verdict.COMPLAINT:
            done = bounced(session, settings, message.id, now, report.reason, complaint=True)
            return f"The {name} was complained about." if done else f"The {name} is {message.state}: nothing to change."
        case Verdict.HARD:
            done = bounced(session, settings, message.id, now, report.reason)
            return f"The {name} bounced." if done else f"The {name} is {message.state}: nothing to change."
        case Verdict.RETURNED:
            return f"The {name} came back; {came_back(session, settings, message.id, report, now)}."
        case _:
            _note_delay(session, message, now)
            return f"The {name} is delayed; the mail server goes on trying."


def find(session: Session, settings: Settings, report: Report) -> Message | None:
    """The message a report is about: by its return path, else by the Message-ID that the report gives back."""
    for address in report.return_paths:
        named = public_id_in(settings.bounce_address, address) if settings.bounce_address else None
        found = session.scalar(select(Message).where(Message.public_id == named)) if named else None
        if found is not None:
            return found
    for message_id in report.message_ids:
        ours = _OURS.match(message_id.strip().casefold())
        if ours is not None:
            found = session.scalar(select(Message).where(Message.public_id == ours[1]))
            if found is not None and (found.message_id or "").casefold() == message_id.strip().casefold():
                return found
    return None


def came_back(session: Session, settings: Settings, message_id: int, report: Report, now: datetime) -> str:
    """A server gave up for a reason that may pass. It is sent again; a warning has not warned anybody until then.

    Where that would come too late, or has been tried often enough, it is a bounce like any other. What the server had
    got long before the message was sent last is a report that was acted on before; in doubt it is one of the last try,
    for to be sent again harms nobody, and to count as warned may.
    """
    reason = report.reason
    message = session.get_one(Message, message_id)
    if message.member_id is not None:
        lock(session, message.member_id)
    session.refresh(message)
    if message.state != MessageState.SENT:
        return f"it is {message.state} already"
    if message.to_address is None:
        return "whom it was for is deleted"
    assert message.sent_at is not None
    before = _returns(session, message)
    if before and report.arrived_at is not None and report.arrived_at < message.sent_at - ASTRAY:
        return "it has been sent again since"
    case = session.get(Case, message.case_id) if message.case_id is not None else None
    ended = message.kind == Kind.WARNING and case is not None and case.closed_at is not None
    if ended or before + 1 >= MOST_RETURNS:
        bounced(session, settings, message_id, now, reason)
        return "it counts as bounced"
    _event(session, "mail_returned", message, now)
    if message.magic_link_id is not None:
        return "it was asked for and is not sent again"
    change(
        session,
        update(Message)
        .where(Message.id == message_id, Message.state == MessageState.SENT)
        .values(state=MessageState.QUEUED, sent_at=None, due_at=now + SOFT_RETRY, smtp_reply=_reply(message, reason)),
    )
    if message.kind == Kind.WARNING:
        change(
            session,
            update(Case)
            .where(Case.id == message.case_id, Case.closed_at.is_(None), Case.warned_to == message.to_address)
            .values(warned_at=None, warned_to=None, told_it_continues=None),
        )
    return "it will be sent again"


def bounced(
    session: Session,
    settings: Settings,
    message_id: int,
    now: datetime,
    reason: str = "",
    *,
    complaint: bool = False,
) -> bool:
    """A hard bounce or a complaint came for a message the server had accepted. False: there is nothing to mark.

    ``reason`` is kept beside the server's reply, for whoever asks why this mail did not arrive.
    """
    message = session.get(Message, message_id)
    if message is None or message.member_id is None or message.to_address is None:
        return False
    address, prefix = message.to_address, "complaint" if complaint else "came back"
    member = lock(session, message.member_id)
    changed = change(
        session,
        update(Message)
        # Of whom a purge has erased meanwhile, nothing is written down again.
        .where(Message.id == message_id, Message.state == MessageState.SENT, Message.to_address == address)
        .values(state=MessageState.BOUNCED, smtp_reply=_reply(message, reason, prefix)),
    )
    if not changed:
        return False
    _event(session, "mail_complained" if complaint else "mail_bounced", message, now)
    if member is not None:
        why = MailState.COMPLAINED if complaint else MailState.BOUNCED
        address_is_dead(session, settings, member, address, now, why)
    return True


def address_is_dead(
    session: Session,
    settings: Settings,
    member: Member,
    address: str,
    now: datetime,
    why: MailState = MailState.BOUNCED,
) -> None:
    """No mail reaches this address: a silent case that wrote to it ends as unreachable, and nobody lapses for it.

    A bounce of an earlier address says nothing about the present one (scenario 13).
    """
    returning.reverse_for_bounce(session, member, now)
    if member.email != address:
        return
    member.mail_state = why
    session.flush()
    ended = session.execute(
        update(Case)
        .where(
            Case.member_id == member.id,
            Case.closed_at.is_(None),
            Case.answer.is_(None),
            Case.address == address,
        )
        .values(state=CaseState.UNREACHABLE, closed_at=now)
        .execution_options(synchronize_session="fetch")
        .returning(Case.id, Case.campaign_id)
    ).all()
    for case_id, campaign_id in ended:
        events.record(
            session,
            "case_closed",
            now,
            detail=CaseState.UNREACHABLE,
            member_id=member.id,
            case_id=case_id,
            campaign_id=campaign_id,
        )


def _note_delay(session: Session, message: Message, now: datetime) -> None:
    """Once a mail, however often its report is handed over."""
    if message.member_id is not None:
        lock(session, message.member_id)
        if not _on_record(session, "mail_delayed", message):
            _event(session, "mail_delayed", message, now)


def _returns(session: Session, message: Message) -> int:
    """How often it has come back before. Attempts do not tell: a server that said "later" has made some of them."""
    return message.attempts - 1 if message.member_id is None else _on_record(session, "mail_returned", message)


def _on_record(session: Session, code: str, message: Message) -> int:
    """How many events of this code there are about such a mail to its member."""
    before = select(func.count()).where(
        Event.member_id == message.member_id,
        Event.code == code,
        Event.detail == message.kind,
        Event.case_id == message.case_id if message.case_id is not None else Event.case_id.is_(None),
    )
    return session.scalar(before) or 0


def _reply(message: Message, reason: str, prefix: str = "came back") -> str:
    """What the server had answered, and what came back since: nothing but printed characters, whoever wrote it."""
    said = " ".join("".join(letter if letter.isprintable() else " " for letter in reason).split())
    parts = [message.smtp_reply or "", f"{prefix}: {said.removeprefix(f'{prefix}: ')}" if said else ""]
    return "; ".join(part for part in parts if part)[:LONGEST_REPLY]


def _event(session: Session, code: str, message: Message, now: datetime) -> None:
    events.record(session, code, now, detail=message.kind, member_id=message.member_id, case_id=message.case_id)
