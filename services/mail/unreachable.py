"""Operators hear of whom no mail reaches: the morning after, and once a day at most for each round."""

from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain import dates
from domain.lifecycle import CaseState, MailState, MemberStatus
from domain.notices import Kind
from models import Campaign, Case, Member
from services import outbox
from settings import Settings

FORGOTTEN = timedelta(days=31)
"""What is older is not told any more, should no job have run for so long."""


def tell_operators(session: Session, settings: Settings, now: datetime) -> int:
    """Queue a mail for each round in which a case has ended as unreachable since the last one; how many rounds.

    Whoever has another address by now, or is erased, is nobody to write to.
    """
    today = dates.start_of_day(dates.local_day(now, settings.zone), settings.zone)
    last = (
        select(Case.campaign_id, func.max(Case.id).label("case_id"), func.max(Case.closed_at).label("closed_at"))
        .join(Member, Member.id == Case.member_id)
        .where(
            Case.state == CaseState.UNREACHABLE,
            Case.closed_at < today,
            Case.closed_at >= today - FORGOTTEN,
            Member.mail_state != MailState.GOOD,
            Member.status != MemberStatus.PURGED,
        )
        .group_by(Case.campaign_id)
        .subquery()
    )
    rounds = session.execute(
        select(Campaign.month, Case, last.c.closed_at)
        .join(last, last.c.campaign_id == Campaign.id)
        .join(Case, Case.id == last.c.case_id)
        .order_by(Campaign.month)
    ).all()
    for month, case, closed_at in rounds:
        key = f"needs_attention:unreachable:{month}:{dates.local_day(closed_at, settings.zone)}"
        outbox.put_to_operators(session, Kind.NEEDS_ATTENTION, key, now, case=case)
    return len(rounds)
