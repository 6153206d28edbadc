"""What the service's own pages fetch from a member's browser: the notice, for ``static/notice.js``.

The token names one member and was made by the service's server (services/assertions.py). Cookies play no part, and only
pages of SERVICE_ORIGINS may read an answer.
"""

from flask import Blueprint, Flask, Response, request

from blueprints.api.notice import as_json
from blueprints.api.operations import answer, nothing
from blueprints.problems import problem
from domain.errors import Refused
from models import db
from services import assertions
from services.assertions import Purpose
from services.installation import installed
from services.notice import notice_by_id

blueprint = Blueprint("embedding", __name__, url_prefix="/api")

SCRIPT = "notice.js"
PREFLIGHT_SECONDS = 600
LONGEST_TAG = 35


@blueprint.get("/notice")
def notice() -> Response:
    here = installed()
    now = here.clock.now()
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        if scheme.casefold() != "bearer":
            raise Refused("Send the token of the notice as `Authorization: Bearer …`.")
        said = assertions.read(here.settings, token.strip(), Purpose.NOTICE, now)
    except Refused as error:
        return problem(401, str(error), {"WWW-Authenticate": "Bearer"})
    known, found = notice_by_id(db.session(), here.settings, said.external_id, now)
    if not known or found is None:
        # Of a member who is not known here yet there is nothing to say either.
        return nothing()
    locale = request.args.get("locale", "")
    return answer(as_json(found, locale[:LONGEST_TAG] or None, amounts=False))


@blueprint.after_request
def _shared(response: Response) -> Response:
    """Let pages of the service read the answer, and ask before they send the token."""
    origin = request.headers.get("Origin")
    response.vary.add("Origin")
    if origin in installed().settings.service_origins:
        response.headers["Access-Control-Allow-Origin"] = origin
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Headers"] = "Authorization"
            response.headers["Access-Control-Allow-Methods"] = "GET"
            response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
    return response


def init_app(app: Flask) -> None:
    @app.after_request
    def _for_every_page(response: Response) -> Response:
        """The script holds nothing of anybody: pages that isolate themselves, or check its hash, may load it too."""
        if request.endpoint == "static" and (request.view_args or {}).get("filename") == SCRIPT:
            response.headers["Access-Control-Allow-Origin"] = "*"
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        return response
