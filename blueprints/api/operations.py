"""What an operation is: its address, who may call it, what it takes and answers. The document is made of the same."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from flask import Blueprint, Response, request
from flask.blueprints import BlueprintSetupState
from pydantic import BaseModel
from sqlalchemy import Select
from werkzeug.routing import PathConverter

from blueprints.api import access
from domain.scopes import Scope
from services.api_keys import FOUND

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")

BASE = "/api/v1"
BELOW = ("library", "notice")
"""What there is below the address of a member."""
PUBLISHED: "list[Operation]" = []
JSON = "application/json"

View = Callable[..., Response]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer of one status means and holds; without a model it has no body."""

    means: str
    holds: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent: a model for JSON, and other types that say the same in another way, each with an example."""

    holds: type[BaseModel]
    others: dict[str, tuple[dict[str, Any], Any]] = field(default_factory=dict)
    """Media type → schema and example."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one address. ``path`` is as Flask writes it; the first line of the view's docstring sums it up."""

    method: str
    path: str
    scope: Scope
    view: View
    answers: dict[int, Answer]
    problems: dict[int, str] = field(default_factory=dict)
    """Beside those that every operation has: 401, 403, 429."""
    body: Body | None = None
    query: type[BaseModel] | None = None
    look: Select[Any] = FOUND
    """What is looked up of the values of the path together with the key; the view finds it in ``g.looked``."""

    @property
    def summary(self) -> str:
        return (self.view.__doc__ or "").partition("\n")[0]

    @property
    def description(self) -> str:
        paragraphs = (self.view.__doc__ or "").partition("\n")[2].split("\n\n")
        return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).strip()

    @property
    def name(self) -> str:
        return self.view.__name__


class MemberId(PathConverter):
    """A member's id, which may hold slashes; but what ends as an address below a member's does is no member's."""

    regex = rf"(?s:(?!batch$)(?!.*/(?:{'|'.join(BELOW)})$)[^/].*?)"


@blueprint.record
def _prepare(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["member_id"] = MemberId
    state.app.extensions[access.EXTENSION] = access.Allowance()


def publish(*groups: list[Operation]) -> None:
    """Serve these operations, and have the document list them."""
    for operation in (one for group in groups for one in group):
        PUBLISHED.append(operation)
        blueprint.add_url_rule(operation.path, operation.name, _guarded(operation), methods=[operation.method])


def _guarded(operation: Operation) -> View:
    @wraps(operation.view)
    def guarded(**values: Any) -> Response:
        refusal = access.refusal(operation.scope, operation.look, values)
        return operation.view(**values) if refusal is None else refusal

    return guarded


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(text, status, headers, content_type=JSON)


def nothing() -> Response:
    """An answer without a body, and so without a type."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def revalidated(response: Response) -> Response:
    """An answer that is kept by whoever asked, and asked for again: 304 where it is still the same."""
    response.headers["Cache-Control"] = "private, no-cache"
    response.add_etag()
    return response.make_conditional(request)
