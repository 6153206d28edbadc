"""`flask campaign`: the forecast, a month's round, and where it stands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path

import click
from babel.numbers import get_currency_precision
from flask_babel import force_locale

from commands.advice import use_known_since
from commands.files import written_or_shown
from commands.output import echo_json, echo_pairs, echo_table, instant, write_csv
from domain.dates import month_of, named_day, start_of_day
from domain.errors import BadValue
from domain.lifecycle import CampaignState
from domain.money import to_decimal
from models import Campaign, db, for_writing
from services import campaigns, reports
from services.installation import installed, wake
from services.wording import money

FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
UNREACHABLE = ("external_id", "name", "email", "locale", "plan", "why", "since")
COLUMNS = ("external_id", "rule", "joined_at", "last_used_at", "last_sign_of_life_at", "price", "currency")

REASONS = {
    "not_active": "membership not active",
    "exempt_by_operator": "exempt by an operator",
    "exempt_by_import": "exempt by import",
    "exempt_plan": "exempt plan",
    "free": "free",
    "trial": "trial",
    "paused": "paused",
    "past_due": "past due",
    "subscription_ended": "subscription ended",
    "use_unknown": "use not recorded for long enough",
    "recent": "used or joined lately enough",
    "unreachable": "mail address dead",
    "live_case": "asked already",
    "told": "told lately where only they can end it",
}


@click.group("campaign")
def group() -> None:
    """The month's round: who would be asked, approving it, and where it stands."""


