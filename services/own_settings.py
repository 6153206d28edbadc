"""What members set for themselves: the address that mail goes to, and the language it is in.

A new address counts once a link sent there was used, and then one sent to the old address. Cases that are live write to
the new address from then on, and ask there anew (services/warning.py). Neither choice is undone by a file that does not
know of it yet (services/files/member_upsert.py).
"""

import secrets
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
    holds: bool
    another: bool
    """Whether it is not the one that was on record already, and has only been proven once more."""


def asks_both(member: Member) -> bool:
    """Whether a new address is confirmed at the present one, too: not where that takes no mail."""
    return member.mail_state != MailState.BOUNCED


def confirm(session: Session, settings: Settings, token: str, now: datetime) -> Confirmed | None:
    """Use the link that went to the new address, or the one to the present address that follows; None: it is over.

    The address of a link is the one at issue: of two changes on their way the first that is confirmed holds. Where the
    present address takes no mail, nobody is asked there.
    """
    found = _locked(session, token, now)
    if found is None:
        return None
    member, link = found
    address, key = checked(link.new_address or "")
    if magic_links.consume(session, Purpose.NEW_ADDRESS, token, now) is None:
        return None
    link.new_address = None
    another = key != member.email_key
    if link.proven_at is None and another and asks_both(member):
        magic_links.ask_the_present_address(session, member, address, now)
        return Confirmed(address, holds=False, another=another)
    _change(session, settings, member, address, now)
    return Confirmed(address, holds=True, another=another)


def refuse(session: Session, token: str, now: datetime) -> bool:
    """Say at the present address that nobody asked for a new one: whoever did is signed out. False: it is over.

    Other changes that are under way end with it.
    """
    found = _locked(session, token, now)
    if found is None:
        return False
    member, link = found
    if link.proven_at is None:
        return False
    if magic_links.consume(session, Purpose.NEW_ADDRESS, token, now) is None:
        return False
    magic_links.end_address_changes(session, member.id, now)
    link.new_address = None
    sign_ins.end_all(session, member.id)
    events.record(session, "email_change_refused", now, member_id=member.id)
    return True


def asked_about(session: Session, token: str, now: datetime) -> tuple[Member, MagicLink] | None:
    """Whose change of address this link is about, if it can still be confirmed; one query."""
    found = magic_links.usable(session, Purpose.NEW_ADDRESS, token, now)
    if found is None:
        return None
    link, member = found
    return None if link.new_address is None or member.erase_requested_at is not None else (member, link)


def _locked(session: Session, token: str, now: datetime) -> tuple[Member, MagicLink] | None:
    """The same, with the member locked: whoever waited for that may find that the other has pressed."""
    found = asked_about(session, token, now)
    if found is None:
        return None
    cases.lock(session, found[0].id)
    return asked_about(session, token, now)


def _change(session: Session, settings: Settings, member: Member, address: str, now: datetime) -> None:
    before, before_key = member.email, member.email_key
    member.email, member.email_key = checked(address)
    member.email_replaced_key = member.email_replaced_key or before_key
    member.mail_state = MailState.GOOD
    session.flush()
    events.record(session, "email_changed", now, member_id=member.id)
    if member.email_key != before_key:
        outbox.put(
            session,
            kind=Kind.ADDRESS_CHANGED,
            once_key=f"address_changed:{secrets.token_hex(16)}",
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
