"""What members set for themselves: where our mails go, confirmed at both addresses, and their language."""

from flask import redirect, render_template, request, session, url_for
from flask_login import current_user, login_required
from werkzeug.wrappers import Response

from blueprints.account.views import blueprint
from domain.errors import BadValue
from domain.lifecycle import MailState
from domain.links import Purpose
from models import db, for_writing
from services import magic_links, own_settings, wording
from services.installation import installed, wake


@blueprint.get("/account/email")
@login_required
def email() -> str:
    return _email_page()


@blueprint.post("/account/email")
@login_required
def change_email() -> str | tuple[str, int]:
    wanted = request.form.get("email", "").strip()
    for_writing(db.session())
    try:
        sent = own_settings.request_change(db.session(), current_user.member.id, wanted, installed().clock.now())
    except BadValue:
        db.session.rollback()
        return _email_page(wanted, wrong=True), 400
    db.session.commit()
    wake()
    return _email_page(wanted, sent=sent, too_many=not sent)


@blueprint.get("/account/email/<token>")
def confirm_email(token: str) -> str | tuple[str, int]:
    link = magic_links.look(db.session(), Purpose.NEW_ADDRESS, token, installed().clock.now())
    if link is None:
        return _too_late()
    return render_template(
        "account/email_confirm.html", address=link.new_address, proven=link.proven_at is not None, token=token
    )


@blueprint.post("/account/email/<token>")
def use_email(token: str) -> str | tuple[str, int]:
    here = installed()
    for_writing(db.session())
    confirmed = own_settings.confirm(db.session(), here.settings, token, here.clock.now())
    if confirmed is None:
        db.session.rollback()
        return _too_late()
    db.session.commit()
    wake()
    return render_template("account/email_changed.html" if confirmed.holds else "account/email_half.html", it=confirmed)


@blueprint.post("/account/email/<token>/not-me")
def refuse_email(token: str) -> str | tuple[str, int]:
    for_writing(db.session())
    refused = own_settings.refuse(db.session(), token, installed().clock.now())
    db.session.commit()
    return render_template("account/email_refused.html") if refused else _too_late()


@blueprint.get("/account/language")
@login_required
def language() -> str:
    return render_template("account/language.html", spoken=wording.supported(current_user.member.locale))


@blueprint.post("/account/language")
@login_required
def choose_language() -> Response | tuple[str, int]:
    chosen = request.form.get("language")
    if chosen not in wording.LANGUAGES:
        return language(), 400
    for_writing(db.session())
    own_settings.choose_language(db.session(), current_user.member.id, chosen, installed().clock.now())
    db.session.commit()
    # From now on the pages follow the member's language again, also where the foot of a page had asked for another.
    session.pop("lang", None)
    return redirect(url_for("account.show"), 303)


def _email_page(wanted: str = "", **what_came_of_it: bool) -> str:
    member = current_user.member
    asks_both = member.mail_state == MailState.GOOD
    return render_template("account/email.html", wanted=wanted, member=member, asks_both=asks_both, **what_came_of_it)


def _too_late() -> tuple[str, int]:
    return render_template("account/email_too_late.html"), 410
