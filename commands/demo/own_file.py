"""`flask demo --members FILE`: what a campaign would find in somebody's own file. Nothing is sent and nothing stays."""

from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from flask_migrate import upgrade

from commands import campaign
from models import db
from services.importing import import_members
from services.installation import installed
from services.reading import Reject
from settings import Settings

SHOWN = 20
"""So many rejected rows are shown; the rest are counted."""


def preview_file(path: Path, settings: Settings) -> None:
    """Import the file into a database that is thrown away, and print the forecast; rules and zone are as configured."""
    from app import create_app

    with TemporaryDirectory(prefix="dormouse-") as name:
        folder = Path(name)
        changes = {"instance_path": folder, "database_url": f"sqlite:///{folder / 'preview.db'}", "scheduler": False}
        app = create_app(settings.model_copy(update=changes))
        with app.app_context():
            upgrade()
            _import(path)
            click.echo()
            assert campaign.preview.callback is not None
            campaign.preview.callback(at=None, csv_file=None, as_json=False)
            db.session.remove()
            db.engine.dispose()
    click.echo("\nNothing was sent, and nothing was kept of the file.")


def _import(path: Path) -> None:
    session, found = db.session(), installed()
    rejects: deque[Reject] = deque()

    def rejected(reject: Reject) -> None:
        if len(rejects) < SHOWN:
            rejects.append(reject)

    counts = import_members(
        session, found.settings, path, found.clock.now(), commit=session.commit, rejected=rejected
    ).counts
    click.echo(
        f"{path.name}: {counts.created + counts.updated + counts.unchanged} rows read, {counts.rejected} rejected"
    )
    for reject in rejects:
        click.echo(f"  line {reject.line}: {reject.reason}")
    if counts.rejected > len(rejects):
        click.echo(f"  and {counts.rejected - len(rejects)} more")
