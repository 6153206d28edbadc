"""Facts into words, in the language of the present locale: a request's, or the one ``in_language`` sets.

Every page, banner and mail words dates, money and decisions here, so that they say the same. English and German; the
English text is the msgid. Days are named in the service's time zone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any, Literal

import flask_babel
from babel import Locale
from babel.dates import format_date, format_time, get_timezone_name
from babel.numbers import format_currency, format_decimal, get_currency_precision
from flask import current_app, has_app_context
from flask_babel import force_locale, get_locale

from domain.dates import local_day, months_between, named_day
from domain.lifecycle import HoldReason, Rule
from domain.money import Money, to_decimal
from domain.policy import Code
from services.installation import installed
from settings import Settings

Language = Literal["en", "de"]
LANGUAGES: tuple[Language, ...] = ("en", "de")
Voice = tuple[Language, tuple[str, ...]]
"""A language, and the catalogues that lie over its usual words: what a text is translated by."""

_inside: ContextVar[Voice | None] = ContextVar("dormouse_voice", default=None)
"""What ``speaking`` has set, so that one need not ask Flask-Babel each time."""

MANY = 20_000
"""So many days, amounts and sentences are kept as they were worded last: a round's mails name few of each."""

# Day before month in English too: members of one service read the same order in both languages.
_DAY = {"en": "d MMMM", "de": "d. MMMM"}
_SHORT = {"en": "d MMMM y", "de": "d. MMMM y"}
_LONG = {"en": "EEEE, d MMMM y", "de": "EEEE, d. MMMM y"}


def supported(locale: str | None) -> Language:
    """The language to write to somebody whose locale is this BCP 47 tag: theirs if there is one, else the service's."""
    return language_of(locale) or installed().settings.default_locale


def language_of(locale: str | None) -> Language | None:
    """The language of a BCP 47 tag, if it is one of ours."""
    primary = (locale or "").replace("_", "-").partition("-")[0].lower()
    return next((language for language in LANGUAGES if language == primary), None)


@contextmanager
def in_language(locale: str | None) -> Iterator[Language]:
    """Everything inside is worded in ``supported(locale)``; needs an application context, no request."""
    with speaking(supported(locale)) as language, force_locale(language):
        yield language


class speaking:
    """The same for what this module words, without Flask-Babel or a template: it costs next to nothing."""

    def __init__(self, language: Language) -> None:
        self._language = language

    def __enter__(self) -> Language:
        inside = _inside.get()
        self._before = _inside.set(
            inside if inside is not None and inside[0] == self._language else (self._language, _variants())
        )
        return self._language

    def __exit__(self, *exc: object) -> None:
        _inside.reset(self._before)


def gettext(text: str, **values: str) -> str:
    """Flask-Babel's, whose way to a translation is long: it is gone once for each text."""
    found = _translated(text, voice())
    return found % values if values else found


_ = gettext


@lru_cache(maxsize=2048)
def _translated(text: str, voice: Voice) -> str:
    with force_locale(voice[0]):
        return str(flask_babel.gettext(text))


def voice() -> Voice:
    """What the present texts are worded by: the key of whatever is kept of them."""
    return _inside.get() or (language(), _variants())


def _variants() -> tuple[str, ...]:
    installation = current_app.extensions.get("dormouse") if has_app_context() else None
    return () if installation is None else installation.settings.variants


def language() -> Language:
    """The language of the present locale."""
    inside = _inside.get()
    if inside is not None:
        return inside[0]
    found = get_locale()
    return "de" if found is not None and found.language == "de" else "en"


# Days


def long_date(day: date, zone: tzinfo) -> str:
    """ "Tuesday, 30 June 2026", of a day or of an instant."""
    return _formatted(day, zone, _LONG)


def short_date(day: date, zone: tzinfo) -> str:
    """ "30 June 2026", of a day or of an instant."""
    return _formatted(day, zone, _SHORT)


def last_day(bound: datetime, zone: tzinfo) -> str:
    """ "Tuesday, 30 June 2026", of an exclusive bound such as a deadline or a keep-until: the last day before it."""
    return _formatted(named_day(bound, zone), zone, _LONG)


def last_day_short(bound: datetime, zone: tzinfo) -> str:
    """ "30 June 2026", of an exclusive bound."""
    return _formatted(named_day(bound, zone), zone, _SHORT)


