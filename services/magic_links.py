"""Random links for one purpose: to sign in, to be erased, to come back, to confirm a new address.

A token exists in its mail and nowhere else: the database keeps its SHA-256, minted in the claim of the mail. A link
serves its purpose only, until it expires, once, and only while its member has the address it was made for.
"""

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import ColumnElement, and_, case, delete, exists, func, select, update
from sqlalchemy.orm import Session

from domain.addresses import address_key
from domain.errors import TooMany
from domain.lifecycle import MemberStatus
from domain.links import (
    LIFETIME,
    SIGN_IN_MAILS_PER_ADDRESS_AN_HOUR,
    SIGN_IN_MAILS_PER_IP_AN_HOUR,
    Purpose,
)
from domain.notices import Kind
from models import MagicLink, Member, change
from services import outbox
from services.cases import lock
from settings import Settings

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def request_sign_in(session: Session, settings: Settings, email: str, ip: str, now: datetime) -> None:
    """Queue a sign-in mail, if this address belongs to a membership, whatever its state.

    Nothing that comes back, and nothing that takes time, tells whether it does. An address gets five mails an hour;
    further requests are passed over in silence. Raises TooMany when one IP asks for more than thirty an hour, which
    says nothing about any address.
    """
    link = asked(session, settings, Purpose.SIGN_IN, email, ip, now)
    if link is None:
        return

    # Several may share an address: one mail goes out, and signing in asks which membership is meant.
    member = session.scalar(
        select(Member)
        .where(Member.email_key == address_key(email))
        .order_by(Member.status != MemberStatus.ACTIVE, Member.id)
        .limit(1)
        # Who is erased at this moment has no address any more when that is done.
        .with_for_update(key_share=True)
    )
    link.member_id = None if member is None else member.id
    session.add(link)
    session.flush()
    with session.begin_nested() as savepoint:
        outbox.put(
            session,
            kind=Kind.SIGN_IN,
            once_key=f"sign_in:{secrets.token_hex(16)}",
            now=now,
            member=member or Member(email=email),
            magic_link_id=link.id,
        )
        if member is None:
            # For a stranger the same statements run, take as long, and are taken back.
            savepoint.rollback()


def asked(
    session: Session, settings: Settings, purpose: Purpose, email: str, ip: str, now: datetime
) -> MagicLink | None:
    """What a request by somebody unknown adds to the table, where the limits count it; None: enough for this address.

    The row is the caller's to add. Raises TooMany when one IP asks for more than thirty an hour, whatever for.
    """
    address = _digest(address_key(email))
    origin = hmac.new(settings.secret_key.encode(), ip.encode(), sha256).hexdigest()
    _forget_strangers(session, now)
    by_origin, by_address = session.execute(
        select(
            select(func.count())
            .where(MagicLink.ip_digest == origin, MagicLink.created_at > now - HOUR)
            .scalar_subquery(),
            _asked_lately(purpose, address, now),
        )
    ).one()
    if by_origin >= SIGN_IN_MAILS_PER_IP_AN_HOUR:
        raise TooMany("Too much was asked for from here. Please try again in an hour.")
    if by_address >= SIGN_IN_MAILS_PER_ADDRESS_AN_HOUR:
        return None
    return MagicLink(
        purpose=purpose,
        address_digest=address,
        ip_digest=origin,
        created_at=now,
        expires_at=now + LIFETIME[purpose],
    )


def request_erase(session: Session, member: Member, now: datetime) -> bool:
    """Queue the mail that asks a signed-in member to confirm the erasure. False: five an hour are enough."""
    link = None if lock(session, member.id) is None else _wanted(session, Purpose.ERASE, member, now)
    if link is None:
        return False
    once_key = f"erase_confirm:{secrets.token_hex(16)}"
    return outbox.put(
        session, kind=Kind.ERASE_CONFIRM, once_key=once_key, now=now, member=member, magic_link_id=link.id
    )


def request_new_address(session: Session, member: Member, new_address: str, now: datetime) -> bool:
    """Queue the mail to a new address that asks there to confirm it. False: five an hour are enough."""
    link = _wanted(session, Purpose.NEW_ADDRESS, member, now, new_address)
    if link is None:
        return False
    return outbox.put(
        session,
        kind=Kind.NEW_ADDRESS,
        once_key=f"new_address:{secrets.token_hex(16)}",
        now=now,
        member=member,
        magic_link_id=link.id,
        to_address=new_address,
    )


