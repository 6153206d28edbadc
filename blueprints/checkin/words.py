"""The standing of a case in the words and dates its page shows: worded by services/wording.py, put together here."""

from dataclasses import dataclass
from datetime import datetime, tzinfo

from flask_babel import gettext as _

from domain.lifecycle import Answer, Rule
from domain.money import known
from domain.policy import assess
from services import wording
from services.notice import Standing, State
from settings import Settings


@dataclass(frozen=True, slots=True)
class Words:
    """What the templates of the check-in page put into sentences; None where there is nothing to say."""

    why: str
    rule: str | None
    """Whom the programme asks, where it is this case's rule."""
    joined: str | None
    last_used: str | None
    heard: str | None
    price: str
    paid: str | None
    answered: str | None
    answered_at: str | None
    """To the minute, for the receipt."""
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
    elsewhere: wording.Elsewhere | None
    """Where the membership ends, if not here."""


def of_standing(seen: Standing, settings: Settings, now: datetime) -> Words:
    zone, member, case = settings.zone, seen.member, seen.case
    outlook = seen.outlook
    used_since = member.last_used_at is not None and (
        seen.facts.sign_of_life_at is None or member.last_used_at > seen.facts.sign_of_life_at
    )
    return Words(
        why=_why(seen, settings, now),
        rule=_rule(seen, settings),
        joined=_day(seen.facts.joined_at, zone),
        last_used=_day(seen.facts.last_used_at, zone),
        heard=_day(seen.facts.sign_of_life_at, zone),
        price=wording.price(member.price_minor, member.currency, member.billing_interval),
        paid=_paid(seen, settings, now),
        answered=_day(case.answered_at, zone),
        answered_at=None if case.answered_at is None else wording.date_and_time(case.answered_at, zone),
        used=wording.short_date(member.last_used_at, zone) if used_since and member.last_used_at else None,
        deadline=wording.last_day(seen.deadline, zone),
        until=wording.up_to_and_including(outlook.ends_at, zone),
        deadline_until=wording.up_to_and_including(seen.deadline, zone),
        ends=wording.last_day(outlook.ends_at, zone),
        ends_short=wording.last_day_short(outlook.ends_at, zone),
        access=None if outlook.access_ends_at <= outlook.ends_at else wording.last_day(outlook.access_ends_at, zone),
        saved=wording.last_day_short(outlook.keep_until, zone),
        again=wording.short_date(outlook.asked_again_on, zone),
        elsewhere=wording.where_to_end(member.billed_by, settings),
    )


def of_receipt(seen: Standing, said: Words, settings: Settings) -> list[tuple[str, str]]:
    """The facts that a receipt lists: whose membership, what was answered and when."""
    keep = seen.case.answer == Answer.KEEP
    rows = [
        (_("Your answer"), _("Keep my membership") if keep else _("End my membership")),
        (_("Answered"), said.answered_at),
        (_("Service"), settings.service_name),
        (_("Plan"), seen.member.plan),
        (_("Customer number"), seen.member.external_id),
        (_("Price"), said.price),
    ]
    return [(label, value) for label, value in rows if value]


def _day(instant: datetime | None, zone: tzinfo) -> str | None:
    return None if instant is None else wording.short_date(instant, zone)


def _rule(seen: Standing, settings: Settings) -> str | None:
    match seen.case.rule:
        case Rule.NEVER_USED:
            return _(
                "We ask members who pay and have not used %(service)s once in %(months)s.",
                service=settings.service_name,
                months=wording.count_months(settings.never_used_months),
            )
        case Rule.STOPPED_USING:
            return _(
                "We ask members who pay and have not used %(service)s for %(months)s or more.",
                service=settings.service_name,
                months=wording.count_months(settings.stopped_using_months),
            )
    return None


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
    charged = known(seen.case.paid_minor, seen.case.paid_currency)
    return wording.paid(charged, seen.case.paid_asked_at, amount, settings.zone)
