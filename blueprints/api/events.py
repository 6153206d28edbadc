"""What the service says about the events it was told: that its own copy has followed (services/outgoing)."""

import re

from flask import Response

from blueprints.api.operations import Answer, Operation, nothing
from domain.errors import NotFound
from domain.scopes import Scope
from models import db, for_writing
from services.installation import installed
from services.outgoing import desk

EVENT_ID = re.compile(r"evt_[0-9a-f]{32}")


def acknowledge_event(event_id: str) -> Response:
    """Acknowledge an event

    Say that your own copy has followed a `member.returned` or a `member.purged` which was received and not acknowledged
    at once. Once or ten times, the result is the same.
    """
    session = db.session()
    for_writing(session)
    known = EVENT_ID.fullmatch(event_id) and desk.acknowledge(session, event_id, installed().clock.now())
    session.commit()
    if not known:
        raise NotFound("There is no such event that wants an acknowledgement.")
    return nothing()


OPERATIONS = [
    Operation(
        "POST", "/events/<event_id>/acknowledgement", Scope.MEMBERS_WRITE, acknowledge_event,
        {204: Answer("It is acknowledged")},
        {404: "There is no such event that wants an acknowledgement"},
    ),
]  # fmt: skip
