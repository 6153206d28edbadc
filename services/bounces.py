"""When mail does not arrive after all: a silent case ends as unreachable, and a lapse that rested on it is reversed."""

from datetime import datetime

from sqlalchemy import update
from sqlalchemy.orm import Session

from domain.lifecycle import CaseState, MailState, MessageState
from models import Case, Member, Message, change
from services import events, returning
from services.cases import lock
from settings import Settings


def bounced(session: Session, settings: Settings, message_id: int, now: datetime) -> bool:
    """A hard bounce or a complaint came for a message the server had accepted. False: there is nothing to mark."""
    message = session.get(Message, message_id)
    if message is None or message.member_id is None or message.to_address is None:
        return False
    address = message.to_address
    member = lock(session, message.member_id)
    changed = change(
        session,
        update(Message)
        .where(Message.id == message_id, Message.state == MessageState.SENT)
        .values(state=MessageState.BOUNCED),
    )
    if not changed:
        return False
    events.record(
        session, "mail_bounced", now, detail=message.kind, member_id=message.member_id, case_id=message.case_id
    )
    if member is not None:
        address_is_dead(session, settings, member, address, now)
    return True


def address_is_dead(session: Session, settings: Settings, member: Member, address: str, now: datetime) -> None:
    """No mail reaches this address: a silent case that wrote to it ends as unreachable, and nobody lapses for it.

    A bounce of an earlier address says nothing about the present one (scenario 13).
    """
    if member.email != address:
        return
    member.mail_state = MailState.BOUNCED
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
    returning.reverse_for_bounce(session, settings, member, address, now)
