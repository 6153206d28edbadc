"""Keys of the API. The key itself is printed once and kept nowhere: the row is found by the part that is no secret."""

from datetime import datetime

from sqlalchemy import JSON, CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id


class ApiKey(Base):
    __tablename__ = "api_key"

    id: Mapped[Id]
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    """What a key begins with: names it in lists and requests, and opens nothing."""
    digest: Mapped[str] = mapped_column(String(64))
    """HMAC-SHA256 of the whole key under SECRET_KEY: the row is worth nothing to another installation."""
    name: Mapped[str] = mapped_column(String(100))
    scopes: Mapped[list[str]] = mapped_column(JSON)

    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]

    window_at: Mapped[datetime | None]
    """The minute in which ``taken`` requests of this key were granted, on all processes together."""
    taken: Mapped[int] = mapped_column(server_default="0")

    __table_args__ = (
        CheckConstraint("expires_at > created_at", name="expires_later"),
        CheckConstraint("taken >= 0", name="taken_counts"),
    )
