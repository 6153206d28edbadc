"""The description of the API, made of its operations: for programs as OpenAPI 3.1, for people as a page."""

import json
import re
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from typing import Any

from flask import Response, render_template
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from blueprints.api import operations, shapes
from blueprints.api.operations import BASE, JSON, Operation
from blueprints.problems import MIMETYPE
from services.installation import installed

VERSION = "1.0.0"
REFERENCE = "#/components/schemas/{model}"
EVERYWHERE = {
    401: "There is no key, or it was not made here, has expired or was revoked",
    403: "The key lacks the scope",
    429: "The key was used too often (API_RATE)",
}
HEADERS: dict[str, dict[str, Any]] = {
    "ETag": {"description": "send it as If-None-Match", "schema": {"type": "string"}},
    "WWW-Authenticate": {"schema": {"type": "string"}},
    "Retry-After": {"description": "seconds", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
}
OF_PROBLEMS = {401: ("WWW-Authenticate",), 403: ("WWW-Authenticate",), 429: ("Retry-After",)}


def as_json() -> Response:
    """The OpenAPI document."""
    settings = installed().settings
    document = {
        "openapi": "3.1.0",
        "info": {"title": f"Dormouse beside {settings.service_name}", "version": VERSION, "description": INTRODUCTION},
        "servers": [{"url": f"{settings.public_url}{BASE}"}],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": KEYS}},
        },
    }
    return operations.revalidated(operations.answer(document))


def as_page() -> Response:
    """The same for people."""
    schemas = _schemas()
    return Response(
        render_template(
            "api/show.html",
            introduction=INTRODUCTION.split("\n\n"),
            keys=KEYS,
            everywhere=EVERYWHERE,
            operations=[_described(one, schemas) for one in operations.PUBLISHED],
            schemas=[(name, schema.get("description"), list(_fields(schema))) for name, schema in schemas.items()],
            base=f"{installed().settings.public_url}{BASE}",
        )
    )


INTRODUCTION = (
    "Members and what they used flow in, notices and decisions flow out. Every write can be repeated: sent twice, it"
    " changes nothing the second time. Every error is a problem (RFC 9457) with a sentence that says what would be"
    " right: 422 where what was sent has another shape, 409 where it has the right one and cannot be taken for what it"
    " says.\n\n"
    "An instant is ISO 8601 with an offset; a date stands for the start of that day in the service's time zone."
)
KEYS = "`flask api-key create NAME --scope SCOPE …` makes a key; send it as `Authorization: Bearer …`."


# For programs


@cache
def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for operation in operations.PUBLISHED:
        path = _template(operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    return paths


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": operation.description,
        "tags": [operation.path.split("/")[-1].partition("<")[0] or "members"],
        "security": [{"key": []}],
        "x-scope": operation.scope.value,
        "parameters": [*_in_path(operation), *_in_query(operation)],
        "responses": {str(status): found for status, found in sorted(_responses(operation))},
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _content(operation)}
    return {name: value for name, value in described.items() if value}


IN_PATH = {
    "external_id": ("the service's own number of the member", "10042"),
    "event_id": ("the `webhook-id` it came with", "evt_3f0c6e6ad0b54fb6a2d0a4a8a2f6f0f1"),
    "order": ("the `order` of the command, which is its `webhook-id`", "stop:3f0c6e6ad0b54fb6a2d0a4a8a2f6f0f1:2"),
}
"""What it is, and an example."""


def _in_path(operation: Operation) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"<(?:[^<>]*:)?(\w+)>", operation.path):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": IN_PATH[name][0],
            "example": IN_PATH[name][1],
            "schema": {"type": "string", "minLength": 1, "maxLength": 200},
        }


def _in_query(operation: Operation) -> Iterator[dict[str, Any]]:
    if operation.query is None:
        return
    found = operation.query.model_json_schema(mode="validation", ref_template=REFERENCE)
    for name, schema in found["properties"].items():
        said = {key: value for key, value in schema.items() if key not in ("title", "description")}
        # A parameter that is left out is not sent as null.
        if "anyOf" in said:
            [said] = [one for one in said["anyOf"] if one != {"type": "null"}]
        yield {"name": name, "in": "query", "description": schema.get("description", ""), "schema": said}


def _responses(operation: Operation) -> Iterator[tuple[int, dict[str, Any]]]:
    for status, found in operation.answers.items():
        said: dict[str, Any] = {"description": found.means}
        if found.holds is not None:
            said["content"] = {JSON: {"schema": {"$ref": REFERENCE.format(model=found.holds.__name__)}}}
        if found.headers:
            said["headers"] = {name: HEADERS[name] for name in found.headers}
        if found.holds is shapes.Written:
            said["links"] = dict(_links())
        yield status, said
    for status, means in {**EVERYWHERE, **operation.problems}.items():
        content = {MIMETYPE: {"schema": {"$ref": REFERENCE.format(model=shapes.Problem.__name__)}}}
        said = {"description": means, "content": content}
        if status in OF_PROBLEMS:
            said["headers"] = {name: HEADERS[name] for name in OF_PROBLEMS[status]}
        yield status, said


def _links() -> Iterator[tuple[str, dict[str, Any]]]:
    """What can be done with a member once there is one."""
    for operation in operations.PUBLISHED:
        if "external_id" in operation.path:
            member = {"external_id": "$response.body#/external_id"}
            yield operation.name, {"operationId": operation.name, "parameters": member}


def _content(operation: Operation) -> dict[str, Any]:
    assert operation.body is not None
    model = operation.body.holds
    content: dict[str, Any] = {JSON: {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}}
    for mimetype, (schema, example) in operation.body.others.items():
        content[mimetype] = {"schema": schema} | ({"example": example} if example else {})
    return content


@cache
def _schemas() -> dict[str, Any]:
    models: list[type[BaseModel]] = [shapes.Problem]
    for operation in operations.PUBLISHED:
        models += [found.holds for found in operation.answers.values() if found.holds is not None]
        models += [] if operation.body is None else [operation.body.holds]
    _, found = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)], ref_template=REFERENCE, title=None
    )
    schemas: dict[str, Any] = _without_titles(found["$defs"])
    return schemas


def _without_titles(value: Any) -> Any:
    """Pydantic gives each name a title that says it once more."""
    if isinstance(value, list):
        return [_without_titles(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: _without_titles(one) for name, one in value.items() if not (name == "title" and isinstance(one, str))}


def _template(path: str) -> str:
    return re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", path)


# For people


def _described(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    body = None if operation.body is None else schemas[operation.body.holds.__name__]
    examples = [] if body is None else body.get("examples", [])
    return {
        "name": operation.name,
        "method": operation.method,
        "path": _template(operation.path),
        "scope": operation.scope.value,
        "summary": operation.summary,
        "paragraphs": operation.description.split("\n\n"),
        "parameters": [(one["name"], _type(one["schema"]), one["description"]) for one in _in_query(operation)],
        "takes": None if operation.body is None else [operation.body.holds.__name__, *operation.body.others],
        "example": json.dumps(examples[0], indent=2, ensure_ascii=False) if examples else None,
        "answers": [
            (status, HTTPStatus(status).phrase, found.means, found.holds and found.holds.__name__)
            for status, found in operation.answers.items()
        ],
        "problems": [(status, HTTPStatus(status).phrase, means) for status, means in operation.problems.items()],
    }


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, str, bool, str]]:
    required = schema.get("required", [])
    for name, found in schema.get("properties", {}).items():
        yield name, _type(found), name in required, found.get("description", "")


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(str(one) for one in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or "anything")
