"""`flask backup` and `flask restore`: a whole, verified copy of an SQLite database, and the way back.

PostgreSQL has tools of its own for the copy; what a restore must be followed by is the same, `flask restore --settle`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import alembic.command
import alembic.config
import click
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from commands import schema
from domain.errors import Refused
from models import db, for_writing
from models.base import tune
from services import erasure_log, restoring, snapshot
from services.installation import installed
from services.restoring import Restored
from settings import ROOT, Settings

FILE = click.Path(dir_okay=False, path_type=Path)
ON_POSTGRESQL = (
    "this is for SQLite; on PostgreSQL use its own tools, pg_dump and pg_restore, and run"
    " `flask restore --settle` after a restore and before anything else: see docs/operating.md"
)


@click.command("backup")
@click.argument("file", type=FILE)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def backup(file: Path, force: bool) -> None:
    """Copy the database into FILE while everything runs: consistent, verified, readable by its owner only."""
    settings = installed().settings
    source = _database_file(db.engine)
    if file.exists() and (not force or file.samefile(source)):
        raise Refused(f"{file} exists; choose another name, or say --force to replace it")
    if not file.parent.is_dir():
        raise Refused(f"there is no folder {file.parent}")
    try:
        # First the log: an erasure between the two is in the copy.
        if source.is_file():
            erasure_log.keep_up(db.session(), settings)
            db.session.rollback()
        _bring_log_along(settings, file.parent / erasure_log.NAME)
        copied = snapshot.copy(source, file)
    except OSError as error:
        raise Refused(f"{file} cannot be written: {error.strerror}") from None
    members = copied.rows.get("member", 0)
    click.echo(f"{file}: {members:,} members, {sum(copied.rows.values()):,} rows, {copied.size:,} bytes; verified")


@click.command("restore")
@click.argument("file", type=FILE, required=False)
@click.option("--yes", is_flag=True, help="Replace the present database; its file is kept beside it.")
@click.option("--settle", is_flag=True, help="No FILE: the database has been restored by other means.")
@click.option("--erasures", type=FILE, multiple=True, help="An erasures.log of another machine; can be repeated.")
def restore(file: Path | None, yes: bool, settle: bool, erasures: tuple[Path, ...]) -> None:
    """Put the backup FILE in the place of the database, and see to it that nothing is done on stale facts.

    Stop every server and scheduler first. Rounds are held, live silent cases withdrawn, erasures since replayed,
    sessions ended; billing orders that waited are listed and wait for `flask billing retry`.
    """
    settings, now = installed().settings, installed().clock.now()
    for path in erasures:
        if not path.is_file():
            raise Refused(f"there is no file {path}")
    logs = [erasure_log.path_of(settings), *erasures]
    if settle:
        if file is not None or not yes:
            raise Refused("--settle takes no FILE and works on the present database: say --settle --yes")
        with Session(db.engine) as session:
            done = _settle(session, settings, logs, now)
    else:
        if file is None:
            raise Refused("name the FILE to restore")
        done = _restore_file(file, _database_file(db.engine), settings, logs, now, yes)
    erasure_log.keep_up(db.session(), settings)
    _tell(done)


def _restore_file(file: Path, target: Path, settings: Settings, logs: list[Path], now: datetime, yes: bool) -> Restored:
    replaces = target.exists()
    if replaces and not yes:
        raise Refused(f"{target} exists; --yes replaces it by {file} and keeps the present file beside it")
    if replaces and file.exists() and file.samefile(target):
        raise Refused(f"{file} is the database itself")
    db.session.remove()
    db.engine.dispose()
    if replaces:
        _log_erasures_of(target, settings)
        snapshot.leave_wal(target)
    draft = target.with_name(f".{target.name}.restoring")
    try:
        copied = snapshot.copy(file, draft)
        with _engine_of(draft) as engine:
            _bring_up_to_date(engine, file)
            with Session(engine) as session:
                done = _settle(session, settings, [*logs, file.parent / erasure_log.NAME], now)
        snapshot.leave_wal(draft)
        snapshot.verify(draft)
        snapshot.sync(draft)
        if replaces:
            aside = target.with_name(f"{target.name}.replaced-{now:%Y%m%dT%H%M%S%fZ}")
            os.link(target, aside)
            # Nobody has it open any more: these are leavings of a crash, and belong to the file they were made for.
            for left, beside in zip(snapshot.side_files(target), snapshot.side_files(aside), strict=True):
                if left.exists():
                    left.replace(beside)
        draft.replace(target)
        snapshot.sync(target.parent)
    except OSError as error:
        raise Refused(f"{target} cannot be replaced: {error.strerror}") from None
    finally:
        for left in (draft, *snapshot.side_files(draft)):
            left.unlink(missing_ok=True)
    click.echo(f"{target} is now {file}: {copied.rows.get('member', 0):,} members")
    if replaces:
        click.echo(f"the database before is {aside}: it may hold members who are erased here, so remove it when done")
    return done


def _settle(session: Session, settings: Settings, logs: list[Path], now: datetime) -> Restored:
    for_writing(session)
    done = restoring.settle(session, settings, erasure_log.merged(logs), now)
    session.commit()
    return done


def _log_erasures_of(target: Path, settings: Settings) -> None:
    """The database that goes may know erasures that its log does not. One that is damaged cannot be asked."""
    try:
        with _engine_of(target) as engine, Session(engine) as session:
            erasure_log.keep_up(session, settings)
    except DBAPIError as error:
        click.echo(f"{target} cannot be asked for its latest erasures ({error.orig}); only the log is used", err=True)


def _bring_log_along(settings: Settings, beside: Path) -> None:
    known = erasure_log.read(beside)
    ours = erasure_log.read(erasure_log.path_of(settings))
    erasure_log.append(beside, {digest: at for digest, at in ours.items() if digest not in known or known[digest] < at})


@contextmanager
def _engine_of(path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{path}", hide_parameters=True)
    tune(engine)
    try:
        yield engine
    finally:
        engine.dispose()


def _bring_up_to_date(engine: Engine, file: Path) -> None:
    found = schema.state(engine)
    if found is schema.State.MISSING:
        raise Refused(f"{file} is a database, but none of this program")
    if found is schema.State.NEWER:
        raise Refused(f"{file}: {schema.ADVICE[found]}")
    if found is schema.State.BEHIND:
        config = alembic.config.Config()
        config.set_main_option("script_location", str(ROOT / "migrations"))
        config.attributes["engine"] = engine
        alembic.command.upgrade(config, "head")


def _database_file(engine: Engine) -> Path:
    if engine.dialect.name != "sqlite" or not engine.url.database:
        raise Refused(ON_POSTGRESQL)
    return Path(engine.url.database).absolute()


def _tell(done: Restored) -> None:
    """What was done, and below it what an operator has to look at."""
    click.echo(f"erasures since the backup: {done.replayed} members erased again")
    click.echo(f"rounds held: {', '.join(done.held) or 'none was open'}; {done.withdrawn} silent members left alone")
    click.echo("sign-in links and sessions: none is good any more")
    if done.erasures_of_nobody:
        click.echo(
            f"look: {done.erasures_of_nobody} erasures in the log fit no member here; those have joined since the"
            " backup, or SECRET_KEY is not the one of then"
        )
    for kind, count in done.unsent.items():
        click.echo(f"look: {count} mails of kind {kind} waited when the backup was made and are not sent from here")
    if done.orders:
        click.echo(f"look: {len(done.orders)} billing orders waited when the backup was made:")
        for order_id, kind, external_id in done.orders:
            click.echo(f"  order {order_id}: {kind} of {external_id}")
        click.echo(
            "  look at the provider, then `flask billing retry ORDER`: it keeps its key and is done at most once"
        )
    if done.ending:
        click.echo(
            f"look: {done.ending} members had chosen to end their membership; who has changed their mind since is not"
            " known here: `flask members answer EXTERNAL_ID keep --reason …`"
        )
    click.echo("next: import members and activity anew, then start the server; `flask campaign status MONTH` says more")
