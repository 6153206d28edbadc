"""A mail of each kind about somebody made up, as it would go out now: to look at, and to try the way out with."""

from datetime import datetime, timedelta

from domain import dates
from domain.lifecycle import Rule
from domain.notices import TO_OPERATORS, Kind
from domain.ports import Mail
from models import Case
from services import links
from services.mail import letters
from services.mail.dispatch import Claimed
from services.mail.words import Facts
from settings import Settings

NOBODY = "0" * 32
"""Stands where the id of a message or case would: reports about it find nothing."""


def sample(settings: Settings, kind: Kind, locale: str | None, to: str, now: datetime) -> Mail:
    """Needs an application context. The link leads to a page that says it cannot be used."""
    claimed = Claimed(
        id=0,
        public_id=NOBODY,
        kind=kind,
        locale=locale,
        to_address=to,
        attempts=1,
        lease_token="",
        message_id=f"<sample.{int(now.timestamp())}@{settings.mail_default_sender.rpartition('@')[2].rstrip('>')}>",
        deadline_at=None,
        created_at=now,
        case=None if kind in TO_OPERATORS else Case(public_id=NOBODY),
        link=_link(settings, kind),
    )
    return letters.compose(settings, claimed, _facts(settings, now), now)


def _link(settings: Settings, kind: Kind) -> str | None:
    if kind is Kind.END_UNCLEAR:
        return f"{settings.public_url}/end-membership"
    path = links.ON_REQUEST.get(kind)
    if kind in links.CHECK_IN:
        path = "check-in"
    elif kind in links.COME_BACK:
        path = "come-back"
    return None if path is None else f"{settings.public_url}/{path}/sample"


def _facts(settings: Settings, now: datetime) -> Facts:
    today = dates.local_day(now, settings.zone)
    joined = dates.start_of_day(dates.add_months(today, -15), settings.zone) + timedelta(hours=9)
    return Facts(
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
        warned_at=now,
        answered_at=now,
        deadline_at=dates.month_end_with_notice(now, settings.min_notice_days, settings.zone),
        month=dates.month_of(now, settings.zone),
        dormant_count=38,
        drafted_at=now,
    )
