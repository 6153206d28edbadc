"""`flask members`: the member file in, one member with all that is known, and what an operator may do for one."""

import sys
from pathlib import Path

import click
from flask_babel import force_locale
from sqlalchemy import select

from commands.biography import print_member
from commands.files import progress_of, rejects_to, say_counts
from commands.output import echo_json
from domain.dates import named_day
from domain.errors import BadValue, NotFound
from domain.lifecycle import Answer, Through
from models import Member, db, for_writing
from services import decisions, erasure_log, evidence, importing, provider_import, purging
from services.files import columns
from services.files.member_file import Naming
from services.files.member_rows import COLUMNS
from services.installation import installed

FILE = click.Path(path_type=Path)


@click.group("members")
def group() -> None:
    """The members: import a file of them, look at one, and act for one."""


@group.command("import")
@click.argument("file", type=FILE, required=False)
@click.option("--from", "source", type=click.Choice(["stripe"]), help="From the billing provider, instead of a file.")
@click.option("--dry-run", is_flag=True, help="Do everything, print the same, keep nothing.")
@click.option("--rejects", type=FILE, help="Write the rejected rows there, with line and reason.")
@click.option("--map", "map_file", type=FILE, help="JSON object or CSV of two columns: their name, ours.")
@click.option("--ignore-unknown", is_flag=True, help="Leave out columns that have no meaning here.")
@click.option("--complete", is_flag=True, help="The file lists all members: who is absent from it has ended.")
@click.option("--correct-use", is_flag=True, help="Last uses of the file replace later ones on record.")
def import_(
    file: Path | None,
    source: str | None,
    dry_run: bool,
    rejects: Path | None,
    map_file: Path | None,
    ignore_unknown: bool,
    complete: bool,
    correct_use: bool,
) -> None:
    """Bring in members from FILE: CSV, or NDJSON where the name ends in .ndjson, .jsonl or .json."""
    if (file is None) == (source is None):
        raise click.UsageError("Name a FILE, or a provider by --from.")
    if file is None:
        _from_provider(source, rejects, dry_run, others=bool(map_file or ignore_unknown or complete or correct_use))
        return
    settings, now, session = installed().settings, installed().clock.now(), db.session()
    naming = Naming({} if map_file is None else columns.read_map(map_file, COLUMNS), ignore_unknown)
    with rejects_to(rejects, file) as rejected:
        with progress_of(file) as progress:
            imported = importing.import_members(
                session,
                settings,
                file,
                now,
                commit=session.rollback if dry_run else session.commit,
                rejected=rejected,
                progress=progress,
                options=importing.Options(naming, complete, correct_use),
            )
        rejected.say()
    if dry_run:
        click.echo("Dry run: nothing was kept.", err=True)
    if imported.ended:
        click.echo(f"ended {imported.ended}, absent from the file")
    say_counts(imported.counts, "created", "updated", "unchanged", "rejected")
    if imported.refusal is not None:
        raise click.ClickException(imported.refusal)


def _from_provider(source: str | None, rejects: Path | None, dry_run: bool, *, others: bool) -> None:
    here, session = installed(), db.session()
    if here.settings.billing != source:
        raise click.UsageError(f"--from {source} needs BILLING={source}; it is {here.settings.billing}.")
    if others:
        raise click.UsageError("With --from there is no file: only --dry-run and --rejects go with it.")
    with rejects_to(rejects, Path(f"{source}.ndjson")) as rejected:
        counts = provider_import.import_from(
            session,
            here.settings,
            here.billing,
            here.clock.now(),
            commit=session.rollback if dry_run else session.commit,
            rejected=rejected,
            progress=lambda done: click.echo(f"{done} subscriptions", err=True),
        )
        rejected.say()
    if dry_run:
        click.echo("Dry run: nothing was kept.", err=True)
    say_counts(counts, "created", "updated", "unchanged", "rejected")


