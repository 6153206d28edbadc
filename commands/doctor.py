"""`flask doctor`: is this installation in order? One line a check, and what to do where it is not."""

import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

import click
from flask import current_app
from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError

from commands import doctor_mail, schema
from commands.advice import use_known_since
from commands.failures import flat, of_database
from commands.output import instant
from domain.dates import local_day, month_of
from domain.errors import BillingError
from domain.lifecycle import CampaignState
from models import Campaign, UseFeed, db
from services import billing_desk, billing_provider, breaker, provider_news, reports, signing, timekeeping
from services.installation import Installation, installed
from services.outgoing import desk
from settings import Settings, SettingsError, load

THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
SHORTEST_KEY = 16


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    ok: bool
    text: str


@click.command("doctor")
def command() -> None:
    """Check this installation: one line each, and exit code 1 if anything is bad."""
    bad = False
    for finding in findings():
        click.echo(f"{'ok ' if finding.ok else 'BAD'}  {finding.name}: {finding.text}")
        bad = bad or not finding.ok
    if bad:
        click.get_current_context().exit(1)


def findings() -> Iterator[Finding]:
    """Every check, one after another; what cannot be looked at for want of another is left out."""
    installation: Installation | None = current_app.extensions.get("dormouse")
    try:
        settings = load() if installation is None else installation.settings
    except SettingsError as error:
        yield Finding("settings", False, str(error))
        return
    yield Finding("settings", True, "can be read")
    for check in (_secrets, _evidence, _instance, _public_url):
        yield from check(settings)
    if installation is None:
        return
    now = installation.clock.now()
    yield _time_zone(settings, now)
    for checked in doctor_mail.checks(settings, installation.dns, installation.mailbox, now):
        yield Finding(*checked)
    database = _database(db.engine)
    yield from database
    if not all(finding.ok for finding in database):
        return
    for look in (_clock, _use_feed, _known_since, _campaigns, _billing, _events, _jobs):
        yield from look(settings, now)


def _secrets(settings: Settings) -> Iterator[Finding]:
    kept = settings.instance_path / "secret_key"
    if kept.exists() and settings.secret_key == kept.read_text().strip():
        where = f"made at the first start and kept in {kept}"
    else:
        where = "set"
    long_enough = len(settings.secret_key) >= SHORTEST_KEY
    yield Finding(
        "secret key",
        long_enough,
        where if long_enough else f"SECRET_KEY is shorter than {SHORTEST_KEY} characters: links could be forged",
    )
    for path in (kept, settings.instance_path / "evidence_key", settings.instance_path / "dormouse.env"):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield Finding("secret key", False, f"others on this machine may read {path}: chmod 600 {path}")


def _evidence(settings: Settings) -> Iterator[Finding]:
    if settings.evidence_key:
        text = f"signs with the key {signing.keys(settings)[0].fingerprint}: publish that"
    else:
        text = "EVIDENCE_KEY is not set: records of how memberships ended are not signed, see docs/evidence.md"
    yield Finding("evidence", True, text)


def _instance(settings: Settings) -> Iterator[Finding]:
    try:
        with tempfile.TemporaryFile(dir=settings.instance_path):
            yield Finding("instance", True, f"{settings.instance_path} can be written")
    except OSError as error:
        yield Finding("instance", False, f"{settings.instance_path} cannot be written: {error.strerror}")


def _public_url(settings: Settings) -> Iterator[Finding]:
    url = urlsplit(settings.public_url)
    if url.scheme == "https":
        yield Finding("public URL", True, settings.public_url)
    elif url.hostname in THIS_MACHINE:
        yield Finding("public URL", True, f"{settings.public_url}: links work on this machine only, set PUBLIC_URL")
    else:
        yield Finding(
            "public URL", False, f"{settings.public_url} is not https: links in mails could be read on the way"
        )


def _time_zone(settings: Settings, now: datetime) -> Finding:
    here = now.astimezone(settings.zone)
    return Finding("time zone", True, f"{settings.service_timezone}, where it is {here:%Y-%m-%d %H:%M}")


def _database(engine: Engine) -> list[Finding]:
    try:
        found = schema.state(engine)
    except DBAPIError as error:
        return [Finding("database", False, of_database(error, engine) or flat(str(error.orig)))]
    return [
        Finding("database", True, f"{engine.url.render_as_string(hide_password=True)} can be reached"),
        Finding("schema", found is schema.State.CURRENT, schema.ADVICE[found]),
    ]


def _clock(settings: Settings, now: datetime) -> Iterator[Finding]:
    jump = timekeeping.doubt(db.session())
    if jump is not None:
        yield Finding("clock", False, timekeeping.sentence(jump, settings.zone))


