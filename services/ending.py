"""Ending a membership without signing in: whoever gives a name or customer number and the address ends it.

Nothing that comes back, and nothing that takes time, tells whether there is such a membership: for what matches none,
the same statements run on a member made up for it, and are taken back. The mailbox is told what came of it.
"""

import secrets
from datetime import datetime, timedelta
from unicodedata import normalize

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.addresses import address_key
from domain.errors import Refused, TooMany
from domain.lifecycle import MemberStatus, Through
from domain.links import Purpose
from domain.notices import Kind
from models import Member
from services import cases, decisions, magic_links, outbox
from settings import Settings

HOUR = timedelta(hours=1)


def request_end(session: Session, settings: Settings, who: str, email: str, ip: str, now: datetime) -> None:
    """End the one active membership at this address that ``who`` names, by customer number or by name.

    Where several active memberships share the address only the customer number will do. The member gets the receipt of
    any own end, with the day and the way back. An address that is known, with anything else, gets a mail that says so.
    Raises TooMany after five requests an hour for one address or thirty from one IP, known or not.
    """
    request = magic_links.asked(session, settings, Purpose.END, email, ip, now)
    if request is None:
        raise TooMany("This was asked for too often. Please try again in an hour.")
    session.add(request)
    at_address = list(
        session.scalars(
            select(Member)
            .where(Member.email_key == address_key(email))
            .order_by(Member.status != MemberStatus.ACTIVE, Member.id)
        )
    )
    meant = _meant(at_address, who)
    with session.begin_nested() as taken_back:
        nobody = _nobody(session, email, now)
        if meant is None:
            _end(session, settings, nobody, now)
        if meant is not None or not at_address:
            _say_unclear(session, nobody, now)
        taken_back.rollback()
    if meant is not None:
        _end(session, settings, meant, now)
    elif at_address:
        _say_unclear(session, at_address[0], now)


def _meant(members: list[Member], who: str) -> Member | None:
    active = [member for member in members if member.status == MemberStatus.ACTIVE]
    numbered = [member for member in active if _folded(member.external_id) == _folded(who)]
    if len(numbered) == 1:
        return numbered[0]
    return active[0] if len(active) == 1 and active[0].name and _folded(active[0].name) == _folded(who) else None


def _folded(text: str | None) -> str:
    """What people take for the same name or number: neither case nor space nor the way an accent is encoded counts."""
    return " ".join(normalize("NFKC", text or "").casefold().split())


def _end(session: Session, settings: Settings, member: Member, now: datetime) -> None:
    try:
        case = decisions.end_membership(session, settings, member.id, Through.PUBLIC, now)
    except Refused:
        # Another request has ended it since it was looked up.
        _say_unclear(session, member, now)
        return
    if case.answered_at is not None and case.answered_at <= now - HOUR:
        # It was ended before, and stays so: whoever asks again is told again, but not twice for one double click.
        outbox.put(
            session,
            kind=Kind.RECEIPT_LAPSE,
            once_key=f"receipt:{case.public_id}:{case.generation}:again:{int(now.timestamp()) // 3600}",
            now=now,
            member=member,
            case=case,
            deadline_at=case.deadline_at,
        )


def _say_unclear(session: Session, member: Member, now: datetime) -> None:
    # Who is erased at this moment has no address any more when that is done.
    if cases.lock(session, member.id) is None or member.email is None:
        return
    once_key = f"end_unclear:{secrets.token_hex(16)}"
    outbox.put(session, kind=Kind.END_UNCLEAR, once_key=once_key, now=now, member=member)


def _nobody(session: Session, email: str, now: datetime) -> Member:
    """A member who never was, for as long as the savepoint lasts: billed, so that an end costs what it always costs."""
    made_up = Member(
        external_id=secrets.token_hex(16),
        email=email,
        email_key=address_key(email),
        joined_at=now,
        price_minor=1,
        currency="EUR",
    )
    session.add(made_up)
    session.flush()
    return made_up
