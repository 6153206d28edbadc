"""Every CHECK is violated once and refuses; so do the unique indexes and the guard of the events."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, Table, delete, insert, select, text, update
from sqlalchemy.exc import DatabaseError, IntegrityError, StatementError
from sqlalchemy.orm import Session

from models import Base, Campaign, Case, Event, Member, db
from tests.conftest import NOW

LATER = NOW + timedelta(days=30)
MUCH_LATER = NOW + timedelta(days=300)

PLAUSIBLE: dict[str, dict[str, Any]] = {
    "member": {"external_id": "m", "email": "m@example.org", "email_key": "m@example.org", "joined_at": NOW},
    "campaign": {"month": "2026-06", "state": "draft", "policy": {}, "drafted_at": NOW, "dormant_count": 1},
    "member_case": {"member_id": 1, "campaign_id": 1, "rule": "never_used", "opened_at": NOW},
    "message": {"once_key": "k", "kind": "warning", "priority": 5, "created_at": NOW, "due_at": NOW},
    "billing_order": {"key": "k", "member_id": 1, "kind": "stop", "created_at": NOW, "due_at": NOW},
    "mail_pace": {"id": 1},
    "api_key": {
        "prefix": "p",
        "digest": "d",
        "name": "n",
        "scopes": [],
        "created_at": NOW,
        "expires_at": LATER,
    },
    "outgoing_event": {"member_id": 1, "type": "member.purged", "at": NOW, "due_at": NOW},
    "event_endpoint": {"id": 1, "url_digest": "d", "since": NOW},
    "sign_in": {"member_id": 1, "device": "mac", "at": NOW},
    "magic_link": {"purpose": "sign_in", "address_digest": "d", "created_at": NOW, "expires_at": LATER},
}
"""Rows the database takes, on which each violation changes as little as it can."""

LAPSED = {"status": "lapsed", "lapsed_at": NOW, "access_ends_at": LATER, "keep_until": MUCH_LATER}
PURGED = {"status": "purged", "purged_at": NOW, "external_id": None, "email": None, "email_key": None}

VIOLATIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("member", "ck_member_status", {"status": "gone"}),
    ("member", "ck_member_subscription_status", {"subscription_status": "unpaid"}),
    ("member", "ck_member_mail_state", {"mail_state": "bad"}),
    ("member", "ck_member_price_not_negative", {"price_minor": -1, "currency": "EUR"}),
    ("member", "ck_member_price_has_currency", {"price_minor": 1299}),
    ("member", "ck_member_lapsed_has_dates", {"status": "lapsed"}),
    ("member", "ck_member_lapsed_has_dates", {**LAPSED, "lapsed_at": None}),
    ("member", "ck_member_lapsed_has_dates", {**LAPSED, "access_ends_at": None}),
    ("member", "ck_member_lapsed_has_dates", {**LAPSED, "keep_until": None}),
    ("member", "ck_member_lapsed_has_dates", {**LAPSED, "access_ends_at": NOW - timedelta(days=1)}),
    ("member", "ck_member_lapsed_has_dates", {**LAPSED, "keep_until": LATER}),
    ("member", "ck_member_known_until_purged", {"external_id": None}),
    ("member", "ck_member_known_until_purged", {"email": None}),
    ("member", "ck_member_known_until_purged", {"email_key": None}),
    ("member", "ck_member_purged_is_empty", {**PURGED, "external_id": "m"}),
    ("member", "ck_member_purged_is_empty", {**PURGED, "email": "m@example.org"}),
    ("member", "ck_member_purged_is_empty", {**PURGED, "email_key": "m@example.org"}),
    ("member", "ck_member_purged_is_empty", {**PURGED, "name": "Mia"}),
    ("member", "ck_member_purged_is_empty", {**PURGED, "billing_ref": "sub_1"}),
    ("member", "ck_member_purged_is_empty", {**PURGED, "exempt_reason": "staff"}),
    ("member", "ck_member_purged_is_empty", {**PURGED, "operator_exempt_reason": "asked"}),
    ("member", "ck_member_purged_is_empty", {**PURGED, "purged_at": None}),
    ("campaign", "ck_campaign_state", {"state": "sent"}),
    ("campaign", "ck_campaign_hold_reason", {"hold_reason": "mood"}),
    ("campaign", "ck_campaign_held_says_why", {"state": "held"}),
    ("campaign", "ck_campaign_open_since", {"state": "open"}),
    ("member_case", "ck_member_case_state", {"state": "gone", "closed_at": NOW}),
    ("member_case", "ck_member_case_answer", {"answer": "maybe", "answered_at": NOW}),
    ("member_case", "ck_member_case_answered_through", {"answered_through": "phone"}),
    ("member_case", "ck_member_case_rule", {"rule": "old"}),
    # Promise 1: silent and unwarned; kept and unwarned.
    ("member_case", "ck_member_case_warned_or_own_wish", {"state": "lapsed", "closed_at": NOW}),
    (
        "member_case",
        "ck_member_case_warned_or_own_wish",
        {"state": "lapsed", "closed_at": NOW, "answer": "keep", "answered_at": NOW},
    ),
    ("member_case", "ck_member_case_live_until_closed", {"closed_at": NOW}),
    ("member_case", "ck_member_case_live_until_closed", {"state": "kept"}),
    ("member_case", "ck_member_case_answer_has_instant", {"answer": "keep"}),
    ("member_case", "ck_member_case_answer_has_instant", {"answered_at": NOW}),
    ("member_case", "ck_member_case_asked_in_a_campaign", {"campaign_id": None}),
    ("member_case", "ck_member_case_warned_for_a_deadline", {"warned_at": NOW}),
    ("outgoing_event", "ck_outgoing_event_type", {"type": "member.gone"}),
    ("outgoing_event", "ck_outgoing_event_state", {"state": "lost"}),
    ("outgoing_event", "ck_outgoing_event_sending_has_lease", {"state": "sending"}),
    ("outgoing_event", "ck_outgoing_event_sent_has_instant", {"state": "sent"}),
    ("outgoing_event", "ck_outgoing_event_over_since", {"state": "done"}),
    ("outgoing_event", "ck_outgoing_event_known_until_acknowledged", {"external_id": "m", "type": "member.kept"}),
    (
        "outgoing_event",
        "ck_outgoing_event_known_until_acknowledged",
        {"external_id": "m", "state": "done", "done_at": NOW},
    ),
    ("event_endpoint", "ck_event_endpoint_one_row", {"id": 2}),
    ("event_endpoint", "ck_event_endpoint_failing_since", {"failures": 1}),
    ("event_endpoint", "ck_event_endpoint_failing_since", {"failing_since": NOW}),
    ("message", "ck_message_state", {"state": "lost"}),
    ("message", "ck_message_kind", {"kind": "newsletter"}),
    ("message", "ck_message_sent_has_reply", {"state": "sent", "sent_at": NOW}),
    ("message", "ck_message_sent_has_reply", {"state": "sent", "smtp_reply": "250 OK"}),
    ("message", "ck_message_sending_has_lease", {"state": "sending"}),
    ("message", "ck_message_sending_has_lease", {"lease_token": "t"}),
    ("billing_order", "ck_billing_order_kind", {"kind": "charge"}),
    ("billing_order", "ck_billing_order_state", {"state": "lost"}),
    ("mail_pace", "ck_mail_pace_one_row", {"id": 2}),
    ("magic_link", "ck_magic_link_purpose", {"purpose": "login"}),
    ("sign_in", "ck_sign_in_device", {"device": "toaster"}),
    ("api_key", "ck_api_key_expires_later", {"expires_at": NOW}),
    ("api_key", "ck_api_key_taken_counts", {"taken": -1}),
]

ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    *((table, {}) for table in PLAUSIBLE),
    ("member", LAPSED),
    ("member", {**LAPSED, "access_ends_at": NOW}),
    ("member", PURGED),
    ("member", {"price_minor": 0, "currency": "EUR"}),
    ("member_case", {"state": "lapsed", "closed_at": LATER, "warned_at": NOW, "deadline_at": LATER}),
    ("member_case", {"state": "lapsed", "closed_at": LATER, "answer": "lapse", "answered_at": NOW}),
    ("member_case", {"rule": "own_wish", "campaign_id": None}),
    ("campaign", {"state": "held", "hold_reason": "operator"}),
    ("message", {"state": "sent", "sent_at": NOW, "smtp_reply": "250 OK"}),
    ("message", {"state": "sending", "lease_token": "t"}),
]


def table(name: str) -> Table:
    return Base.metadata.tables[name]


@pytest.fixture
def rows(session: Session) -> Session:
    """A member and a campaign that cases and orders can point to, the first of their tables."""
    session.execute(insert(Member).values(**{**PLAUSIBLE["member"], "external_id": "first"}))
    session.execute(insert(Campaign).values(**{**PLAUSIBLE["campaign"], "month": "2026-05"}))
    return session


def refusal(session: Session, statement: Any) -> str:
    """What the database says against a statement; nothing, if it takes it. Either way nothing stays."""
    savepoint = session.begin_nested()
    try:
        session.execute(statement)
    except IntegrityError as error:
        return str(error.orig)
    finally:
        savepoint.rollback()
    return ""


@pytest.mark.parametrize("name", PLAUSIBLE)
def test_what_is_right_is_accepted(rows: Session, name: str) -> None:
    for change in (change for each, change in ACCEPTED if each == name):
        assert refusal(rows, insert(table(name)).values({**PLAUSIBLE[name], **change})) == "", change


@pytest.mark.parametrize("name", PLAUSIBLE)
def test_what_is_wrong_is_refused_by_the_database(rows: Session, name: str) -> None:
    for constraint, change in ((constraint, change) for each, constraint, change in VIOLATIONS if each == name):
        said = refusal(rows, insert(table(name)).values({**PLAUSIBLE[name], **change}))
        assert re.search(rf"\b{constraint}\b", said), f"{constraint} let {change} pass: {said}"


def test_every_check_of_every_table_is_violated_above() -> None:
    checks = {
        str(constraint.name)
        for each in Base.metadata.tables.values()
        for constraint in each.constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert {constraint for _, constraint, _ in VIOLATIONS} == checks


# One live case, and everything else that is there once


def case(**facts: Any) -> Any:
    return insert(Case).values({**PLAUSIBLE["member_case"], **facts})


def test_scenario_08_a_member_has_one_live_case_and_as_many_closed_ones_as_there_were(rows: Session) -> None:
    rows.execute(insert(Campaign).values(**PLAUSIBLE["campaign"]))
    rows.execute(case(campaign_id=1, state="kept", closed_at=NOW))
    rows.execute(case(campaign_id=2))
    with pytest.raises(IntegrityError, match=r"uq_member_case_live|member_case\.member_id"):
        rows.execute(case(campaign_id=None, rule="own_wish"))


def test_a_member_is_asked_once_in_a_campaign(rows: Session) -> None:
    rows.execute(case(state="kept", closed_at=NOW))
    with pytest.raises(IntegrityError, match=r"uq_member_case_campaign_id|member_case\.campaign_id"):
        rows.execute(case())


ONCE: list[tuple[str, dict[str, Any]]] = [
    ("member", {}),
    ("campaign", {}),
    ("message", {}),
    ("billing_order", {}),
    ("magic_link", {"token_hash": "h"}),
    ("operator", {"email": "o@x.example", "email_key": "o", "role": "r", "password_hash": "p", "created_at": NOW}),
    ("profile", {"member_id": 1, "position": 0, "name": "Mia", "settings": {}}),
    ("erasure", {"digest": "d", "purged_at": NOW}),
    ("job_run", {"job": "close", "period": "2026-06"}),
    ("api_key", {}),
    ("use_feed", {"source": "plays"}),
    ("local_call", {"key": "k", "reference": "r", "called_at": NOW}),
]


def test_what_must_be_once_is_refused_a_second_time(rows: Session) -> None:
    for name, values in ONCE:
        statement = insert(table(name)).values({**PLAUSIBLE.get(name, {}), **values})
        rows.execute(statement)
        assert "unique" in refusal(rows, statement).casefold(), name


def test_every_public_id_is_random_and_made_by_the_database(rows: Session) -> None:
    values = [{**PLAUSIBLE["member"], "external_id": f"m-{n}"} for n in range(50)]
    rows.execute(insert(Member), values)
    made = rows.scalars(select(Member.public_id)).all()
    assert len(set(made)) == 51
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in made)


def test_a_case_of_nobody_is_refused(rows: Session) -> None:
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        rows.execute(case(member_id=4711))


# Events are for ever


@pytest.mark.parametrize("what", ["update", "delete", "update of none", "truncate"])
def test_an_event_is_never_changed(session: Session, what: str) -> None:
    session.execute(insert(Event).values(at=NOW, code="case_opened", member_id=1))
    session.commit()
    statement: Any = {
        "update": update(Event).values(code="nothing"),
        "update of none": update(Event).values(code="nothing").where(Event.member_id == 1),
        "delete": delete(Event),
        # SQLite has no TRUNCATE; its fast way to empty a table is a DELETE without WHERE.
        "truncate": text("TRUNCATE event" if db.engine.dialect.name == "postgresql" else "DELETE FROM event"),
    }[what]
    with pytest.raises(DatabaseError, match="event is append-only"):
        session.execute(statement)
    session.rollback()
    assert session.scalars(select(Event.code)).all() == ["case_opened"]


# Instants


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_postgresql_speaks_in_utc_whatever_its_own_zone_is(session: Session) -> None:
    name = session.scalar(text("SELECT current_database()"))
    session.execute(text(f"ALTER DATABASE {name} SET timezone = 'Europe/Berlin'"))
    session.commit()
    db.engine.dispose()
    assert session.scalar(text("SELECT now()::text LIKE '%+00'"))
    assert session.scalar(text("SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'")) == "Europe/Berlin"


def test_a_naive_instant_is_refused(session: Session) -> None:
    values = {**PLAUSIBLE["member"], "joined_at": datetime(2026, 6, 3, 10, 0)}
    with pytest.raises(StatementError, match="is naive: every instant needs an offset"):
        session.execute(insert(Member).values(values))
    with pytest.raises(StatementError, match="is naive"):
        session.scalar(select(Member.id).where(Member.joined_at < datetime(2026, 6, 3)))


@pytest.mark.parametrize("hours", [-11, 0, 2, 14])
def test_an_instant_comes_back_as_the_same_instant_in_utc(session: Session, hours: int) -> None:
    local = datetime(2026, 6, 30, 23, 30, 0, 123456, tzinfo=timezone(timedelta(hours=hours)))
    session.execute(insert(Member).values({**PLAUSIBLE["member"], "joined_at": local}))
    found = session.scalar(select(Member.joined_at))
    assert found == local
    assert found is not None
    assert found.tzinfo is UTC
    assert session.scalar(select(Member.id).where(Member.joined_at == local)) is not None


def test_instants_of_different_offsets_are_compared_as_instants(session: Session) -> None:
    """On SQLite they are text: only one zone and one width of the fraction sort as instants do."""
    instants = [
        datetime(2026, 7, 1, 0, 30, tzinfo=timezone(timedelta(hours=14))),
        datetime(2026, 6, 30, 10, 30, 0, 1, tzinfo=UTC),
        datetime(2026, 6, 29, 23, 59, tzinfo=timezone(timedelta(hours=-11))),
    ]
    for number, instant in enumerate(instants):
        session.execute(
            insert(Member).values({**PLAUSIBLE["member"], "external_id": str(number), "joined_at": instant})
        )
    assert session.scalars(select(Member.joined_at).order_by(Member.joined_at)).all() == sorted(instants)


def test_nothing_is_an_instant_too(session: Session) -> None:
    session.execute(insert(Member).values(PLAUSIBLE["member"]))
    assert session.scalar(select(Member.last_used_at)) is None


def test_a_literal_instant_is_written_in_utc(session: Session) -> None:
    local = datetime(2026, 7, 1, 0, 0, tzinfo=timezone(timedelta(hours=2)))
    session.execute(insert(Member).values({**PLAUSIBLE["member"], "joined_at": local}))
    found = select(Member.id).where(Member.joined_at == local)
    written = str(found.compile(db.engine, compile_kwargs={"literal_binds": True}))
    assert "2026-06-30 22:00:00" in written
    assert session.scalar(text(written)) == session.scalar(found)


def test_the_sign_of_life_is_kept_by_the_database(session: Session) -> None:
    session.execute(insert(Member).values({**PLAUSIBLE["member"], "last_kept_at": LATER}))
    sign = select(Member.last_sign_of_life_at)
    assert session.scalar(sign) == LATER
    session.execute(update(Member).values(returned_at=MUCH_LATER))
    assert session.scalar(sign) == MUCH_LATER
    session.execute(update(Member).values(returned_at=None, last_kept_at=None, last_used_at=NOW - timedelta(days=1)))
    assert session.scalar(sign) == NOW
