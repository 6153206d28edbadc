"""The member: who it is, what is paid, the signs of life, and how the membership ended."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Computed, Index, String, and_, func, literal_column, text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.elements import ColumnElement

from domain.lifecycle import MailState, MemberStatus
from domain.policy import Facts, SubscriptionStatus
from models.base import Base, Id, PublicId, one_of


class Member(Base):
    __tablename__ = "member"

    id: Mapped[Id]
    public_id: Mapped[PublicId]
    external_id: Mapped[str | None] = mapped_column(String(200), unique=True)
    email: Mapped[str | None] = mapped_column(String(320))
    email_key: Mapped[str | None] = mapped_column(String(320))
    email_replaced_key: Mapped[str | None] = mapped_column(String(320))
    """The address that the member has changed here: a file that still has it is late, and changes nothing."""
    name: Mapped[str | None] = mapped_column(String(200))
    locale: Mapped[str | None] = mapped_column(String(35))
    locale_chosen_at: Mapped[datetime | None]
    """The member has chosen the language here: files leave it alone."""
    status: Mapped[str] = mapped_column(String(10), server_default=MemberStatus.ACTIVE)

    joined_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    last_kept_at: Mapped[datetime | None]
    returned_at: Mapped[datetime | None]
    last_sign_of_life_at: Mapped[datetime] = mapped_column(
        Computed(
            func.latest(
                literal_column("joined_at"),
                literal_column("last_used_at"),
                literal_column("last_kept_at"),
                literal_column("returned_at"),
            ),
            persisted=True,
        )
    )

    plan: Mapped[str | None] = mapped_column(String(100))
    price_minor: Mapped[int | None]
    currency: Mapped[str | None] = mapped_column(String(3))
    billing_interval: Mapped[str | None] = mapped_column(String(10))
    subscription_status: Mapped[str] = mapped_column(String(10), server_default=SubscriptionStatus.ACTIVE)
    paid_through: Mapped[datetime | None]
    billing_ref: Mapped[str | None] = mapped_column(String(200))
    billed_by: Mapped[str | None] = mapped_column(String(50))
    """The app store or partner that charges by itself: no order of ours can stop it, only the member can, there."""

    exempt_reason: Mapped[str | None] = mapped_column(String(200))
    operator_exempt_reason: Mapped[str | None] = mapped_column(String(200))
    mail_state: Mapped[str] = mapped_column(String(10), server_default=MailState.GOOD)

    lapsed_at: Mapped[datetime | None]
    access_ends_at: Mapped[datetime | None]
    keep_until: Mapped[datetime | None]
    erase_requested_at: Mapped[datetime | None]
    """The member asked to be erased: done as soon as no billing order is unfinished."""
    purged_at: Mapped[datetime | None]
    session_generation: Mapped[int] = mapped_column(server_default="1")

    @property
    def facts(self) -> Facts:
        """The snapshot that policy.assess looks at."""
        return Facts(
            status=self.status,
            joined_at=self.joined_at,
            last_used_at=self.last_used_at,
            last_kept_at=self.last_kept_at,
            returned_at=self.returned_at,
            plan=self.plan,
            price_minor=self.price_minor,
            subscription_status=self.subscription_status,
            exempt_reason=self.exempt_reason,
            operator_exempt_reason=self.operator_exempt_reason,
        )


def paying_and_not_exempt(member: Any = Member) -> ColumnElement[bool]:
    """Active, paying, not exempt: the part of the rule that needs no date.

    The words are literals, not bound values: only then do both databases see that a partial index covers the query.
    """
    return and_(
        member.status == literal_column("'active'"),
        member.subscription_status == literal_column("'active'"),
        member.price_minor > literal_column("0"),
        member.exempt_reason.is_(None),
        member.operator_exempt_reason.is_(None),
    )


def _candidates(name: str, used: str) -> Index:
    where = text(
        "status = 'active' AND subscription_status = 'active' AND price_minor > 0"
        f" AND exempt_reason IS NULL AND operator_exempt_reason IS NULL AND last_used_at {used}"
    )
    return Index(name, Member.last_sign_of_life_at, sqlite_where=where, postgresql_where=where)


_candidates("ix_member_never_used", "IS NULL")
_candidates("ix_member_stopped_using", "IS NOT NULL")
Index("ix_member_email_key", Member.email_key)
_billed = text("billing_ref IS NOT NULL")
# By what a provider calls somebody: it sends word by the hundred.
Index("ix_member_billing_ref", Member.billing_ref, sqlite_where=_billed, postgresql_where=_billed)
Index(
    "ix_member_keep_until",
    Member.keep_until,
    sqlite_where=text("status = 'lapsed'"),
    postgresql_where=text("status = 'lapsed'"),
)

Member.__table__.append_constraint(one_of("status", MemberStatus))
Member.__table__.append_constraint(one_of("subscription_status", SubscriptionStatus))
Member.__table__.append_constraint(one_of("mail_state", MailState))
Member.__table__.append_constraint(CheckConstraint("price_minor >= 0", name="price_not_negative"))
Member.__table__.append_constraint(
    CheckConstraint("price_minor IS NULL OR currency IS NOT NULL", name="price_has_currency")
)
# What a lapse promises is on the row of the lapse: since when, access until when, saved until when.
Member.__table__.append_constraint(
    CheckConstraint(
        "status <> 'lapsed' OR (lapsed_at IS NOT NULL AND access_ends_at IS NOT NULL AND keep_until IS NOT NULL"
        " AND access_ends_at >= lapsed_at AND keep_until > access_ends_at)",
        name="lapsed_has_dates",
    )
)
Member.__table__.append_constraint(
    CheckConstraint(
        "status = 'purged' OR (external_id IS NOT NULL AND email IS NOT NULL AND email_key IS NOT NULL)",
        name="known_until_purged",
    )
)
# Purge is complete or it is not a purge (design promise 7).
Member.__table__.append_constraint(
    CheckConstraint(
        "status <> 'purged' OR (external_id IS NULL AND email IS NULL AND email_key IS NULL AND name IS NULL"
        " AND email_replaced_key IS NULL"
        " AND billing_ref IS NULL AND exempt_reason IS NULL AND operator_exempt_reason IS NULL"
        " AND purged_at IS NOT NULL)",
        name="purged_is_empty",
    )
)
