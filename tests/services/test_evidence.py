"""Promise 10: of every member it can be seen why, what was sent, answered and done; of every end there is proof."""

import json
import re
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, inspect, select, text
from sqlalchemy.orm import Session

from domain.canonical import canonical
from domain.lifecycle import Answer, Through
from domain.notices import WORDING_VERSION
from domain.ports import BillingReceipt, Subscription
from models import Case, Member, Message
from services import (
    billing_answers,
    billing_asking,
    cases,
    decisions,
    evidence_words,
    library,
    proof,
    purging,
    returning,
    signing,
    wording,
)
from services.evidence import member_evidence
from services.mail import bounces
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import accept_mails, case_of, close, opened, purge

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


# The record of an end

MONTH_END = at("2026-06-30 22:05")


def ended(session: Session, settings: Settings, **facts: Any) -> Member:
    """Somebody who was asked, said nothing, and whose charges the provider has stopped."""
    member = factories.stopped_using(session, **facts)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, MONTH_END)
    settle(session, MONTH_END)
    return member


def settle(session: Session, now: datetime, reference: str = "sub_stopped_1") -> None:
    for claimed in billing_asking.claim(session, now, 10):
        said = Subscription("sub_of_mia", "active", stopping=True, paid_through=at("2026-06-30 22:00"))
        billing_answers.record(session, claimed, BillingReceipt(reference, read_back=said), now)
    session.commit()


def record_of(session: Session, settings: Settings, member: Member, now: datetime = MONTH_END) -> dict[str, Any]:
    session.expire_all()
    return proof.record(session, settings, proof.ends(session, member.id)[0], now)


def test_the_record_of_an_end_by_silence_says_all_of_it(session: Session, settings: Settings) -> None:
    member = ended(session, settings, external_id="K-7", email="mia@example.org")
    assert proof.ends(session, factories.member(session).id) == []
    found = record_of(session, settings, member)
    assert found["member"] == {"customer_number": "K-7", "status": "lapsed", "erased_at": None}
    assert found["case"]["round"] == "2026-06"
    assert (found["case"]["rule"], found["case"]["rules_of_the_round"]["stopped_using_months"]) == ("stopped_using", 24)
    assert found["case"]["facts_found"] == {
        "joined_at": "2022-05-02T00:00:00+00:00",
        "last_used_at": "2024-03-01T20:15:00+00:00",
        "last_sign_of_life_at": "2024-03-01T20:15:00+00:00",
        "plan": "Standard",
        "price_minor": 1299,
        "currency": "EUR",
        "billing_interval": "month",
    }
    warning, *_ = found["mails"]
    assert (warning["kind"], warning["to"], warning["state"]) == ("warning", "mia@example.org", "sent")
    assert (warning["accepted_at"], warning["server_reply"]) == (NOW.isoformat(), "250 2.0.0 queued")
    assert (warning["named_last_day"], warning["wording_version"]) == ("2026-06-30", WORDING_VERSION)
    assert re.fullmatch(r"<[0-9a-f]{32}@lumio\.example>", warning["message_id"])
    assert found["answers"] == []
    end = found["end"]
    assert (end["by"], end["state"], end["last_day"], end["warned_days_before"]) == (
        "silence",
        "lapsed",
        "2026-06-30",
        28,
    )
    assert (end["warned_to"], end["access_last_day"]) == ("mia@example.org", "2026-06-30")
    assert end["saved_last_day"] == "2027-04-30"
    (stop,) = found["billing"]
    assert (stop["kind"], stop["state"], stop["provider_reference"]) == ("stop", "done", "sub_stopped_1")
    assert (stop["read_back"]["stopping"], stop["read_back"]["next_charge_at"]) == (True, None)
    assert found["case"]["id"] in stop["key"]
    assert {event["code"] for event in found["events"]} >= {
        "case_opened",
        "mail_accepted",
        "case_closed",
        "billing_done",
    }
    canonical(found)


def test_the_record_follows_the_tables_and_not_a_copy(session: Session, settings: Settings) -> None:
    """Undone, unconfirmed, bounced: whatever the tables say when it is asked for."""
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, MONTH_END)
    assert record_of(session, settings, member)["billing"][0]["provider_reference"] is None
    settle(session, MONTH_END)
    assert record_of(session, settings, member)["billing"][0]["provider_reference"] == "sub_stopped_1"
    warning = session.scalars(select(Message).where(Message.kind == "warning")).one()
    later = MONTH_END + timedelta(days=2)
    bounces.bounced(session, settings, warning.id, later)
    session.commit()
    found = record_of(session, settings, member, later)
    assert (found["end"]["state"], found["end"]["access_ends_at"]) == ("unreachable", None)
    assert found["mails"][0]["state"] == "bounced"
    assert [one["code"] for one in found["afterwards"]] == ["lapse_reversed"]
    assert [order["kind"] for order in found["billing"]] == ["stop", "undo"]
    with wording.in_language("en"):
        assert "this end was taken back" in evidence_words.page(signing.sign(found, settings)).lead


