"""`flask api-key`: who may use the API, for what and until when."""

from datetime import timedelta

import click
from sqlalchemy import select

from commands.output import echo_table, instant
from domain.scopes import Scope
from models import ApiKey, db, for_writing
from services import api_keys
from services.installation import installed


@click.group("api-key")
def group() -> None:
    """The keys of the API."""


@group.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([scope.value for scope in Scope]),
    multiple=True,
    required=True,
    help="What it may do; repeat it.",
)
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long it works.")
def create(name: str, scopes: tuple[str, ...], days: int) -> None:
    """Create a key for NAME. It is printed once, alone on the last line, and kept nowhere."""
    settings, now, session = installed().settings, installed().clock.now(), db.session()
    expires_at = now + timedelta(days=days)
    for_writing(session)
    key = api_keys.create(session, settings, name, map(Scope, scopes), expires_at, now)
    session.commit()
    click.echo(f"{name} may use {', '.join(scopes)} until {instant(expires_at, settings.zone)}:", err=True)
    click.echo(key)


@group.command("list")
def list_() -> None:
    """Each key by the part of it that is no secret, with its scopes and how long it works."""
    zone, now = installed().settings.zone, installed().clock.now()
    rows = db.session.scalars(select(ApiKey).order_by(ApiKey.id))
    echo_table(
        ("KEY", "NAME", "SCOPES", "CREATED", "EXPIRES", "LAST USED", "STATE"),
        (
            (
                row.prefix,
                row.name,
                " ".join(row.scopes),
                instant(row.created_at, zone),
                instant(row.expires_at, zone),
                instant(row.window_at, zone),
                "revoked" if row.revoked_at else "expired" if row.expires_at <= now else "works",
            )
            for row in rows
        ),
    )


@group.command("revoke")
@click.argument("key")
def revoke(key: str) -> None:
    """Make KEY, as `list` names it, useless from now on."""
    session = db.session()
    for_writing(session)
    api_keys.revoke(session, key, installed().clock.now())
    session.commit()
    click.echo(f"{key} is revoked")
