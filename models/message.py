"""The outbox of mail. A row is written in the transaction of the change that causes the mail; it never holds a link."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from domain.lifecycle import MessageState
from domain.notices import Kind
from models.base import Base, Id, PublicId, one_of


class Message(Base):
    __tablename__ = "message"

    id: Mapped[Id]
    public_id: Mapped[PublicId]
    once_key: Mapped[str] = mapped_column(String(120), unique=True)
    """What makes this mail this mail: a second insert of the same key is no second mail (design promise 5)."""

    member_id: Mapped[int | None] = mapped_column(ForeignKey("member.id"))
    case_id: Mapped[int | None] = mapped_column(ForeignKey("member_case.id"))
    campaign_id: Mapped[int | None] = mapped_column(ForeignKey("campaign.id"))
    operator_id: Mapped[int | None] = mapped_column(ForeignKey("operator.id"))
    magic_link_id: Mapped[int | None] = mapped_column(ForeignKey("magic_link.id"))

    kind: Mapped[str] = mapped_column(String(20))
    locale: Mapped[str | None] = mapped_column(String(35))
    to_address: Mapped[str | None] = mapped_column(String(320))
    priority: Mapped[int] = mapped_column(SmallInteger)
    created_at: Mapped[datetime]
    due_at: Mapped[datetime]
    deadline_at: Mapped[datetime | None]
    """The deadline this mail names: stamped in the claim of a warning, else when the row is written."""

    state: Mapped[str] = mapped_column(String(10), server_default=MessageState.QUEUED)
    attempts: Mapped[int] = mapped_column(server_default="0")
    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_until: Mapped[datetime | None]
    message_id: Mapped[str | None] = mapped_column(String(200))
    smtp_reply: Mapped[str | None] = mapped_column(Text)
    sent_at: Mapped[datetime | None]
    wording_version: Mapped[str | None] = mapped_column(String(20))
    """Which wording it was rendered with: stamped in the claim, for whoever asks later what it said."""

    __table_args__ = (
        one_of("state", MessageState),
        one_of("kind", Kind),
        CheckConstraint("state <> 'sent' OR (sent_at IS NOT NULL AND smtp_reply IS NOT NULL)", name="sent_has_reply"),
        CheckConstraint("(state = 'sending') = (lease_token IS NOT NULL)", name="sending_has_lease"),
    )


_queued, _sending = text("state = 'queued'"), text("state = 'sending'")
# In the order in which they go out, to the last: all warnings of a round are due at the same instant.
Index(
    "ix_message_queued", Message.priority, Message.due_at, Message.id,
    sqlite_where=_queued, postgresql_where=_queued,
)  # fmt: skip
Index("ix_message_sending", Message.lease_until, sqlite_where=_sending, postgresql_where=_sending)
_refused = text("state IN ('bounced', 'failed')")
Index("ix_message_refused", Message.campaign_id, sqlite_where=_refused, postgresql_where=_refused)
Index("ix_message_member_id", Message.member_id)
Index("ix_message_case_id", Message.case_id)
_linked = text("magic_link_id IS NOT NULL")
# Both databases look here for each link that is deleted, as the foreign key asks.
Index("ix_message_magic_link_id", Message.magic_link_id, sqlite_where=_linked, postgresql_where=_linked)


class MailPace(Base):
    """One row: from when on the next batch of notices may be claimed, and how many were claimed on which local day.

    ``day`` is None after a run without a cap, which counts nothing.
    """

    __tablename__ = "mail_pace"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    next_at: Mapped[datetime | None]
    day: Mapped[str | None] = mapped_column(String(10))
    spent: Mapped[int] = mapped_column(server_default="0")

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)
