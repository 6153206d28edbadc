"""A claimed message as the mail that goes out: what it says, and the headers that say what it is to machines."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache

from domain import return_path
from domain.notices import NOTICES, Kind
from domain.ports import Mail
from services import wording
from services.cases import ends_by_silence
from services.mail import calendar
from services.mail.dispatch import Claimed
from services.mail.forms import Rendered
from services.mail.rendering import render_all
from services.mail.words import Facts
from settings import Settings

WITH_CALENDAR = (Kind.WARNING, Kind.DEADLINE_MOVED)
SENDER_ID = "dormouse"
"""The last field of Feedback-ID, by which a mailbox provider's figures add up all that this programme sends."""


def compose(settings: Settings, claimed: Claimed, facts: Facts, now: datetime) -> Mail:
    """The mail of a claimed message. Needs an application context; raises what ``rendering.render`` raises."""
    mail = compose_all(settings, [(claimed, facts)], now)[0]
    return mail._replace(text=str(mail.text), html=str(mail.html))


def compose_all(settings: Settings, several: Sequence[tuple[Claimed, Facts]], now: datetime) -> list[Mail]:
    """The same of several, in their order. If one cannot be rendered, that is raised, and none is."""
    places: dict[wording.Language, list[int]] = defaultdict(list)
    for place, (claimed, _) in enumerate(several):
        places[wording.supported(claimed.locale)].append(place)
    mails: dict[int, Mail] = {}
    for language, of_language in places.items():
        with wording.speaking(language):
            mails |= zip(of_language, _worded(settings, [several[place] for place in of_language], now), strict=True)
    return [mails[place] for place in range(len(several))]


def _worded(settings: Settings, several: Sequence[tuple[Claimed, Facts]], now: datetime) -> list[Mail]:
    """In the present language."""
    rendered = render_all(settings, [(claimed.kind, facts, claimed.link) for claimed, facts in several], now)
    attached = [_calendar(settings, claimed, facts, now) for claimed, facts in several]
    return [
        _mail(settings, claimed, facts, one, ics, now)
        for (claimed, facts), one, ics in zip(several, rendered, attached, strict=True)
    ]


def _calendar(settings: Settings, claimed: Claimed, facts: Facts, now: datetime) -> str | None:
    if claimed.kind not in WITH_CALENDAR or claimed.case is None or facts.deadline_at is None:
        return None
    uid = f"{claimed.case.public_id}@{claimed.message_id.rpartition('@')[2].rstrip('>')}"
    ends = ends_by_silence(settings, facts.billed_by, facts.told_it_continues)
    return calendar.deadline(settings, uid, facts.deadline_at, now, facts.billed_by, ends_by_silence=ends)


def _mail(
    settings: Settings, claimed: Claimed, facts: Facts, rendered: Rendered, attached: str | None, now: datetime
) -> Mail:
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
        "Date": _date(now),
        "Feedback-ID": f"{facts.month or 'none'}:{claimed.kind}:{stream}:{SENDER_ID}",
    }
    if claimed.thread is not None:
        found |= {"In-Reply-To": claimed.thread, "References": claimed.thread}
    return found


@lru_cache(maxsize=16)
def _date(now: datetime) -> str:
    return format_datetime(now.replace(microsecond=0))
