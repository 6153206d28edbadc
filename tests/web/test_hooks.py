"""The webhook for providers' bounces: what is taken as signed, and what each answer means."""

import base64
import hmac
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from models import Case, Member, Message, db
from tests import factories
from tests.conftest import NOW
from tests.services.support import accept_mails, opened

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
STAMP = int(NOW.timestamp())


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app(bounce_webhook_secret=(OLD, SECRET), bounce_address="bounces@lumio.example")


@pytest.fixture
def example() -> Any:
    """The functions of the worked example in the documentation."""
    text = (Path(__file__).parents[2] / "docs" / "mail.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # it is ours
    return SimpleNamespace(**names)


@pytest.fixture
def warned(app: Flask, session: Session) -> Member:
    with app.app_context():
        member = factories.dormant(session)
        session.commit()
        opened(session, app.extensions["dormouse"].settings, NOW)
    session.commit()
    return member


def event(session: Session, kind: str = "mail.bounced") -> dict[str, Any]:
    return {"type": kind, "data": {"message_id": session.scalars(select(Message.message_id)).one()}}


def post(app: Flask, example: Any, what: Any, *, secret: str = SECRET, stamp: int = STAMP, **changes: str) -> Any:
    body, headers = example.signed(what, "msg_1", secret, stamp)
    return app.test_client().post("/hooks/mail", data=body, headers={**headers, **changes})


def case_state(session: Session) -> str:
    session.rollback()
    return session.scalars(select(Case.state)).one()


@pytest.mark.parametrize("secret", [SECRET, OLD])
def test_a_signed_bounce_is_taken_once_and_again(
    app: Flask, session: Session, warned: Member, example: Any, secret: str
) -> None:
    answer = post(app, example, event(session), secret=secret)
    assert (answer.status_code, "bounced" in answer.text) == (200, True)
    assert case_state(session) == "unreachable"
    again = post(app, example, event(session), secret=secret)
    assert (again.status_code, "nothing to change" in again.text) == (200, True)


def test_a_complaint_is_one(app: Flask, session: Session, warned: Member, example: Any) -> None:
    assert post(app, example, event(session, "mail.complained")).status_code == 200
    session.rollback()
    assert session.scalars(select(Member.mail_state)).one() == "complained"


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
        {"stamp": STAMP - 301},
        {"stamp": STAMP + 301},
        {"webhook-id": "msg_2"},
        {"webhook-id": ""},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": "²"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1a,ü"},
    ],
)
def test_what_is_not_signed_changes_nothing(
    app: Flask, session: Session, warned: Member, example: Any, changes: dict[str, Any]
) -> None:
    assert post(app, example, event(session), **changes).status_code == 401
    assert case_state(session) == "open"


def test_without_a_secret_nothing_is_taken(make_app: Callable[..., Flask], example: Any) -> None:
    assert post(make_app(), example, {}, secret="").status_code == 401


def test_one_of_several_signatures_is_enough(app: Flask, session: Session, warned: Member, example: Any) -> None:
    body, headers = example.signed(event(session), "msg_1", SECRET, STAMP)
    headers["webhook-signature"] = f"v1,d3Jvbmc= v2,new {headers['webhook-signature']}"
    assert app.test_client().post("/hooks/mail", data=body, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "what",
    [
        [],
        "mail.bounced",
        {"type": "mail.bounced"},
        {"type": "mail.bounced", "data": {}},
        {"type": "mail.bounced", "data": {"message_id": 5}},
        {"type": "mail.opened", "data": {"message_id": "<1@lumio.example>"}},
        {"type": ["mail.bounced"], "data": {"message_id": "<1@lumio.example>"}},
    ],
)
def test_what_is_signed_and_makes_no_sense_is_said_to_be_so(app: Flask, example: Any, what: Any) -> None:
    answer = post(app, example, what)
    assert (answer.status_code, "mail.bounced, mail.returned" in answer.text) == (400, True)


def test_what_is_nested_too_deeply_to_be_read_is_said_to_be_so(app: Flask, example: Any) -> None:
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    body, headers = example.signed(deep, "msg_1", SECRET, STAMP)
    assert app.test_client().post("/hooks/mail", data=body, headers=headers).status_code == 400
    for very in (b"[" * 100_000, b'{"type":' * 100_000):
        digest = hmac.new(base64.b64decode(SECRET.removeprefix("whsec_")), f"msg_1.{STAMP}.".encode() + very, "sha256")
        headers["webhook-signature"] = "v1," + base64.b64encode(digest.digest()).decode()
        assert app.test_client().post("/hooks/mail", data=very, headers=headers).status_code == 400


def test_a_report_of_the_try_before_is_told_by_when_the_relay_had_got_it(
    app: Flask, session: Session, warned: Member, example: Any
) -> None:
    """A relay that has not heard our answer says it again for days."""
    said = event(session, "mail.returned")
    said["data"]["arrived_at"] = "2026-06-03T10:00:00.000Z"
    assert "it will be sent again" in post(app, example, said).text
    next_day = NOW + timedelta(days=2)
    with app.app_context():
        accept_mails(db.session(), app.extensions["dormouse"].settings, next_day)
    assert "it has been sent again since" in post(app, example, said).text
    said["data"]["arrived_at"] = "yesterday"
    assert "it will be sent again" in post(app, example, said).text


def test_a_message_nobody_knows_is_not_sent_again(app: Flask, example: Any) -> None:
    answer = post(app, example, {"type": "mail.bounced", "data": {"message_id": "<1@lumio.example>"}})
    assert (answer.status_code, "no message that is known here" in answer.text) == (200, True)


def test_a_browser_gets_nothing_here(app: Flask) -> None:
    assert app.test_client().get("/hooks/mail").status_code == 405


def test_the_worked_example_for_ses(app: Flask, session: Session, warned: Member, example: Any) -> None:
    message_id = session.scalars(select(Message.message_id)).one()
    mail = {
        "timestamp": "2026-06-03T10:00:00.000Z",
        "source": "membership@lumio.example",
        "messageId": "00000138111222aa-33322211-cccc-cccc-cccc-ddddaaaa0680-000000",
        "destination": ["mia@example.org"],
        "headers": [{"name": "From", "value": "membership@lumio.example"}, {"name": "Message-ID", "value": message_id}],
    }
    bounce = {
        "bounceType": "Permanent",
        "bounceSubType": "General",
        "bouncedRecipients": [{"emailAddress": "mia@example.org", "diagnosticCode": "smtp; 550 5.1.1 user unknown"}],
    }
    assert example.translated({"notificationType": "Delivery", "mail": mail}) is None
    complaint = {"complaintFeedbackType": None}
    said = example.translated({"eventType": "Complaint", "complaint": complaint, "mail": mail})
    assert said["type"] == "mail.complained"
    passing = {**bounce, "bounceType": "Transient"}
    said = example.translated({"notificationType": "Bounce", "bounce": passing, "mail": mail})
    assert said["type"] == "mail.returned"
    found = example.translated({"notificationType": "Bounce", "bounce": bounce, "mail": mail})
    assert json.loads(json.dumps(found))["data"]["reason"] == "smtp; 550 5.1.1 user unknown"
    assert post(app, example, found).status_code == 200
    assert case_state(session) == "unreachable"
