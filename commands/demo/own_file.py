"""`flask demo --members FILE`: what a campaign would find in somebody's own file. Nothing is sent and nothing stays."""

from collections import deque
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory

import click
from flask_migrate import upgrade

from commands import campaign
from domain.errors import BadValue
from models import db
from services.files import columns
from services.files.columns import UnknownColumn
from services.files.member_file import Naming
from services.files.member_rows import COLUMNS
from services.files.reading import Reject
from services.importing import Options, import_members
from services.installation import installed
from settings import Settings

SHOWN = 20
"""So many rejected rows are shown; the rest are counted."""


def preview_file(path: Path, settings: Settings, map_file: Path | None = None, *, ignore_unknown: bool = False) -> None:
    """Import the file into a database that is thrown away, and print the forecast; rules and zone are as configured."""
    from app import create_app

    naming = Naming({} if map_file is None else columns.read_map(map_file, COLUMNS), ignore_unknown)

    with TemporaryDirectory(prefix="dormouse-") as name:
        folder = Path(name)
        changes = {
            "instance_path": folder,
            "database_url": f"sqlite:///{folder / 'preview.db'}",
            "secret_key": token_urlsafe(),
            "scheduler": False,
        }
        app = create_app(settings.model_copy(update=changes))
        with app.app_context():
            upgrade()
            _import(path, naming)
            click.echo()
            assert campaign.preview.callback is not None
            campaign.preview.callback(at=None, csv_file=None, as_json=False)
            db.session.remove()
            db.engine.dispose()
    click.echo("\nNothing was sent, and nothing was kept of the file.")


def _import(path: Path, naming: Naming) -> None:
    session, found = db.session(), installed()
    rejects: deque[Reject] = deque()

    def rejected(reject: Reject) -> None:
        if len(rejects) < SHOWN:
            rejects.append(reject)

    try:
        counts = import_members(
            session,
            found.settings,
            path,
            found.clock.now(),
            commit=session.commit,
            rejected=rejected,
            options=Options(naming),
        ).counts
    except UnknownColumn as error:
        raise BadValue(f'{error} (with make: ARGS=--ignore-unknown, or ARGS="--map FILE")') from None
    read = counts.created + counts.updated + counts.unchanged
    click.echo(f"{path.name}: {read} {'row' if read == 1 else 'rows'} read, {counts.rejected} rejected")
    for reject in rejects:
        click.echo(f"  line {reject.line}: {reject.reason}")
    if counts.rejected > len(rejects):
        click.echo(f"  and {counts.rejected - len(rejects)} more")
