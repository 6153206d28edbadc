"""Signing in by the service's word: it hands a member over who is signed in there (services/assertions.py).

Two ways lead here. A form of the service's own page posts the assertion, which takes one press in all; the browser says
in Origin whose page that was, so that nobody else's can sign a visitor in. Or the service leads to a page here, which
has one button; apps and redirects can do that. Where to go on is one of a few names, never an address.
"""

from flask import redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints.auth.session import sign_in_as
from blueprints.auth.views import blueprint
from domain.errors import Refused
from models import db, for_writing
from services import assertions
from services.installation import installed

GO_ON = {
    "account": "account.show",
    "check-in": "checkin.mine",
    "come-back": "comeback.mine",
    "data": "account.data",
}


@blueprint.get("/sign-in/service")
def service() -> Response:
    return redirect(url_for("auth.sign_in"))


@blueprint.post("/sign-in/service")
def from_service() -> Response | tuple[str, int]:
    if request.headers.get("Origin") not in installed().settings.service_origins:
        return _refused("The page that posted this is of none of SERVICE_ORIGINS.")
    return _take(request.form.get("assertion", ""), request.form.get("to"))


@blueprint.get("/sign-in/service/<token>")
def service_link(token: str) -> str | tuple[str, int]:
    here = installed()
    try:
        member = assertions.look(db.session(), here.settings, token, here.clock.now())
    except Refused as error:
        return _refused(str(error))
    return render_template("auth/from_service.html", member=member)


@blueprint.post("/sign-in/service/<token>")
def use_service_link(token: str) -> Response | tuple[str, int]:
    return _take(token, request.args.get("to"))


def _take(token: str, to: str | None) -> Response | tuple[str, int]:
    here = installed()
    for_writing(db.session())
    try:
        member = assertions.consume(db.session(), here.settings, token, here.clock.now())
    except Refused as error:
        db.session.rollback()
        return _refused(str(error))
    sign_in_as(member)
    db.session.commit()
    return redirect(url_for(GO_ON.get(to or "", GO_ON["account"])), 303)


def _refused(why: str) -> tuple[str, int]:
    """``why`` is for whoever builds the service; a member is shown the way on.

    With a form that another site has posted comes no cookie, and it begins no session: a form of ours would carry a
    token that belongs to none.
    """
    by_form = request.method == "POST" and request.endpoint == "auth.from_service"
    return render_template("auth/not_from_service.html", why=why, came_by_form=by_form), 403
