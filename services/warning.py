"""Reminding, not reminding where that was asked for, and warning again where an address has changed."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, exists, func, select, update
from sqlalchemy.orm import Session

from domain import dates
from domain.errors import NotFound
from domain.lifecycle import CampaignState, MessageState
from domain.notices import NOTICES, QUIET_DAYS, notice_due
from models import Campaign, Case, Member, Message, change
from services import campaigns, events, outbox
from services.cases import facts_hold, lock, lock_members, new_batch
from settings import Settings

UNASKED: dict[str, Any] = {
    "address_generation": Case.address_generation + 1,
    "generation": Case.generation + 1,
    "warned_at": None,
    "warned_to": None,
    "told_it_continues": None,
    # Whoever reads the new notice has declined nothing.
    "reminders_declined_at": None,
}
"""What a case becomes again when it has to be asked anew: its link shows nothing, its warning counts no more."""


def remind(session: Session, settings: Settings, now: datetime) -> int:
    """Queue the reminders and last calls that are due: to silent, warned cases of open campaigns whose facts hold.

    One statement for each deadline that is near. No two notices of one case go out within three days, so after a late
    warning a reminder waits, and a last call takes its place when the time for one is over.
    """
    opened = select(Campaign.id).where(Campaign.state == CampaignState.OPEN)
    # A warning whose facts did not hold when it was to go out, but do now, is taken up again.
    queued = campaigns.queue_warnings(
        session, now, facts_hold(settings), Case.campaign_id.in_(opened), again=(MessageState.OBSOLETE,)
    )
    today = dates.local_day(now, settings.zone)
    deadlines = session.scalars(
        select(Case.deadline_at).where(Case.closed_at.is_(None), Case.deadline_at > now).distinct()
    ).all()
    quiet_since = dates.start_of_day(today - timedelta(days=QUIET_DAYS - 1), settings.zone)
    for deadline in deadlines:
        assert deadline is not None
        kind = notice_due(today, dates.named_day(deadline, settings.zone))
        if kind is None:
            continue
        lately = exists(
            select(Message.id).where(
                Message.case_id == Case.id,
                Message.kind.in_(NOTICES),
                (Message.state.in_([MessageState.QUEUED, MessageState.SENDING])) | (Message.sent_at >= quiet_since),
            )
        )
        due = (
            facts_hold(settings),
            Case.deadline_at == deadline,
            Case.warned_at.is_not(None),
            Case.reminders_declined_at.is_(None),
            Case.campaign_id.in_(opened),
            ~lately,
        )
        queued += outbox.take_up_again(
            session,
            now,
            Message.kind == kind,
            Message.state == MessageState.OBSOLETE,
            Message.deadline_at == deadline,
            Message.case_id.in_(select(Case.id).join(Member, Member.id == Case.member_id).where(*due)),
        )
        key = outbox.case_key(kind, func.epoch(Case.deadline_at))
        queued += outbox.put_for_cases(session, kind, key, now, *due, deadline=Case.deadline_at)
    return queued


def decline_reminders(session: Session, case_id: int, declined: bool, now: datetime) -> bool:
    """Send no further notice of this case, or send them again; nothing is decided by that. False: nothing changed.

    Only a live case without an answer has notices to come. One that is on its way to the server may still arrive.
    """
    found = session.get(Case, case_id)
    if found is None:
        raise NotFound("There is no such case.")
    lock(session, found.member_id)
    changed = change(
        session,
        update(Case)
        .where(
            Case.id == case_id,
            Case.closed_at.is_(None),
            Case.answer.is_(None),
            Case.reminders_declined_at.is_(None) if declined else Case.reminders_declined_at.is_not(None),
        )
        .values(reminders_declined_at=now if declined else None),
    )
    if not changed:
        return False
    code = "reminders_declined" if declined else "reminders_wanted"
    events.record(session, code, now, member_id=found.member_id, case_id=case_id, campaign_id=found.campaign_id)
    return True


def ask_anew(session: Session, case_id: int, now: datetime) -> None:
    """Whatever was sent of this case counts no more: a new notice with a new link goes out. The member is locked."""
    this = Case.id == case_id
    change(session, update(Case).where(this).values(**UNASKED))
    _warn(session, now, this)


def _warn(session: Session, now: datetime, which: ColumnElement[bool]) -> None:
    opened = select(Campaign.id).where(Campaign.opened_at.is_not(None))
    campaigns.queue_warnings(session, now, which, Case.campaign_id.in_(opened))


def address_changed(session: Session, settings: Settings, now: datetime, member_id: int | None = None) -> int:
    """After an import or an e-mail change: live cases that still write to another address than their member's.

    The old link shows no facts and takes no answer, the warning counts no more, and the new address is warned. Other
    mail that still waits follows the member.
    """
    outbox.follow_address(session)
    one = () if member_id is None else (Member.id == member_id,)
    stale = (Case.closed_at.is_(None), Case.member_id == Member.id, Case.address != Member.email, *one)
    lock_members(session, select(Case.member_id).join(Member, Member.id == Case.member_id).where(*stale))
    batch = new_batch()
    changed = change(session, update(Case).where(*stale).values(address=Member.email, batch=batch, **UNASKED))
    if changed:
        ours = Case.batch == batch
        _warn(session, now, ours)
        events.record_all(session, events.of_cases("address_changed", Case.state, now).where(ours))
    return changed
