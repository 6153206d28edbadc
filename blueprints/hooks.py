"""What others report by HTTP, signed: mail providers bounces and complaints (as Standard Webhooks says), the billing
provider changes of subscriptions.

A report may come more than once and in any order; taking it again changes nothing. What is answered 2xx is not sent
again, so a report about a message that nobody knows is answered that way too.
"""

from typing import Any

from flask import Blueprint, Response, current_app, request

from domain import webhooks
from domain.errors import NotFound, NotSigned
from domain.ports import Acknowledged
from models import db, for_writing
from services import billing_answers, provider_news
from services.installation import installed, wake
from services.mail import bounces
from services.mail.bounce_mail import LONGEST_REASON, Report, Verdict, instant

blueprint = Blueprint("hooks", __name__)

TYPES = {
    "mail.bounced": Verdict.HARD,
    "mail.returned": Verdict.RETURNED,
    "mail.delayed": Verdict.DELAYED,
    "mail.complained": Verdict.COMPLAINT,
}


@blueprint.post("/hooks/mail")
def mail() -> Response:
    here = installed()
    body, given, now = request.get_data(), request.headers, here.clock.now()
    signed = webhooks.is_signed(
        here.settings.bounce_webhook_secret,
        given.get("webhook-id", ""),
        given.get("webhook-timestamp", ""),
        given.get("webhook-signature", ""),
        body,
        now,
    )
    if not signed:
        return _said(401, "The signature is missing, wrong or too old; see BOUNCE_WEBHOOK_SECRET.")
    report = _report(_json())
    if report is None:
        names = ", ".join(TYPES)
        return _said(
            400, f'This is no {{"type": …, "data": {{"message_id" or "return_path": …}}}}, type one of {names}.'
        )
    session = db.session()
    for_writing(session)
    try:
        said = bounces.take(session, here.settings, report, now).said
    except bounces.TooEarly as error:
        session.rollback()
        return _said(503, str(error), {"Retry-After": "60"})
    session.commit()
    current_app.logger.info("mail webhook: %s", said)
    return _said(200, said)


@blueprint.post("/hooks/billing")
def billing() -> Response:
    """Word from the billing provider: written down, and asked about by settle-billing."""
    here = installed()
    now = here.clock.now()
    try:
        refs = here.billing.news(request.get_data(), request.headers, now=now)
    except NotSigned as error:
        return _said(401, str(error))
    except (RecursionError, ValueError):
        return _said(400, "This is no JSON, or an instant in it has no offset.")
    except NotFound as error:
        return _said(404, str(error))
    if not refs:
        return _said(200, "nothing to do")
    session = db.session()
    for_writing(session)
    provider_news.heard(session, [one for one in refs if isinstance(one, str)], now)
    for one in refs:
        if isinstance(one, Acknowledged):
            billing_answers.acknowledge(session, one, now)
    session.commit()
    wake()
    return _said(200, "heard")


def _json() -> Any:
    """None where it is none, or too deep to be read."""
    try:
        return request.get_json(force=True, silent=True)
    except RecursionError:
        return None


def _report(event: Any) -> Report | None:
    """The report in an event; None for what is none."""
    data = event.get("data") if isinstance(event, dict) else None
    verdict = TYPES.get(event["type"]) if isinstance(data, dict) and isinstance(event.get("type"), str) else None
    if verdict is None:
        return None
    message_id, return_path, reason = (_text(data, name) for name in ("message_id", "return_path", "reason"))
    if not message_id and not return_path:
        return None
    return Report(
        verdict,
        (return_path,) if return_path else (),
        (message_id,) if message_id else (),
        reason[:LONGEST_REASON],
        instant(_text(data, "arrived_at")),
    )


def _text(data: dict[str, Any], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _said(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return Response(f"{text}\n", status, headers, content_type="text/plain; charset=utf-8")
