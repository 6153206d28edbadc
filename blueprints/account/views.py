"""The signed-in pages: what the membership is, how to end it, and whose data it is."""

from datetime import datetime

from flask import Blueprint, redirect, render_template, session, url_for
from flask_babel import gettext
from flask_login import current_user, login_required, logout_user
from werkzeug.wrappers import Response

from blueprints import presses
from blueprints.account import devices
from blueprints.account.export import page, zipped
from blueprints.account.history import in_words
from blueprints.language import bare
from domain.errors import Refused
from domain.lifecycle import Answer, CaseState, MemberStatus, Through
from domain.links import Purpose
from domain.policy import SubscriptionStatus
from models import Member, db, for_writing
from services import account, decisions, erasure_log, magic_links, purging, wording
from services.installation import installed, wake

blueprint = Blueprint("account", __name__)


@blueprint.get("/account")
@login_required
def show() -> str:
    here = installed()
    zone, member = here.settings.zone, current_user.member
    on_record = account.on_record(db.session(), member.id, here.clock.now())
    return render_template(
        "account/show.html",
        member=member,
        has_case=current_user.asked,
        ending=current_user.asked == Answer.LAPSE and member.billed_by is None,
        elsewhere=wording.where_to_end(member.billed_by, here.settings),
        spoken=wording.supported(member.locale),
        next_charge=_next_charge(member, here.clock.now()),
        price=wording.price(member.price_minor, member.currency, member.billing_interval),
        still_access=member.access_ends_at is not None and member.access_ends_at > here.clock.now(),
        unconfirmed=on_record.unconfirmed,
        library=on_record.library,
        devices=[
            devices.SignedIn(id, devices.in_words(device), at, here=id == session.get("device"))
            for id, device, at in on_record.sign_ins
        ],
        history=in_words(on_record.history),
        has_ended=any(event.code == "case_closed" and event.detail == CaseState.LAPSED for event in on_record.history),
        date=lambda instant: wording.short_date(instant, zone),
        last_day=lambda bound: wording.last_day_short(bound, zone),
    )


@blueprint.get("/account/end")
@login_required
def end() -> Response | str:
    here = installed()
    zone, member = here.settings.zone, current_user.member
    if member.status != MemberStatus.ACTIVE:
        return redirect(url_for("account.show"))
    if current_user.asked:
        # Where there is a question already, it is answered on its own page, which knows its day.
        return redirect(url_for("checkin.mine"))
    outlook = account.end_unasked(member, here.settings, here.clock.now())
    return render_template(
        "account/end.html",
        ends=wording.last_day(outlook.ends_at, zone),
        access=wording.last_day(outlook.access_ends_at, zone) if outlook.access_ends_at > outlook.ends_at else None,
        saved=wording.last_day_short(outlook.keep_until, zone),
        gives_back=outlook.gives_back,
        elsewhere=wording.where_to_end(member.billed_by, here.settings),
    )


@blueprint.post("/account/end")
@login_required
def end_now() -> Response:
    here = installed()
    for_writing(db.session())
    try:
        decisions.end_membership(db.session(), here.settings, current_user.member.id, Through.ACCOUNT, here.clock.now())
    except Refused:
        # It has ended meanwhile: the page of the membership says so.
        db.session.rollback()
        return redirect(url_for("account.show"))
    db.session.commit()
    wake()
    return redirect(url_for("checkin.mine"))


@blueprint.get("/account/data")
@login_required
def data() -> Response:
    here = installed()
    now, member = here.clock.now(), current_user.member
    evidence = account.everything(db.session(), here.settings, member, now)
    return zipped(evidence, page(evidence, member, account.told_in(evidence), here.settings, now))


@blueprint.get("/account/erase")
@login_required
def erase() -> str:
    return _erase_page()


@blueprint.post("/account/erase")
@login_required
def ask_to_erase() -> str:
    for_writing(db.session())
    sent = magic_links.request_erase(db.session(), current_user.member, installed().clock.now())
    db.session.commit()
    wake()
    return _erase_page(sent=sent, too_many=not sent)


@blueprint.get("/account/erase/<token>")
def confirm_erase(token: str) -> str | tuple[str, int]:
    member = magic_links.holder(db.session(), Purpose.ERASE, token, installed().clock.now())
    return _past_erase(token) if member is None else render_template("account/erase_confirm.html", member=member)


@blueprint.post("/account/erase/<token>")
def erase_now(token: str) -> str | tuple[str, int]:
    here = installed()
    now = here.clock.now()
    for_writing(db.session())
    member = magic_links.holder(db.session(), Purpose.ERASE, token, now)
    if member is not None and presses.may_be_a_machines(member):
        return render_template("account/erase_confirm.html", member=member, marker=presses.marker(member))
    link = magic_links.consume(db.session(), Purpose.ERASE, token, now)
    if link is None or link.member_id is None:
        return _past_erase(token)
    erased = purging.erase(db.session(), here.settings, link.member_id, now)
    db.session.commit()
    erasure_log.keep_up(db.session(), here.settings)
    wake()
    session.pop("next", None)
    logout_user()
    return render_template("account/erased.html", erased=erased)


def _past_erase(token: str) -> tuple[str, int]:
    """A link that erases nothing any more: under way, over unused, or no longer on record, as after the erasure."""
    bare()
    past = magic_links.became(db.session(), Purpose.ERASE, token)
    if past is not None and past.member is not None and past.member.erase_requested_at is not None:
        return render_template("account/erased.html", erased=False), 410
    return render_template("account/too_late.html", unused=past is not None and not past.used), 410


def _erase_page(**what_came_of_it: bool) -> str:
    member = current_user.member
    return render_template(
        "account/erase.html",
        member=member,
        elsewhere=wording.where_to_end(member.billed_by, installed().settings),
        keep_months=wording.count_months(installed().settings.keep_months),
        **what_came_of_it,
    )


def _next_charge(member: Member, now: datetime) -> str | None:
    """When money is taken next, and how much; None where nothing is known of it."""
    running = member.status == MemberStatus.ACTIVE and member.subscription_status == SubscriptionStatus.ACTIVE
    if not running or not member.price_minor or member.currency is None:
        return None
    if current_user.asked == Answer.LAPSE and member.billed_by is None:
        return gettext("none: you have ended your membership")
    if member.paid_through is None or member.paid_through <= now:
        return None
    return gettext(
        "%(day)s: %(amount)s",
        day=wording.short_date(member.paid_through, installed().settings.zone),
        amount=wording.money(member.price_minor, member.currency),
    )
