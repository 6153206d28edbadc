"""The facts of a mail, and the same in words: what the templates of templates/email/ put into their sentences."""

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Self

from babel.dates import format_date

from domain import dates
from domain.lifecycle import CaseState, Rule
from domain.links import LIFETIME, Purpose
from domain.money import Money, known
from domain.notices import TO_OPERATORS, VETO_DAYS, Kind
from services import wording
from services.cases import ends_by_silence
from services.mail.dispatch import NO_CAMPAIGN, NO_CASE, NOBODY, Claimed
from services.wording import gettext
from settings import Settings

LONGEST_NAME = 60

SIGN_IN_MINUTES = int(LIFETIME[Purpose.SIGN_IN] / timedelta(minutes=1))
ERASE_MINUTES = int(LIFETIME[Purpose.ERASE] / timedelta(minutes=1))

WITHOUT_FACTS = (Kind.ERASED, Kind.END_UNCLEAR, Kind.NEW_ADDRESS)
"""Mails that name no membership: it is gone, not clear, or not yet known to be the reader's."""

_LOOKS_LIKE_A_LINK = re.compile(r"://|www\.|\S\.[^\W\d_]{2,}(/|\b)|@", re.IGNORECASE)
_NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+")


# Not frozen: of so many fields that would take four times as long, for each mail.
@dataclass(slots=True)
class Facts:
    """What a mail is about; None is what is not known, not there, or not this mail's business."""

    # The member
    name: str | None = None
    customer_number: str | None = None
    plan: str | None = None
    price_minor: int | None = None
    currency: str | None = None
    interval: str | None = None
    joined_at: datetime | None = None
    last_used_at: datetime | None = None
    paid_through: datetime | None = None
    returned_at: datetime | None = None
    lapsed_at: datetime | None = None
    access_ends_at: datetime | None = None
    keep_until: datetime | None = None
    # The case, with what was found
    rule: str | None = None
    found_joined_at: datetime | None = None
    found_last_used_at: datetime | None = None
    found_sign_of_life_at: datetime | None = None
    warned_at: datetime | None = None
    deadline_at: datetime | None = None
    answered_at: datetime | None = None
    case_state: str | None = None
    not_mine: bool = False
    voided: bool = False
    """A program had pressed "keep", and the receipt said so: the question is put once more."""
    declined: bool = False
    """The payment of a return was declined, so the end holds again."""
    undone: bool = False
    """Whether the end had been carried out, and was taken back afterwards."""
    # The campaign
    month: str | None = None
    dormant_count: int | None = None
    drafted_at: datetime | None = None
    hold_reason: str | None = None
    hold_facts: dict[str, Any] | None = None
    # The money
    subscription_status: str | None = None
    billed_by: str | None = None
    """The app store or partner where alone the membership can be ended."""
    rest: bool = False
    """Of an end that has come: what was paid for the time after it goes back."""
    refunded: Money | None = None
    """How much of that has, where the provider says."""
    paid: Money | None = None
    """What the provider has charged since the sign of life, where it tells, and as of when."""
    paid_as_of: datetime | None = None
    told_it_continues: bool | None = None
    """What the notice that counts has said silence comes to; None before there is one."""
    reminded: bool = True
    """Unless the member wants no further notice of this case."""

    @classmethod
    def of(cls, claimed: Claimed) -> Self:
        """Read off a claimed message what it says."""
        member, case, campaign = claimed.about, claimed.case, claimed.campaign
        if member is None or claimed.shared:
            member = NOBODY
        if case is None:
            case = NO_CASE
        if campaign is None:
            campaign = NO_CAMPAIGN
        return cls(
            member.name,
            member.external_id,
            member.plan,
            member.price_minor,
            member.currency,
            member.billing_interval,
            member.joined_at,
            member.last_used_at,
            member.paid_through,
            member.returned_at,
            member.lapsed_at,
            member.access_ends_at,
            member.keep_until,
            case.rule,
            case.found_joined_at,
            case.found_last_used_at,
            case.found_sign_of_life_at,
            case.warned_at,
            claimed.deadline_at or case.deadline_at,
            case.answered_at,
            case.state,
            case.not_mine_at is not None,
            case.answer is None and case.answer_note is not None,
            # The mail of an end is about the case that led to it; the one of a declined payment is about none.
            case is NO_CASE,
            # Where nothing had ended, the mail is put into the outbox as the case is closed; else later.
            case.closed_at is not None and claimed.created_at > case.closed_at,
            campaign.month,
            campaign.dormant_count,
            campaign.drafted_at,
            campaign.hold_reason,
            campaign.hold_facts,
            member.subscription_status,
            member.billed_by,
            claimed.rest,
            claimed.refunded,
            known(case.paid_minor, case.paid_currency),
            case.paid_asked_at,
            case.told_it_continues,
            case.reminders_declined_at is None,
        )


NO_FACTS = Facts()


def in_words(settings: Settings, kind: Kind, facts: Facts, link: str | None, now: datetime) -> dict[str, Any]:
    """Everything in the words of the present locale. What is None is left out of the mail."""
    to_operator = kind in TO_OPERATORS
    return {
        "kind": str(kind),
        "service": settings.service_name,
        "link": link,
        "public_url": settings.public_url,
        "to_operator": to_operator,
        **(_for_operators if to_operator else _for_members)(settings, kind, facts, now),
    }


