"""Proof of one end of a membership: all that is on record, from the facts that began it to what the provider confirmed.

Signed by services/signing.py it is what a member, or somebody who has to judge, can hold against us. It is read from
the tables whenever it is asked for; no copy is kept, so there is none that could differ, or that a purge could forget.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.orm import Session

from domain.dates import local_day, named_day
from domain.lifecycle import Answer, CaseState, MemberStatus
from models import BillingOrder, Campaign, Case, Event, Member, Message
from settings import Settings

FORMAT = "dormouse-evidence/1"
"""The form of a record. A member that is added does not change it; one that is removed or means something else does."""

AFTERWARDS = ("came_back", "payment_declined", "returned_elsewhere", "lapse_reversed", "erasure_requested", "purged")


def ends(session: Session, member_id: int) -> list[Case]:
    """The cases by which this membership has ended, the latest first; also those whose end was taken back."""
    return list(session.scalars(select(Case).where(Case.member_id == member_id, has_ended()).order_by(Case.id.desc())))


def has_ended() -> ColumnElement[bool]:
    """A case by which a membership has ended: so it says, or so was written down before the end was taken back."""
    ended = exists(
        select(Event.id).where(
            Event.member_id == Case.member_id,
            Event.case_id == Case.id,
            Event.code == "case_closed",
            Event.detail == CaseState.LAPSED,
        )
    )
    return or_(Case.state == CaseState.LAPSED, ended)


def record(session: Session, settings: Settings, case: Case, now: datetime) -> dict[str, Any]:
    """The evidence of one end, as of ``now``; docs/evidence.md says what each part means.

    Instants are ISO 8601 in UTC, days are those of the service's time zone, money is in minor units. Of a member whose
    data is erased, only codes and instants are left.
    """
    member, zone = session.get_one(Member, case.member_id), settings.zone
    campaign = None if case.campaign_id is None else session.get(Campaign, case.campaign_id)

    def last_day(bound: datetime | None) -> str | None:
        return None if bound is None else named_day(bound, zone).isoformat()

    events = list(session.scalars(select(Event).where(_meanwhile(session, case, Event)).order_by(Event.id)))
    still = member.status == MemberStatus.LAPSED and member.lapsed_at == case.deadline_at
    access_ends_at, keep_until = (member.access_ends_at, member.keep_until) if still else (None, None)
    warned_days = None
    if case.warned_at is not None and case.deadline_at is not None:
        warned_days = (local_day(case.deadline_at, zone) - local_day(case.warned_at, zone)).days
    return {
        "format": FORMAT,
        "issued_at": _iso(now),
        "service": {"name": settings.service_name, "url": settings.public_url, "time_zone": settings.service_timezone},
        "member": {
            "customer_number": member.external_id,
            "status": member.status,
            "erased_at": _iso(member.purged_at),
        },
        "case": {
            "id": case.public_id,
            "round": None if campaign is None else campaign.month,
            "opened_at": _iso(case.opened_at),
            "rule": case.rule,
            "rules_of_the_round": None if campaign is None else _exact(campaign.policy),
            "facts_found": {
                "joined_at": _iso(case.found_joined_at),
                "last_used_at": _iso(case.found_last_used_at),
                "last_sign_of_life_at": _iso(case.found_sign_of_life_at),
                "plan": case.found_plan,
                "price_minor": case.found_price_minor,
                "currency": case.found_currency,
                "billing_interval": case.found_billing_interval,
            },
        },
        "mails": [
            {
                "kind": row.kind,
                "to": row.to_address,
                "language": row.locale,
                "state": row.state,
                "due_at": _iso(row.due_at),
                "accepted_at": _iso(row.sent_at),
                "attempts": row.attempts,
                "message_id": row.message_id,
                "server_reply": row.smtp_reply or None,
                "named_deadline_at": _iso(row.deadline_at),
                "named_last_day": last_day(row.deadline_at),
                "wording_version": row.wording_version,
            }
            for row in session.scalars(select(Message).where(Message.case_id == case.id).order_by(Message.id))
        ],
        "answers": _answers(case, events),
        "end": {
            "by": "own_wish" if case.answer == Answer.LAPSE else "silence",
            "state": case.state,
            "ended_at": _iso(case.deadline_at),
            "last_day": last_day(case.deadline_at),
            "carried_out_at": _iso(case.closed_at),
            "warned_at": _iso(case.warned_at),
            "warned_to": case.warned_to,
            "warned_days_before": warned_days,
            "access_ends_at": _iso(access_ends_at),
            "access_last_day": last_day(access_ends_at),
            "saved_until_at": _iso(keep_until),
            "saved_last_day": last_day(keep_until),
        },
        "afterwards": [
            {"at": _iso(event.at), "code": event.code, "detail": event.detail}
            for event in events
            if event.code in AFTERWARDS
        ],
        "billing": [
            {
                "kind": row.kind,
                "key": row.key,
                "at_once": row.at_once,
                "since": _iso(row.since),
                "paid_through": _iso(row.paid_through),
                "refunded_minor": row.refunded_minor,
                "currency": row.currency if row.refunded_minor is not None else None,
                "state": row.state,
                "ordered_at": _iso(row.created_at),
                "attempts": row.attempts,
                "confirmed_at": _iso(row.done_at),
                "provider_reference": row.receipt,
                "read_back": _exact(row.read_back),
                "error": row.error,
            }
            for row in session.scalars(
                select(BillingOrder).where(_meanwhile(session, case, BillingOrder)).order_by(BillingOrder.id)
            )
        ],
        "events": [{"at": _iso(event.at), "code": event.code, "detail": event.detail} for event in events],
    }


def _meanwhile(session: Session, case: Case, table: type[Event] | type[BillingOrder]) -> ColumnElement[bool]:
    """What belongs to a case, or happened to its member between its opening and that of the next one."""
    following = session.scalar(
        select(Case.opened_at).where(Case.member_id == case.member_id, Case.id > case.id).order_by(Case.id).limit(1)
    )
    at = table.at if issubclass(table, Event) else table.created_at
    of_none = and_(table.case_id.is_(None), at >= case.opened_at)
    if following is not None:
        of_none = and_(of_none, at < following)
    return and_(table.member_id == case.member_id, or_(table.case_id == case.id, of_none))


def _answers(case: Case, events: list[Event]) -> list[dict[str, Any]]:
    """Every answer in its order. Of those that were changed, the instant and the way are on record."""
    words = {"answered_keep": Answer.KEEP.value, "answered_lapse": Answer.LAPSE.value}
    found = [
        {"answer": words[event.code], "at": _iso(event.at), "through": event.detail}
        for event in events
        if event.code in words and event.case_id == case.id
    ]
    if case.answer is not None:
        last = {"answer": case.answer, "at": _iso(case.answered_at), "through": case.answered_through}
        if last in found:
            found.remove(last)
        found.append({**last, "wording_version": case.wording_version, "note": case.answer_note})
    return found


def _exact(value: Any) -> Any:
    """A value of a JSON column without fractions, which a signed record cannot hold: they become text."""
    if isinstance(value, dict):
        return {name: _exact(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_exact(one) for one in value]
    return str(value) if isinstance(value, float) else value


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
