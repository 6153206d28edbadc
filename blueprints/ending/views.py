"""The page that every footer leads to. It says the same to everybody: who is a member, only the mailbox learns.

The confirmation is made of what was sent and when, which the visitor's own session keeps for an hour; nothing of it is
stored here.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from flask import Blueprint, Response, make_response, redirect, render_template, request, session, url_for
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

from domain.addresses import plausible
from models import db, for_writing
from services import ending, wording
from services.installation import installed, wake
from services.mail.words import one_line

blueprint = Blueprint("ending", __name__)

LONGEST_NAME = 100
KEPT_SECONDS = 60 * 60


@dataclass(frozen=True, slots=True)
class Received:
    """What somebody sent, and the second it arrived."""

    who: str
    email: str
    at: int


@blueprint.get("/end-membership")
def ask() -> str:
    # What was typed is still there when the page comes back because a cookie was missing.
    who, email = request.form.get("who", ""), request.form.get("email", "")
    if current_user.is_authenticated and not email:
        who, email = current_user.member.external_id, current_user.member.email
    return _form(who, email)


@blueprint.post("/end-membership")
def end() -> AnyResponse | tuple[str, int]:
    who = one_line(request.form.get("who")) or ""
    email = request.form.get("email", "").strip()
    wrong = {
        "who": not who or len(who) > LONGEST_NAME,
        "email": not plausible(email),
    }
    if any(wrong.values()):
        return _form(who, email, wrong), 400
    here = installed()
    now = here.clock.now()
    for_writing(db.session())
    ending.request_end(db.session(), here.settings, who, email, request.remote_addr or "", now)
    db.session.commit()
    wake()
    session["ending"] = asdict(Received(who, email, int(now.timestamp())))
    return redirect(url_for("ending.received"), 303)


@blueprint.get("/end-membership/received")
def received() -> AnyResponse | str:
    kept = _kept()
    if kept is None:
        return redirect(url_for("ending.ask"))
    return render_template("ending/received.html", **_words(kept))


@blueprint.get("/end-membership/received.<any(txt, html):form>")
def download(form: str) -> AnyResponse:
    kept = _kept()
    if kept is None:
        return redirect(url_for("ending.ask"))
    answer: Response = make_response(render_template(f"ending/confirmation.{form}", **_words(kept)))
    answer.mimetype = "text/plain" if form == "txt" else "text/html"
    answer.headers["Content-Disposition"] = f'attachment; filename="confirmation.{form}"'
    return answer


def _form(who: str, email: str, wrong: dict[str, bool] | None = None) -> str:
    return render_template(
        "ending/ask.html",
        who=who,
        email=email,
        wrong=wrong or {},
        keep_months=wording.count_months(installed().settings.keep_months),
        longest_name=LONGEST_NAME,
        some_end_elsewhere=bool(installed().settings.billed_by),
    )


def _kept() -> Received | None:
    kept = session.get("ending")
    if kept is None or kept["at"] + KEPT_SECONDS <= installed().clock.now().timestamp():
        return None
    return Received(**kept)


def _words(kept: Received) -> dict[str, object]:
    settings = installed().settings
    at = wording.date_and_time(datetime.fromtimestamp(kept.at, UTC), settings.zone)
    return {"who": kept.who, "email": kept.email, "at": at, "some_end_elsewhere": bool(settings.billed_by)}
