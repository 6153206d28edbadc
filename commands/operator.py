"""`flask operator`: who may run the programme."""

import sys

import click
from sqlalchemy import select
from werkzeug.security import generate_password_hash

from commands.output import echo_table, instant
from domain.errors import BadValue
from models import Operator, db, for_writing, insert
from services.addresses import checked
from services.installation import installed

ROLES = ("viewer", "manager", "admin")
SHORTEST_PASSWORD = 12


@click.group("operator")
def group() -> None:
    """The people who run the programme."""


@group.command("create")
@click.argument("email")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What this operator may do.")
def create(email: str, role: str) -> None:
    """Create an operator. The password is asked for, or read from standard input."""
    address, key = checked(email)
    password = _password()
    for_writing(db.session())
    created = db.session.scalar(
        insert(db.session(), Operator)
        .values(
            email=address,
            email_key=key,
            role=role,
            password_hash=generate_password_hash(password),
            created_at=installed().clock.now(),
        )
        .on_conflict_do_nothing(index_elements=["email_key"])
        .returning(Operator.id)
    )
    if created is None:
        raise BadValue(f"there is an operator {address} already")
    db.session.commit()
    click.echo(f"created {address} as {role}")


@group.command("list")
def list_() -> None:
    """Each operator with role and since when."""
    operators = db.session.scalars(select(Operator).order_by(Operator.email_key)).all()
    zone = installed().settings.zone
    echo_table(
        ("EMAIL", "ROLE", "CREATED"), ((one.email, one.role, instant(one.created_at, zone)) for one in operators)
    )


def _password() -> str:
    if sys.stdin.isatty():
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if len(password) < SHORTEST_PASSWORD:
        raise BadValue(f"the password needs at least {SHORTEST_PASSWORD} characters")
    return password
