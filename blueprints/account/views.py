from flask import Blueprint, render_template
from flask_login import current_user, login_required

blueprint = Blueprint("account", __name__)


@blueprint.get("/account")
@login_required
def show() -> str:
    return render_template("account/show.html", member=current_user.member)
