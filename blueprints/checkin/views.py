"""The views. Each GET reads; each POST takes one answer or one hint, commits once, and shows what holds then."""

from collections.abc import Callable

from flask import Blueprint, Response, make_response, redirect, render_template, request, session, url_for
from flask_login import current_user, login_required
from sqlalchemy import ColumnElement
from werkzeug.wrappers import Response as AnyResponse

from blueprints.checkin import words
from blueprints.language import bare, of_its_mail
from domain.errors import Refused
from domain.lifecycle import Answer, Through
from models import db, for_writing
from services import check_in, decisions, scanners, warning, wording
from services.installation import installed, wake
from services.links import CHECK_IN
from services.notice import BY_LINK, LIVE, Standing, State, standing

blueprint = Blueprint("checkin", __name__)


@blueprint.get("/check-in/<token>")
def show(token: str) -> Response:
    return _page(_of_token(token))


@blueprint.post("/check-in/<token>")
def answer(token: str) -> Response:
    for_writing(db.session())
    return _answered(_of_token(token), Through.LINK, lambda: _of_token(token))


@blueprint.get("/check-in")
@login_required
def mine() -> Response:
    return _page(_of_member(), signed_in=True)


@blueprint.post("/check-in")
@login_required
def answer_mine() -> Response:
    for_writing(db.session())
    return _answered(_of_member(), Through.ACCOUNT, _of_member)


@blueprint.get("/check-in/<token>/not-mine")
def not_mine(token: str) -> Response:
    seen = _of_token(token)
    if seen is None or seen.state is State.PURGED:
        return _page(seen)
    return _render(seen, "checkin/not_mine_said.html" if seen.case.not_mine_at else "checkin/not_mine.html")


@blueprint.post("/check-in/<token>/not-mine")
def say_not_mine(token: str) -> Response:
    for_writing(db.session())
    seen = _of_token(token)
    if seen is None or seen.state is State.PURGED:
        return _page(seen)
    if _may_be_a_machine(seen):
        return _render(seen, "checkin/not_mine.html", one_step_left=True, marker=_marker(seen))
    decisions.not_mine(db.session(), seen.case.id, installed().clock.now())
    db.session.commit()
    wake()
    return _render(seen, "checkin/not_mine_said.html")


@blueprint.get("/check-in/<token>/reminders")
def reminders(token: str) -> Response:
    return _reminders_page(_of_token(token))


@blueprint.post("/check-in/<token>/reminders")
def change_reminders(token: str) -> Response:
    for_writing(db.session())
    return _reminders_changed(_of_token(token), lambda: _of_token(token))


@blueprint.get("/check-in/reminders")
@login_required
def my_reminders() -> Response:
    return _reminders_page(_of_member(), signed_in=True)


@blueprint.post("/check-in/reminders")
@login_required
def change_my_reminders() -> Response:
    for_writing(db.session())
    return _reminders_changed(_of_member(), _of_member, signed_in=True)


@blueprint.get("/check-in/<token>/receipt.<any(txt, html):form>")
def receipt(token: str, form: str) -> AnyResponse:
    return _receipt(_of_token(token), form, url_for("checkin.show", token=token))


@blueprint.get("/check-in/receipt.<any(txt, html):form>")
@login_required
def my_receipt(form: str) -> AnyResponse:
    return _receipt(_of_member(), form, url_for("checkin.mine"))


@blueprint.get("/check-in/<path:token>")
def broken(token: str) -> Response:
    """What a mail program made of a link: the same general page as for any other that is none."""
    return _general()


def _of_token(token: str) -> Standing | None:
    """None for a token that is none, and for one of an older address: neither shows anything.

    The page is about the case of the link, so it is laid out without asking who happens to be signed in.
    """
    bare()
    here = installed()
    read = check_in.read(here.settings, token)
    if read is None:
        return None
    public_id, generation = read
    return _standing(BY_LINK, public_id=public_id, generation=generation)


def _of_member() -> Standing | None:
    return _standing(LIVE, member_id=current_user.member.id)


def _standing(which: ColumnElement[bool], **values: object) -> Standing | None:
    here = installed()
    return standing(db.session(), here.settings, which, here.clock.now(), **values)


