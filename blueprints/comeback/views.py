"""The views: behind the link of a mail, and for whoever is signed in. A press orders for the member of its own page."""

from flask import Blueprint, Response, make_response, redirect, render_template, request, session, url_for
from flask_login import current_user, login_required

from blueprints import presses
from blueprints.comeback import quoting
from blueprints.language import bare, of_its_mail
from domain.dates import local_day
from domain.errors import QuoteChanged, Refused
from domain.lifecycle import MemberStatus, OrderKind
from domain.links import Purpose
from models import Member, db, for_writing
from services import account, magic_links, returning, wording
from services.installation import installed, wake
from services.links import COME_BACK
from services.returning import Quote

blueprint = Blueprint("comeback", __name__)

ORDERS = (OrderKind.RESTART, OrderKind.UNDO)


@blueprint.get("/come-back/<token>")
def show(token: str) -> Response:
    bare()
    member = _holder(token)
    return _past(token) if member is None else _page(member, changed="changed" in request.args)


@blueprint.post("/come-back/<token>")
def order(token: str) -> Response:
    bare()
    for_writing(db.session())
    member = _holder(token)
    return _past(token) if member is None else _ordered(member, token)


@blueprint.get("/come-back")
def mine() -> Response:
    if not current_user.is_authenticated:
        return _hello()
    return _page(current_user.member, changed="changed" in request.args)


@blueprint.post("/come-back")
@login_required
def order_mine() -> Response:
    for_writing(db.session())
    return _ordered(_signed_in(), None)


@blueprint.get("/come-back/<path:token>")
def broken(token: str) -> Response:
    """What a mail program made of a link."""
    return _general()


def _holder(token: str) -> Member | None:
    return magic_links.holder(db.session(), Purpose.COME_BACK, token, installed().clock.now())


def _signed_in() -> Member:
    member: Member = db.session.get_one(Member, current_user.member.id, populate_existing=True)
    return member


def _ordered(member: Member, token: str | None) -> Response:
    here = installed()
    now = here.clock.now()
    if request.form.get("order") not in ORDERS:
        return _page(member, changed=True, status=400)
    quoted = quoting.read(request.form)
    if token is not None and presses.may_be_a_machines(member, COME_BACK):
        return _page(member, one_step_left=True)
    try:
        if quoted is None or quoted.kind != request.form["order"]:
            raise QuoteChanged("The form does not say what this page quotes.")
        ordered = returning.order(db.session(), here.settings, member.id, quoted, now)
        # Two presses at once: the second waits for the member's row and finds the membership active. So this can only
        # fail where the address has changed in between, and then nothing is ordered.
        if token is not None and magic_links.consume(db.session(), Purpose.COME_BACK, token, now) is None:
            db.session.rollback()
            return _past(token)
        db.session.commit()
    except QuoteChanged:
        db.session.rollback()
        # The page anew, as one that was opened: then the browser's way back from the next one leads to it.
        to = url_for("comeback.mine", changed=1) if token is None else url_for("comeback.show", token=token, changed=1)
        return redirect(to, 303, Response)
    except Refused:
        # Back already, or gone meanwhile: the page says which.
        db.session.rollback()
        return _page(db.session.get_one(Member, member.id))
    wake()
    return _welcome(db.session.get_one(Member, member.id), ordered)


def _hello() -> Response:
    """For whoever comes by memory or by a search: what may be waiting here, and the way to it."""
    session["next"] = url_for("comeback.mine").removeprefix(request.root_path)
    months = wording.count_months(installed().settings.keep_months)
    response = make_response(render_template("comeback/hello.html", keep_months=months))
    if request.method == "GET":
        response.headers["X-Robots-Tag"] = "all"
    return response


def _page(member: Member, *, changed: bool = False, one_step_left: bool = False, status: int = 200) -> Response:
    here = installed()
    now = here.clock.now()
    if member.status != MemberStatus.LAPSED:
        return _render(member, "comeback/not_lapsed.html")
    quote = returning.quote(member, here.settings, now)
    library, declined = account.waiting(db.session(), member)
    response = _render(
        member,
        "comeback/show.html",
        quote=quote,
        fields=quoting.fields(quote),
        marker=presses.marker(member) if one_step_left else None,
        library=library,
        declined=declined,
        changed=changed,
        overdue=quote.saved_until <= now,
        immediately=quote.first_charge_at is not None
        and local_day(quote.first_charge_at, here.settings.zone) == local_day(now, here.settings.zone),
    )
    response.status_code = status
    return response


def _welcome(member: Member, ordered: Quote) -> Response:
    return _render(member, "comeback/welcome.html", quote=ordered)


def _render(member: Member, template: str, **more: object) -> Response:
    zone = installed().settings.zone
    with wording.in_language(of_its_mail(member.locale)) as language:
        response = make_response(
            render_template(
                template,
                member=member,
                price=wording.price(member.price_minor, member.currency, member.billing_interval),
                money=wording.money,
                day=lambda instant: wording.long_date(instant, zone),
                short_day=lambda instant: wording.short_date(instant, zone),
                withdrawal=installed().settings.withdrawal_notice(language),
                ended_on=None if member.lapsed_at is None else wording.last_day_short(member.lapsed_at, zone),
                last_day=lambda bound: wording.last_day(bound, zone),
                **more,
            )
        )
    response.headers["Content-Language"] = language
    return response


def _past(token: str) -> Response:
    """A link that opens the page no more: what came of it, as far as it is known, and no facts."""
    past = magic_links.became(db.session(), Purpose.COME_BACK, token)
    if past is not None and past.used and past.member is not None and past.member.status != MemberStatus.LAPSED:
        return _render(past.member, "comeback/not_lapsed.html", by_this_link=True)
    return _general(unknown=past is None and magic_links.looks_whole(token))


def _general(*, unknown: bool = False) -> Response:
    """A link that was used for an earlier return, is too old, or is none: the truth of each is behind signing in.

    ``unknown`` is a whole one that is not on record: most likely it was erased with all that it had led to.
    """
    return make_response(render_template("comeback/general.html", unknown=unknown))
