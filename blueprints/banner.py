"""The notice on every page of a signed-in member: what we ask, until when, and where to answer. It only reads."""

from flask import Flask, render_template, request
from flask_login import current_user
from markupsafe import Markup

from models import db
from services import wording
from services.installation import installed
from services.notice import State, notice_for


def init_app(app: Flask) -> None:
    app.jinja_env.globals["membership_notice"] = membership_notice


def membership_notice() -> Markup:
    """The element ``#membership-notice``, or nothing: for strangers, and for members whom we have nothing to ask."""
    # The page of the decision says all of it itself.
    if request.blueprint == "checkin" or not current_user.is_authenticated or not current_user.asked:
        return Markup("")
    here = installed()
    settings = here.settings
    notice = notice_for(db.session(), settings, current_user.member, here.clock.now())
    if notice is None:
        return Markup("")
    why = wording.decision_sentence_to_member(
        notice.rule,
        service=settings.service_name,
        joined_at=notice.facts.joined_at,
        last_used_at=notice.facts.last_used_at,
        sign_of_life_at=notice.facts.sign_of_life_at,
        months=notice.facts.months,
        zone=settings.zone,
    )
    return Markup(
        render_template(
            "banner.html",
            notice=notice,
            why=why,
            deadline=wording.last_day(notice.deadline, settings.zone),
            deadline_short=wording.last_day_short(notice.deadline, settings.zone),
            until=wording.up_to_and_including(notice.deadline, settings.zone),
            State=State,
        )
    )
