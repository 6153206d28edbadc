"""Errors for programs: RFC 9457 problem details, for every address under /api, whatever went wrong there."""

import json
from http import HTTPStatus
from typing import Any

from flask import Request, Response, request
from werkzeug.exceptions import HTTPException

MIMETYPE = "application/problem+json"

DETAILS = {
    400: "The request cannot be read.",
    401: "Send a key as `Authorization: Bearer …`; `flask api-key create` makes one.",
    404: "There is nothing at this address; /api/v1/openapi.json lists what there is.",
    405: "This address does not take this method; the Allow header lists those it takes.",
    413: "The request is larger than is taken here; send less at once.",
    500: "Something went wrong here and nothing was saved. The same request may be sent again.",
    503: "The database does not answer. Nothing was changed; the same request may be sent again.",
}
"""What is said where nobody knows better."""


def wanted(asked: Request = request) -> bool:
    """Whether this request came from a program, which no page helps."""
    return asked.path == "/api" or asked.path.startswith("/api/")


def problem(status: int, detail: str | None = None, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """A problem with its status, what happened in one sentence, and further members."""
    phrase = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": phrase, "status": status, "detail": detail or DETAILS.get(status, phrase)}
    text = json.dumps({**body, **more}, ensure_ascii=False)
    return Response(text, status, headers, content_type=MIMETYPE)


def of_http(error: HTTPException) -> Response:
    """The problem that an error of Flask or Werkzeug is; what it says was written for browsers and is left out."""
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    return problem(error.code or 500, headers=headers)
