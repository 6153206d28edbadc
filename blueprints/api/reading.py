"""What a program sends: its type, its length, its shape. What the values mean is for the services to judge."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeVar

from flask import abort, request
from pydantic import BaseModel, ValidationError

from blueprints.problems import problem
from services.files import reading
from services.files.library_line import LONGEST_LINE
from services.files.reading import JsonRecord, Unreadable

MOST_BYTES = LONGEST_LINE
MOST_ROWS = 10_000
NDJSON = "application/x-ndjson"

Model = TypeVar("Model", bound=BaseModel)


def sent(*types: str) -> str:
    """The text of the request's body. What is no text of one of these types, or too long, is refused."""
    if request.mimetype not in types:
        given = f"not {request.mimetype}" if request.mimetype else "and say so in Content-Type"
        abort(problem(415, f"Send {' or '.join(types)}, {given}.", {"Accept-Post": ", ".join(types)}))
    request.max_content_length = MOST_BYTES
    data = request.get_data(cache=False)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        abort(problem(400, f"The body is not UTF-8: byte {error.start} is 0x{data[error.start]:02X}."))


def parsed(text: str, *, numbers: bool = True) -> Any:
    """The value of a JSON text. Without ``numbers`` these stay as they are written: no price goes through a float."""
    as_text: dict[str, Any] = {} if numbers else {"parse_float": str, "parse_int": str}
    try:
        return json.loads(text, parse_constant=_no_constant, **as_text)
    except json.JSONDecodeError as error:
        abort(problem(400, f"The body is no JSON: {error.msg}, line {error.lineno}, character {error.colno}."))
    except (RecursionError, ValueError):
        abort(problem(400, "The body is nested too deeply, or holds a number that JSON does not know."))


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def shaped(model: type[Model], value: Any) -> Model:
    """The value as the model has it; 422 with the place of everything that does not fit."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors = [
            {"pointer": "".join(f"/{_escaped(part)}" for part in one["loc"]), "detail": one["msg"]}
            for one in error.errors(include_url=False, include_context=False, include_input=False)[:20]
        ]
        first = errors[0]
        abort(problem(422, f"{first['pointer'] or 'The body'}: {first['detail']}.", errors=errors))


def queried(model: type[Model]) -> Model:
    """The parameters of the query as the model has them; others are left alone."""
    if not request.args:
        return _usual(model)
    return shaped(model, {name: request.args[name] for name in model.model_fields if name in request.args})


@cache
def _usual(model: type[Model]) -> Model:
    return model()


def rows(values: list[Any]) -> Iterator[JsonRecord]:
    """Values of a list as the lines of an NDJSON file, counted from 1."""
    most(len(values))
    for row, value in enumerate(values, 1):
        record = (
            value if isinstance(value, dict) else Unreadable('the row is no JSON object such as {"external_id": "…"}')
        )
        yield row, "", record


def lines(text: str) -> Iterator[JsonRecord]:
    """The lines of an NDJSON text."""
    found = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line and not line.isspace()]
    most(len(found))
    return reading.json_records(iter(found))


def most(count: int) -> None:
    if count > MOST_ROWS:
        abort(problem(413, f"These are {count:,} rows; at most {MOST_ROWS:,} are taken in one request."))


def _escaped(part: Any) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def ndjson(says: str) -> tuple[dict[str, Any], str]:
    """How the document shows a body of lines; it has no schema that could tell good lines from bad ones."""
    return {"type": "string", "description": says}, ""
