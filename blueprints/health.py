"""For machines: is the process alive, can it serve, and what is waiting. Plain text; nothing about anybody."""

from datetime import timedelta
from typing import Any

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Blueprint, Response
from sqlalchemy import ColumnElement, func, literal_column, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from domain.lifecycle import UNFINISHED_ORDERS, MessageState
from models import BillingOrder, Case, JobRun, Message, db
from services import timekeeping
from services.installation import installed
from settings import ROOT

blueprint = Blueprint("health", __name__)

TICK_MAY_BE_LATE = timedelta(minutes=10)
PLAIN = "text/plain; charset=utf-8"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
COUNTED = (MessageState.QUEUED, MessageState.SENDING, MessageState.FAILED, MessageState.BOUNCED)


@blueprint.get("/healthz")
def alive() -> Response:
    return Response("ok\n", content_type=PLAIN)


@blueprint.get("/readyz")
def ready() -> Response:
    """200 when pages can be served and jobs run; else 503 and a line for each thing that is missing."""
    try:
        missing = [line for line in (_schema(), _tick(), _time()) if line is not None]
    except (OperationalError, InterfaceError, NoConnectionFree):
        missing = ["database: does not answer"]
    return Response("\n".join(missing or ["ok"]) + "\n", 503 if missing else 200, content_type=PLAIN)


@blueprint.get("/metrics")
def metrics() -> Response:
    """What is waiting, as Prometheus reads it."""
    now = installed().clock.now()
    states: dict[str, int] = dict.fromkeys(COUNTED, 0)
    states |= dict(
        db.session.execute(
            # The states as literals: what is queued and what is being sent is then counted through partial indexes.
            select(Message.state, func.count()).where(Message.state.in_(_literals(COUNTED))).group_by(Message.state)
        ).all()
    )
    oldest, cases, orders, due = db.session.execute(
        select(
            select(func.min(Message.due_at)).where(Message.state.in_(_literals(COUNTED[:1]))).scalar_subquery(),
            _count(Case, Case.closed_at.is_(None)),
            _count(BillingOrder, BillingOrder.state.in_(_literals(UNFINISHED_ORDERS))),
            _count(JobRun, JobRun.due_at <= now, JobRun.finished_at.is_(None)),
        )
    ).one()
    waiting = 0 if oldest is None else max(0, int((now - oldest).total_seconds()))
    lines = ["# HELP dormouse_messages Mails by state; what was sent is not counted.", "# TYPE dormouse_messages gauge"]
    lines += [f'dormouse_messages{{state="{state}"}} {states[state]}' for state in COUNTED]
    for name, text, value in (
        ("oldest_due_message_seconds", "How long the oldest queued mail has been due.", waiting),
        ("live_cases", "Members who are being asked.", cases),
        ("unfinished_billing_orders", "Orders the provider has not confirmed.", orders),
        ("due_jobs", "Periods of calendar jobs that are due and not finished.", due),
    ):
        lines += [f"# HELP dormouse_{name} {text}", f"# TYPE dormouse_{name} gauge", f"dormouse_{name} {value}"]
    return Response("\n".join(lines) + "\n", content_type=PROMETHEUS)


def _schema() -> str | None:
    head = ScriptDirectory(str(ROOT / "migrations")).get_current_head()
    found = MigrationContext.configure(db.session.connection()).get_current_revision()
    return None if found == head else f"schema: {found or 'none'} instead of {head}; run flask db upgrade"


def _tick() -> str | None:
    """Queue jobs run with every tick and keep one row each."""
    here = installed()
    if not here.settings.scheduler:
        return None
    last = db.session.scalar(select(func.max(JobRun.started_at)).where(JobRun.period == "queue"))
    if last is not None and here.clock.now() - last <= TICK_MAY_BE_LATE:
        return None
    return "scheduler: no tick yet" if last is None else f"scheduler: last tick at {last:%Y-%m-%d %H:%M} UTC"


def _time() -> str | None:
    jump = timekeeping.doubt(db.session())
    return None if jump is None else f"clock: {timekeeping.sentence(jump, installed().settings.zone)}"


def _literals(words: Any) -> list[ColumnElement[str]]:
    return [literal_column(f"'{word}'") for word in words]


def _count(table: Any, *where: ColumnElement[bool]) -> Any:
    return select(func.count()).select_from(table).where(*where).scalar_subquery()
