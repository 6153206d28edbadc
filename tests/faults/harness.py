"""An installation of real processes, which can be killed anywhere in their work, and whose clock the test moves."""

import asyncio
import http.client
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from http.cookiejar import CookieJar
from pathlib import Path
from threading import Event
from time import monotonic
from urllib.parse import urlencode, urljoin

from aiosmtpd.smtp import SMTP, Envelope
from aiosmtpd.smtp import Session as SmtpSession
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from adapters.clock import ShiftedClock
from app import create_app
from jobs import runner
from models import BillingOrder, Campaign, Case, LocalCall, LocalCharge, Member, Message, db
from models import Event as Happened
from services.installation import Ports
from settings import ROOT, Settings
from tests.conftest import make_settings
from tests.doubles import SmtpCatcher
from tests.ports import held_port
from tests.web.browser import Page

BIN = Path(sys.executable).parent
PATIENCE = 300.0
AFTER_LEASES = timedelta(minutes=16)
KILLED = -signal.SIGKILL


def eventually(holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for another process to get there."""
    until = monotonic() + seconds
    while not holds():
        assert monotonic() < until, "it did not come to that"
        Event().wait(0.02)


class Deadly(SmtpCatcher):
    """A mail server that tells the test of each mail between having accepted it and saying so."""

    on_accepted: Callable[[int], None] | None = None

    async def handle_DATA(self, server: SMTP, session: SmtpSession, envelope: Envelope) -> str:
        before = len(self.mails)
        reply = await super().handle_DATA(server, session, envelope)
        if self.on_accepted is not None and len(self.mails) > before:
            # Others may send meanwhile.
            await asyncio.get_running_loop().run_in_executor(None, self.on_accepted, len(self.mails))
        return reply


class Site:
    """A service in Berlin whose rounds open by themselves. ``app`` is a process of it inside the test."""

    def __init__(self, url: str, folder: Path, smtp: Deadly, now: datetime, **changes: object) -> None:
        self.smtp, self.folder = smtp, folder
        self._held = ExitStack()
        self.port = self._held.enter_context(held_port())
        self.clock = ShiftedClock(folder / "clock")
        self.clock.travel(now)
        self.settings: Settings = make_settings(
            url,
            folder,
            mail_server=smtp.host,
            mail_port=smtp.port,
            campaign_approval="auto",
            max_dormant_percent=100,
            public_url=f"http://127.0.0.1:{self.port}",
            **changes,
        )
        self._changes = {
            name.upper(): ",".join(value) if isinstance(value, tuple) else str(value) for name, value in changes.items()
        }
        self.app: Flask = create_app(self.settings, Ports(clock=self.clock))
        self.app.testing = True
        self._killed_from_outside = 0
        self.duplicates = 0
        self.killed: set[str] = set()
        self.connections = 1

    def close(self) -> None:
        self._held.close()
        with self.app.app_context():
            db.engine.dispose()

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def travel(self, to: datetime) -> None:
        assert to > self.now, "more time has passed already: the story has too many kills in one day"
        self.clock.travel(to)

    def wait_for_leases(self) -> None:
        self.clock.travel(self.now + AFTER_LEASES)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session of its own, committed at the end."""
        with self.app.app_context():
            yield db.session()
            db.session.commit()

    @property
    def kills(self) -> int:
        file = self.folder / "deaths"
        return self._killed_from_outside + (len(file.read_text().splitlines()) if file.exists() else 0)

    def kill(self, process: subprocess.Popen[str]) -> None:
        """A whole process group at once."""
        # Counted first: whoever waits for its end may look before this thread goes on.
        self._killed_from_outside += 1
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def was_cut_off(self) -> None:
        """To what was under way a process that gave it up was killed."""
        self._killed_from_outside += 1

    @contextmanager
    def running(self, *command: str, **more: str) -> Iterator[subprocess.Popen[str]]:
        """A process group, killed at the end if it is still there."""
        with (self.folder / "output").open("a") as output:
            process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                cwd=ROOT,
                env={**self._environment(), **more},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            try:
                yield process
            except (AssertionError, subprocess.TimeoutExpired) as error:
                error.add_note((self.folder / "output").read_text()[-5000:])
                raise
            finally:
                if process.poll() is None:
                    self.kill(process)

    def _environment(self) -> dict[str, str]:
        # Nothing of the settings of this machine may reach the processes.
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "WERKZEUG_", "MAIL_"))
        }
        here = self.settings
        return {
            **kept,
            "FLASK_APP": "tests.faults.app_under_test:create_app",
            "PYTHONPATH": str(ROOT),
            "INSTANCE_PATH": str(self.folder),
            **{
                name.upper(): str(getattr(here, name))
                for name in (
                    "database_url", "secret_key", "public_url", "service_name", "service_timezone", "mail_server",
                    "mail_port", "mail_connections", "mail_default_sender", "campaign_approval", "max_dormant_percent",
                    "on_silence",
                )
            },
            **self._changes,
            "SCHEDULER": "off",
        }  # fmt: skip

    def run(self, *names: str) -> None:
        """Jobs in the test's own process, which nobody kills."""
        for name in names:
            runner.run(self.app, name, self.now)

    def job(self, name: str, die_at: int | None = None) -> int:
        """``flask jobs run NAME``: 0, or KILLED; anything else is a failure."""
        with self.running("flask", "jobs", "run", name, DIE_AT=str(die_at or "")) as process:
            code = process.wait(PATIENCE)
        assert code in (0, KILLED), (self.folder / "output").read_text()
        return code

    def job_killed(self, name: str, first: int, stride: int) -> int:
        """Run a job to its end, killed on the way at every ``stride``-th point of its work; returns how often."""
        kills, at = 0, first
        while self.job(name, die_at=at) == KILLED:
            kills, at = kills + 1, at + stride
            if name in ("deliver", "settle-billing", "send-events"):
                self.wait_for_leases()
        return kills

    @contextmanager
    def served(self, **more: str) -> Iterator[subprocess.Popen[str]]:
        """gunicorn with two workers, scheduler on: two connections to the mail server."""
        self.connections = 2
        bind = f"127.0.0.1:{self.port}"
        target = "tests.faults.app_under_test:create_app()"
        options = ("--workers=2", "--no-control-socket", "--log-level=error", "--bind", bind)
        with self.running("gunicorn", *options, target, SCHEDULER="on", **more) as process:
            yield process

    def unsent(self) -> int:
        with self.session() as session:
            waiting = session.scalar(
                select(func.count()).select_from(Message).where(Message.state.in_(["queued", "sending"]))
            )
            unsettled = session.scalar(
                select(func.count()).select_from(BillingOrder).where(BillingOrder.state.in_(["queued", "working"]))
            )
        return (waiting or 0) + (unsettled or 0)

    def link(self, address: str, path: str) -> str:
        """The newest link of this kind in a mail to this address."""
        pattern = re.compile(rf"{re.escape(self.settings.public_url)}/{path}/\S+")
        for mail in reversed(self.smtp.to(address)):
            body = mail.message.get_body(("plain",))
            assert body is not None
            found = pattern.search(body.get_content())
            if found:
                return found.group().rstrip(".>)")
        raise AssertionError(f"no {path} link to {address}")