@group.command("show")
@click.argument("external_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(external_id: str, as_json: bool) -> None:
    """Why a member is in or out, and everything that was sent, answered and done."""
    settings, now, session = installed().settings, installed().clock.now(), db.session()
    member = _member(external_id)
    found = evidence.member_evidence(session, settings, member, now)
    if as_json:
        echo_json(found)
        return
    with force_locale("en"):
        print_member(member, found, settings, now, evidence.note(session, member.id))


@group.command("exempt")
@click.argument("external_id")
@click.option("--reason", required=True, help="Why; the member is never asked while this holds.")
def exempt(external_id: str, reason: str) -> None:
    """Leave a member alone for good. An empty reason takes that back."""
    now, session = installed().clock.now(), db.session()
    reason = _one_line(reason, 200)
    for_writing(session)
    decisions.exempt(session, _member(external_id).id, reason or None, now)
    session.commit()
    click.echo(f"{external_id} is exempt: {reason}" if reason else f"{external_id} is no longer exempt by an operator")


@group.command("answer")
@click.argument("external_id")
@click.argument("answer", type=click.Choice([str(one) for one in Answer]))
@click.option("--reason", required=True, help="How the member told you; kept with the answer, and in its proof.")
def answer(external_id: str, answer: str, reason: str) -> None:
    """Answer for a member who has told you: keep the membership, or let it lapse at the month end."""
    settings, now, session = installed().settings, installed().clock.now(), db.session()
    note = _one_line(reason, 500)
    if not note:
        raise BadValue("--reason is empty; say how the member told you")
    for_writing(session)
    member_id = _member(external_id).id
    if answer == Answer.LAPSE:
        case = decisions.end_membership(session, settings, member_id, Through.OPERATOR, now, note)
        assert case.deadline_at is not None, "an end has a day"
        said = f"{external_id} ends with {named_day(case.deadline_at, settings.zone)}"
    else:
        decisions.keep_membership(session, settings, member_id, Through.OPERATOR, now, note)
        said = f"{external_id} keeps the membership"
    session.commit()
    click.echo(said)


@group.command("void-keep")
@click.argument("external_id")
@click.option("--reason", required=True, help="How you know that a machine pressed the button; kept with the case.")
def void_keep(external_id: str, reason: str) -> None:
    """Take back a keep that a mail scanner pressed: an end it turned round holds again, else we ask anew."""
    settings, now, session = installed().settings, installed().clock.now(), db.session()
    note = _one_line(reason, 500)
    if not note:
        raise BadValue("--reason is empty; say how you know that it was a machine")
    for_writing(session)
    case = decisions.void_keep(session, settings, _member(external_id).id, note, now)
    if case.answer == Answer.LAPSE:
        assert case.deadline_at is not None, "an end has a day"
        said = f"{external_id} ends with {named_day(case.deadline_at, settings.zone)}, as was answered before"
    else:
        said = f"{external_id} is asked anew, by a new mail with a new link"
    session.commit()
    click.echo(said)


@group.command("erase")
@click.argument("external_id")
@click.option("--yes", is_flag=True, help="Do not ask; without a terminal nothing is asked.")
def erase(external_id: str, yes: bool) -> None:
    """Erase a member for good: billing is stopped first. There is no way back."""
    settings, now, session = installed().settings, installed().clock.now(), db.session()
    member_id = _member(external_id).id
    session.rollback()
    if not yes and sys.stdin.isatty():
        click.confirm(f"Erase {external_id} for good?", abort=True)
    for_writing(session)
    done = purging.erase(session, settings, member_id, now)
    session.commit()
    erasure_log.keep_up(session, settings)
    later = "will be erased as soon as the payment provider has confirmed that charging has stopped"
    click.echo(f"{external_id} was erased" if done else f"{external_id} {later}")


def _member(external_id: str) -> Member:
    found = db.session.scalar(select(Member).where(Member.external_id == external_id))
    if found is None:
        raise NotFound(f"There is no member {external_id!r}; one who was erased cannot be found any more.")
    return found


def _one_line(text: str, longest: int) -> str:
    text = " ".join(text.split())
    if len(text) > longest:
        raise BadValue(f"--reason is longer than {longest} characters")
    return text
