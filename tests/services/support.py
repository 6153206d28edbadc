"""Moving a round along in tests: mails accepted by a server that always says yes, month ends, facts in the tables."""

import select as system
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.notices import Kind
from domain.ports import MailResult
from models import BillingOrder, Campaign, Case, Member, Message
from services import campaigns, closing, purging
from services.mail import dispatch, recording
from services.mail.desk import Desk
from services.mail.recording import Answered
from settings import Settings
from tests import factories

ACCEPTED = MailResult(accepted=True, code=250, reply="250 2.0.0 queued")


def accept_mails(session: Session, settings: Settings, now: datetime) -> list[Kind]:
    """Claim everything that is due and record it as accepted at the same instant; the kinds, in order."""
    kinds = []
    dispatch.retire(session, settings)
    while claimed := dispatch.claim(session, settings, now, 50):
        session.commit()
        for one in claimed:
            recording.record(session, settings, one, ACCEPTED, now)
            kinds.append(one.kind)
        session.commit()
    return kinds


def written(desk: Desk, answered: Sequence[Answered]) -> frozenset[int]:
    """Have the desk write down what came together, as whoever sends does; the rounds that are open."""
    watched = desk.begin_record(answered)
    if watched is None:
        return desk.record(answered)
    while (still_open := desk.recorded()) is None:
        system.select([watched], [], [], 60)
    return still_open


def opened(session: Session, settings: Settings, now: datetime, month: str = "2026-06") -> Campaign:
    """This month's campaign, drafted, approved, and its warnings accepted. A feed is alive."""
    factories.live_feed(session, now)
    campaigns.draft(session, settings, month, now)
    campaign = campaigns.approve(session, settings, month, now)
    session.commit()
    accept_mails(session, settings, now)
    return campaign


def close(session: Session, settings: Settings, now: datetime) -> closing.Closed:
    factories.live_feed(session, now)
    session.commit()
    return closing.close(session, settings, now, session.commit)


def case_of(session: Session, member: Member) -> Case:
    session.expire_all()
    found = session.scalars(select(Case).where(Case.member_id == member.id).order_by(Case.id.desc())).first()
    assert found is not None
    return found


def kinds_to(session: Session, member: Member) -> list[str]:
    return list(session.scalars(select(Message.kind).where(Message.member_id == member.id).order_by(Message.id)))


def orders_of(session: Session, member: Member) -> list[tuple[Any, ...]]:
    rows = session.execute(
        select(BillingOrder.kind, BillingOrder.state)
        .where(BillingOrder.member_id == member.id)
        .order_by(BillingOrder.id)
    )
    return [tuple(row) for row in rows]


def purge(session: Session, settings: Settings, now: datetime) -> int:
    session.commit()
    return purging.purge(session, settings, now, session.commit)