@group.command("preview")
@click.option("--at", metavar="ISO", help="The day or instant to forecast for; the default is now.")
@click.option("--csv", "csv_file", type=FILE, help="Write the dormant members.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def preview(at: str | None, csv_file: Path | None, as_json: bool) -> None:
    """Who would be asked, why the others would not, and the money. Changes nothing."""
    settings = installed().settings
    now = installed().clock.now() if at is None else _instant(at)
    forecast = reports.preview(db.session(), settings, now)
    if csv_file is not None:
        with written_or_shown(csv_file) as stream:
            write_csv(stream, COLUMNS, _csv_rows(now))
    if as_json:
        echo_json(forecast)
    else:
        _print_preview(forecast)


@group.command("status")
@click.argument("month")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(month: str, as_json: bool) -> None:
    """Where the campaign of MONTH (YYYY-MM) stands, and what to do."""
    settings = installed().settings
    found = reports.status(db.session(), settings, _month(month), installed().clock.now())
    if as_json:
        echo_json(found)
        return
    echo_pairs(
        {
            "Campaign": found.month,
            "State": found.state,
            "Cancelled": None if found.cancelled_at is None else _cancelled(found.cancelled_at, found.cancel_reason),
            "Held because": found.hold_sentence,
            "Approve by": None if found.approve_by is None else f"{found.approve_by:%-d %B %Y}",
            "Ends on": None if found.deadline_at is None else _day(found.deadline_at),
            "Notices": _notices(found),
            "Next step": found.next_step,
        }
    )
    for title, counts in found.totals.items():
        click.echo()
        echo_table((title.upper(), "COUNT"), [*counts.items(), ("all", sum(counts.values()))], right=[1])


def _cancelled(at: datetime, reason: str | None) -> str:
    return " · ".join(filter(None, (instant(at, installed().settings.zone), reason)))


@group.command("draft")
@click.argument("month")
def draft(month: str) -> None:
    """Select the dormant members of MONTH, which must be the current one. Nothing is sent yet."""
    _change(month, lambda m, now: campaigns.draft(db.session(), installed().settings, m, now))


@group.command("approve")
@click.argument("month")
def approve(month: str) -> None:
    """Open the draft of MONTH: its warnings go out."""
    _change(month, lambda m, now: campaigns.approve(db.session(), installed().settings, m, now))


@group.command("hold")
@click.argument("month")
def hold(month: str) -> None:
    """Stop the campaign of MONTH: nothing is sent, and nobody who is silent lapses, until it is released."""
    _change(month, lambda m, now: campaigns.hold(db.session(), installed().settings, m, now))


@group.command("release")
@click.argument("month")
def release(month: str) -> None:
    """Let the held campaign of MONTH go on."""
    _change(month, lambda m, now: campaigns.release(db.session(), installed().settings, m, now))


@group.command("cancel")
@click.argument("month")
def cancel(month: str) -> None:
    """End the campaign of MONTH: silent cases are withdrawn, and whoever was warned is told that nothing ends."""
    _change(month, lambda m, now: campaigns.cancel(db.session(), installed().settings, m, now))


@group.command("unreachable")
@click.argument("month")
@click.option("--csv", "csv_file", type=FILE, help="Write them, for letters.")
def unreachable(month: str, csv_file: Path | None) -> None:
    """Whom no mail of the campaign of MONTH reaches: nothing ends for them. Write to them on paper, if at all."""
    zone = installed().settings.zone
    rows = reports.unreachable(db.session(), _month(month))
    if csv_file is not None:
        with written_or_shown(csv_file) as stream:
            write_csv(stream, UNREACHABLE, ([row[name] for name in UNREACHABLE] for row in rows))
    elif rows:
        shown = ([*(row[name] for name in UNREACHABLE[:-1]), instant(row["since"], zone)] for row in rows)
        echo_table([name.replace("_", " ").upper() for name in UNREACHABLE], shown)
        click.echo()
    click.echo(f"{len(rows)} unreachable")


def _change(month: str, step: Callable[[str, datetime], Campaign]) -> None:
    now = installed().clock.now()
    named = _month(month)
    for_writing(db.session())
    step(named, now)
    db.session.commit()
    wake()
    found = reports.status(db.session(), installed().settings, named, now)
    cases = sum(found.totals["cases"].values())
    click.echo(f"The campaign of {named} is {found.state}: {cases} {'case' if cases == 1 else 'cases'}.")
    for line in (found.hold_sentence, found.next_step):
        if line is not None:
            click.echo(line)


def _notices(found: reports.Status) -> str | None:
    """How far the notices are and when the last will be out; None where there are none."""
    went, zone = found.delivery, installed().settings.zone
    if not went.sent + went.queued + went.failed:
        return None
    words = f"{went.sent} sent, {went.queued} {'to send' if found.approve_by else 'queued'}, {went.failed} failed"
    if went.failed and found.state == CampaignState.OPEN:
        words += " (silence ends nothing where the first notice failed)"
    if went.per_hour is not None:
        words += f"; {went.per_hour} an hour"
    if found.state == CampaignState.HELD and found.approve_by is None and went.queued:
        words += "; none of them goes out while it is held"
    if went.done_at is not None:
        words += f"; all will be out by {instant(went.done_at, zone)}"
    if went.in_time is False and found.deadline_at is not None:
        words += f", too late for some: their memberships end a month after {_day(found.deadline_at)} at the earliest"
    elif went.in_time:
        words += ", in time to leave the notice"
    elif went.queued and found.approve_by is not None:
        words += "; nothing has gone out yet to tell how long that takes: set MAIL_RATE to what your mail server allows"
    return words


def _print_preview(forecast: reports.Preview) -> None:
    settings = installed().settings
    click.echo(f"Forecast for {forecast.at.astimezone(settings.zone):%-d %B %Y %H:%M} ({settings.service_timezone})")
    click.echo()
    rows = [(rule, count) for rule, count in forecast.by_rule.items()]
    echo_table(("WOULD BE ASKED", "MEMBERS"), [*rows, ("dormant", forecast.dormant)], right=[1])
    click.echo(f"{forecast.percent_of_paying} % of {forecast.paying} paying members.")
    click.echo()
    out = [(REASONS.get(code, code), count) for code, count in forecast.out_by_reason.items()]
    echo_table(("WOULD NOT, BECAUSE", "MEMBERS"), [*out, ("all", sum(forecast.out_by_reason.values()))], right=[1])
    click.echo()
    with _english():
        stakes = [
            (money(row["amount_minor"], row["currency"]), f"every {row['interval'] or 'month'}", row["members"])
            for row in forecast.money
        ]
    if stakes:
        echo_table(("THEY PAY", "", "MEMBERS"), stakes, right=[0, 2])
        click.echo()
    click.echo(f"Approved at that time, it would end memberships on {_day(forecast.deadline_at)}.")
    if forecast.hold is not None:
        sentence = reports.hold_sentence(forecast.hold.reason, forecast.hold.facts)
        click.echo(f"It would be held: {sentence}")
    if forecast.members and not forecast.priced:
        click.echo(
            "No price is known, so nobody counts as paying and nobody would be asked: import the columns price and"
            " currency."
        )
    known_since = use_known_since(settings, forecast.at)
    if known_since is not None:
        click.echo(known_since)


def _csv_rows(now: datetime) -> Iterator[tuple[object, ...]]:
    for row in reports.dormant_rows(db.session(), installed().settings, now):
        price = to_decimal(row["price_minor"], get_currency_precision(row["currency"]))
        yield tuple(price if name == "price" else row[name] for name in COLUMNS)


def _instant(text: str) -> datetime:
    """An instant with its offset, or a day, which means its beginning in the service's time zone."""
    try:
        if len(text) == len("2026-06-30"):
            return start_of_day(date.fromisoformat(text), installed().settings.zone)
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise BadValue(f"--at {text!r} is no day or instant; write it like 2026-06-30 or 2026-06-30T12:00Z") from None
    if instant.tzinfo is None:
        raise BadValue(f"--at {text!r} has no offset; write it like 2026-06-30T12:00Z or 2026-06-30T14:00+02:00")
    return instant


def _month(text: str) -> str:
    try:
        if len(text) != len("2026-06"):
            raise ValueError
        return f"{date.fromisoformat(f'{text}-01'):%Y-%m}"
    except ValueError:
        current = month_of(installed().clock.now(), installed().settings.zone)
        raise BadValue(f"{text!r} is no month; write it like {current}") from None


def _day(bound: datetime) -> str:
    return f"{named_day(bound, installed().settings.zone):%-d %B %Y}"


@contextmanager
def _english() -> Iterator[None]:
    with force_locale("en"):
        yield
