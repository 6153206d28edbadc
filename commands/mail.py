"""`flask mail`: bounces from a mail server's pipe."""

from typing import IO

import click
from sqlalchemy.exc import DBAPIError

from commands.failures import flat, of_database
from models import db, for_writing
from services import bounce_mail, bounces
from services.installation import installed

TRY_AGAIN = 75
"""What a mail server takes for "keep it and try later" (EX_TEMPFAIL of sysexits.h)."""


class TryAgain(click.ClickException):
    exit_code = TRY_AGAIN


@click.group("mail")
def group() -> None:
    """Bounces in."""


@group.command("bounce")
@click.option("--recipient", metavar="ADDRESS", help="The address it came to, if it is not in the mail's headers.")
@click.argument("file", type=click.File("rb"), default="-")
def bounce(recipient: str | None, file: IO[bytes]) -> None:
    """Take one bounce or complaint, raw, from standard input or FILE, as a mail server's pipe hands it over.

    Exit code 0: taken, or nothing to do with us. 75: try again later.
    """
    report = bounce_mail.read(file.read(), recipient)
    session = db.session()
    try:
        for_writing(session)
        said = bounces.take(session, installed().settings, report, installed().clock.now())
        session.commit()
    except bounces.TooEarly as error:
        raise TryAgain(str(error)) from None
    except DBAPIError as error:
        session.rollback()
        raise TryAgain(of_database(error, db.engine) or flat(str(error.orig))) from None
    click.echo(said)
