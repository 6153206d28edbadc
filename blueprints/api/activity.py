"""What members used: uses and events, as the service has them."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from flask import Response, abort, request

from blueprints.api import reading, shapes
from blueprints.api.members import ROWS, told
from blueprints.api.operations import JSON, Answer, Body, Operation, answer
from blueprints.problems import problem
from domain.errors import BadValue
from domain.scopes import Scope
from models import db, for_writing
from services.activity import import_uses
from services.files import cells
from services.files.reading import JsonRecord, Reject, Unreadable
from services.installation import installed, wake

EVENT = "application/cloudevents+json"
EVENTS = "application/cloudevents-batch+json"


def post_activity() -> Response:
    """Report uses

    The latest use of each member is kept, and each counts for a membership that ended before the use was reported: sent
    twice, it changes nothing the second time. Opening a mail, signing in or loading a page is never a use; where
    USE_TYPES is set, only events of those types are, and the others are `ignored`.

    `source` names the feed; `through` declares it complete up to then, and the month end waits for that.

    Beside JSON, NDJSON (one use a line) and CloudEvents are taken: `subject` is the member, `time` when, `type` what;
    `source` and `through` are then in the query.
    """
    here, session = installed(), db.session()
    now = here.clock.now()
    query = reading.queried(shapes.UsesQuery)
    text = reading.sent(JSON, reading.NDJSON, EVENTS, EVENT)
    source, through = query.source, query.through
    if request.mimetype == JSON:
        body = reading.shaped(shapes.UsesIn, reading.parsed(text))
        source, through, records = body.source, body.through, reading.rows(body.uses)
    elif request.mimetype == reading.NDJSON:
        records = reading.lines(text)
    else:
        records = _events(reading.parsed(text), batch=request.mimetype == EVENTS)
    complete = _instant(through, cells.Instants(here.settings.zone, now, "sqlite"))
    name = _source(source)
    rejects: list[Reject] = []
    for_writing(session)
    try:
        counts = import_uses(
            session, here.settings, records, now, source=name, through=complete, rejected=rejects.append
        )
    except BadValue as error:
        return problem(409, str(error))
    session.commit()
    wake()
    said = shapes.counted(counts, "updated", "unchanged", "ignored", "rejected")
    return answer({**said, "rejects": told(rejects)})


def _events(value: Any, *, batch: bool) -> Iterator[JsonRecord]:
    """CloudEvents as lines of uses; what is none is unreadable."""
    if not isinstance(value, list if batch else dict):
        abort(problem(422, "The body must be a list of CloudEvents." if batch else "The body must be one CloudEvent."))
    events = value if batch else [value]
    reading.most(len(events))
    for row, event in enumerate(events, 1):
        if not isinstance(event, dict) or event.get("specversion") != "1.0":
            yield row, "", Unreadable('the row is no CloudEvent of "specversion": "1.0"')
        else:
            use = {"external_id": event.get("subject"), "used_at": event.get("time"), "type": event.get("type")}
            yield row, "", use


def _instant(text: str | None, instants: cells.Instants) -> datetime | None:
    if text is None:
        return None
    try:
        found = instants.cleaner("through", future=True)(text.strip())
    except BadValue as error:
        abort(problem(409, str(error)))
    return None if found is None else cells.from_stored(found)


def _source(source: str) -> str:
    try:
        found = cells.text("source", 100)(source)
    except BadValue as error:
        abort(problem(409, str(error)))
    return found or abort(problem(409, "source is empty; name the feed"))


OPERATIONS = [
    Operation(
        "POST", "/activity", Scope.ACTIVITY_WRITE, post_activity,
        {200: Answer("How many uses were taken, and why others were not", shapes.UsesCounted)},
        {**ROWS, 409: "`through` lies ahead, or is no instant"},
        Body(
            shapes.UsesIn,
            {
                reading.NDJSON: reading.ndjson("one use a line: external_id, used_at, type"),
                EVENTS: (
                    {"type": "array", "items": {}, "description": "CloudEvents 1.0"},
                    [{"specversion": "1.0", "id": "1", "source": "/player", "type": "play", "subject": "10042",
                      "time": "2026-05-30T18:15:00Z"}],
                ),
                EVENT: (
                    {"type": "object", "description": "one CloudEvent 1.0"},
                    {"specversion": "1.0", "id": "1", "source": "/player", "type": "play", "subject": "10042",
                     "time": "2026-05-30T18:15:00Z"},
                ),
            },
        ),
        query=shapes.UsesQuery,
    ),
]  # fmt: skip