def ask_the_present_address(session: Session, member: Member, new_address: str, now: datetime) -> None:
    """Queue the mail that asks at the present address whether mail is to go to a new one, which is proven.

    Its link is another than the one that went to the new address: a late copy of that mail must not carry it.
    """
    assert member.email is not None
    link = MagicLink(
        purpose=Purpose.NEW_ADDRESS,
        member_id=member.id,
        address_digest=_digest(address_key(member.email)),
        new_address=new_address,
        proven_at=now,
        created_at=now,
        expires_at=now + LIFETIME[Purpose.NEW_ADDRESS],
    )
    session.add(link)
    session.flush()
    outbox.put(
        session,
        kind=Kind.OLD_ADDRESS,
        once_key=f"old_address:{secrets.token_hex(16)}",
        now=now,
        member=member,
        magic_link_id=link.id,
    )


def end_address_changes(session: Session, member_id: int, now: datetime) -> None:
    """No change of a member's address that is under way can be confirmed any more."""
    change(
        session,
        update(MagicLink)
        .where(
            MagicLink.member_id == member_id,
            MagicLink.purpose == Purpose.NEW_ADDRESS,
            MagicLink.used_at.is_(None),
        )
        .values(used_at=now, new_address=None),
    )


def forget_addresses(session: Session, now: datetime) -> None:
    """An address that nobody has confirmed within a day may be a stranger's, and is of no use any more."""
    change(
        session,
        update(MagicLink)
        .where(MagicLink.new_address.is_not(None), MagicLink.expires_at <= now - DAY)
        .values(new_address=None),
    )


def mint(session: Session, purpose: Purpose, member_id: int, address: str, expires_at: datetime, now: datetime) -> str:
    """A new link's token. Call it in the claim of the mail that carries it: only its hash is stored."""
    token = _new_token()
    session.add(
        MagicLink(
            purpose=purpose,
            member_id=member_id,
            token_hash=_digest(token),
            address_digest=_digest(address_key(address)),
            created_at=now,
            expires_at=expires_at,
        )
    )
    session.flush()
    return token


def mint_into(session: Session, link_id: int, now: datetime) -> str:
    """The token of a link that was asked for, in the claim of its mail. A mail claimed again gets another one.

    Its time runs from now, not from the request: a mail that was held up must not arrive with a link that is over.
    """
    token = _new_token()
    session.execute(
        update(MagicLink)
        .where(MagicLink.id == link_id, MagicLink.used_at.is_(None))
        .values(
            token_hash=_digest(token),
            expires_at=case(
                *((MagicLink.purpose == purpose, now + lifetime) for purpose, lifetime in LIFETIME.items()),
                else_=MagicLink.expires_at,
            ),
        )
        .execution_options(synchronize_session=False)
    )
    return token


def look(session: Session, purpose: Purpose, token: str, now: datetime) -> MagicLink | None:
    """The link behind a token if it can be used now; looking never consumes."""
    found = usable(session, purpose, token, now)
    return None if found is None else found[0]


def holder(session: Session, purpose: Purpose, token: str, now: datetime) -> Member | None:
    """The member, as they are now, whose link can be used now; one query."""
    found = usable(session, purpose, token, now)
    return None if found is None else found[1]


def usable(session: Session, purpose: Purpose, token: str, now: datetime) -> tuple[MagicLink, Member] | None:
    """A link that can be used now, and its member as they are now; one query."""
    found = session.execute(
        select(MagicLink, Member)
        .join(Member, Member.id == MagicLink.member_id)
        .where(_usable(purpose, token, now))
        .execution_options(populate_existing=True)
    ).one_or_none()
    if found is None:
        return None
    link, member = found
    key = member.email_key
    return (link, member) if key is not None and hmac.compare_digest(_digest(key), link.address_digest) else None


