"""A member's library: profiles, each with settings and lists of items, in the order they had."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Id


class Profile(Base):
    __tablename__ = "profile"
    __table_args__ = (UniqueConstraint("member_id", "position"),)

    id: Mapped[Id]
    member_id: Mapped[int] = mapped_column(ForeignKey("member.id"))
    position: Mapped[int]
    name: Mapped[str] = mapped_column(String(200))
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)

    lists: Mapped[list["SavedList"]] = relationship(order_by="SavedList.position", viewonly=True)


class SavedList(Base):
    __tablename__ = "saved_list"
    __table_args__ = (UniqueConstraint("profile_id", "position"),)

    id: Mapped[Id]
    member_id: Mapped[int] = mapped_column(ForeignKey("member.id"))
    profile_id: Mapped[int] = mapped_column(ForeignKey("profile.id"))
    position: Mapped[int]
    kind: Mapped[str] = mapped_column(String(50))
    name: Mapped[str] = mapped_column(String(200))

    items: Mapped[list["ListItem"]] = relationship(order_by="ListItem.position", viewonly=True)


class ListItem(Base):
    __tablename__ = "list_item"
    __table_args__ = (UniqueConstraint("list_id", "position"),)

    id: Mapped[Id]
    member_id: Mapped[int] = mapped_column(ForeignKey("member.id"))
    list_id: Mapped[int] = mapped_column(ForeignKey("saved_list.id"))
    position: Mapped[int]
    ref: Mapped[str] = mapped_column(String(500))
    title: Mapped[str] = mapped_column(String(500))
    added_at: Mapped[datetime | None]


Index("ix_saved_list_member_id", SavedList.member_id)
Index("ix_list_item_member_id", ListItem.member_id)
