"""The day of a notice for the member's own calendar (RFC 5545): an event of one whole day, without any link's token.

The same case has the same event in every mail, and a later day a higher SEQUENCE, so a calendar moves what it has.
"""

from datetime import datetime, timedelta, tzinfo
from functools import lru_cache

from domain import dates
from services import wording
from services.wording import gettext
from settings import Settings

LONGEST_LINE = 75
"""In octets, without the line break."""

_TEXT = str.maketrans({"\\": "\\\\", ";": "\\;", ",": "\\,", "\n": "\\n", "\r": None})


def deadline(
    settings: Settings,
    uid: str,
    deadline_at: datetime,
    now: datetime,
    store: str | None = None,
    *,
    ends_by_silence: bool,
) -> str:
    """An iCalendar of the last day before ``deadline_at``, in the present language.

    ``store`` bills the membership by itself, where somebody does: then nothing ends on that day.
    """
    before, between, after = _described(
        settings.service_name,
        ends_by_silence,
        settings.public_url,
        settings.zone,
        deadline_at,
        store,
        wording.voice(),
    )
    return f"{before}{_folded(f'UID:{uid}')}{between}{_stamp(now)}{after}"


_UID, _STAMP = "\x00UID", "\x00STAMP"


@lru_cache(maxsize=16)
def _stamp(now: datetime) -> str:
    return f"{now:%Y%m%dT%H%M%SZ}"


@lru_cache(maxsize=64)
def _described(
    service: str,
    ends_by_silence: bool,
    public_url: str,
    zone: tzinfo,
    deadline_at: datetime,
    store: str | None,
    voice: wording.Voice,
) -> tuple[str, str, str]:
    """What stands before the id of the event, between that and the instant of its making, and after both."""
    day, named = dates.named_day(deadline_at, zone), wording.end_of_day(deadline_at, zone)
    if store is not None:
        unless = gettext(
            "If you do nothing, it continues as before, and you go on paying. Please tell us by %(deadline)s what you"
            " decide.",
            deadline=named,
        )
        first = f"{wording.billed_elsewhere(store)} {unless}"
    elif ends_by_silence:
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
        _UID,
        f"SEQUENCE:{day.year * 12 + day.month}",
        f"DTSTAMP:{_STAMP}",
        f"DTSTART;VALUE=DATE:{day:%Y%m%d}",
        f"DTEND;VALUE=DATE:{day + timedelta(days=1):%Y%m%d}",
        f"SUMMARY:{_text(summary)}",
        f"DESCRIPTION:{_text(f'{first} {how}')}",
        f"URL:{public_url}/sign-in",
        # The day is no reason to be shown as busy.
        "TRANSP:TRANSPARENT",
        "END:VEVENT",
        "END:VCALENDAR",
    ]
    before, _, rest = "".join(f"{_folded(line)}\r\n" for line in lines).partition(_UID)
    between, _, after = rest.partition(_STAMP)
    return before, between, after


def _text(value: str) -> str:
    return value.translate(_TEXT)


def _folded(line: str) -> str:
    """A line cut, between characters, into lines of 75 octets; each further one begins with a space."""
    if line.isascii() and len(line) <= LONGEST_LINE:
        return line
    parts, part, size = [], "", 0
    for character in line:
        octets = len(character.encode())
        if size + octets > LONGEST_LINE:
            parts.append(part)
            part, size = " ", 1
        part += character
        size += octets
    return "\r\n".join([*parts, part])