def consume(session: Session, purpose: Purpose, token: str, now: datetime) -> MagicLink | None:
    """Use a link up. Of two at once one gets it and the other None, as does whoever comes too late."""
    link = look(session, purpose, token, now)
    if link is None:
        return None
    # The digest cannot be computed by the database, so the address that was compared is a condition of the statement.
    key = session.scalar(select(Member.email_key).where(Member.id == link.member_id))
    if key is None or _digest(key) != link.address_digest:
        return None
    consumed = session.scalar(
        update(MagicLink)
        .where(
            _usable(purpose, token, now),
            exists().where(Member.id == MagicLink.member_id, Member.email_key == key),
        )
        .values(used_at=now)
        .returning(MagicLink.id)
        .execution_options(synchronize_session=False)
    )
    if consumed is None:
        return None
    session.refresh(link)
    return link


@dataclass(frozen=True, slots=True)
class Past:
    """A link that was made here and can no longer be used: it has been, or its time is over, or its address."""

    used: bool
    member: Member | None
    """Whose it is, as long as they have the address that it went to."""


def became(session: Session, purpose: Purpose, token: str) -> Past | None:
    """What became of a link that ``look`` does not find. None: there is no record of it.

    Then it was never made, or its member's data has been deleted for good: nobody can tell which any more.
    """
    found = session.execute(
        select(MagicLink, Member)
        .outerjoin(Member, Member.id == MagicLink.member_id)
        .where(MagicLink.token_hash == _digest(token), MagicLink.purpose == purpose)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if found is None:
        return None
    link, member = found
    theirs = (
        member is not None
        and member.email_key is not None
        and hmac.compare_digest(_digest(member.email_key), link.address_digest)
    )
    return Past(link.used_at is not None, member if theirs else None)


def looks_whole(token: str) -> bool:
    """Whether a token is as long as those made here: one that is not was cut off on its way."""
    return len(token) == len(_new_token())


def address_of(session: Session, link: MagicLink) -> str:
    """The key of the address that a link which was just consumed has proven."""
    return str(session.scalars(select(Member.email_key).where(Member.id == link.member_id)).one())


def memberships(session: Session, key: str) -> list[Member]:
    """Everybody at a proven address, the active first: any of them may hold the mailbox."""
    return list(
        session.scalars(
            select(Member)
            .where(Member.email_key == key)
            .order_by(Member.status != MemberStatus.ACTIVE, Member.plan, Member.id)
        )
    )


def _wanted(
    session: Session, purpose: Purpose, member: Member, now: datetime, new_address: str | None = None
) -> MagicLink | None:
    """The row of a link that a signed-in member asks for, bound to the present address; None: enough for an hour."""
    if member.email is None:
        return None
    address = _digest(address_key(member.email))
    asked_for = session.execute(select(_asked_lately(purpose, address, now))).scalar_one()
    if asked_for >= SIGN_IN_MAILS_PER_ADDRESS_AN_HOUR:
        return None
    link = MagicLink(
        purpose=purpose,
        member_id=member.id,
        address_digest=address,
        new_address=new_address,
        created_at=now,
        expires_at=now + LIFETIME[purpose],
    )
    session.add(link)
    session.flush()
    return link


def _usable(purpose: Purpose, token: str, now: datetime) -> ColumnElement[bool]:
    return and_(
        MagicLink.token_hash == _digest(token),
        MagicLink.purpose == purpose,
        MagicLink.used_at.is_(None),
        MagicLink.expires_at > now,
    )


def _asked_lately(purpose: Purpose, address: str, now: datetime) -> ColumnElement[int]:
    return (
        select(func.count())
        .where(
            MagicLink.address_digest == address,
            MagicLink.purpose == purpose,
            MagicLink.created_at > now - HOUR,
            # The second link of a change was not asked for: the first one was.
            MagicLink.proven_at.is_(None),
        )
        .scalar_subquery()
    )


def _forget_strangers(session: Session, now: datetime) -> None:
    """Requests with addresses that nobody has count for an hour and are of no use to anybody after it."""
    session.execute(
        delete(MagicLink)
        .where(MagicLink.member_id.is_(None), MagicLink.created_at <= now - HOUR)
        .execution_options(synchronize_session=False)
    )


def _new_token() -> str:
    return secrets.token_urlsafe(32)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