def _for_members(settings: Settings, kind: Kind, facts: Facts, now: datetime) -> dict[str, Any]:
    zone = settings.zone
    priced = bool(facts.price_minor) and facts.currency is not None
    used_since = facts.last_used_at is not None and (
        facts.found_sign_of_life_at is None or facts.last_used_at > facts.found_sign_of_life_at
    )
    next_charge = facts.paid_through if facts.paid_through is not None and facts.paid_through > now else None
    return {
        # Nobody has proven yet that a new address is the member's.
        "name": None if kind == Kind.NEW_ADDRESS else greeting_name(facts.name),
        **_membership(facts if kind not in WITHOUT_FACTS else NO_FACTS, zone),
        "ends_by_silence": ends_by_silence(settings, facts.billed_by, facts.told_it_continues),
        **_elsewhere(settings, facts),
        "price": wording.price(facts.price_minor, facts.currency, facts.interval) if priced else None,
        "warned": facts.warned_at and wording.short_date(facts.warned_at, zone),
        "answered": facts.answered_at and wording.date_and_time(facts.answered_at, zone),
        "used": wording.short_date(facts.last_used_at, zone) if used_since and facts.last_used_at else None,
        "undone": facts.undone,
        "declined": kind == Kind.LAPSED and facts.declined,
        "voided": facts.voided,
        "reminded": facts.reminded,
        "withdrawal": _withdrawal(settings, kind),
        "returned": facts.returned_at and wording.date_and_time(facts.returned_at, zone),
        "next_charge": next_charge and wording.long_date(next_charge, zone),
        "sign_in_minutes": SIGN_IN_MINUTES,
        "erase_minutes": ERASE_MINUTES,
        **_why(settings, facts, zone, now),
        **_end(settings, facts, zone, now),
    }


def _elsewhere(settings: Settings, facts: Facts) -> dict[str, Any]:
    found = wording.where_to_end(facts.billed_by, settings)
    if found is None:
        return {"store": None, "elsewhere": None, "where_to_end": None}
    return {"store": one_line(found.store), "elsewhere": found.sentence, "where_to_end": found.address}


def _withdrawal(settings: Settings, kind: Kind) -> tuple[str, ...]:
    found = settings.withdrawal_notice(wording.language()) if kind == Kind.WELCOME_BACK else None
    return () if found is None else found.paragraphs


def _why(settings: Settings, facts: Facts, zone: tzinfo, now: datetime) -> dict[str, Any]:
    joined, used, sign = facts.found_joined_at, facts.found_last_used_at, facts.found_sign_of_life_at
    joined_on, used_on, sign_on = _day(joined, zone), _day(used, zone), _day(sign, zone)
    # Where two of them fall on one day at different hours, the hours tell which is meant.
    alike = (sign_on == joined_on) == (sign == joined) and (sign_on == used_on) == (sign == used)
    charged = wording.paid(facts.paid, facts.paid_as_of, None, zone)
    words = _why_in_words(
        facts.rule or Rule.NEVER_USED,
        (joined_on, used_on, sign_on) if alike else (joined, used, sign),
        dates.local_day(now, zone),
        (facts.price_minor, facts.currency, facts.interval),
        settings.service_name,
        zone,
        wording.voice(),
    )
    return words if charged is None else {**words, "paid": charged}


# Of one mail's instants several are the same.
@lru_cache(maxsize=1024)
def _day(instant: datetime | None, zone: tzinfo) -> date | None:
    return None if instant is None else dates.local_day(instant, zone)


# So many days on which somebody joined, or used it last, a round may meet over and over.
@lru_cache(maxsize=2048)
def _why_in_words(
    rule: str,
    found: tuple[date | None, ...],
    today: date,
    price: tuple[int | None, str | None, str | None],
    service: str,
    zone: tzinfo,
    voice: wording.Voice,
) -> dict[str, str | None]:
    """The same for all who joined, used it and gave a sign of life on the same days, and pay the same."""
    joined, used, sign = found
    months, paid = 0, None
    if sign is not None:
        months = max(0, dates.months_between(wording.day_of(sign, zone), today))
        paid = wording.paid_since(*price, sign, today, zone)
    return {
        "why": wording.decision_sentence_to_member(
            rule,
            service=service,
            joined_at=joined,
            last_used_at=used,
            sign_of_life_at=sign,
            months=months,
            zone=zone,
        ),
        "since": None if sign is None else wording.short_date(sign, zone),
        "paid": None if paid is None else wording.about(paid),
    }


