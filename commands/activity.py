"""`flask activity`: what members used and when."""

from datetime import datetime
from pathlib import Path

import click

from commands.files import progress_of, rejects_to, say_counts
from domain.errors import BadValue
from models import db
from services.activity import FEED, import_activity
from services.files import cells
from services.installation import installed

FILE = click.Path(path_type=Path)


@click.group("activity")
def group() -> None:
    """The uses of the service: import a file of them."""


@group.command("import")
@click.argument("file", type=FILE)
@click.option("--through", metavar="ISO", help="The feed is complete up to this instant (or the start of this day).")
@click.option("--source", default=FEED, show_default=True, help="The name of the feed.")
@click.option("--rejects", type=FILE, help="Write the rejected rows there, with line and reason.")
def import_(file: Path, through: str | None, source: str, rejects: Path | None) -> None:
    """Bring in uses from FILE, a CSV of external_id,used_at; the latest of each member is kept."""
    settings, now, session = installed().settings, installed().clock.now(), db.session()
    if not 0 < len(source) <= 100 or not source.isprintable():
        raise BadValue(f"--source {source!r} must be a name of 1 to 100 characters")
    complete = None if through is None else _instant(through, cells.Instants(settings.zone, now, "sqlite"))
    with rejects_to(rejects, file) as rejected:
        with progress_of(file) as progress:
            counts = import_activity(
                session,
                settings,
                file,
                now,
                commit=session.commit,
                source=source,
                through=complete,
                rejected=rejected,
                progress=progress,
            )
        rejected.say()
    if counts.ignored:
        click.echo(f"ignored {counts.ignored} of types that are no use (USE_TYPES)")
    say_counts(counts, "updated", "unchanged", "rejected")


def _instant(text: str, instants: cells.Instants) -> datetime:
    found = instants.cleaner("--through", future=True)(text.strip())
    if found is None:
        raise BadValue("--through is empty; write an instant such as 2026-06-03T00:00:00+02:00")
    return cells.from_stored(found)
