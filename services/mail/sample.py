"""A mail of each kind about somebody made up, as it would go out now: to look at, and to try the way out with."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from domain import dates
from domain.lifecycle import HoldReason, Rule
from domain.notices import TO_OPERATORS, Kind
from domain.ports import Mail
from models import Case
from services import links
from services.mail import letters
from services.mail.dispatch import FOLLOW_A_WARNING, Claimed
from services.mail.words import Facts
from settings import Settings

NOBODY = "0" * 32
"""Stands where the id of a message or case would: reports about it find nothing."""


def sample(settings: Settings, kind: Kind, locale: str | None, to: str, now: datetime, **facts: Any) -> Mail:
    """Needs an application context. The link leads to a page that says it cannot be used.

    ``facts`` are those of ``words.Facts`` that are to be others than the usual ones.
    """
    domain = settings.mail_default_sender.rpartition("@")[2].rstrip(">")
    claimed = Claimed(
        id=0,
        public_id=NOBODY,
        kind=kind,
        locale=locale,
        to_address=to,
        attempts=1,
        lease_token="",
        message_id=f"<sample.{int(now.timestamp())}@{domain}>",
        deadline_at=None,
        created_at=now,
        case=None if kind in TO_OPERATORS else Case(public_id=NOBODY),
        link=_link(settings, kind),
        thread=f"<{NOBODY}@{domain}>" if kind in FOLLOW_A_WARNING else None,
    )
    return letters.compose(settings, claimed, replace(_facts(settings, kind, now), **facts), now)


def _link(settings: Settings, kind: Kind) -> str | None:
    if kind is Kind.END_UNCLEAR:
        return f"{settings.public_url}/end-membership"
    path = links.ON_REQUEST.get(kind)
    if kind in links.CHECK_IN:
        path = "check-in"
    elif kind in links.COME_BACK:
        path = "come-back"
    return None if path is None else f"{settings.public_url}/{path}/sample"


def _facts(settings: Settings, kind: Kind, now: datetime) -> Facts:
    """What a member of fifteen months, who has never used it, would be told at this point of the story."""
    today = dates.local_day(now, settings.zone)
    joined = dates.start_of_day(dates.add_months(today, -15), settings.zone) + timedelta(hours=9)
    return replace(
        Facts(
            name="Mia Beispiel",
            customer_number="C-10042",
            plan="Standard",
            price_minor=1299,
            currency="EUR",
            interval="month",
            joined_at=joined,
            rule=Rule.NEVER_USED,
            found_joined_at=joined,
            found_sign_of_life_at=joined,
            warned_at=None if kind is Kind.WARNING else now - timedelta(days=10),
            deadline_at=dates.month_end_with_notice(now, settings.min_notice_days, settings.zone),
            month=dates.month_of(now, settings.zone),
            dormant_count=38,
            drafted_at=now,
        ),
        **_more(settings, kind, now),
    )


def _more(settings: Settings, kind: Kind, now: datetime) -> dict[str, Any]:
    """What has happened since, where a kind of mail follows from something."""
    this_month = dates.first_of_month(dates.local_day(now, settings.zone))

    def month_end(months_ago: int) -> datetime:
        return dates.start_of_day(dates.add_months(this_month, -months_ago), settings.zone)

    match kind:
        case Kind.RECEIPT_KEEP | Kind.RECEIPT_LAPSE:
            return {"answered_at": now}
        case Kind.TOLD:
            return {"billed_by": next(iter(settings.where_to_end), "App Store")}
        case Kind.RETURNED:
            return {"last_used_at": now - timedelta(days=1)}
        case Kind.USED_AFTER_END:
            return {"last_used_at": now - timedelta(days=1), "answered_at": now - timedelta(days=3)}
        case Kind.WELCOME_BACK:
            return {"returned_at": now, "paid_through": now + timedelta(days=30)}
        case Kind.LAPSED:
            ended = month_end(0)
            return {"lapsed_at": ended, "deadline_at": None, "warned_at": ended - timedelta(days=20)}
        case Kind.LAST_CHANCE:
            return {"lapsed_at": month_end(settings.keep_months - 1), "deadline_at": None}
        case Kind.NEEDS_ATTENTION:
            facts = {"concerned": 38, "paying": 950, "percent": 4.0, "limit": settings.max_dormant_percent}
            return {"hold_reason": HoldReason.TOO_MANY, "hold_facts": facts}
        case _:
            return {}
