"""The public page about the programme, and where the site begins."""

from flask import Blueprint, redirect, render_template, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

from services.installation import installed
from services.wording import count_months

blueprint = Blueprint("programme", __name__)


@blueprint.get("/")
def home() -> Response:
    return redirect(url_for("account.show" if current_user.is_authenticated else "programme.show"))


@blueprint.get("/programme")
def show() -> str:
    settings = installed().settings
    return render_template(
        "programme/show.html",
        never_used=count_months(settings.never_used_months),
        stopped_using=count_months(settings.stopped_using_months),
        keep_months=count_months(settings.keep_months),
        notice_days=settings.min_notice_days,
        some_end_elsewhere=bool(settings.billed_by),
        ends_by_silence=settings.on_silence == "lapse",
    )
