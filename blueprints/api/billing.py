"""What a service that bills by itself says about the orders it was sent (BILLING=webhook)."""

import re

from flask import Response

from blueprints.api import reading, shapes
from blueprints.api.operations import JSON, Answer, Body, Operation, nothing
from blueprints.problems import problem
from domain.acknowledgement import outcome
from domain.errors import NotFound
from domain.ports import Acknowledged
from domain.scopes import Scope
from models import db, for_writing
from services import billing_answers, billing_desk
from services.installation import installed, wake

ORDER = re.compile(r"[!-~]{1,120}")


def acknowledge_order(order: str) -> Response:
    """Acknowledge a billing order

    Say what has become of an order that you were sent and did not answer at once. Until then it counts as not done, is
    sent again, and members are told that it is being confirmed. Once or ten times, the result is the same: what was
    acknowledged once stays so.
    """
    here = installed()
    said = reading.shaped(shapes.AcknowledgementIn, reading.parsed(reading.sent(JSON)))
    try:
        became = outcome({**said.model_dump(exclude_none=True), "order": order})
    except ValueError as error:
        return problem(422, f"This cannot be read: {error}.")
    session = db.session()
    for_writing(session)
    known = here.settings.billing == "webhook" and ORDER.fullmatch(order) is not None
    if known:
        known = billing_answers.acknowledge(
            session, Acknowledged(order, became), here.clock.now()
        ) or billing_desk.is_over(session, order)
    session.commit()
    if not known:
        raise NotFound("There is no such order that was sent.")
    wake()
    return nothing()


OPERATIONS = [
    Operation(
        "POST", "/billing/orders/<order>/acknowledgement", Scope.BILLING_WRITE, acknowledge_order,
        {204: Answer("It is acknowledged")},
        {
            400: "The body is no JSON", 404: "There is no such order that was sent", 413: "The body is too long",
            415: "The body is of another type", 422: "The body has another shape",
        },
        body=Body(shapes.AcknowledgementIn),
    ),
]  # fmt: skip
