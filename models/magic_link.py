"""Random links: sign-in, erase, come-back. Only a hash is kept; the token exists in the mail alone."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from domain.links import Purpose
from models.base import Base, Id, one_of


class MagicLink(Base):
    __tablename__ = "magic_link"

    id: Mapped[Id]
    purpose: Mapped[str] = mapped_column(String(20))
    member_id: Mapped[int | None] = mapped_column(ForeignKey("member.id"))
    """Null for a request that only counts against the limits, such as one with an address nobody has."""

    token_hash: Mapped[str | None] = mapped_column(String(64), unique=True)
    """SHA-256 of the token; null until the claim of its mail mints one."""

    address_digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the address at issue: the link dies with the address."""
    new_address: Mapped[str | None] = mapped_column(String(320))
    """Where a member wants mail to go."""
    proven_at: Mapped[datetime | None]
    """Null: the link goes there, and using it proves that mail arrives. Else it goes to the present address, to be
    confirmed from there as well, since that instant."""
    ip_digest: Mapped[str | None] = mapped_column(String(64))

    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]

    __table_args__ = (one_of("purpose", Purpose),)


Index("ix_magic_link_address_digest", MagicLink.address_digest, MagicLink.created_at)
Index("ix_magic_link_ip_digest", MagicLink.ip_digest, MagicLink.created_at)
Index("ix_magic_link_member_id", MagicLink.member_id)
