"""Promise 10: of every member it can be seen why, what was sent, answered and done."""

import json

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.lifecycle import Answer, Through
from models import Member
from services import decisions, library
from services.evidence import member_evidence
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import case_of, close, opened

KEYS = (
    "external_id", "status", "exempt_reason", "joined_at", "last_used_at", "last_sign_of_life_at", "dormant", "rule",
    "reason", "lapsed_at", "keep_until", "case", "messages", "billing_orders", "events", "library",
)  # fmt: skip
CASE_KEYS = ("month", "state", "rule", "answer", "warned_at", "deadline_at", "answered_at", "answered_through")
MESSAGE_KEYS = ("kind", "state", "due_at", "sent_at", "attempts", "message_id", "smtp_reply")


def test_a_member_who_was_never_asked(session: Session, settings: Settings) -> None:
    member = factories.stopped_using(session, operator_exempt_reason="asked us to", exempt_reason="staff")
    factories.library(session, member)
    found = member_evidence(session, settings, member, NOW)
    assert tuple(found) == KEYS
    assert (found["exempt_reason"], found["dormant"], found["rule"]) == ("asked us to", False, None)
    assert found["reason"] == "exempt_by_operator"
    assert found["last_used_at"] == found["last_sign_of_life_at"] == "2024-03-01T20:15:00+00:00"
    assert found["joined_at"] == "2022-05-02T00:00:00+00:00"
    assert (found["case"], found["messages"], found["billing_orders"], found["events"]) == (None, [], [], [])
    assert found["library"] == library.load(session, member.id)
    json.dumps(found)


def test_a_case_from_the_question_to_the_end(session: Session, settings: Settings) -> None:
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)

    def case_now() -> dict[str, object]:
        fresh = session.scalars(select(Member).execution_options(populate_existing=True)).one()
        found = member_evidence(session, settings, fresh, NOW)
        assert tuple(found["case"]) == CASE_KEYS
        return {**found, **{f"case_{name}": value for name, value in found["case"].items()}}

    asked = case_now()
    assert (asked["dormant"], asked["rule"], asked["reason"]) == (True, "never_used", "never_used")
    assert (asked["case_month"], asked["case_state"], asked["case_answer"]) == ("2026-06", "open", None)
    assert asked["case_warned_at"] == NOW.isoformat()
    assert asked["case_deadline_at"] == "2026-06-30T22:00:00+00:00"
    (message,) = member_evidence(session, settings, member, NOW)["messages"]
    assert tuple(message) == MESSAGE_KEYS
    assert (message["kind"], message["state"], message["sent_at"]) == ("warning", "sent", NOW.isoformat())
    assert message["smtp_reply"].startswith("250")

    decisions.answer(session, settings, case_of(session, member).id, Answer.KEEP, Through.LINK, NOW)
    session.commit()
    assert (case_now()["case_state"], case_now()["case_answered_through"]) == ("kept", "link")
    decisions.answer(session, settings, case_of(session, member).id, Answer.LAPSE, Through.ACCOUNT, NOW)
    session.commit()
    assert (case_now()["case_state"], case_now()["case_answer"]) == ("lapsing", "lapse")

    close(session, settings, at("2026-06-30 22:05"))
    ended = case_now()
    assert (ended["case_state"], ended["status"], ended["reason"]) == ("lapsed", "lapsed", "not_active")
    assert ended["lapsed_at"] == "2026-06-30T22:00:00+00:00"
    assert ended["keep_until"] == "2027-04-30T22:00:00+00:00"
    assert [order["kind"] for order in ended["billing_orders"]] == ["stop"]
    assert [event["code"] for event in ended["events"]][:1] == ["case_opened"]