class Visitor:
    """Somebody at a browser, far from the server: cookies, forms, and lines that break."""

    def __init__(self) -> None:
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self.url = ""
        self.page = Page("")

    def open(self, url: str, data: dict[str, str] | None = None) -> Page:
        """Raises ConnectionError when the server died on the way."""
        self.url = urljoin(self.url, url)
        request = urllib.request.Request(self.url, None if data is None else urlencode(data).encode())
        try:
            with self._opener.open(request, timeout=PATIENCE) as response:
                self.page = Page(response.read().decode())
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise ConnectionError(str(error)) from error
        return self.page

    def press(self, name: str, value: str) -> Page:
        form = self.page.form
        assert (name, value) in form.buttons, f"there is no button {name}={value}: {self.page.text}"
        return self.open(form.action or self.url, {**form.fields, name: value})


def check(site: Site, *, kinds: dict[str, list[str]], orders: dict[str, list[str]]) -> int:
    """What must hold after however many kills; returns how many duplicates arrived.

    ``kinds`` and ``orders`` name, for each member with a case, the mails and billing orders that had to come of it.
    """
    with site.session() as session:
        _cases(session, set(kinds))
        duplicates = _mails(session, site, kinds)
        _warned(session, site)
        _orders(session, orders)
        _totals(session)
    assert duplicates <= site.kills * site.connections
    site.duplicates = duplicates
    return duplicates