def _end(settings: Settings, facts: Facts, zone: tzinfo, now: datetime) -> dict[str, Any]:
    """The day the membership ends or ended, until when it can be used, until when everything is saved."""
    ends_at = facts.lapsed_at or facts.deadline_at
    if ends_at is None:
        return {
            "deadline": None, "lapsed": None, "lapsed_short": None, "access": None, "saved": None,
            "goes_back": None, "went_back": None,
        }  # fmt: skip
    gives_back = facts.lapsed_at is None and settings.gives_back(facts.price_minor, facts.subscription_status)
    access_ends_at = facts.access_ends_at or dates.access_ends(ends_at, facts.paid_through, refunded=gives_back)
    goes_back = facts.rest or (gives_back and facts.paid_through is not None and facts.paid_through > ends_at)
    went_back = None if facts.refunded is None else wording.money(facts.refunded.minor, facts.refunded.currency)
    keep_until = facts.keep_until or _keep_until(access_ends_at, settings.keep_months, zone)
    if facts.lapsed_at is not None and facts.deadline_at is not None:
        # A last chance that goes out late names the day before which the purge does not happen: see dispatch.claim.
        keep_until = max(keep_until, facts.deadline_at)
    return {
        **_deadline(ends_at, zone, wording.voice()),
        "deadline_passed": ends_at <= now,
        "access": wording.last_day(access_ends_at, zone) if access_ends_at > max(ends_at, now) else None,
        **_saved(keep_until, zone, wording.voice()),
        "goes_back": wording.last_day_short(ends_at, zone) if goes_back else None,
        "went_back": went_back,
    }


@lru_cache(maxsize=64)
def _deadline(ends_at: datetime, zone: tzinfo, voice: wording.Voice) -> dict[str, str]:
    """The same for a whole round."""
    return {
        "deadline": wording.end_of_day(ends_at, zone),
        "deadline_day": wording.last_day(ends_at, zone),
        "deadline_short": wording.last_day_short(ends_at, zone),
        "up_to": wording.up_to_and_including(ends_at, zone),
        "lapsed": wording.last_day(ends_at, zone),
        "lapsed_short": wording.last_day_short(ends_at, zone),
    }


_keep_until = lru_cache(maxsize=1024)(dates.keep_until)


@lru_cache(maxsize=1024)
def _saved(keep_until: datetime, zone: tzinfo, voice: wording.Voice) -> dict[str, str]:
    return {"saved": wording.last_day(keep_until, zone), "saved_short": wording.last_day_short(keep_until, zone)}


def _membership(facts: Facts, zone: tzinfo) -> dict[str, str | None]:
    """Which membership it is, each fact by itself and all in one line."""
    since = _day(facts.joined_at, zone)
    plan, number = one_line(facts.plan), one_line(facts.customer_number)
    day = None if since is None else wording.short_date(since, zone)
    labels = zip(_labels(wording.voice()), (plan, number, day), strict=True)
    line = " · ".join([f"{label}: {value}" for label, value in labels if value])
    return {"plan": plan, "customer_number": number, "member_since": day, "membership_line": line or None}


@lru_cache(maxsize=8)
def _labels(voice: wording.Voice) -> tuple[str, str, str]:
    return gettext("Plan"), gettext("Customer number"), gettext("Member since")


def _for_operators(settings: Settings, kind: Kind, facts: Facts, now: datetime) -> dict[str, Any]:
    zone = settings.zone
    words: dict[str, Any] = {
        "customer_number": one_line(facts.customer_number),
        "not_mine": facts.not_mine,
        "held": wording.hold_sentence(facts.hold_reason, facts.hold_facts or {}),
        "month": facts.month,
        "month_name": None,
        "count": facts.dormant_count,
        "unreachable": facts.case_state == CaseState.UNREACHABLE,
    }
    if facts.month is not None:
        year, month = (int(part) for part in facts.month.split("-"))
        first = datetime(year, month, 1, tzinfo=zone)
        words["month_name"] = format_date(first, "LLLL y", locale=wording.language())
    if kind in (Kind.CAMPAIGN_READY, Kind.APPROVE_BY):
        deadline = dates.month_end_with_notice(now, settings.min_notice_days, zone)
        approve_by = dates.last_day_to_open(now, settings.min_notice_days, zone)
        too_late = dates.start_of_day(approve_by + timedelta(days=1), zone)
        later = dates.month_end_with_notice(too_late, settings.min_notice_days, zone)
        opens_at = (facts.drafted_at or now) + timedelta(days=VETO_DAYS)
        words |= {
            "deadline": wording.last_day(deadline, zone),
            "approve_by": wording.long_date(approve_by, zone),
            "approve_by_short": wording.short_date(approve_by, zone),
            "later": wording.last_day(later, zone),
            "opens": wording.long_date(opens_at, zone) if settings.campaign_approval == "veto" else None,
            "ends_by_silence": settings.on_silence == "lapse",
        }
    return words


def greeting_name(name: str | None) -> str | None:
    """The name to greet somebody by; none for what a mail program would turn into a link of somebody else's choice."""
    if name is None or (("." in name or "@" in name or "://" in name) and _LOOKS_LIKE_A_LINK.search(name)):
        return None
    line = one_line(name)
    return line if line is None or len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1].rstrip() + "…"


def one_line(value: str | None) -> str | None:
    """A fact of the members' file as one line of printed characters."""
    if value and value.isprintable() and "  " not in value and value[0] != " " != value[-1]:
        return value
    return None if value is None else " ".join(_NOT_PRINTED.sub(" ", value).split()) or None