def _use_feed(settings: Settings, now: datetime) -> Iterator[Finding]:
    session = db.session()
    # With nobody concerned, only a silent feed can be a reason to hold.
    silent = breaker.check(session, settings, Campaign(month=month_of(now, settings.zone), released={}), 0, now)
    if silent is not None:
        yield Finding("use feed", False, str(reports.hold_sentence(silent.reason, silent.facts)))
        return
    for feed in session.scalars(select(UseFeed).order_by(UseFeed.source)):
        through = f", complete through {instant(feed.complete_through, settings.zone)}" if feed.complete_through else ""
        yield Finding(
            "use feed", True, f"{feed.source}: last use {instant(feed.last_event_at, settings.zone)}{through}"
        )


def _known_since(settings: Settings, now: datetime) -> Iterator[Finding]:
    sentence = use_known_since(settings, now)
    if sentence is not None:
        yield Finding("use known since", True, sentence)


def _campaigns(settings: Settings, now: datetime) -> Iterator[Finding]:
    months = select(Campaign.month).where(Campaign.state.in_([CampaignState.DRAFT, CampaignState.HELD]))
    for month in db.session.scalars(months.order_by(Campaign.month)).all():
        status = reports.status(db.session(), settings, month, now)
        if status.hold_sentence is not None:
            yield Finding(f"campaign {month}", False, f"held: {status.hold_sentence} {status.next_step}")
            continue
        by = status.approve_by
        today = local_day(now, settings.zone)
        hint = "" if by is None or by < today else f" by {by:%-d %B %Y}"
        yield Finding(f"campaign {month}", True, f"waits for approval{hint}. {status.next_step}")


def _billing(settings: Settings, now: datetime) -> Iterator[Finding]:
    if settings.billing == "stripe":
        try:
            installed().billing.list(None, limit=1, now=now)
        except BillingError as error:
            yield Finding("billing", False, flat(str(error)))
        else:
            mode = "live: people are charged" if settings.stripe_live else "test mode: nobody is charged"
            yield Finding("billing", True, f"{settings.billing} answers ({mode})")
        try:
            billing_provider.look_at_mode(db.session(), settings)
        except BillingError as error:
            yield Finding("billing", False, flat(str(error)))
    closed = billing_provider.closed_since(db.session(), settings)
    if closed is not None:
        said = f"BILLING_URL answered 410 on {instant(closed, settings.zone)} and is sent no more orders"
        yield Finding("billing", False, f"{said}: give it another address, or `flask billing resume`")
    failed = len(billing_desk.failed_orders(db.session()))
    if failed:
        yield Finding("billing", False, f"{failed} orders were refused by the provider: see `flask billing list`")
    unread = len(provider_news.unread(db.session()))
    if unread:
        said = f"{unread} subscriptions of which the provider has sent word could not be read"
        yield Finding("billing", False, f"{said}: see `flask billing list`")


def _events(settings: Settings, now: datetime) -> Iterator[Finding]:
    found = desk.standing(db.session(), now)
    if found is None:
        return
    zone, see = settings.zone, "see `flask events list`"
    if found.refused_at is not None:
        said = f"the service answered 410 on {instant(found.refused_at, zone)} and is told nothing more"
        yield Finding("events", False, f"{said}: `flask events resume` when it wants them again")
    elif found.failing_since is not None:
        since = instant(found.failing_since, zone)
        why = found.said or "no answer"
        yield Finding("events", False, f"nothing gets through to EVENTS_URL since {since}: {why}; {found.waiting} wait")
    else:
        yield Finding("events", True, f"{found.waiting} events wait to be sent")
    if found.failed:
        yield Finding("events", False, f"{found.failed} were given up: {see}, then `flask events replay --failed`")
    if found.unacknowledged:
        yield Finding("events", False, f"{found.unacknowledged} were received and not acknowledged: {see}")


def _jobs(settings: Settings, now: datetime) -> Iterator[Finding]:
    states = current_app.extensions["dormouse_jobs"].overview(now)
    if all(one.state == "never" for one in states):
        yield Finding("jobs", True, "none has run yet: they start with the server, or with `flask scheduler`")
        return
    failed = [one for one in states if one.error is not None]
    late = [one.job for one in states if one.late and one.error is None]
    for one in failed:
        yield Finding("jobs", False, f"{one.job} failed at {instant(one.started_at, settings.zone)}: {one.error}")
    if late:
        yield Finding(
            "jobs", False, f"late: {', '.join(late)}: is a server with SCHEDULER=on or `flask scheduler` running?"
        )
    if not failed and not late:
        yield Finding("jobs", True, "none is late")