def test_every_answer_is_in_it_and_the_one_that_held(session: Session, settings: Settings) -> None:
    """Keep, end, keep, end: the wording of the last one, the instant and the way of all."""
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    case = case_of(session, member)
    for hour, wish in enumerate([Answer.KEEP, Answer.LAPSE, Answer.KEEP]):
        decisions.answer(session, settings, case.id, wish, Through.LINK, NOW + timedelta(hours=hour))
        session.commit()
    decisions.end_membership(session, settings, member.id, Through.OPERATOR, NOW + timedelta(hours=3), "by telephone")
    session.commit()
    close(session, settings, MONTH_END)
    found = record_of(session, settings, member)
    assert [(one["answer"], one["through"]) for one in found["answers"]] == [
        ("keep", "link"), ("lapse", "link"), ("keep", "link"), ("lapse", "operator"),
    ]  # fmt: skip
    assert (found["answers"][-1]["wording_version"], found["answers"][-1]["note"]) == (WORDING_VERSION, "by telephone")
    assert found["end"]["by"] == "own_wish"


def test_two_ends_of_one_member_have_a_record_each(session: Session, settings: Settings) -> None:
    member = ended(session, settings)
    back = at("2026-08-03 10:00")
    returning.order(session, settings, member.id, returning.quote(member, settings, back), back)
    session.commit()
    settle(session, back, "sub_restarted_2")
    decisions.end_membership(session, settings, member.id, Through.ACCOUNT, at("2026-09-10 08:00"))
    session.commit()
    close(session, settings, at("2026-09-30 22:05"))
    second, first = (proof.record(session, settings, case, MONTH_END) for case in proof.ends(session, member.id))
    assert (first["end"]["last_day"], second["end"]["last_day"]) == ("2026-06-30", "2026-09-30")
    # The stop was confirmed five minutes after the end: what may have been charged in them goes back.
    assert [order["kind"] for order in first["billing"]] == ["stop", "refund", "restart"]
    assert [one["code"] for one in first["afterwards"]] == ["came_back"]
    assert (first["end"]["saved_until_at"], second["end"]["by"]) == (None, "own_wish")
    assert [order["kind"] for order in second["billing"]] == ["stop"]
    assert second["mails"][0]["kind"] == "receipt_lapse"


def test_scenario_38_the_record_of_a_purged_member_names_nobody(session: Session, settings: Settings) -> None:
    """What remains is codes, instants and random numbers: nothing of the person, in the record or in its words."""
    member = ended(
        session, settings, external_id="K-4711", email="mia.muster@example.org", name="Mia Muster", plan="Patron",
        price_minor=4242, billing_ref="sub_of_mia",
    )  # fmt: skip
    case_id = case_of(session, member).id
    accept_mails(session, settings, MONTH_END)
    late = at("2027-04-02")
    purging.warn_purge(session, settings, late)
    session.commit()
    accept_mails(session, settings, late)
    assert purge(session, settings, at("2027-05-02")) == 1
    session.expire_all()
    found = proof.record(session, settings, session.get_one(Case, case_id), at("2027-05-03"))
    # A random number may have any four figures in it.
    whole = re.sub(r"[0-9a-f]{32,}", "", json.dumps(found))
    for personal in (
        "K-4711",
        "mia",
        "Mia",
        "Patron",
        "4242",
        "1299",
        "sub_of_mia",
        "sub_stopped_1",
        "2022-05-02",
        "2024-03-01",
    ):
        assert personal not in whole, personal
    assert "@" not in whole.replace("@lumio.example>", ""), "no address but the domain of our own Message-IDs"
    assert set(found["case"]["facts_found"].values()) == {None}
    assert {mail["to"] for mail in found["mails"]} | {mail["server_reply"] for mail in found["mails"]} == {None}
    assert found["member"] == {
        "customer_number": None, "status": "purged", "erased_at": at("2027-05-02").isoformat(),
    }  # fmt: skip
    assert found["end"]["last_day"] == "2026-06-30"
    for language in ("en", "de"):
        with wording.in_language(language):
            said = evidence_words.page(signing.sign(found, settings))
        assert "None" not in str(said).replace("=None", "").replace("None)", "")


def test_a_case_is_called_the_same_in_a_row_and_in_sql(session: Session, settings: Settings) -> None:
    for answer in (None, Answer.KEEP, Answer.LAPSE):
        for months in (2, 20):
            member = factories.member(session)
            session.add(
                Case(
                    member_id=member.id, rule="own_wish", opened_at=NOW, answer=answer,
                    answered_at=None if answer is None else NOW, state="open" if months == 2 else "returned",
                    closed_at=None if months == 2 else NOW,
                )
            )  # fmt: skip
    session.flush()
    both = {(cases.word_of(case), word) for case, word in session.execute(select(Case, cases.word()))}
    assert both == {(word, word) for word in ("open", "kept", "lapsing", "returned")}


def test_no_copy_of_a_record_is_kept(session: Session, settings: Settings) -> None:
    """A purge has nothing more to erase because of it, and nothing can differ from the tables."""
    member = ended(session, settings)
    bind = session.get_bind()
    assert isinstance(bind, Engine)
    names = inspect(bind).get_table_names()

    def counts() -> list[int]:
        return [session.scalar(text(f'SELECT count(*) FROM "{name}"')) or 0 for name in names]

    before = counts()
    record_of(session, settings, member)
    assert counts() == before
