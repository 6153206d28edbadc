"""A month's round, and its cases: what was found of each member, what was answered, and how it ended."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from domain.lifecycle import Answer, CampaignState, CaseState, HoldReason, Rule, Through
from models.base import Base, Id, PublicId, one_of
from models.member import Member


class Campaign(Base):
    __tablename__ = "campaign"

    id: Mapped[Id]
    public_id: Mapped[PublicId]
    month: Mapped[str] = mapped_column(String(7), unique=True)
    state: Mapped[str] = mapped_column(String(10))
    policy: Mapped[dict[str, Any]] = mapped_column(JSON)

    drafted_at: Mapped[datetime]
    opened_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]
    cancel_reason: Mapped[str | None] = mapped_column(String(20))
    deadline_at: Mapped[datetime | None]
    """The first deadline its warnings can name: set when it opens; single cases may have a later one."""

    dormant_count: Mapped[int]
    paying_count: Mapped[int | None]
    """All paying members, counted when the campaign closes: next month's share is held against this."""

    held_at: Mapped[datetime | None]
    hold_reason: Mapped[str | None] = mapped_column(String(20))
    hold_facts: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """The figures behind the reason, so that it can be said in a sentence; ``figure`` is the one that is compared."""
    released: Mapped[dict[str, float]] = mapped_column(JSON, server_default=text("'{}'"))
    """Reason → the figure an operator released it at: it holds again only when that has grown by half."""

    __table_args__ = (
        one_of("state", CampaignState),
        one_of("hold_reason", HoldReason),
        CheckConstraint("state <> 'held' OR hold_reason IS NOT NULL", name="held_says_why"),
        CheckConstraint("state <> 'open' OR opened_at IS NOT NULL", name="open_since"),
    )


class Case(Base):
    """One dormant member in one campaign; or, without a campaign, a member who ended without having been asked."""

    __tablename__ = "member_case"

    id: Mapped[Id]
    public_id: Mapped[PublicId]
    campaign_id: Mapped[int | None] = mapped_column(ForeignKey("campaign.id"))
    member_id: Mapped[int] = mapped_column(ForeignKey("member.id"))
    rule: Mapped[str] = mapped_column(String(15))
    opened_at: Mapped[datetime]

    # The facts as found, which mails and pages show and which close compares. Erased by a purge.
    found_joined_at: Mapped[datetime | None]
    found_last_used_at: Mapped[datetime | None]
    found_sign_of_life_at: Mapped[datetime | None]
    found_plan: Mapped[str | None] = mapped_column(String(100))
    found_price_minor: Mapped[int | None]
    found_currency: Mapped[str | None] = mapped_column(String(3))
    found_billing_interval: Mapped[str | None] = mapped_column(String(10))

    address: Mapped[str | None] = mapped_column(String(320))
    """The address this case writes to; when the member's differs, the case has not heard of the change yet."""
    address_generation: Mapped[int] = mapped_column(server_default="1")
    generation: Mapped[int] = mapped_column(server_default="1")
    """Counts answers and address changes."""

    paid_minor: Mapped[int | None]
    paid_currency: Mapped[str | None] = mapped_column(String(3))
    """What the provider has charged since the sign of life, less what went back; None where it is estimated."""
    paid_asked_at: Mapped[datetime | None]

    warned_at: Mapped[datetime | None]
    warned_to: Mapped[str | None] = mapped_column(String(320))
    told_it_continues: Mapped[bool | None]
    """Whether the warning said that silence ends nothing: with ON_SILENCE=keep, or where only a store can end it."""
    deadline_at: Mapped[datetime | None]

    state: Mapped[str] = mapped_column(String(12), server_default=CaseState.OPEN)
    answer: Mapped[str | None] = mapped_column(String(5))
    answered_at: Mapped[datetime | None]
    answered_through: Mapped[str | None] = mapped_column(String(10))
    answer_note: Mapped[str | None] = mapped_column(String(500))
    """What an operator noted: how the member told them; without an answer, why a keep was taken back."""
    wording_version: Mapped[str | None] = mapped_column(String(20))
    kept_before_at: Mapped[datetime | None]
    """The member's last keep before this case's: what changing the answer to lapse puts back."""
    not_mine_at: Mapped[datetime | None]
    """Somebody said on the page: this is not mine, or the member has died. An operator looks at it."""
    reminders_declined_at: Mapped[datetime | None]
    """The member wants no second and no last notice; silence means what it meant before."""

    closed_at: Mapped[datetime | None]
    batch: Mapped[str | None] = mapped_column(String(32))
    """The set-based step that last changed it: what follows (order, mail, event) is written for exactly these rows."""

    member: Mapped[Member] = relationship()
    campaign: Mapped[Campaign | None] = relationship()

    __table_args__ = (
        UniqueConstraint("campaign_id", "member_id"),
        one_of("state", CaseState),
        one_of("answer", Answer),
        one_of("answered_through", Through),
        one_of("rule", Rule),
        # Design promise 1: nobody lapses unasked and unwarned. A CHECK passes when it is null, as a bare comparison
        # with the answer of a silent case would be.
        CheckConstraint(
            "state <> 'lapsed' OR coalesce(answer, '') = 'lapse' OR warned_at IS NOT NULL", name="warned_or_own_wish"
        ),
        CheckConstraint("(state = 'open') = (closed_at IS NULL)", name="live_until_closed"),
        CheckConstraint("(answer IS NULL) = (answered_at IS NULL)", name="answer_has_instant"),
        CheckConstraint("rule = 'own_wish' OR campaign_id IS NOT NULL", name="asked_in_a_campaign"),
        CheckConstraint("warned_at IS NULL OR deadline_at IS NOT NULL", name="warned_for_a_deadline"),
    )


_live = text("closed_at IS NULL")
Index("uq_member_case_live", Case.member_id, unique=True, sqlite_where=_live, postgresql_where=_live)
Index("ix_member_case_due", Case.deadline_at, Case.member_id, sqlite_where=_live, postgresql_where=_live)
Index("ix_member_case_member_id", Case.member_id)
# Of which of the cases that are live the provider is still to be asked what was paid.
Index("ix_member_case_paid_asked_at", Case.paid_asked_at, sqlite_where=_live, postgresql_where=_live)
_changed = text("batch IS NOT NULL")
# What follows a set-based step finds its rows by the step's name.
Index("ix_member_case_batch", Case.batch, sqlite_where=_changed, postgresql_where=_changed)
