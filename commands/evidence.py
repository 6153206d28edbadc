"""`flask evidence`: the proof of an end, for operators and for whoever checks it."""

import json
from pathlib import Path
from typing import Any

import click
from flask import current_app
from sqlalchemy import select

from commands.output import echo_json, echo_pairs
from domain.errors import BadValue, NotFound
from models import Case, Member, db
from services import evidence_words, proof, signing, wording
from services.installation import installed

NO_KEY = (
    "EVIDENCE_KEY is not set: with PostgreSQL every process needs the same one. `openssl rand -base64 32` prints one"
)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
RECORD = click.option("--record", "record_id", help="The number of the record: the only name left after an erasure.")


@click.group("evidence")
def group() -> None:
    """Signed records of how memberships ended: read, hand out, verify."""


@group.command("show")
@click.argument("external_id", required=False)
@RECORD
@click.option("--json", "as_json", is_flag=True, help="Print the signed records as JSON, one array.")
def show(external_id: str | None, record_id: str | None, as_json: bool) -> None:
    """Each end of one member's membership, the latest first: why, sent, answered, carried out, confirmed."""
    signed = _signed(external_id, record_id)
    if as_json:
        echo_json(signed)
        return
    with wording.in_language("en"):
        for number, one in enumerate(signed):
            if number:
                click.echo("\n")
            _print(evidence_words.page(one))


@group.command("export")
@click.argument("external_id", required=False)
@RECORD
@click.option("--to", "folder", type=click.Path(path_type=Path, file_okay=False), default=".", help="The folder.")
def export(external_id: str | None, record_id: str | None, folder: Path) -> None:
    """Write each record twice: evidence-NUMBER.json, which is signed, and evidence-NUMBER.html to read and print."""
    settings = installed().settings
    if not settings.evidence_key:
        raise BadValue(NO_KEY)
    for one in _signed(external_id, record_id):
        member = _case_member(one["record"]["case"]["id"])
        with wording.in_language(member.locale) as language:
            html = current_app.jinja_env.get_template("evidence/file.html").render(
                page=evidence_words.page(one), language=language, keys_at=f"{settings.public_url}/programme/evidence"
            )
        text = json.dumps(one, ensure_ascii=False, indent=2) + "\n"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for ending, content in (("json", text), ("html", html)):
                path = folder / f"evidence-{one['record']['case']['id']}.{ending}"
                path.touch(mode=0o600)
                path.write_text(content)
                click.echo(str(path))
        except OSError as error:
            raise BadValue(f"{folder} cannot be written: {error.strerror}") from None


@group.command("verify")
@click.argument("file", type=FILE)
@click.option("--key", "key_file", type=FILE, help="Public keys (PEM) that you trust; one of them must have signed.")
@click.option("--fingerprint", help="The fingerprint of the key that must have signed, as you know it.")
def verify(file: Path, key_file: Path | None, fingerprint: str | None) -> None:
    """Whether FILE is as it was signed, and by which key. Needs nothing but the file: no database, no network.

    Without --key or --fingerprint nobody has said whose key it is: compare the fingerprint that is printed.
    """
    try:
        found = signing.verify(file.read_bytes())
    except BadValue as error:
        raise BadValue(f"{file} is not good: {error}") from None
    if fingerprint is not None and not signing.same_fingerprint(fingerprint, found.key.fingerprint):
        raise BadValue(f"{file} is not good: it is signed by another key, {found.key.fingerprint}")
    if key_file is not None and found.key not in _keys_of(key_file):
        raise BadValue(f"{file} is not good: it is signed by a key that is not in {key_file}, {found.key.fingerprint}")
    click.echo(f"{file}: the signature is good, nothing has been changed since it was signed")
    echo_pairs(_summary(found.record))
    echo_pairs({"signed by": found.key.fingerprint})
    if fingerprint is None and key_file is None:
        own = found.key in signing.keys(installed().settings)
        click.echo(
            "That key is one of this installation's."
            if own
            else "Whose key that is the file cannot tell: compare the fingerprint with the one the service has"
            " published, or name what you trust with --fingerprint or --key.",
            err=not own,
        )


@group.command("key")
def key() -> None:
    """The public keys, as PEM: the one that signs, then those of before. Publish the fingerprint."""
    settings = installed().settings
    found = signing.keys(settings)
    if not settings.evidence_key:
        click.echo(NO_KEY, err=True)
    for number, one in enumerate(found):
        now = not number and settings.evidence_key
        click.echo(f"# {'signs now' if now else 'signed before'}, fingerprint {one.fingerprint}")
        click.echo(f"# in EVIDENCE_KEYS_BEFORE: {one.text}")
        click.echo(one.pem, nl=False)
    if not found:
        click.get_current_context().exit(1)


def _signed(external_id: str | None, record_id: str | None) -> list[dict[str, Any]]:
    session, settings, now = db.session(), installed().settings, installed().clock.now()
    if record_id is not None:
        cases = list(session.scalars(select(Case).where(Case.public_id == record_id, proof.has_ended())))
        if not cases:
            raise NotFound(f"There is no record {record_id!r}.")
    elif external_id is not None:
        member_id = session.scalar(select(Member.id).where(Member.external_id == external_id))
        if member_id is None:
            raise NotFound(
                f"There is no member {external_id!r}. What is left of one who was erased is found by the number that"
                " their copy names: --record NUMBER."
            )
        cases = proof.ends(session, member_id)
        if not cases:
            raise NotFound(f"The membership of {external_id!r} has not been ended by this programme.")
    else:
        raise BadValue("name a member by EXTERNAL_ID, or a record by --record")
    return [signing.sign(proof.record(session, settings, case, now), settings) for case in cases]


def _case_member(record_id: str) -> Member:
    return db.session.scalars(
        select(Member).join(Case, Case.member_id == Member.id).where(Case.public_id == record_id)
    ).one()


def _keys_of(path: Path) -> list[signing.PublicKey]:
    try:
        return signing.keys_in(path.read_text())
    except (BadValue, UnicodeDecodeError) as error:
        raise BadValue(f"{path}: {error}") from None


def _summary(record: dict[str, Any]) -> dict[str, object]:
    """The few facts that say what a record is about; one of another program may lack any of them."""

    def at(*names: str) -> object:
        value: Any = record
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value if isinstance(value, str | int) else None

    return {
        "format": at("format"),
        "service": at("service", "url"),
        "customer number": at("member", "customer_number"),
        "record": at("case", "id"),
        "ended with": at("end", "last_day"),
        "by": at("end", "by"),
        "state of": at("issued_at"),
    }


def _print(page: evidence_words.Page) -> None:
    click.echo(page.lead)
    for section in page.sections:
        click.echo(f"\n{section.title}")
        if section.sentence:
            click.echo(section.sentence)
        echo_pairs(dict(section.facts))
        for item in section.items:
            click.echo(f"- {item.title}")
            echo_pairs({f"  {name}": value for name, value in item.facts})
    click.echo("\nSignature")
    click.echo(f"key {page.key}" if page.key else f"none: {NO_KEY}")
