"""`flask demo`: the whole programme on sample members, everything real; or a preview of one's own file.

The demo lives in a folder of its own (instance/demo): database, clock, mails, nothing of it outside. It is the ordinary
application with its ordinary jobs; what is particular is the mail server, which keeps every mail as a file, and the
clock, which can be set forward.
"""

import fcntl
import secrets
import shutil
import socket
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from commands import KEYLESS
from commands.demo import story
from commands.demo.catcher import Catcher
from commands.demo.own_file import preview_file
from services.installation import installed
from settings import Settings

HOST = "127.0.0.1"
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Where to serve.")
@click.option("--keep", is_flag=True, help="Go on with the demo as it was left, instead of a fresh one.")
@click.option("--members", type=FILE, help="Preview this file of members instead: nothing is sent and nothing stays.")
@click.option(
    "--map", "map_file", type=FILE, help="With --members: our names for its columns, as `members import` takes."
)
@click.option("--ignore-unknown", is_flag=True, help="With --members: leave out columns that mean nothing here.")
@click.pass_context
def command(
    context: click.Context,
    port: int,
    keep: bool,
    members: Path | None,
    map_file: Path | None,
    ignore_unknown: bool,
) -> None:
    """Live through the programme on sample members of a streaming service that does not exist."""
    settings = context.find_root().meta.get(KEYLESS) or installed().settings
    if members is not None:
        preview_file(members, settings, map_file, ignore_unknown=ignore_unknown)
        return
    if map_file is not None or ignore_unknown:
        raise click.UsageError("--map and --ignore-unknown go with --members FILE")
    if settings.database_url != settings.default_database_url:
        raise click.ClickException(
            "a database is configured (DATABASE_URL), and the demo keeps away from it: start it in a checkout, or a"
            " shell, without DATABASE_URL"
        )
    folder = settings.instance_path.resolve() / "demo"
    with _alone(folder), _listening(port) as listener:
        if not keep or not (folder / story.CAST).exists():
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        with Catcher(folder / "mail") as catcher:
            story.run(demo_settings(folder, port, catcher.host, catcher.port), listener)


def demo_settings(folder: Path, port: int, mail_server: str, mail_port: int) -> Settings:
    """Settings of the demo: nothing of the environment reaches it."""
    return Settings.model_validate(
        {
            "instance_path": folder,
            "database_url": f"sqlite:///{folder / 'dormouse.db'}",
            "secret_key": _kept_key(folder / "secret_key"),
            "evidence_key": _kept_key(folder / "evidence_key"),
            "public_url": f"http://localhost:{port}",
            "service_name": "Lumio",
            "service_timezone": "Europe/Berlin",
            "campaign_approval": "auto",
            "mail_server": mail_server,
            "mail_port": mail_port,
            "mail_default_sender": "membership@example.com",
            "billing": "local",
            "demo": True,
        }
    )


def _kept_key(path: Path) -> str:
    """Links in the demo's mails work again after a start with --keep, and so does what was proved."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(b64encode(secrets.token_bytes(32)).decode())
    return path.read_text()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one demo lives in the folder: a second would sweep it from under the first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException("the demo is running already: stop it first (Ctrl+C where it runs)") from None
        yield


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """A socket on the port, taken before the work begins rather than after it."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise click.ClickException(
                f"cannot serve at port {port} ({error.strerror}): stop what uses it, or choose another with --port"
                f' (make demo ARGS="--port {port % 65535 + 1}")'
            ) from None
        listener.listen()
        yield listener
