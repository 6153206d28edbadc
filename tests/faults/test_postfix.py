"""A real mail server between us and the world: what it accepts and cannot deliver comes back, and is understood.

Postfix relays to a server that refuses some addresses, and takes what Postfix then reports to the return path.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from models import Member, Message, db
from services import campaigns
from services.installation import installed
from tests import factories
from tests.conftest import NOW
from tests.doubles import Received, SmtpCatcher
from tests.ports import held_port
from tests.services.support import case_of

POSTFIX = shutil.which("postfix", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = /dev/stdout
myhostname = relay.lumio.example
mydestination =
inet_interfaces = 127.0.0.1
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{next}
disable_dns_lookups = yes
smtp_tls_security_level = none
smtputf8_enable = no
maximal_queue_lifetime = 1s
bounce_queue_lifetime = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 1s
queue_run_delay = 1s
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
scache unix - - n - 1 scache
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Relay:
    """A Postfix of a test's own, in the foreground."""

    def __init__(self, folder: Path, beyond: SmtpCatcher) -> None:
        self._held = ExitStack()
        self.port = self._held.enter_context(held_port())
        for name in ("queue", "data", "etc"):
            (folder / name).mkdir(mode=0o755)
        shutil.chown(folder / "data", "postfix")
        (folder / "etc" / "main.cf").write_text(MAIN.format(folder=folder, next=beyond.port))
        (folder / "etc" / "master.cf").write_text(MASTER.format(port=self.port))
        self._etc, self.log = folder / "etc", folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(POSTFIX), "-c", str(folder / "etc"), "start-fg"], stdout=log, stderr=log
            )
        eventually(self._answers, self)

    def _answers(self) -> bool:
        with socket.socket() as line:
            return line.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End the server and what it has started: its master is in a session of its own."""
        subprocess.run([str(POSTFIX), "-c", str(self._etc), "abort"], capture_output=True, check=False, timeout=300)
        self._process.wait(300)
        self._held.close()


def eventually(holds: Callable[[], object], relay: Relay, seconds: float = 300) -> None:
    until = monotonic() + seconds
    while not holds():
        assert monotonic() < until, relay.log.read_text()
        Event().wait(0.05)


@pytest.fixture
def relay(smtp: SmtpCatcher) -> Iterator[Relay]:
    # Its processes run as a user of their own, whom pytest's folder is closed to.
    folder = Path(tempfile.mkdtemp(prefix="dormouse-postfix-"))
    folder.chmod(0o755)
    relay = Relay(folder, smtp)
    yield relay
    relay.stop()
    shutil.rmtree(folder)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def app(make_app: Callable[..., Flask], relay: Relay) -> Iterator[Flask]:
    app = make_app(mail_server="127.0.0.1", mail_port=relay.port, bounce_address="bounces@lumio.example")
    with app.app_context():
        yield app


def report(smtp: SmtpCatcher, relay: Relay, session: Session, member: Member) -> Received:
    """What Postfix sent to the return path of a member's warning."""
    public_id = session.scalars(select(Message.public_id).where(Message.member_id == member.id)).one()
    session.rollback()
    address = f"bounces+{public_id}@lumio.example"
    eventually(lambda: smtp.to(address), relay)
    return smtp.to(address)[0]


def test_what_a_relay_has_taken_and_cannot_deliver_comes_back(app: Flask, smtp: SmtpCatcher, relay: Relay) -> None:
    session, cli = db.session(), app.test_cli_runner()
    smtp.replies = {"mia@dead.example": "550 5.1.1 no such user", "ben@full.example": "452 4.2.2 mailbox full"}
    mia, ben = (factories.dormant(session, email=address) for address in smtp.replies)
    factories.live_feed(session, NOW)
    settings = installed().settings
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    assert cli.invoke(args=["jobs", "run", "deliver"]).stdout.startswith("deliver: 2 sent")
    assert [case_of(session, member).warned_at for member in (mia, ben)] == [NOW, NOW]

    # A mailbox that does not exist: nobody is warned, and why is kept.
    bounce = report(smtp, relay, session, mia)
    assert bounce.sender in ("", "<>")
    said = cli.invoke(args=["mail", "bounce"], input=bounce.raw)
    assert (said.exit_code, "bounced" in said.stdout) == (0, True)
    assert case_of(session, mia).state == "unreachable"
    replies = session.scalars(select(Message.smtp_reply).where(Message.member_id == mia.id)).one() or ""
    assert "came back: 550 5.1.1 no such user" in replies

    # One that is full for too long: nobody is warned yet, and it is tried again.
    bounce = report(smtp, relay, session, ben)
    said = cli.invoke(args=["mail", "bounce"], input=bounce.raw)
    assert (said.exit_code, "it will be sent again" in said.stdout) == (0, True)
    assert case_of(session, ben).warned_at is None
    assert (mia.mail_state, ben.mail_state) == ("bounced", "good")
