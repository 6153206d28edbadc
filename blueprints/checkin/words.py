"""The standing of a case in the words and dates its page shows: worded by services/wording.py, put together here."""

from dataclasses import dataclass
from datetime import datetime

from flask_babel import gettext as _

from domain.lifecycle import Rule
from domain.links import masked
from domain.policy import assess
from services import wording
from services.notice import Standing, State
from settings import Settings


@dataclass(frozen=True, slots=True)
class Words:
    """What the templates of the check-in page put into sentences; None where there is nothing to say."""

    address: str | None
    """As shown, and as it is read out."""
    address_spoken: str | None
    why: str
    price: str
    paid: str | None
    answered: str | None
    used: str | None
    deadline: str
    until: str
    """ "up to and including 30 June": how long an answer can be changed."""
    deadline_until: str
    """The same for the day that silence leads to, which may be a later one."""
    ends: str
    ends_short: str
    access: str | None
    """Until when the service can be used, where that is longer than the membership."""
    saved: str
    again: str


def of_standing(seen: Standing, settings: Settings, now: datetime) -> Words:
    zone, member, case = settings.zone, seen.member, seen.case
    outlook = seen.outlook
    used_since = member.last_used_at is not None and (
        seen.facts.sign_of_life_at is None or member.last_used_at > seen.facts.sign_of_life_at
    )
    return Words(
        address=None if member.email is None else masked(member.email),
        address_spoken=None if member.email is None else spoken(member.email),
        why=_why(seen, settings, now),
        price=wording.price(member.price_minor, member.currency, member.billing_interval),
        paid=_paid(seen, settings, now),
        answered=None if case.answered_at is None else wording.short_date(case.answered_at, zone),
        used=wording.short_date(member.last_used_at, zone) if used_since and member.last_used_at else None,
        deadline=wording.last_day(seen.deadline, zone),
        until=wording.up_to_and_including(outlook.ends_at, zone),
        deadline_until=wording.up_to_and_including(seen.deadline, zone),
        ends=wording.last_day(outlook.ends_at, zone),
        ends_short=wording.last_day_short(outlook.ends_at, zone),
        access=None if outlook.access_ends_at <= outlook.ends_at else wording.last_day(outlook.access_ends_at, zone),
        saved=wording.last_day_short(outlook.keep_until, zone),
        again=wording.short_date(outlook.asked_again_on, zone),
    )


def spoken(email: str) -> str:
    """A masked address for the ear: screen readers make little of "m…@example.org"."""
    local, _at, host = email.rpartition("@")
    return _("an address at %(host)s that begins with %(letter)s", host=host, letter=local[:1])


def _why(seen: Standing, settings: Settings, now: datetime) -> str:
    facts = seen.facts
    if seen.state in (State.EXEMPTED, State.WITHDRAWN) and seen.live:
        # What speaks against asking is in the member's present facts, not in those of the case.
        decision = assess(seen.member.facts, settings.policy, now)
        if not decision.dormant:
            return wording.decision_sentence_to_member(
                decision.code,
                service=settings.service_name,
                joined_at=seen.member.joined_at,
                last_used_at=seen.member.last_used_at,
                sign_of_life_at=decision.sign_of_life_at,
                months=decision.months,
                zone=settings.zone,
            )
    return wording.decision_sentence_to_member(
        seen.case.rule,
        service=settings.service_name,
        joined_at=facts.joined_at,
        last_used_at=facts.last_used_at,
        sign_of_life_at=facts.sign_of_life_at,
        months=facts.months,
        zone=settings.zone,
    )


def _paid(seen: Standing, settings: Settings, now: datetime) -> str | None:
    since = seen.facts.sign_of_life_at
    if since is None or seen.case.rule == Rule.OWN_WISH:
        return None
    member = seen.member
    amount = wording.paid_since(member.price_minor, member.currency, member.billing_interval, since, now, settings.zone)
    return None if amount is None else wording.about(amount)
