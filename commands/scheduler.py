"""`flask scheduler`: the scheduled work alone, where the processes that serve pages have SCHEDULER=off."""

import logging

import click
from flask import current_app


@click.command("scheduler")
def command() -> None:
    """Run the scheduled work alone, until it is told to end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    click.echo("The scheduler is running; end it with Ctrl-C or SIGTERM.")
    current_app.extensions["dormouse_jobs"].serve_alone()
    click.echo("The scheduler has ended.")
