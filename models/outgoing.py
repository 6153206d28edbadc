"""The outbox of events to the service, and the address they go to. Neither holds a secret or what is sent."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, String, text
from sqlalchemy.orm import Mapped, mapped_column

from domain.outgoing import State, Type
from models.base import Base, Id, PublicId, one_of


class OutgoingEvent(Base):
    """Something the service is told. Written in the transaction of what has happened, sent by the job send-events."""

    __tablename__ = "outgoing_event"

    id: Mapped[Id]
    public_id: Mapped[PublicId]
    type: Mapped[str] = mapped_column(String(20))
    at: Mapped[datetime]
    detail: Mapped[str | None] = mapped_column(String(40))
    member_id: Mapped[int] = mapped_column(ForeignKey("member.id"))
    case_id: Mapped[int | None] = mapped_column(ForeignKey("member_case.id"))
    external_id: Mapped[str | None] = mapped_column(String(200))
    """Of an erased member only, whose own row no longer has it, until the service has acknowledged the erasure."""
    deadline_at: Mapped[datetime | None]
    access_ends_at: Mapped[datetime | None]
    keep_until: Mapped[datetime | None]

    state: Mapped[str] = mapped_column(String(10), server_default=State.QUEUED)
    due_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(server_default="0")
    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_until: Mapped[datetime | None]
    said: Mapped[str | None] = mapped_column(String(200))
    """What became of the last attempt, in our words: never what the other side wrote."""
    sent_at: Mapped[datetime | None]
    done_at: Mapped[datetime | None]

    __table_args__ = (
        one_of("type", Type),
        one_of("state", State),
        CheckConstraint("(state = 'sending') = (lease_token IS NOT NULL)", name="sending_has_lease"),
        CheckConstraint("state <> 'sent' OR sent_at IS NOT NULL", name="sent_has_instant"),
        CheckConstraint("(state IN ('done', 'failed', 'obsolete')) = (done_at IS NOT NULL)", name="over_since"),
        # Nothing of an erased member is kept once the service knows (design promise 7).
        CheckConstraint(
            "external_id IS NULL OR (type = 'member.purged' AND state NOT IN ('done', 'obsolete'))",
            name="known_until_acknowledged",
        ),
    )


_unfinished = text("state IN ('queued', 'sending')")
Index("ix_outgoing_event_due", OutgoingEvent.due_at, sqlite_where=_unfinished, postgresql_where=_unfinished)
Index(
    "ix_outgoing_event_unfinished",
    OutgoingEvent.member_id,
    OutgoingEvent.id,
    sqlite_where=_unfinished,
    postgresql_where=_unfinished,
)
Index("ix_outgoing_event_member_id", OutgoingEvent.member_id)
Index("ix_outgoing_event_done_at", OutgoingEvent.done_at)


class EventEndpoint(Base):
    """One row while EVENTS_URL is set: only then are events written down. How the address has answered lately."""

    __tablename__ = "event_endpoint"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    url_digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the address, which may hold a secret: another one is a new beginning."""
    since: Mapped[datetime]
    refused_at: Mapped[datetime | None]
    """It answered 410: nothing is sent until an operator says so."""
    failures: Mapped[int] = mapped_column(server_default="0")
    failing_since: Mapped[datetime | None]
    paused_until: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("id = 1", name="one_row"),
        CheckConstraint("(failures > 0) = (failing_since IS NOT NULL)", name="failing_since"),
    )
