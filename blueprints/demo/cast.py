"""The people of the demo: who they are examples of, and how each of them stands at the moment."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flask_babel import gettext as _
from flask_babel import lazy_gettext
from sqlalchemy import select
from sqlalchemy.orm import Session

from domain import policy
from domain.lifecycle import Answer, MemberStatus
from models import Member
from services import wording
from services.notice import notice_for
from settings import Settings

ROLES = {
    "never_used": lazy_gettext("Joined, never used it"),
    "stopped_using": lazy_gettext("Used it, then stopped"),
    "shared_address": lazy_gettext("Shares an address"),
    "annual": lazy_gettext("Pays by the year"),
    "active": lazy_gettext("Uses it"),
    "soon": lazy_gettext("Never used it, but joined lately"),
    "exempt": lazy_gettext("Exempt"),
    "lapsed": lazy_gettext("Ended already, can come back"),
}
"""What a person is an example of when the demo starts, in the order of the page."""


@dataclass(frozen=True, slots=True)
class Person:
    """One of the cast. ``member`` is None once all data has been erased."""

    role: str
    external_id: str
    member: Member | None
    state: str

    @property
    def can_use(self) -> bool:
        return self.member is not None and self.member.status == MemberStatus.ACTIVE


def people(session: Session, settings: Settings, path: Path, now: datetime) -> list[Person]:
    """The cast that `flask demo` chose and wrote down, as they stand now; nobody where there is no such file."""
    if not path.exists():
        return []
    chosen = [(entry["role"], entry["external_id"]) for entry in json.loads(path.read_text(encoding="utf-8"))]
    found = session.scalars(select(Member).where(Member.external_id.in_([number for _role, number in chosen])))
    members = {member.external_id: member for member in found}
    return [
        Person(str(ROLES[role]), number, members.get(number), _state(session, members.get(number), settings, now))
        for role, number in chosen
    ]


def _state(session: Session, member: Member | None, settings: Settings, now: datetime) -> str:
    """How somebody stands, in one sentence."""
    zone = settings.zone
    if member is None:
        return _("All data has been erased.")
    if member.status == MemberStatus.LAPSED and member.lapsed_at and member.keep_until:
        return _(
            "Ended on %(day)s; saved until %(until)s.",
            day=wording.last_day_short(member.lapsed_at, zone),
            until=wording.last_day_short(member.keep_until, zone),
        )
    notice = notice_for(session, settings, member, now)
    if notice is not None:
        day = wording.last_day_short(notice.deadline, zone)
        if notice.answer == Answer.KEEP:
            return _("Asked, and keeps the membership.")
        if notice.answer == Answer.LAPSE:
            return _("Asked, and ends the membership on %(day)s.", day=day)
        return _("Asked, no answer yet; it ends on %(day)s.", day=day)
    decision = policy.assess(member.facts, settings.policy, now)
    return wording.decision_sentence(
        decision.code,
        joined_at=member.joined_at,
        last_used_at=member.last_used_at,
        sign_of_life_at=decision.sign_of_life_at,
        months=decision.months,
        zone=zone,
    )
