"""Where a member is signed in: begun by signing in, ended there, from another device, or by time.

A session names its row (blueprints/auth/session.py); without the row it is over. Signing out everywhere also raises the
member's session generation, which ends whatever names it.
"""

from datetime import datetime, timedelta

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from domain.devices import Device
from models import Member, SignIn, change

LASTS = timedelta(days=31)


def begin(session: Session, member: Member, device: Device, now: datetime) -> str:
    """Note that a member signs in on a device; what the session there has to name."""
    row = SignIn(member_id=member.id, device=device, at=now)
    session.add(row)
    session.flush()
    return row.public_id


def end(session: Session, public_id: str, member_id: int | None = None) -> None:
    """End the session that names this row; with ``member_id`` only if it is that member's."""
    which = SignIn.public_id == public_id
    change(session, delete(SignIn).where(which if member_id is None else which & (SignIn.member_id == member_id)))


def end_all(session: Session, member_id: int) -> None:
    # The member before the rows, as an erasure has it: two who do it at once wait, and none for ever.
    change(
        session,
        update(Member).where(Member.id == member_id).values(session_generation=Member.session_generation + 1),
    )
    change(session, delete(SignIn).where(SignIn.member_id == member_id))


def forget(session: Session, now: datetime) -> None:
    """Delete the rows of sessions whose month is over."""
    change(session, delete(SignIn).where(SignIn.at <= now - LASTS))
