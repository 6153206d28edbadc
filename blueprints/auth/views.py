"""The pages of signing in and out. Each page is a GET that changes nothing and a POST that does one thing."""

from flask import Blueprint, redirect, render_template, request, session, url_for
from flask_login import current_user, login_required, logout_user
from werkzeug.wrappers import Response

from blueprints.auth.paths import after_sign_in, is_local
from blueprints.auth.session import DEVICE, forget_device, sign_in_as
from domain.addresses import plausible
from domain.links import LIFETIME, Purpose
from models import Member, db, for_writing
from services import magic_links, sign_ins
from services.installation import installed, wake

blueprint = Blueprint("auth", __name__)

CHOICE_SECONDS = LIFETIME[Purpose.SIGN_IN].total_seconds()


@blueprint.get("/sign-in")
def sign_in() -> Response | str:
    if current_user.is_authenticated:
        return redirect(url_for("account.show"))
    wanted = request.args.get("next")
    if wanted and is_local(wanted):
        session["next"] = wanted
    return render_template("auth/sign_in.html")


@blueprint.post("/sign-in")
def request_link() -> str | tuple[str, int]:
    email = request.form.get("email", "").strip()
    if not plausible(email):
        return render_template("auth/sign_in.html", email=email, wrong=True), 400
    here = installed()
    for_writing(db.session())
    magic_links.request_sign_in(db.session(), here.settings, email, request.remote_addr or "", here.clock.now())
    db.session.commit()
    wake()
    return render_template("auth/sent.html", email=email)


@blueprint.get("/sign-in/<token>")
def open_link(token: str) -> str | tuple[str, int]:
    link = magic_links.look(db.session(), Purpose.SIGN_IN, token, installed().clock.now())
    return render_template("auth/open.html") if link is not None else _too_late()


@blueprint.post("/sign-in/<token>")
def use_link(token: str) -> Response | tuple[str, int]:
    for_writing(db.session())
    now = installed().clock.now()
    link = magic_links.consume(db.session(), Purpose.SIGN_IN, token, now)
    if link is None:
        return _too_late()
    key = magic_links.address_of(db.session(), link)
    found = magic_links.memberships(db.session(), key)
    wanted = session.get("next")
    if len(found) == 1:
        sign_in_as(found[0])
    else:
        # The mailbox is proven; which of its memberships is meant is asked next, for as long as a link lives.
        logout_user()
        forget_device()
        session["proven"] = {"address": key, "until": now.timestamp() + CHOICE_SECONDS}
    db.session.commit()
    return redirect(after_sign_in(wanted) if len(found) == 1 else url_for("auth.which"))


@blueprint.get("/sign-in/which")
def which() -> str | tuple[str, int]:
    members = _choice()
    return render_template("auth/which.html", members=members) if members else _too_late()


@blueprint.post("/sign-in/which")
def choose() -> Response | tuple[str, int]:
    chosen = request.form.get("member")
    for_writing(db.session())
    for member in _choice():
        if member.public_id == chosen:
            wanted = session.get("next")
            sign_in_as(member)
            db.session.commit()
            return redirect(after_sign_in(wanted))
    return _too_late()


@blueprint.post("/sign-out")
def sign_out() -> Response:
    for_writing(db.session())
    forget_device()
    db.session.commit()
    _leave()
    return redirect(url_for("auth.signed_out"))


@blueprint.post("/sign-out/everywhere")
@login_required
def sign_out_everywhere() -> Response:
    for_writing(db.session())
    sign_ins.end_all(db.session(), current_user.member.id)
    db.session.commit()
    _leave()
    return redirect(url_for("auth.signed_out"))


@blueprint.post("/sign-out/device")
@login_required
def sign_out_device() -> Response:
    """End the session on another device of one's own; on this one that is signing out."""
    device = request.form.get("device", "")
    if device == session.get(DEVICE):
        return sign_out()
    for_writing(db.session())
    sign_ins.end(db.session(), device, current_user.member.id)
    db.session.commit()
    return redirect(url_for("account.show", _anchor="devices"), 303)


@blueprint.get("/sign-out")
def signed_out() -> str:
    return render_template("auth/signed_out.html")


def _leave() -> None:
    language = session.get("lang")
    session.clear()
    logout_user()
    if language is not None:
        session["lang"] = language


def _choice() -> list[Member]:
    proven = session.get("proven")
    if proven is None or proven["until"] <= installed().clock.now().timestamp():
        return []
    return magic_links.memberships(db.session(), proven["address"])


def _too_late() -> tuple[str, int]:
    """A link that was used, is too old or was never made: the same page, with the way to a new one."""
    return render_template("auth/too_late.html"), 410
