"""Where a member is signed in: one row for each device, for a month. No address of the network is kept."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from domain.devices import Device
from models.base import Base, Id, PublicId, one_of


class SignIn(Base):
    __tablename__ = "sign_in"

    id: Mapped[Id]
    public_id: Mapped[PublicId]
    """What the session of this device names: without the row it is over."""
    member_id: Mapped[int] = mapped_column(ForeignKey("member.id"))
    device: Mapped[str] = mapped_column(String(20))
    at: Mapped[datetime]

    __table_args__ = (one_of("device", Device),)


Index("ix_sign_in_member_id", SignIn.member_id)
Index("ix_sign_in_at", SignIn.at)
