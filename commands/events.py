"""`flask events`: what the service is told by webhook, what it has not acknowledged, and sending again."""

from datetime import datetime

import click

from commands.output import echo_json, echo_table, instant
from domain import webhooks
from domain.errors import BadValue, NotFound, Refused
from domain.outgoing import State, Type
from models import db, for_writing
from services.installation import installed, wake
from services.outgoing import desk, endpoint


@click.group("events")
def group() -> None:
    """What the service is told by webhook: what is open, and sending it again."""


@group.command("list")
@click.option("--all", "everything", is_flag=True, help="Also what has been delivered, for as long as it is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(everything: bool, as_json: bool) -> None:
    """Events that have not got through, were given up, or wait for an acknowledgement."""
    found = desk.listed(db.session(), list(State) if everything else desk.OPEN)
    if as_json:
        echo_json(found)
        return
    zone = installed().settings.zone
    rows = (
        (one.id, one.type, one.external_id or "–", instant(one.at, zone), _word(one), one.attempts, one.said)
        for one in found
    )
    if not found:
        click.echo("no event is open" if installed().settings.events_url else "EVENTS_URL is not set: nobody is told")
        return
    echo_table(("EVENT", "TYPE", "MEMBER", "HAPPENED", "STATE", "TRIES", "LAST ANSWER"), rows, right=[5])


@group.command("replay")
@click.argument("event", nargs=-1)
@click.option("--since", metavar="ISO", help="Everything that has happened since then.")
@click.option("--type", "kind", type=click.Choice([str(one) for one in Type]), help="Only events of this type.")
@click.option("--failed", is_flag=True, help="What was given up.")
@click.option("--unacknowledged", is_flag=True, help="What was received, and not acknowledged.")
def replay(event: tuple[str, ...], since: str | None, kind: str | None, failed: bool, unacknowledged: bool) -> None:
    """Send EVENTs again, with the same webhook-id; or those that the options name."""
    if not (event or since or failed or unacknowledged):
        raise BadValue("say which: name events, or --since, --failed or --unacknowledged")
    states = [state for state, wanted in ((State.FAILED, failed), (State.SENT, unacknowledged)) if wanted]
    for_writing(db.session())
    count = desk.replay(
        db.session(),
        installed().clock.now(),
        ids=event,
        since=_instant(since),
        kind=None if kind is None else Type(kind),
        states=states or (State.FAILED, State.SENT, State.DONE),
    )
    db.session.commit()
    wake()
    click.echo(f"{count} events queued; `flask jobs run send-events` sends them at once")


@group.command("acknowledge")
@click.argument("event")
def acknowledge(event: str) -> None:
    """Say for the service that its own copy has followed EVENT."""
    for_writing(db.session())
    known = desk.acknowledge(db.session(), event, installed().clock.now())
    db.session.commit()
    if not known:
        raise NotFound(f"there is no event {event} that wants an acknowledgement")
    click.echo(f"{event} is acknowledged")


@group.command("resume")
def resume() -> None:
    """Send again after the service has answered 410, or at once after nobody had answered."""
    for_writing(db.session())
    resumed = endpoint.resume(db.session())
    db.session.commit()
    wake()
    click.echo("events are sent again" if resumed else "nothing was in the way; nothing has changed")


@group.command("test")
def test() -> None:
    """Send one signed event of the type "test", about nobody, and say what is answered."""
    here = installed()
    if here.settings.events_url is None:
        raise Refused("EVENTS_URL is not set: nobody is told anything")
    now = here.clock.now()
    body = b'{"type":"test","timestamp":"%s","data":{}}' % now.isoformat().encode()
    headers = webhooks.signed(here.settings.events_secret, f"evt_test_{int(now.timestamp())}", body, now)
    reply = here.webhooks.post(here.settings.events_url, body, headers)
    if reply.outcome != "accepted":
        raise Refused(f"not accepted: {reply.text}")
    click.echo(f"accepted: {reply.text}")


def _word(one: desk.Listed) -> str:
    return "not acknowledged" if one.state == State.SENT else one.state


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadValue(f'"{text}" is no instant; write it like 2026-06-30T12:00:00+02:00') from None
    return found if found.tzinfo else found.replace(tzinfo=installed().settings.zone)
