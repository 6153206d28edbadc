"""What members set for themselves: the address that mail goes to, and the language it is in.

A new address counts once a link sent there was used, and then one sent to the old address. Cases that are live write to
the new address from then on, and ask there anew (services/warning.py). Neither choice is undone by a file that does not
know of it yet (services/files/member_upsert.py).
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from domain.errors import BadValue, NotFound, Refused
from domain.lifecycle import MailState, MemberStatus
from domain.links import Purpose
from domain.notices import Kind
from models import MagicLink, Member
from services import cases, events, magic_links, outbox, sign_ins, warning
from services.addresses import checked
from settings import Settings


def request_change(session: Session, member_id: int, email: str, now: datetime) -> bool:
    """Send a link to a new address. False: five an hour are enough. Raises BadValue for what is none, or not new."""
    address, key = checked(email.strip())
    member = _own(session, member_id)
    if key == member.email_key and member.mail_state == MailState.GOOD:
        raise BadValue("This is the address on record.")
    return magic_links.request_new_address(session, member, address, now)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What came of a confirmation: the change holds, or is to be confirmed at the address on record, too."""

    new_address: str
    address_before: str
    holds: bool


def confirm(session: Session, settings: Settings, token: str, now: datetime) -> Confirmed | None:
    """Use the link that went to the new address, or the one to the present address that follows; None: it is over.

    The address of a link is the one at issue: of two changes on their way the first that is confirmed holds. Whoever
    can no longer be reached at the present address need not be asked there.
    """
    found = _asked_about(session, token, now)
    if found is None:
        return None
    member, link = found
    address, key = checked(link.new_address or "")
    ask_there = link.proven_at is None and member.mail_state == MailState.GOOD and key != member.email_key
    present = member.email or ""
    if ask_there:
        if magic_links.prove(session, token, now) is None:
            return None
        magic_links.ask_the_old_address(session, link, member, now)
    else:
        if magic_links.consume(session, Purpose.NEW_ADDRESS, token, now) is None:
            return None
        _change(session, settings, member, link, now)
    return Confirmed(address, present, holds=not ask_there)


def refuse(session: Session, token: str, now: datetime) -> bool:
    """Say at the present address that nobody asked for a new one: whoever did is signed out. False: it is over."""
    found = _asked_about(session, token, now)
    if found is None:
        return False
    member, link = found
    if link.proven_at is None:
        return False
    if magic_links.consume(session, Purpose.NEW_ADDRESS, token, now) is None:
        return False
    link.new_address = None
    sign_ins.end_all(session, member.id)
    events.record(session, "email_change_refused", now, member_id=member.id)
    return True


def _asked_about(session: Session, token: str, now: datetime) -> tuple[Member, MagicLink] | None:
    """The member, locked, and the link of a change that can still be confirmed."""
    seen = magic_links.look(session, Purpose.NEW_ADDRESS, token, now)
    if seen is None or seen.member_id is None:
        return None
    member = cases.lock(session, seen.member_id)
    # Whoever waited for the lock may find that the other has pressed.
    link = magic_links.look(session, Purpose.NEW_ADDRESS, token, now)
    if member is None or link is None or link.new_address is None or member.erase_requested_at is not None:
        return None
    return member, link


def _change(session: Session, settings: Settings, member: Member, link: MagicLink, now: datetime) -> None:
    before, before_key = member.email, member.email_key
    member.email, member.email_key = checked(link.new_address or "")
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
