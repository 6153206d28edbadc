"""`flask jobs`: where the scheduled work stands, and running one job by hand."""

from typing import Any

import click
from flask import current_app

from commands.output import echo_json, echo_table, instant
from models import db, for_writing
from services import timekeeping
from services.installation import installed


@click.group("jobs")
def group() -> None:
    """The scheduled work: when each job last ran, and running one now."""


@group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """Each job, when it last ran with what result, and when it is next due."""
    now, zone = installed().clock.now(), installed().settings.zone
    states = _jobs().overview(now)
    if as_json:
        echo_json(states)
        return
    rows = [
        (
            one.job,
            instant(one.started_at, zone),
            one.state,
            one.error or one.result,
            "at any time"
            if one.next_due_at is None
            else "now"
            if one.next_due_at <= now
            else instant(one.next_due_at, zone),
        )
        for one in states
    ]
    echo_table(("JOB", "LAST RUN", "STATE", "RESULT", "NEXT DUE"), rows)
    click.echo(f"Times are in {installed().settings.service_timezone}.")


@group.command("run")
@click.argument("name")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="For deliver: so many processes.",
)
def run(name: str, workers: int) -> None:
    """Run the job NAME now, whether it is due or not, and print the result. SIGTERM ends a delivery in good order."""
    if workers > 1 and name != "deliver":
        raise click.UsageError("--workers is for deliver: of the other jobs one process does all")
    jobs, now = _jobs(), installed().clock.now()
    if workers == 1:
        click.echo(f"{name}: {jobs.run(name, now)}")
    elif jobs.run_in_processes(name, workers, lambda line: click.echo(f"{name}: {line}")):
        raise click.ClickException("not every process came to its end")


@group.command("confirm-time")
def confirm_time() -> None:
    """Say that the system clock is right: what waits since it jumped goes on."""
    now, zone = installed().clock.now(), installed().settings.zone
    session = db.session()
    for_writing(session)
    confirmed = timekeeping.confirm(session, now)
    session.commit()
    if confirmed:
        click.echo(f"It is {now.astimezone(zone):%Y-%m-%d %H:%M} in {zone.key}: draft-campaign, close and purge go on.")
    else:
        click.echo("The clock was not in doubt; nothing has changed.")


def _jobs() -> Any:
    # Commands and jobs know nothing of each other; app.py has put them into the same application.
    return current_app.extensions["dormouse_jobs"]
