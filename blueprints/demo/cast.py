"""The people of the demo: who they are examples of, and how each of them stands at the moment."""

import json
from dataclasses import dataclass
from datetime import datetime, tzinfo
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
    "exempt": lazy_gettext("Is never asked"),
    "lapsed": lazy_gettext("Ended already, can come back"),
}
"""What a person is an example of, in the order of the page."""


@dataclass(frozen=True, slots=True)
class Person:
    """One of the cast. ``member`` and ``role`` are None once all data has been erased."""

    role: str | None
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
        Person(
            _role(role, members.get(number), settings, now),
            number,
            members.get(number),
            _state(session, members.get(number), settings, now),
        )
        for role, number in chosen
    ]


def _role(role: str, member: Member | None, settings: Settings, now: datetime) -> str | None:
    """What somebody is an example of: the same as when the demo began, as long as time and clicks leave it true."""
    if member is None:
        return None
    unused = member.last_used_at is None
    stopped = not unused and member.last_used_at < policy.cutoffs(settings.policy, now).stopped_using
    still = {
        "never_used": unused,
        "stopped_using": stopped,
        "active": not unused and not stopped and member.status == MemberStatus.ACTIVE,
        "soon": unused and policy.assess(member.facts, settings.policy, now).code == policy.Code.RECENT,
        "exempt": member.exempt_reason is not None,
        "lapsed": member.status == MemberStatus.LAPSED,
    }
    if not still.get(role, True):
        role = "never_used" if unused else "stopped_using" if stopped else "active"
    return str(ROLES[role])


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
    if decision.code == policy.Code.RECENT:
        return _("%(sign)s, so there is nothing to ask.", sign=_sign(member, decision.sign_of_life_at, zone))
    if decision.code in policy.DORMANT:
        return _("%(sign)s, and will be asked in the next round.", sign=_sign(member, decision.sign_of_life_at, zone))
    return wording.decision_sentence(
        decision.code,
        joined_at=member.joined_at,
        last_used_at=member.last_used_at,
        sign_of_life_at=decision.sign_of_life_at,
        months=decision.months,
        zone=zone,
    )


def _sign(member: Member, at: datetime, zone: tzinfo) -> str:
    """What somebody did last."""
    day = wording.short_date(at, zone)
    if at == member.last_used_at:
        return _("Last used it on %(day)s", day=day)
    if at == member.last_kept_at:
        return _("Kept the membership on %(day)s", day=day)
    if at == member.returned_at:
        return _("Came back on %(day)s", day=day)
    return _("Joined on %(day)s", day=day)
