"""A round whose notices are refused, or bounce, in numbers stops itself: going on would cost the sender its name."""

from datetime import datetime
from math import ceil
from typing import Any

from sqlalchemy import ColumnElement, func, literal_column, select
from sqlalchemy.orm import Session

from domain.lifecycle import CampaignState, HoldReason, MessageState
from domain.notices import NOTICES
from models import Campaign, Message
from models.base import is_one_of
from services import campaigns
from services.breaker import Hold
from settings import Settings

REFUSED = (MessageState.BOUNCED, MessageState.FAILED)


def hold_if_many(session: Session, settings: Settings, now: datetime) -> list[str]:
    """Hold each open round with more than MAX_BOUNCE_PERCENT, and HOLD_MIN_MEMBERS, refused; their months.

    A transaction of its own: it locks the campaign, which others lock before members.
    """
    held = []
    rounds = select(Campaign.id, Campaign.month).where(Campaign.state == CampaignState.OPEN).order_by(Campaign.id)
    for campaign_id, month in session.execute(rounds).all():
        hold = _check(session, settings, campaign_id)
        if hold is not None:
            campaigns.hold_open(session, campaign_id, hold, now)
            held.append(month)
    return held


def _check(session: Session, settings: Settings, campaign_id: int) -> Hold | None:
    # Who was refused is found through a partial index, however many were not.
    refused = _count(session, campaign_id, is_one_of(Message.state, REFUSED))
    if refused <= settings.hold_min_members:
        return None
    share = settings.max_bounce_percent / 100
    accepted = Message.state == MessageState.SENT
    if share > 0 and _count(session, campaign_id, accepted, ceil(refused / share)) + refused >= refused / share:
        return None
    tried = refused + _count(session, campaign_id, accepted)
    percent = round(100 * refused / tried, 2)
    facts = {"refused": refused, "tried": tried, "percent": percent, "limit": settings.max_bounce_percent}
    return Hold(HoldReason.BOUNCES, percent, facts)


def _count(session: Session, campaign_id: int, which: ColumnElement[bool], up_to: int | None = None) -> int:
    rows: Any = (
        select(literal_column("1"))
        .select_from(Message)
        .where(Message.campaign_id == campaign_id, which, Message.kind.in_(NOTICES))
        .limit(up_to)
    )
    return session.scalar(select(func.count()).select_from(rows.subquery())) or 0
