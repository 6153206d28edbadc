"""What members set for themselves: where our mails go, confirmed at both addresses, and their language."""

from flask import make_response, redirect, render_template, request, session, url_for
from flask_login import current_user, login_required
from werkzeug.wrappers import Response

from blueprints import presses
from blueprints.account.views import blueprint
from blueprints.language import bare, of_its_mail
from domain.errors import BadValue
from domain.links import Purpose
from domain.notices import Kind
from models import MagicLink, Member, db, for_writing
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
def confirm_email(token: str) -> Response:
    found = own_settings.asked_about(db.session(), token, installed().clock.now())
    return _too_late(token) if found is None else _question(*found)


@blueprint.post("/account/email/<token>")
def use_email(token: str) -> Response:
    here = installed()
    now = here.clock.now()
    for_writing(db.session())
    found = own_settings.asked_about(db.session(), token, now)
    if found is None:
        return _too_late(token)
    member, link = found
    at_present_one = link.proven_at is not None
    if presses.may_be_a_machines(member, [Kind.OLD_ADDRESS] if at_present_one else ()):
        return _question(member, link, one_step_left=True)
    wish = request.form.get("answer") if at_present_one else "yes"
    if wish not in ("yes", "no"):
        return _question(member, link, status=400)
    locale = member.locale
    if wish == "no":
        refused = own_settings.refuse(db.session(), token, now)
        answer = _in_its_language(locale, "account/email_refused.html") if refused else None
    else:
        came = own_settings.confirm(db.session(), here.settings, token, now)
        template = "account/email_changed.html" if came is not None and came.holds else "account/email_half.html"
        answer = _in_its_language(locale, template, it=came) if came is not None else None
    if answer is None:
        # Somebody else has pressed in the same moment, and was first.
        return _too_late(token)
    db.session.commit()
    wake()
    return answer


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
    asks_both = own_settings.asks_both(member)
    return render_template("account/email.html", wanted=wanted, member=member, asks_both=asks_both, **what_came_of_it)


def _question(member: Member, link: MagicLink, *, one_step_left: bool = False, status: int = 200) -> Response:
    """At the new address whether mail may go there, at the present one whether it is to go there from now on."""
    return _in_its_language(
        member.locale,
        "account/email_confirm.html",
        status,
        member=member,
        address=link.new_address,
        at_present_one=link.proven_at is not None,
        asks_both=own_settings.asks_both(member),
        one_step_left=one_step_left,
        marker=presses.marker(member) if one_step_left else None,
    )


def _too_late(token: str) -> Response:
    """A link that changes nothing any more: it was used, its time is over, or nobody knows it."""
    bare()
    db.session.rollback()
    past = magic_links.became(db.session(), Purpose.NEW_ADDRESS, token)
    return make_response(render_template("account/email_too_late.html", past=past), 410)


def _in_its_language(locale: str | None, template: str, status: int = 200, **more: object) -> Response:
    with wording.in_language(of_its_mail(locale)) as language:
        response = make_response(render_template(template, **more), status)
    response.headers["Content-Language"] = language
    return response