def up_to_and_including(bound: datetime, zone: tzinfo) -> str:
    """ "up to and including 30 June", of an exclusive bound."""
    return _("up to and including %(day)s", day=_formatted(named_day(bound, zone), zone, _DAY))


def date_and_time(instant: datetime, zone: tzinfo) -> str:
    """ "Wednesday, 3 June 2026, 12:00 (Central European Summer Time)"."""
    local = instant.astimezone(zone)
    return _(
        "%(day)s, %(time)s (%(zone)s)",
        day=_formatted(local.date(), zone, _LONG),
        time=format_time(local, "HH:mm", locale=language()),
        zone=zone_name(local, zone),
    )


def end_of_day(bound: datetime, zone: tzinfo) -> str:
    """ "Tuesday, 30 June 2026, 24:00 (Central European Summer Time)", of an exclusive bound."""
    return _(
        "%(day)s, %(time)s (%(zone)s)",
        day=last_day(bound, zone),
        time="24:00",
        zone=zone_name(bound - timedelta(microseconds=1), zone),
    )


def zone_name(instant: datetime, zone: tzinfo) -> str:
    """ "Central European Summer Time": what the service's zone is called at that instant."""
    return _zone_name(instant, zone, language())


@lru_cache(maxsize=MANY)
def _zone_name(instant: datetime, zone: tzinfo, language: Language) -> str:
    return get_timezone_name(instant.astimezone(zone), "long", locale=language)


def count_months(count: int) -> str:
    return _count_months(count, voice())


@lru_cache(maxsize=MANY)
def _count_months(count: int, voice: Voice) -> str:
    with force_locale(voice[0]):
        return str(flask_babel.ngettext("%(num)d month", "%(num)d months", count))


def day_of(day: date, zone: tzinfo) -> date:
    """The local day of an instant; a day is one already."""
    return local_day(day, zone) if isinstance(day, datetime) else day


def _formatted(day: date, zone: tzinfo, patterns: dict[str, str]) -> str:
    now = language()
    return _format_date(day_of(day, zone), patterns[now], now)


@lru_cache(maxsize=MANY)
def _format_date(day: date, pattern: str, language: Language) -> str:
    return format_date(day, pattern, locale=language)


# Money


def money(minor: int, currency: str) -> str:
    """ "€12.99", of minor units."""
    return _money(minor, currency, language())


@lru_cache(maxsize=MANY)
def _money(minor: int, currency: str, language: Language) -> str:
    amount = to_decimal(minor, get_currency_precision(currency))
    return format_currency(amount, currency, locale=language)


def price(minor: int | None, currency: str | None, interval: str | None) -> str:
    """ "€12.99 a month"; without a price "free of charge"."""
    return _price(minor, currency, interval, voice())


@lru_cache(maxsize=MANY)
def _price(minor: int | None, currency: str | None, interval: str | None, voice: Voice) -> str:
    if not minor or currency is None:
        return _("free of charge")
    amount = money(minor, currency)
    match interval:
        case "week":
            return _("%(amount)s a week", amount=amount)
        case "month":
            return _("%(amount)s a month", amount=amount)
        case "quarter":
            return _("%(amount)s a quarter", amount=amount)
        case "year":
            return _("%(amount)s a year", amount=amount)
    return _("%(amount)s for each billing period", amount=amount)


