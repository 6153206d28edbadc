"""`flask mail`: what mails look like, whether they go out, and bounces from a mail server's pipe."""

import shutil
import subprocess
import tempfile
from email.utils import parseaddr
from pathlib import Path
from typing import IO

import click
from sqlalchemy.exc import DBAPIError

from commands.failures import flat, of_database
from domain.notices import Kind
from models import db, for_writing
from services import wording
from services.installation import installed
from services.mail import bounce_mail, bounces
from services.mail.sample import sample

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FOLDER = click.Path(file_okay=False, path_type=Path)
WIDE, HIGH = 640, 1400
TRY_AGAIN = 75
"""What a mail server takes for "keep it and try later" (EX_TEMPFAIL of sysexits.h)."""


def one_of_ours(context: click.Context, option: click.Parameter, locale: str | None) -> str | None:
    """A language there is: a mail in another one than was asked for would show nothing of it."""
    if locale is not None and wording.language_of(locale) is None:
        raise click.BadParameter(f"{locale} is no language of this site; there are {', '.join(wording.LANGUAGES)}")
    return locale


class TryAgain(click.ClickException):
    exit_code = TRY_AGAIN


@click.group("mail")
def group() -> None:
    """What mails look like, whether they go out, and what comes back."""


@group.command("preview")
@click.argument("kind", metavar="KIND", type=click.Choice([str(kind) for kind in Kind]))
@click.option(
    "--locale", metavar="TAG", callback=one_of_ours, help="The reader's language; the default is DEFAULT_LOCALE."
)
@click.option("--out", "folder", type=FOLDER, default=".", help="The folder to write to, if not the present one.")
@click.option(
    "--chromium", envvar="CHROMIUM", metavar="PATH", help="The browser for the picture, if not the usual one."
)
def preview(kind: str, locale: str | None, folder: Path, chromium: str | None) -> None:
    """Write a mail of KIND about somebody made up: .eml, .html, and .png where Chromium is found."""
    here = installed()
    address = parseaddr(here.settings.mail_default_sender)[1]
    mail = sample(here.settings, Kind(kind), locale, address, here.clock.now())
    path = folder / f"{kind}-{wording.language_of(locale) or here.settings.default_locale}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".eml").write_bytes(here.mailer.written(mail))
        path.with_suffix(".html").write_text(str(mail.html), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write to {folder}: {error.strerror}") from None
    written = [path.with_suffix(".eml"), path.with_suffix(".html")]
    asked_for = chromium is not None
    chromium = chromium or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is not None and _pictured(chromium, path.with_suffix(".html"), path.with_suffix(".png")):
        written.append(path.with_suffix(".png"))
    elif asked_for:
        click.echo(f"There is no picture: {chromium} takes none.", err=True)
    for file in written:
        click.echo(str(file))


@group.command("test")
@click.argument("address")
@click.option("--locale", metavar="TAG", callback=one_of_ours, help="The language; the default is DEFAULT_LOCALE.")
def test(address: str, locale: str | None) -> None:
    """Send a sample of the first notice to ADDRESS, and say what the mail server answers."""
    here = installed()
    mail = sample(here.settings, Kind.WARNING, locale, address, here.clock.now())
    with here.mailer.connect() as connection:
        result = connection.send(mail)
    if not result.accepted:
        raise click.ClickException(f"not accepted: {flat(result.reply)}")
    click.echo(f"accepted: {flat(result.reply)}")


def _pictured(chromium: str, page: Path, picture: Path) -> bool:
    """Have Chromium take a picture of a page, as wide as a mail program shows it. False if it did not."""
    picture.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        size, shot = f"--window-size={WIDE},{HIGH}", f"--screenshot={picture.resolve()}"
        try:
            subprocess.run(
                [chromium, *options, size, shot, page.resolve().as_uri()], capture_output=True, timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
    return picture.exists()


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
        said = bounces.take(session, installed().settings, report, installed().clock.now()).said
        session.commit()
    except bounces.TooEarly as error:
        raise TryAgain(str(error)) from None
    except DBAPIError as error:
        session.rollback()
        raise TryAgain(of_database(error, db.engine) or flat(str(error.orig))) from None
    click.echo(said)
