"""The demo: people to be, a mailbox with their mails, and a bar on every page to travel in time.

Registered in demo mode only. Everything else on these pages is the real thing: mails went over SMTP, a use goes the way
of the activity file, and after a journey the jobs have really run.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, abort, current_app, flash, redirect, render_template, request, url_for
from flask_babel import gettext as _
from flask_babel import lazy_gettext, ngettext
from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from blueprints import headers
from blueprints.auth.session import sign_in_as
from blueprints.demo import cast, mailbox
from models import Member, db, for_writing
from services import demo as service
from services import wording
from services.demo import Stop
from services.installation import installed, wake

blueprint = Blueprint("demo", __name__, url_prefix="/demo")

STOPS = {
    Stop.TOMORROW: lazy_gettext("To tomorrow"),
    Stop.REMINDER: lazy_gettext("To the reminder"),
    Stop.MONTH_END: lazy_gettext("Past the month end"),
    Stop.NINE_MONTHS: lazy_gettext("Nine months on"),
    Stop.PAST_KEEP_UNTIL: lazy_gettext("Past “saved until”"),
}


def _folder() -> Path:
    return installed().settings.instance_path


@blueprint.get("/")
def show() -> str:
    """What the programme does for this service, in one sentence, and the people to be."""
    found = installed()
    now = found.clock.now()
    return render_template(
        "demo/show.html",
        unused=service.unused(db.session(), found.settings, now),
        asked=service.asked(db.session()),
        ended=service.ended(db.session()),
        money=lambda amount: wording.money(amount.minor, amount.currency),
        people=cast.people(db.session(), found.settings, _folder() / "cast.json", now),
    )


@blueprint.post("/be/<external_id>")
def be(external_id: str) -> Response:
    """Sign in as somebody, without the mail that this takes outside the demo."""
    for_writing(db.session())
    sign_in_as(_member(external_id))
    db.session.commit()
    return redirect(url_for("account.show"))


@blueprint.post("/use/<external_id>")
def use(external_id: str) -> Response:
    """Have somebody watch something at this moment: what the service's next activity file would report."""
    name = _member(external_id).name or external_id
    db.session.rollback()
    found = installed()
    now = found.clock.now()
    service.report_uses(db.session(), found.settings, [(external_id, now)], now, db.session.commit)
    wake()
    flash(_("%(name)s has just watched something.", name=name), "demo")
    return redirect(url_for("demo.show"))


@blueprint.post("/travel")
def travel() -> Response:
    """Live through every day up to a stop: the service is used, its nightly file arrives, the due jobs run."""
    found = installed()
    now = found.clock.now()
    wanted = request.form.get("to", "")
    at = {place.stop: place.at for place in service.destinations(db.session(), found.settings, now)}.get(wanted)
    if at is None:
        abort(404)
    before = mailbox.count(_folder() / "mail")
    db.session.rollback()
    current_app.extensions["dormouse_travel"](at)
    arrived = mailbox.count(_folder() / "mail") - before
    flash(ngettext("%(num)d mail has arrived.", "%(num)d mails have arrived.", arrived), "demo")
    return redirect(_back())


@blueprint.get("/mail")
def mails() -> str:
    """The mailbox: every mail as it was received, newest first."""
    to = request.args.get("to", "")
    zone = installed().settings.zone
    return render_template(
        "demo/mails.html",
        short_day_of=lambda instant: wording.short_date(instant, zone),
        mails=mailbox.received(_folder() / "mail", to=to),
        to=to,
    )


@blueprint.get("/mail/<int:number>")
def mail(number: int) -> Response:
    response = Response(render_template("demo/mail.html", day_of=_day_of, mail=_mail(number)))
    # The one page with a frame in it: the mail, which is shut in there.
    response.headers["Content-Security-Policy"] = f"{headers.CONTENT_SECURITY_POLICY}; frame-src 'self'"
    return response


@blueprint.get("/mail/<int:number>/html")
def mail_html(number: int) -> Response:
    """The HTML of a mail, for the frame: its own styles are allowed here and nowhere else, and nothing beside them."""
    # Links open in the whole window, as they would from a mail program.
    html = _mail(number).html.replace("<head>", '<head><base target="_top">', 1)
    response = Response(html, mimetype="text/html")
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self';"
        " sandbox allow-top-navigation-by-user-activation"
    )
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    return response


@blueprint.app_context_processor
def _on_every_page() -> dict[str, Any]:
    return {"demo_bar": _bar}


def _bar() -> Markup:
    """The bar: what time it is, where to travel, and the way to the people and the mailbox."""
    found = installed()
    now = found.clock.now()
    try:
        places = service.destinations(db.session(), found.settings, now)
    except SQLAlchemyError:
        # The page may be the one that says that the database cannot be used.
        db.session.rollback()
        places = []
    return Markup(
        render_template(
            "demo/_bar.html",
            now=wording.long_date(now, found.settings.zone),
            stops=[
                (place.stop, STOPS[place.stop], wording.short_date(place.at, found.settings.zone)) for place in places
            ],
            mail_count=mailbox.count(_folder() / "mail"),
            back=request.full_path if request.method == "GET" else url_for("demo.show"),
        )
    )


def _day_of(instant: datetime) -> str:
    return wording.date_and_time(instant, installed().settings.zone)


def _member(external_id: str) -> Member:
    member = db.session.scalar(select(Member).where(Member.external_id == external_id))
    if member is None:
        abort(404)
    return member


def _mail(number: int) -> mailbox.Mail:
    found = mailbox.read(_folder() / "mail", number)
    if found is None:
        abort(404)
    return found


def _back() -> str:
    """The page one travelled from; only ever a path of this site."""
    path = request.form.get("back", "")
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else url_for("demo.show")
