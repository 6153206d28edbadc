"""A claimed message as the mail that goes out: what it says, and the headers that say what it is to machines."""

from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache

from domain import return_path
from domain.notices import NOTICES, Kind
from domain.ports import Mail
from services import wording
from services.mail import calendar
from services.mail.dispatch import Claimed
from services.mail.rendering import render
from services.mail.words import Facts
from settings import Settings

WITH_CALENDAR = (Kind.WARNING, Kind.DEADLINE_MOVED)
SENDER_ID = "dormouse"
"""The last field of Feedback-ID, by which a mailbox provider's figures add up all that this programme sends."""


def compose(settings: Settings, claimed: Claimed, facts: Facts, now: datetime) -> Mail:
    """The mail of a claimed message. Needs an application context; raises what ``rendering.render`` raises."""
    attached = None
    with wording.speaking(wording.supported(claimed.locale)):
        rendered = render(settings, claimed.kind, claimed.locale, facts, claimed.link, now)
        if claimed.kind in WITH_CALENDAR and claimed.case is not None and facts.deadline_at is not None:
            uid = f"{claimed.case.public_id}@{claimed.message_id.rpartition('@')[2].rstrip('>')}"
            attached = calendar.deadline(settings, claimed.locale, uid, facts.deadline_at, now, facts.billed_by)
    return Mail(
        to=claimed.to_address or "",
        subject=rendered.subject,
        text=rendered.text,
        html=rendered.html,
        message_id=claimed.message_id,
        headers=headers(claimed, facts, now),
        return_path=None
        if settings.bounce_address is None
        else return_path.of_message(settings.bounce_address, claimed.public_id),
        calendar=attached,
    )


def headers(claimed: Claimed, facts: Facts, now: datetime) -> dict[str, str]:
    """No List-Unsubscribe: these are notices about an account, and mail firewalls press such buttons."""
    stream = "notice" if claimed.kind in NOTICES else "service"
    found = {
        "Date": _date(now.replace(microsecond=0)),
        "Feedback-ID": f"{facts.month or 'none'}:{claimed.kind}:{stream}:{SENDER_ID}",
    }
    if claimed.thread is not None:
        found |= {"In-Reply-To": claimed.thread, "References": claimed.thread}
    return found


@lru_cache(maxsize=16)
def _date(second: datetime) -> str:
    return format_datetime(second)
