"""What is remembered of the billing provider: in which mode it was first used, and whether its address wants no more.

Test keys charge nobody and live keys charge people, and what is on record here is of one of the two: the other key
would take every member for one that the provider does not know. And an address that has answered 410 is left alone
until it is another one, or an operator says that it takes orders again.
"""

from datetime import datetime
from hashlib import sha256

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from domain.errors import BillingPermanent
from domain.notices import Kind
from models import BillingProvider, change, insert
from services import outbox
from settings import Settings


def hold_to_mode(session: Session, settings: Settings, now: datetime) -> None:
    """Remember the mode of the first use; raises BillingPermanent for a key of the other one. To be committed."""
    if settings.billing != "stripe":
        return
    change(
        session,
        insert(session, BillingProvider)
        .values(source=settings.billing, mode=_mode(settings), since=now)
        .on_conflict_do_nothing(index_elements=["source"]),
    )
    look_at_mode(session, settings)


def look_at_mode(session: Session, settings: Settings) -> None:
    """Raises BillingPermanent where the key is of the other mode than the first one was."""
    if settings.billing != "stripe":
        return
    mode = _mode(settings)
    row = session.scalar(select(BillingProvider).where(BillingProvider.source == settings.billing))
    if row is not None and row.mode != mode:
        raise BillingPermanent(
            f"this installation has worked with Stripe's {row.mode} mode since {row.since:%Y-%m-%d}, and STRIPE_KEY is"
            f" of its {mode} mode: give the {mode} mode a database of its own, or run `flask billing forget-mode`"
        )


def _mode(settings: Settings) -> str:
    return "live" if settings.stripe_live else "test"


def forget_mode(session: Session, settings: Settings) -> bool:
    """Let the next use decide anew; False where there was nothing to forget."""
    which = (BillingProvider.source == settings.billing, BillingProvider.mode.is_not(None))
    row = session.scalar(select(BillingProvider).where(*which))
    if row is None:
        return False
    session.delete(row)
    session.flush()
    return True


def closed_since(session: Session, settings: Settings) -> datetime | None:
    """Since when the present address takes no more orders (410); None where it does."""
    return session.scalar(
        select(BillingProvider.closed_at).where(
            BillingProvider.source == settings.billing, BillingProvider.closed_digest == _digest(settings)
        )
    )


def close(session: Session, settings: Settings, now: datetime) -> None:
    """The address has answered 410: no order goes there any more, and operators are told."""
    values = {"closed_at": now, "closed_digest": _digest(settings)}
    change(
        session,
        insert(session, BillingProvider)
        .values(source=settings.billing, since=now, **values)
        .on_conflict_do_update(index_elements=["source"], set_=values),
    )
    outbox.put_to_operators(session, Kind.NEEDS_ATTENTION, f"needs_attention:billing:{now:%Y-%m-%d}", now)


def reopen(session: Session, settings: Settings) -> bool:
    """An operator says that the address takes orders again; False where it was not closed."""
    return bool(
        change(
            session,
            update(BillingProvider)
            .where(BillingProvider.source == settings.billing, BillingProvider.closed_at.is_not(None))
            .values(closed_at=None, closed_digest=None),
        )
    )


def _digest(settings: Settings) -> str:
    return sha256((settings.billing_url or "").encode()).hexdigest()
