"""What happens before the demo opens its doors, all of it by the ordinary files, use cases and jobs.

1. Two months ago the service began with a pilot of 130 members, ten of them dormant. Some kept, some used it, and
   four said nothing: they lapsed at the month end, which is where the demo's lapsed members come from.
2. Today the whole membership is imported, and this month's campaign is drafted, opened and mailed.
"""

import json
import signal
import socket
from datetime import datetime, time, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, cast

import click
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import func, select
from werkzeug.serving import WSGIRequestHandler, make_server

from commands.demo import sample
from commands.demo.sample import Kind, Sample
from domain.dates import add_months, first_of_month, local_day, named_day
from domain.lifecycle import Answer, MemberStatus, Through
from domain.money import to_decimal
from models import Case, Member, db, for_writing
from services import decisions, demo
from services.activity import import_activity
from services.importing import import_members
from services.installation import installed
from services.library import import_libraries
from settings import Settings

CAST = "cast.json"
PILOT_FIRST = 101

WANTED = {
    Kind.NEVER_USED: 2,
    Kind.STOPPED_USING: 1,
    Kind.SHARED_ADDRESS: 2,
    Kind.ANNUAL: 1,
    Kind.ACTIVE: 1,
    Kind.SOON: 1,
    Kind.EXEMPT: 1,
}
"""How many of a kind, and of a language, the first page offers."""


class TravellingClock(Protocol):
    def now(self) -> datetime: ...

    def travel(self, to: datetime) -> None: ...


def run(settings: Settings, listener: socket.socket) -> None:
    """Prepare what is not there yet, say where to click, and serve until stopped."""
    from app import create_app

    app = create_app(settings)
    if not (settings.instance_path / CAST).exists():
        prepare(app)
    jobs = app.extensions["dormouse_jobs"]
    server = make_server(*listener.getsockname(), app, threaded=True, fd=listener.fileno(), request_handler=_Quiet)
    with app.app_context():
        _say_where_to_click(settings)
    jobs.start()
    # A shell that starts it in the background has it ignore Ctrl-C, and ending it otherwise is no accident either.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo("\nThe demo has stopped; with --keep it goes on from here.")
    finally:
        jobs.stop()


def prepare(app: Flask) -> None:
    """Live the story up to this moment. What is written last, the cast, says that it is complete."""
    with app.app_context():
        upgrade()
        clock = cast(TravellingClock, installed().clock)
        zone = installed().settings.zone
        travel = app.extensions["dormouse_travel"]
        present = clock.now()
        began = datetime.combine(add_months(first_of_month(local_day(present, zone)), -2), time(9), tzinfo=zone)

        click.echo("Two months ago: the service begins with a pilot …")
        clock.travel(began)
        pilot = sample.membership(began, zone, sample.PILOT, PILOT_FIRST)
        _bring_in(pilot)
        travel(began + timedelta(minutes=1))
        travel(began + timedelta(days=3))
        _some_answer(pilot)
        travel(datetime.combine(add_months(began.date(), 1), time(9), tzinfo=zone))

        click.echo("Today: all members are imported, and this month's campaign goes out …")
        clock.travel(present - timedelta(minutes=15))
        members = sample.membership(clock.now(), zone)
        _bring_in(members)
        travel(clock.now() + timedelta(minutes=1))
        clock.travel(present)
        _write_cast(members)


def _bring_in(samples: list[Sample]) -> None:
    """Import members, uses and libraries from files, as `flask members import` and its siblings do."""
    session, settings, now = db.session(), installed().settings, installed().clock.now()
    with TemporaryDirectory() as name:
        folder = Path(name)
        how = {"commit": session.commit, "rejected": demo.must_not_be}
        import_members(session, settings, sample.write_members(folder / "members.csv", samples), now, **how)
        import_activity(session, settings, sample.write_uses(folder / "activity.csv", samples), now, **how)
        import_libraries(session, settings, sample.write_libraries(folder / "library.ndjson", samples), now, **how)


def _some_answer(pilot: list[Sample]) -> None:
    """Of the ten who were asked, three keep the membership and three watch something; four say nothing."""
    session, settings, now = db.session(), installed().settings, installed().clock.now()
    asked = [one.external_id for one in pilot if one.kind in sample.DORMANT]
    for external_id in asked[:3]:
        for_writing(session)
        case_id = session.scalars(
            select(Case.id).join(Member).where(Member.external_id == external_id, Case.closed_at.is_(None))
        ).one()
        decisions.answer(session, settings, case_id, Answer.KEEP, Through.LINK, now)
        session.commit()
    demo.report_uses(session, settings, [(external_id, now) for external_id in asked[3:6]], now, session.commit)


def _write_cast(members: list[Sample]) -> None:
    """Whom the first page offers to be: a few of each kind, in both languages where there are both."""
    chosen = [
        (kind.value, one.external_id)
        for kind, count in WANTED.items()
        for locale in ("en", "de")
        for one in [one for one in members if one.kind is kind and one.locale == locale][:count]
    ]
    lapsed = select(Member.external_id).where(Member.status == MemberStatus.LAPSED).order_by(Member.locale.desc())
    chosen += [("lapsed", str(external_id)) for external_id in db.session.scalars(lapsed.limit(2))]
    path = installed().settings.instance_path / CAST
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps([{"role": role, "external_id": number} for role, number in chosen]), encoding="utf-8")
    draft.replace(path)


def _say_where_to_click(settings: Settings) -> None:
    session, now = db.session(), installed().clock.now()
    unused = demo.unused(session, settings, now)
    deadline = session.scalar(select(func.max(Case.deadline_at)).where(Case.closed_at.is_(None)))
    members = session.scalar(select(func.count()).select_from(Member))
    session.rollback()
    click.echo(f"\n{members} members of {settings.service_name}, a streaming service that does not exist.")
    click.echo(
        f"{unused.a_month.currency} {to_decimal(unused.a_month.minor, 2)} a month are paid by {unused.members} of them"
        " who do not use it."
    )
    if deadline is not None:
        click.echo(
            "They have been asked whether to keep the membership. Where no answer comes, it ends on"
            f" {named_day(deadline, settings.zone):%-d %B %Y}."
        )
    click.echo(f"\n  {settings.public_url}/demo/       people to be, and travelling in time")
    click.echo(f"  {settings.public_url}/demo/mail   every mail, as received")
    click.echo(f"\nEverything is in {settings.instance_path}. Ctrl+C ends the demo.")


class _Quiet(WSGIRequestHandler):
    """Serves without a line for each request: the lines above are to stay in view."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass
