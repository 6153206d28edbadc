"""The day of a notice for the member's own calendar (RFC 5545): an event of one whole day, without any link's token.

The same case has the same event in every mail, and a later day a higher SEQUENCE, so a calendar moves what it has.
"""

from datetime import datetime, timedelta

from flask_babel import gettext

from domain import dates
from services import wording
from settings import Settings

LONGEST_LINE = 75
"""In octets, without the line break."""

_TEXT = str.maketrans({"\\": "\\\\", ";": "\\;", ",": "\\,", "\n": "\\n", "\r": None})


def deadline(settings: Settings, locale: str | None, uid: str, deadline_at: datetime, now: datetime) -> str:
    """An iCalendar of the last day before ``deadline_at``, worded in the reader's language."""
    day = dates.named_day(deadline_at, settings.zone)
    with wording.in_language(locale):
        service, named = settings.service_name, wording.end_of_day(deadline_at, settings.zone)
        if settings.on_silence == "lapse":
            first = gettext(
                "If we hear nothing from you, your membership ends on %(deadline)s. After that you pay nothing more.",
                deadline=named,
            )
        else:
            first = gettext(
                "If we hear nothing from you, your membership continues as before. If you want it to end on"
                " %(deadline)s, please tell us.",
                deadline=named,
            )
        summary = gettext("Last day to answer about your %(service)s membership", service=service)
        how = gettext("You need no link for this: you can sign in at %(service)s as usual instead.", service=service)
    lines = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//Dormouse//Membership//EN",
        "METHOD:PUBLISH",
        "BEGIN:VEVENT",
        f"UID:{uid}",
        f"SEQUENCE:{day.year * 12 + day.month}",
        f"DTSTAMP:{now:%Y%m%dT%H%M%SZ}",
        f"DTSTART;VALUE=DATE:{day:%Y%m%d}",
        f"DTEND;VALUE=DATE:{day + timedelta(days=1):%Y%m%d}",
        f"SUMMARY:{_text(summary)}",
        f"DESCRIPTION:{_text(f'{first} {how}')}",
        f"URL:{settings.public_url}/sign-in",
        # The day is no reason to be shown as busy.
        "TRANSP:TRANSPARENT",
        "END:VEVENT",
        "END:VCALENDAR",
    ]
    return "".join(f"{_folded(line)}\r\n" for line in lines)


def _text(value: str) -> str:
    return value.translate(_TEXT)


def _folded(line: str) -> str:
    """A line cut, between characters, into lines of 75 octets; each further one begins with a space."""
    parts, part, size = [], "", 0
    for character in line:
        octets = len(character.encode())
        if size + octets > LONGEST_LINE:
            parts.append(part)
            part, size = " ", 1
        part += character
        size += octets
    return "\r\n".join([*parts, part])