def _answered(seen: Standing | None, through: Through, anew: Callable[[], Standing | None]) -> Response:
    signed_in = through is Through.ACCOUNT
    if seen is None:
        return _page(None, signed_in=signed_in)
    try:
        wish = Answer(request.form.get("answer", ""))
    except ValueError:
        return _page(seen, signed_in=signed_in, unknown=True, status=400)
    if not signed_in and _may_be_a_machine(seen):
        return _page(seen, one_step_left=True, marker=_marker(seen))
    here = installed()
    try:
        decisions.answer(db.session(), here.settings, seen.case.id, wish, through, here.clock.now())
        db.session.commit()
        _remember_press(seen)
        wake()
    except Refused:
        # The membership or the round ended meanwhile, or long ago: the page says what holds instead.
        db.session.rollback()
    return _page(anew(), signed_in=signed_in, just_answered=True)


def _reminders_page(seen: Standing | None, *, signed_in: bool = False, **more: object) -> Response:
    """Once there is an answer, or an end, there is nothing to be reminded of: the page of the case says so."""
    if seen is None or seen.state not in (State.OPEN, State.WAITING):
        return _page(seen, signed_in=signed_in)
    return _render(seen, "checkin/reminders.html", **more)


def _reminders_changed(
    seen: Standing | None, anew: Callable[[], Standing | None], *, signed_in: bool = False
) -> Response:
    wish = request.form.get("reminders")
    if seen is None or wish not in ("no", "yes"):
        return _reminders_page(seen, signed_in=signed_in)
    if not signed_in and _may_be_a_machine(seen):
        return _reminders_page(seen, one_step_left=True, marker=_marker(seen))
    warning.decline_reminders(db.session(), seen.case.id, wish == "no", installed().clock.now())
    db.session.commit()
    _remember_press(seen)
    return _reminders_page(anew(), signed_in=signed_in, just_changed=True)


def _receipt(seen: Standing | None, form: str, page: str) -> AnyResponse:
    """What was answered and when, and what follows, to keep. Where there is no answer the page says what there is."""
    if seen is None or not seen.case.answered_at or seen.state not in (State.KEPT, State.LAPSING, State.LAPSED):
        return redirect(page)
    response = _render(seen, f"checkin/receipt.{form}", public_url=installed().settings.public_url)
    response.mimetype = "text/plain" if form == "txt" else "text/html"
    response.headers["Content-Disposition"] = f'attachment; filename="receipt.{form}"'
    return response


def _may_be_a_machine(seen: Standing) -> bool:
    """Whether this press has to be made once more; the form that asks for it carries a marker that lets it through."""
    here = installed()
    case = seen.case
    marker = request.form.get("step", "")
    if check_in.is_second_step(here.settings, marker, case.public_id, case.address_generation):
        return False
    if scanners.calls_itself_one(request.user_agent.string):
        return True
    # A receipt carries the same link, and a machine that presses its one button would turn the answer round. Whoever
    # has answered in this browser before is none.
    known = case.public_id in session.get("pressed", [])
    return not known and scanners.just_mailed(db.session(), here.clock.now(), case_id=case.id, kinds=CHECK_IN)


def _marker(seen: Standing) -> str:
    return check_in.second_step(installed().settings, seen.case.public_id, seen.case.address_generation)


def _remember_press(seen: Standing) -> None:
    session["pressed"] = [*session.get("pressed", [])[-9:], seen.case.public_id]


def _page(seen: Standing | None, *, signed_in: bool = False, status: int = 200, **more: object) -> Response:
    if seen is not None:
        response = _render(seen, "checkin/case.html", **more)
    elif signed_in:
        response = make_response(render_template("checkin/nothing.html"))
    else:
        response = _general()
    response.status_code = status
    return response


def _render(seen: Standing, template: str, **more: object) -> Response:
    here = installed()
    with wording.in_language(of_its_mail(seen.member.locale)) as language:
        said = words.of_standing(seen, here.settings, here.clock.now())
        token = (request.view_args or {}).get("token")
        facts = words.of_receipt(seen, said, here.settings)
        response = make_response(
            render_template(template, seen=seen, said=said, receipt_facts=facts, token=token, State=State, **more)
        )
    response.headers["Content-Language"] = language
    return response


def _general() -> Response:
    """Nothing about anybody, and the way to a page that shows everything: signing in."""
    bare()
    return make_response(render_template("checkin/general.html"))
