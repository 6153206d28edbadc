"""What members set for themselves: the address that mail goes to, and the language it is in.

A new address counts once a link sent there was used; the old one is told. Cases that are live write to the new address
from then on, and ask there anew (services/warning.py). Neither choice is undone by a file that does not know of it yet
(services/files/member_upsert.py).
"""

from datetime import datetime

from sqlalchemy.orm import Session

from domain.errors import BadValue, NotFound, Refused
from domain.lifecycle import MailState, MemberStatus
from domain.links import Purpose
from domain.notices import Kind
from models import Member
from services import cases, events, magic_links, outbox, warning
from services.addresses import checked
from settings import Settings


def request_change(session: Session, member_id: int, email: str, now: datetime) -> bool:
    """Send a link to a new address. False: five an hour are enough. Raises BadValue for what is none, or not new."""
    address, key = checked(email.strip())
    member = _own(session, member_id)
    if key == member.email_key and member.mail_state == MailState.GOOD:
        raise BadValue("This is the address on record.")
    return magic_links.request_new_address(session, member, address, now)


def confirm(session: Session, settings: Settings, token: str, now: datetime) -> Member | None:
    """Use the link that went to the new address; the member, or None for a link that is over.

    The address of a link is the one at issue: of two changes on their way the first that is confirmed holds.
    """
    seen = magic_links.look(session, Purpose.NEW_ADDRESS, token, now)
    if seen is None or seen.member_id is None:
        return None
    member = cases.lock(session, seen.member_id)
    link = magic_links.consume(session, Purpose.NEW_ADDRESS, token, now)
    if member is None or link is None or link.new_address is None or member.erase_requested_at is not None:
        return None
    before, before_key = member.email, member.email_key
    member.email, member.email_key = checked(link.new_address)
    member.email_replaced_key = member.email_replaced_key or before_key
    member.mail_state = MailState.GOOD
    link.new_address = None
    session.flush()
    events.record(session, "email_changed", now, member_id=member.id)
    outbox.put(
        session,
        kind=Kind.ADDRESS_CHANGED,
        once_key=f"address_changed:{link.id}:{int(now.timestamp())}",
        now=now,
        member=member,
        to_address=before,
    )
    warning.address_changed(session, settings, now, member.id)
    return member


def choose_language(session: Session, member_id: int, language: str, now: datetime) -> None:
    member = _own(session, member_id)
    member.locale = language
    member.locale_chosen_at = now
    session.flush()
    events.record(session, "language_chosen", now, detail=language, member_id=member.id)


def _own(session: Session, member_id: int) -> Member:
    member = cases.lock(session, member_id)
    if member is None or member.status == MemberStatus.PURGED:
        raise NotFound("There is no such member.")
    if member.erase_requested_at is not None:
        raise Refused("This membership is being deleted for good.")
    return member