def paid_since(
    price_minor: int | None, currency: str | None, interval: str | None, since: date, now: date, zone: tzinfo
) -> Money | None:
    """About what was paid from a day to another, or between instants; None if that says nothing.

    That is the present price times the whole billing periods.
    An estimate from the present price (it may have changed meanwhile), so it is always called "about": ``about``.
    """
    if not price_minor or currency is None:
        return None
    first, today = day_of(since, zone), day_of(now, zone)
    months = months_between(first, today)
    periods = {"week": (today - first).days // 7, "month": months, "quarter": months // 3, "year": months // 12}
    count = periods.get(interval or "", 0)
    return Money(price_minor, currency).times(count) if count > 0 else None


def paid(known: Money | None, as_of: datetime | None, estimate: Money | None, zone: tzinfo) -> str | None:
    """ "€194.85 (as of 3 June 2026)" where it is known, else "about €195 (an estimate)"; None where nothing is."""
    if known is not None and as_of is not None:
        return _("%(amount)s (as of %(day)s)", amount=money(known.minor, known.currency), day=short_date(as_of, zone))
    return None if estimate is None else about(estimate)


def about(amount: Money) -> str:
    """ "about €195 (an estimate)": it has no cents."""
    return _about(amount, voice())


@lru_cache(maxsize=MANY)
def _about(amount: Money, voice: Voice) -> str:
    language, _variants = voice
    whole = to_decimal(amount.minor, get_currency_precision(amount.currency)).quantize(Decimal(1), ROUND_HALF_UP)
    pattern = Locale.parse(language).currency_formats["standard"].pattern.replace(".00", "")
    return _(
        "about %(amount)s (an estimate)",
        amount=format_currency(whole, amount.currency, pattern, locale=language, currency_digits=False)
        if whole
        else money(amount.minor, amount.currency),
    )


def spoken_address(email: str) -> str:
    """A masked address for the ear: screen readers make little of "m…@example.org"."""
    local, _at, host = email.rpartition("@")
    return _("an address at %(host)s that begins with %(letter)s", host=host, letter=local[:1])


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Who bills a membership by itself, why that means that it does not end here, and where it can be ended."""

    store: str
    sentence: str
    address: str | None
    """A page that says how; None where the settings name none."""


def where_to_end(store: str | None, settings: Settings) -> Elsewhere | None:
    """None of a membership that ends here."""
    if store is None:
        return None
    return Elsewhere(store, billed_elsewhere(store), settings.where_to_end.get(store))


def billed_elsewhere(store: str | None) -> str:
    """Why nothing ends here of what ``store``, an app store or a partner, bills by itself."""
    return _(
        "%(store)s bills your membership, so we cannot stop the charges: only you can end it, at %(store)s.",
        store=store or _("Somebody else"),
    )


# Decisions


def decision_sentence(
    code: Code | Rule | str,
    *,
    joined_at: datetime | None,
    last_used_at: datetime | None,
    sign_of_life_at: datetime | None,
    months: int,
    zone: tzinfo,
) -> str:
    """Why a member is in or out, for operators, in the third person.

    ``months`` are the whole months since the sign of life. Facts that a purge has erased are None.
    """
    words = _words(joined_at, last_used_at, sign_of_life_at, months, zone)
    match str(code):
        case "never_used" if words is None:
            return _("No use was on record; the dates have been erased.")
        case "stopped_using" if words is None:
            return _("There was no use for a long time; the dates have been erased.")
        case "never_used" if words and sign_of_life_at == joined_at:
            return _("Joined on %(joined)s and has not used it since: %(months)s.", **words)
        case "never_used" if words:
            return _(
                "Joined on %(joined)s and has never used it; last sign of life on %(sign)s: %(months)s ago.", **words
            )
        case "stopped_using" if words and sign_of_life_at == last_used_at:
            return _("Last used on %(used)s and not since: %(months)s.", **words)
        case "stopped_using" if words:
            return _("Last used on %(used)s; last sign of life on %(sign)s: %(months)s ago.", **words)
        case "own_wish":
            return _("Ended the membership without having been asked.")
        case "not_active":
            return _("The membership is not active.")
        case "exempt_by_operator":
            return _("Exempt: an operator decided so.")
        case "exempt_by_import":
            return _("Exempt: the member file says so.")
        case "exempt_plan":
            return _("Exempt: the programme leaves this plan alone.")
        case "free":
            return _("Pays nothing.")
        case "trial":
            return _("Is in a trial period and pays nothing yet.")
        case "paused":
            return _("The subscription is paused.")
        case "past_due":
            return _("A payment is overdue; the programme leaves that to the service.")
        case "subscription_ended":
            return _("The subscription has ended already.")
        case "use_unknown":
            return _("Use has not been recorded for long enough to tell.")
        case "recent" if words and months > 0:
            return _("Last sign of life on %(sign)s: %(months)s ago.", **words)
        case "recent" if words:
            return _("Last sign of life on %(sign)s: less than a month ago.", **words)
    raise ValueError(f"there are no words for {code!r}")


def decision_sentence_to_member(
    code: Code | Rule | str,
    *,
    service: str,
    joined_at: date | None,
    last_used_at: date | None,
    sign_of_life_at: date | None,
    months: int,
    zone: tzinfo,
) -> str:
    """The same for the member, in the second person and in members' words."""
    words = _words(joined_at, last_used_at, sign_of_life_at, months, zone)
    named = {**(words or {}), "service": service}
    match str(code):
        case "never_used" | "stopped_using" if words is None:
            return _("You had not used %(service)s for a long time.", service=service)
        case "never_used" if sign_of_life_at == joined_at:
            return _("You joined on %(joined)s and have not used %(service)s since: %(months)s.", **named)
        case "never_used":
            return _(
                "You joined on %(joined)s and have not used %(service)s. We last heard from you on %(sign)s,"
                " %(months)s ago.",
                **named,
            )
        case "stopped_using" if sign_of_life_at == last_used_at:
            return _("You last used %(service)s on %(used)s and not since: %(months)s.", **named)
        case "stopped_using":
            return _(
                "You last used %(service)s on %(used)s. We last heard from you on %(sign)s, %(months)s ago.", **named
            )
        case "own_wish":
            return _("You asked us to end your membership.")
        case "not_active":
            return _("Your membership is not active.")
        case "exempt_by_operator" | "exempt_by_import" | "exempt_plan":
            return _("Your membership is not part of this programme: it continues without being asked about.")
        case "free":
            return _("You pay nothing for your membership, so there is nothing to ask.")
        case "trial":
            return _("You are in a trial period and pay nothing yet, so there is nothing to ask.")
        case "paused":
            return _("Your membership is paused, so there is nothing to ask.")
        case "past_due":
            return _("A payment is overdue; until that is settled we do not ask about your membership.")
        case "subscription_ended":
            return _("Your subscription has ended already.")
        case "use_unknown":
            return _("We have not recorded use for long enough to tell whether you use %(service)s.", **named)
        case "recent" if words and months > 0:
            return _("We last heard from you on %(sign)s, %(months)s ago, so there is nothing to ask.", **named)
        case "recent" if words:
            return _("We last heard from you on %(sign)s, less than a month ago, so there is nothing to ask.", **named)
    raise ValueError(f"there are no words for {code!r}")


def _words(
    joined_at: date | None,
    last_used_at: date | None,
    sign_of_life_at: date | None,
    months: int,
    zone: tzinfo,
) -> dict[str, str] | None:
    if joined_at is None or sign_of_life_at is None:
        return None
    return {
        "joined": short_date(joined_at, zone),
        "used": short_date(last_used_at or joined_at, zone),
        "sign": short_date(sign_of_life_at, zone),
        "months": count_months(months),
    }


def hold_sentence(reason: str | None, facts: dict[str, Any]) -> str | None:
    """Why a campaign is held, in one sentence for operators; the facts are those of services/breaker.py."""
    values = {name: _figure(value) for name, value in facts.items()}
    zone = installed().settings.zone
    match reason:
        case None:
            return None
        case HoldReason.TOO_MANY:
            return _(
                "%(concerned)s of %(paying)s paying members (%(percent)s %%) are dormant, more than the %(limit)s %% of"
                " MAX_DORMANT_PERCENT: is the use of all members really being recorded?",
                **values,
            )
        case HoldReason.SHARE_JUMPED:
            return _(
                "%(percent)s %% of the paying members are dormant, more than three times the %(last_percent)s %% of"
                " %(last_month)s: part of the recorded use may be missing.",
                **values,
            )
        case HoldReason.FEED_SILENT if facts.get("last_event_at") is None:
            return _("No use of any member has ever been recorded: import the activity first.")
        case HoldReason.FEED_SILENT:
            return _(
                "No use has been recorded since %(day)s (%(days)s days): the use feed may have died.",
                day=str(local_day(datetime.fromisoformat(facts["last_event_at"]), zone)),
                days=values["days"],
            )
        case HoldReason.FEED_INCOMPLETE:
            return _(
                "The use feed %(source)s is complete only through %(complete_through)s, not to the deadline, and has"
                " been waited for long enough.",
                source=values["source"],
                complete_through=date_and_time(datetime.fromisoformat(facts["complete_through"]), zone),
            )
        case HoldReason.RESTORED:
            return _("The database was restored from a backup: what happened since is not known here.")
        case HoldReason.BOUNCES:
            return _(
                "%(refused)s of %(tried)s notices were refused or came back (%(percent)s %%), more than the"
                " %(limit)s %% of MAX_BOUNCE_PERCENT: are the addresses right, and does the mail server accept the"
                " sender?",
                **values,
            )
        case HoldReason.OPERATOR:
            return _("An operator has held it.")
    raise ValueError(f"there are no words for {reason!r}")


def _figure(value: object) -> str:
    return format_decimal(value, locale=language()) if isinstance(value, int | float) else str(value)
