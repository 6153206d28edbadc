"""The records of one's own ends, and the public page that says how to check one."""

import json

from flask import Blueprint, Response, abort, make_response, render_template
from flask_login import current_user, login_required
from sqlalchemy import select

from models import Case, db
from services import evidence_words, proof, signing, wording
from services.installation import installed

blueprint = Blueprint("evidence", __name__)


@blueprint.get("/account/evidence")
@login_required
def mine() -> str:
    zone = installed().settings.zone
    ends = proof.ends(db.session(), current_user.member.id)
    return render_template(
        "evidence/mine.html",
        ends=[(case.public_id, wording.last_day_short(case.deadline_at, zone)) for case in ends if case.deadline_at],
    )


@blueprint.get("/account/evidence/<record>")
@login_required
def show(record: str) -> str:
    signed = _signed(record)
    return render_template("evidence/record.html", page=evidence_words.page(signed), record=record)


@blueprint.get("/account/evidence/<record>.json")
@login_required
def download(record: str) -> Response:
    response = make_response(json.dumps(_signed(record), ensure_ascii=False, indent=2) + "\n")
    response.mimetype = "application/json"
    response.headers["Content-Disposition"] = f'attachment; filename="evidence-{record}.json"'
    return response


@blueprint.get("/programme/evidence")
def keys() -> str:
    return render_template("evidence/keys.html", keys=signing.keys(installed().settings))


@blueprint.get("/programme/evidence.pem")
def pem() -> Response:
    found = signing.keys(installed().settings)
    if not found:
        abort(404)
    response = make_response("".join(key.pem for key in found))
    response.mimetype = "application/x-pem-file"
    response.headers["Content-Disposition"] = 'attachment; filename="evidence-keys.pem"'
    return response


def _signed(record: str) -> dict[str, object]:
    """The signed record of an end of whoever is signed in; nobody learns whether it is somebody else's."""
    here = installed()
    case = db.session.scalar(
        select(Case).where(Case.public_id == record, Case.member_id == current_user.member.id, proof.has_ended())
    )
    if case is None:
        abort(404)
    return signing.sign(proof.record(db.session(), here.settings, case, here.clock.now()), here.settings)
