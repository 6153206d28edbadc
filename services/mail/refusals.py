"""A round whose notices are refused, or bounce, in numbers stops itself: going on would cost the sender its name."""

import sys
from datetime import datetime
from functools import lru_cache
from math import ceil
from typing import Any

from sqlalchemy import BigInteger, Select, bindparam, func, literal_column, select
from sqlalchemy.orm import Session

from domain.lifecycle import CampaignState, HoldReason, MessageState
from domain.notices import NOTICES
from models import Campaign, Message
from models.base import is_one_of, said
from services import campaigns
from services.breaker import Hold
from settings import Settings

REFUSED, ACCEPTED = (MessageState.BOUNCED, MessageState.FAILED), (MessageState.SENT,)


def hold_if_many(session: Session, settings: Settings, now: datetime) -> None:
    """Hold each open round with more than MAX_BOUNCE_PERCENT, and HOLD_MIN_MEMBERS, refused.

    A transaction of its own: it locks the campaign, which others lock before members.
    """
    for campaign_id in session.connection().scalars(_OPEN).all():
        hold = _check(session, settings, campaign_id)
        if hold is not None:
            campaigns.hold_open(session, campaign_id, hold, now)


_OPEN = (
    select(Campaign.__table__.c.id)
    .where(Campaign.__table__.c.state == said(CampaignState.OPEN))
    .order_by(Campaign.__table__.c.id)
)


def _check(session: Session, settings: Settings, campaign_id: int) -> Hold | None:
    # Who was refused is found through a partial index, however many were not.
    refused = _count(session, campaign_id, REFUSED)
    if refused <= settings.hold_min_members:
        return None
    share = settings.max_bounce_percent / 100
    if share > 0 and _count(session, campaign_id, ACCEPTED, ceil(refused / share)) + refused >= refused / share:
        return None
    tried = refused + _count(session, campaign_id, ACCEPTED)
    percent = round(100 * refused / tried, 2)
    facts = {"refused": refused, "tried": tried, "percent": percent, "limit": settings.max_bounce_percent}
    return Hold(HoldReason.BOUNCES, percent, facts)


def _count(session: Session, campaign_id: int, states: tuple[MessageState, ...], up_to: int = sys.maxsize) -> int:
    return session.connection().scalar(_counting(states), {"campaign_id": campaign_id, "up_to": up_to}) or 0


@lru_cache(maxsize=2)
def _counting(states: tuple[MessageState, ...]) -> Select[Any]:
    """It is kept: each run asks twice, and to put it together takes longer than to run it."""
    message = Message.__table__.c
    rows: Any = (
        select(literal_column("1"))
        .where(
            message.campaign_id == bindparam("campaign_id"),
            is_one_of(message.state, states),
            is_one_of(message.kind, NOTICES),
        )
        .limit(bindparam("up_to", type_=BigInteger()))
    )
    return select(func.count()).select_from(rows.subquery())
