"""What each job does: a call of the use case, and one line that says what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from domain.dates import month_of
from jobs import timetable
from models import for_writing
from services import billing_provider, books, campaigns, closing, paid, provider_news, purging, timekeeping, warning
from services.installation import Installation
from services.mail import collecting, delivery, unreachable
from services.outgoing import desk, sending
from services.settling import Pace, settle


@dataclass(frozen=True, slots=True)
class Context:
    """What a body works with. ``commit`` ends a step for good; ``enough`` says when a queue job has to stop."""

    session: Session
    installation: Installation
    now: datetime
    commit: Callable[[], None]
    enough: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run. Not ``finished``: what it waits for has not come, so its period is tried again."""

    text: str
    finished: bool = True


def draft_campaign(context: Context) -> Result:
    settings = context.installation.settings
    for_writing(context.session)
    month = month_of(context.now, settings.zone)
    campaign = campaigns.draft(context.session, settings, month, context.now)
    return Result(f"{month}: {campaign.state}, {campaign.dormant_count} dormant")


def remind(context: Context) -> Result:
    """The daily look at open rounds: what needs no approval opens, changed addresses are heard of, notices are due."""
    settings = context.installation.settings
    for_writing(context.session)
    campaigns.open_what_is_due(context.session, settings, context.now)
    changed = warning.address_changed(context.session, settings, context.now)
    queued = warning.remind(context.session, settings, context.now)
    unreachable.tell_operators(context.session, settings, context.now)
    return Result(f"{queued} notices queued, {changed} changed addresses")


def close(context: Context) -> Result:
    """The month end; and after it, so that nobody is charged whom it ends, what falls due in our own books."""
    settings = context.installation.settings
    closed = closing.close(context.session, settings, context.now, context.commit)
    text = f"{closed.lapsed} lapsed, {closed.otherwise} closed otherwise, {closed.rolled} rolled on"
    if settings.billing == "local":
        charged = books.charge_due(context.session, settings, context.now, context.commit)
        text += f", {charged.charges} charged" if charged.charges else ""
    return Result(f"{text}; waiting for the use feed", finished=False) if closed.waiting_for_feed else Result(text)


def warn_purge(context: Context) -> Result:
    for_writing(context.session)
    queued = purging.warn_purge(context.session, context.installation.settings, context.now)
    return Result(f"{queued} last chances queued")


def purge(context: Context) -> Result:
    purged = purging.purge(context.session, context.installation.settings, context.now, context.commit)
    for_writing(context.session)
    desk.forget(context.session, context.now)
    return Result(f"{purged} purged")


def deliver(context: Context) -> Result:
    outside = context.installation
    done = delivery.deliver(
        context.session, outside.settings, outside.mailer, outside.clock, context.commit, context.enough
    )
    text = f"{done.sent} sent, {done.again} to try again, {done.failed} failed"
    if done.notices_wait:
        text += "; no notice may go out now (MAIL_WINDOW, MAIL_DAILY)"
    return Result(text if done.server_down is None else f"{text}; the mail server is away: {done.server_down}")


def collect_bounces(context: Context) -> Result:
    outside = context.installation
    if outside.mailbox is None:
        return Result("there is no mailbox to look into: BOUNCE_IMAP_SERVER is not set")
    done = collecting.collect(
        context.session, outside.settings, outside.mailbox, outside.clock, context.commit, context.enough
    )
    later = f", {done.later} to take later" if done.later else ""
    return Result(f"{done.taken} taken, {done.aside} put aside{later}")


def settle_billing(context: Context) -> Result:
    outside = context.installation
    settings = outside.settings
    session, now = context.session, outside.clock.now()
    for_writing(session)
    billing_provider.hold_to_mode(session, settings, now)
    closed = billing_provider.closed_since(session, settings)
    context.commit()
    if closed is not None:
        return Result("BILLING_URL takes no more orders (410): see `flask doctor`")
    # Our own books need no pace, and on SQLite there is one writer anyway.
    pace = Pace() if settings.billing == "local" else Pace(settings.billing_connections, settings.billing_rate)
    done = settle(context.session, outside.billing, outside.clock, context.commit, context.enough, pace)
    if done.closed:
        for_writing(session)
        billing_provider.close(session, settings, outside.clock.now())
        context.commit()
        return Result(f"{done.done} done; BILLING_URL takes no more orders (410): see `flask doctor`")
    looked = provider_news.look(
        context.session, outside.settings, outside.billing, outside.clock, context.commit, context.enough
    )
    paid.look(context.session, settings, outside.billing, outside.clock, context.commit, context.enough)
    text = f"{done.done} done, {done.again} to try again, {done.failed} failed"
    return Result(f"{text}; looked at {looked} subscriptions" if looked else text)


def send_events(context: Context) -> Result:
    outside = context.installation
    done = sending.send(
        context.session, outside.settings, outside.webhooks, outside.clock, context.commit, context.enough
    )
    return Result(f"{done.delivered} delivered, {done.again} to try again, {done.failed} failed")


def perform(name: str, context: Context) -> Result:
    """Do one job; what cannot be taken back waits while nobody has confirmed a clock that was set."""
    if name in timetable.FINAL:
        jump = timekeeping.doubt(context.session)
        said = None if jump is None else timekeeping.sentence(jump, context.installation.settings.zone)
        # Looking has begun a transaction that only reads.
        context.session.rollback()
        if said is not None:
            return Result(f"waiting: {said}", finished=False)
    return BODIES[name](context)


BODIES: dict[str, Callable[[Context], Result]] = {
    timetable.DRAFT: draft_campaign,
    timetable.DELIVER: deliver,
    timetable.COLLECT: collect_bounces,
    timetable.REMIND: remind,
    timetable.CLOSE: close,
    timetable.SETTLE: settle_billing,
    timetable.SEND: send_events,
    timetable.WARN_PURGE: warn_purge,
    timetable.PURGE: purge,
}
