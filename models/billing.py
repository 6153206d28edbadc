"""The outbox of billing orders, and the books of the ``local`` provider."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from domain.lifecycle import OrderKind, OrderState
from models.base import Base, Id, PublicId, one_of


class BillingOrder(Base):
    """Something the provider must do. Written in the transaction of the decision, carried out by settle-billing."""

    __tablename__ = "billing_order"

    id: Mapped[Id]
    public_id: Mapped[PublicId]
    key: Mapped[str] = mapped_column(String(120), unique=True)
    """The idempotency key: the decision's public_id and generation."""

    member_id: Mapped[int] = mapped_column(ForeignKey("member.id"))
    case_id: Mapped[int | None] = mapped_column(ForeignKey("member_case.id"))
    kind: Mapped[str] = mapped_column(String(10))
    billing_ref: Mapped[str | None] = mapped_column(String(200))
    price_minor: Mapped[int | None]
    currency: Mapped[str | None] = mapped_column(String(3))
    billing_interval: Mapped[str | None] = mapped_column(String(10))
    since: Mapped[datetime | None]
    """Of a refund: charges for periods that start at this instant or later."""
    at_once: Mapped[bool] = mapped_column(server_default=false())
    """Of a stop: over at once, not with the end of what is paid. Of a refund: of the period that runs, the rest too."""
    paid_through: Mapped[datetime | None]
    """Of a refund of a rest, or of what was charged too late: until when it had been paid."""
    refunded_minor: Mapped[int | None]
    """Of a refund: what went back by it, in ``currency``; None where the provider does not say."""

    created_at: Mapped[datetime]
    due_at: Mapped[datetime]
    gives_up_at: Mapped[datetime | None]
    """Until when it is asked for again, from the first time on."""
    state: Mapped[str] = mapped_column(String(10), server_default=OrderState.QUEUED)
    attempts: Mapped[int] = mapped_column(server_default="0")
    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_until: Mapped[datetime | None]
    receipt: Mapped[str | None] = mapped_column(String(200))
    read_back: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What the provider said of the subscription when asked again after the change."""
    error: Mapped[str | None] = mapped_column(Text)
    done_at: Mapped[datetime | None]
    ended_before: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    """Of a restart: the dates of the end it takes back, which hold again if the payment is declined."""
    pay_at: Mapped[str | None] = mapped_column(Text)
    """Of a restart that was declined: where the provider takes another card."""

    __table_args__ = (one_of("kind", OrderKind), one_of("state", OrderState))


_unfinished = text("state IN ('queued', 'working')")
Index(
    "ix_billing_order_due", BillingOrder.due_at, BillingOrder.id, sqlite_where=_unfinished, postgresql_where=_unfinished
)
Index("ix_billing_order_member_id", BillingOrder.member_id)


class BillingPace(Base):
    """From when on the next billing order may be asked for (BILLING_RATE): one row, whose lock is the pace's."""

    __tablename__ = "billing_pace"

    id: Mapped[Id]
    next_at: Mapped[datetime | None]


class BillingNews(Base):
    """A subscription of which the provider has sent word: what holds of it now has to be asked.

    One row each, however often and in whatever order word comes. ``heard`` counts the words, ``looked`` says up to
    which of them the answer is on record.
    """

    __tablename__ = "billing_news"

    billing_ref: Mapped[str] = mapped_column(String(200), primary_key=True)
    heard: Mapped[int] = mapped_column(server_default="1")
    looked: Mapped[int] = mapped_column(server_default="0")
    due_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(server_default="0")
    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_until: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Text)


_unseen = text("looked < heard")
Index("ix_billing_news_due_at", BillingNews.due_at, sqlite_where=_unseen, postgresql_where=_unseen)


class ImportCursor(Base):
    """How far an import from a provider has come, so that it goes on there when it was interrupted."""

    __tablename__ = "import_cursor"

    source: Mapped[str] = mapped_column(String(20), primary_key=True)
    cursor: Mapped[str] = mapped_column(String(200))
    at: Mapped[datetime]


class BillingProvider(Base):
    """What is remembered of a provider: in which mode it was first used, and whether its address wants no more."""

    __tablename__ = "billing_provider"

    source: Mapped[str] = mapped_column(String(10), primary_key=True)
    mode: Mapped[str | None] = mapped_column(String(4))
    """Of Stripe: live or test. What is on record here is of one of them."""
    since: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    closed_digest: Mapped[str | None] = mapped_column(String(64))
    """Of the address that has answered 410."""


class LocalSubscription(Base):
    """A subscription in our own books (BILLING=local). It outlives the member's row: books are kept."""

    __tablename__ = "local_subscription"

    billing_ref: Mapped[str] = mapped_column(String(200), primary_key=True)
    stopped_at: Mapped[datetime | None]
    next_charge_at: Mapped[datetime | None]
    """Until when it is paid, and when the next charge falls due unless it is stopped."""
    anchor_at: Mapped[datetime | None]
    """The charge from which the following ones are counted: its day of the month is theirs."""
    ended_at: Mapped[datetime | None]
    """Ended at once, before the end of what had been paid."""
    price_minor: Mapped[int | None]
    currency: Mapped[str | None] = mapped_column(String(3))
    billing_interval: Mapped[str | None] = mapped_column(String(10))


class LocalCharge(Base):
    __tablename__ = "local_charge"
    __table_args__ = (UniqueConstraint("billing_ref", "period_start"),)

    id: Mapped[Id]
    billing_ref: Mapped[str] = mapped_column(ForeignKey("local_subscription.billing_ref"))
    period_start: Mapped[datetime]
    period_end: Mapped[datetime | None]
    amount_minor: Mapped[int]
    currency: Mapped[str] = mapped_column(String(3))
    charged_at: Mapped[datetime]
    refunded_at: Mapped[datetime | None]
    refunded_minor: Mapped[int | None]


class LocalCall(Base):
    """What was answered under an idempotency key: asked again, the same is answered and nothing is done."""

    __tablename__ = "local_call"

    key: Mapped[str] = mapped_column(String(120), primary_key=True)
    reference: Mapped[str] = mapped_column(String(64))
    refunded_minor: Mapped[int | None]
    currency: Mapped[str | None] = mapped_column(String(3))
    next_charge_at: Mapped[datetime | None]
    called_at: Mapped[datetime]