def _cases(session: Session, expected: set[str]) -> None:
    """One case for each dormant member, opened once and closed at most once."""
    found = session.scalars(
        select(Member.external_id).join(Case, Case.member_id == Member.id).where(Case.campaign_id.is_not(None))
    ).all()
    assert sorted(found) == sorted(expected)
    for code in ("case_opened", "case_closed"):
        often = session.execute(
            select(Happened.case_id, func.count()).where(Happened.code == code).group_by(Happened.case_id)
        ).all()
        assert {count for _, count in often} <= {1}, code


def _mails(session: Session, site: Site, kinds: dict[str, list[str]]) -> int:
    """No message lost, none twice but under its own Message-ID."""
    rows = session.execute(
        select(Message, Member.external_id).join(Member, Member.id == Message.member_id).order_by(Message.id)
    ).all()
    written: dict[str, list[str]] = {external_id: [] for external_id in kinds}
    for message, external_id in rows:
        assert message.state in ("sent", "bounced"), (message.kind, message.state, message.smtp_reply)
        written[external_id].append(message.kind)
    assert {name: sorted(found) for name, found in written.items()} == {
        name: sorted(wanted) for name, wanted in kinds.items()
    }
    arrived = Counter(str(mail.message["Message-ID"]) for mail in site.smtp.mails)
    assert {message.message_id for message, _ in rows if message.state == "sent"} == set(arrived)
    what = {
        (str(mail.message["Message-ID"]), mail.recipients[0], str(mail.message["Subject"])) for mail in site.smtp.mails
    }
    assert len(what) == len(arrived), "one Message-ID, two mails"
    accepted = session.scalar(select(func.count()).select_from(Happened).where(Happened.code == "mail_accepted"))
    assert accepted == len(arrived)
    return sum(arrived.values()) - len(arrived)


def _warned(session: Session, site: Site) -> None:
    """Nobody lapsed in silence whose warning the server itself does not remember."""
    arrived = {(str(mail.message["Message-ID"]), mail.recipients[0]) for mail in site.smtp.mails}
    for case in session.scalars(select(Case).where(Case.state == "lapsed", Case.answer.is_(None))):
        warnings = session.execute(
            select(Message.message_id, Message.to_address).where(Message.case_id == case.id, Message.kind == "warning")
        ).all()
        assert {tuple(row) for row in warnings} & arrived, case.id


def _orders(session: Session, orders: dict[str, list[str]]) -> None:
    """One order for each decision, each carried out, and in the books once."""
    rows = session.execute(
        select(Member.external_id, BillingOrder.kind, BillingOrder.state, BillingOrder.key)
        .join(Member, Member.id == BillingOrder.member_id)
        .order_by(BillingOrder.id)
    ).all()
    found: dict[str, list[str]] = {}
    for row in rows:
        assert row.state == "done", (row.external_id, row.kind, row.state)
        found.setdefault(row.external_id, []).append(row.kind)
    assert found == orders
    assert sorted(session.scalars(select(LocalCall.key))) == sorted(row.key for row in rows)
    charges = session.execute(select(LocalCharge.billing_ref, func.count()).group_by(LocalCharge.billing_ref)).all()
    restarts = Counter(name for name, wanted in orders.items() for kind in wanted if kind == "restart")
    assert {name: count for name, count in charges} == dict(restarts)


def _totals(session: Session) -> None:
    for campaign in session.scalars(select(Campaign)):
        states = dict(
            session.execute(
                select(Case.state, func.count()).where(Case.campaign_id == campaign.id).group_by(Case.state)
            ).all()
        )
        assert sum(states.values()) == campaign.dormant_count
        lapsed = session.scalar(
            select(func.count())
            .select_from(Happened)
            .where(Happened.campaign_id == campaign.id, Happened.code == "case_closed", Happened.detail == "lapsed")
        )
        assert lapsed == states.get("lapsed", 0)
