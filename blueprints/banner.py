"""The notice on every page of a signed-in member: what we ask, until when, and where to answer. It only reads."""

from flask import Flask, render_template, request
from flask_login import current_user
from markupsafe import Markup

from models import db
from services.installation import installed
from services.notice import notice_for
from services.notice_words import in_words


def init_app(app: Flask) -> None:
    app.jinja_env.globals["membership_notice"] = membership_notice


def membership_notice() -> Markup:
    """The element ``#membership-notice``, or nothing: for strangers, and for members whom we have nothing to ask."""
    # The page of the decision says all of it itself.
    if request.blueprint == "checkin" or not current_user.is_authenticated or not current_user.asked:
        return Markup("")
    here = installed()
    notice = notice_for(db.session(), here.settings, current_user.member, here.clock.now())
    if notice is None:
        return Markup("")
    return Markup(render_template("banner.html", words=in_words(notice, here.settings)))
