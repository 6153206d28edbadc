"""`flask library`: members' profiles, settings and lists, in and out."""

import json
from pathlib import Path

import click

from commands.files import progress_of, rejects_to, say_counts, written
from models import db
from services import library
from services.installation import installed

FILE = click.Path(path_type=Path)


@click.group("library")
def group() -> None:
    """The libraries: what members find again when they come back."""


@group.command("import")
@click.argument("file", type=FILE)
@click.option("--rejects", type=FILE, help="Write the rejected lines there, with line number and reason.")
def import_(file: Path, rejects: Path | None) -> None:
    """Bring in libraries from FILE, NDJSON with one member's a line; it replaces what that member had."""
    settings, now, session = installed().settings, installed().clock.now(), db.session()
    with rejects_to(rejects, file) as rejected:
        with progress_of(file) as progress:
            counts = library.import_libraries(
                session, settings, file, now, commit=session.commit, rejected=rejected, progress=progress
            )
        rejected.say()
    say_counts(counts, "created", "updated", "rejected")


@group.command("export")
@click.argument("file", type=FILE)
def export(file: Path) -> None:
    """Write all libraries into FILE, NDJSON with one member's a line, readable by its owner alone."""
    count = 0
    with written(file) as stream:
        for line in library.export_libraries(db.session()):
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    click.echo(f"exported {count}")
