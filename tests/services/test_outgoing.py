"""What the service is told: which happenings, once each, in order for each member; and what answers and silence do."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, select, update
from sqlalchemy.orm import Session

from domain import outgoing, webhooks
from domain.lifecycle import Answer, Through
from domain.outgoing import Type
from models import BillingOrder, Member, Message, OutgoingEvent
from services import campaigns, decisions, own_settings, purging, returning
from services.installation import installed
from services.outgoing import desk, endpoint, sending
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import Answering, FrozenClock, WebhookCatcher
from tests.factories import at
from tests.services.being_told import ACKNOWLEDGED, NEW, OLD, app, send, states, told, types
from tests.services.support import case_of, close, opened, purge

JULY_1 = at("2026-06-30 22:00")

__all__ = ["app", "told"]


def lapsed(session: Session, settings: Settings, **facts: Any) -> Member:
    member = factories.dormant(session, **facts)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    session.execute(update(BillingOrder).values(state="done", done_at=JULY_1))
    session.commit()
    session.refresh(member)
    return member


# What is told


def test_a_whole_round_is_told_in_its_order(
    session: Session, settings: Settings, told: Any, clock: FrozenClock
) -> None:
    kept, silent = factories.dormant(session), factories.dormant(session)
    session.commit()
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    assert told() == [], "a draft that nobody has approved is nobody's business"
    campaigns.approve(session, settings, "2026-06", NOW)
    case = case_of(session, kept)
    asked = {"id": case.public_id, "month": "2026-06"}
    expected = {
        "rule": "never_used",
        "case": asked,
        "deadline": "2026-06-30",
        "deadline_at": "2026-06-30T22:00:00+00:00",
    }
    arrived = told()
    assert types(arrived) == ["case.opened"] * 2
    assert {"external_id": kept.external_id, **expected} in [data for _, data in arrived]
    decisions.answer(session, settings, case.id, Answer.LAPSE, Through.LINK, NOW)
    decisions.answer(session, settings, case.id, Answer.KEEP, Through.LINK, NOW)
    decisions.answer(session, settings, case.id, Answer.KEEP, Through.LINK, NOW)
    assert [(kind, data["through"]) for kind, data in told()] == [("member.ending", "link"), ("member.kept", "link")]

    session.execute(
        update(type(case)).where(type(case).member_id == silent.id).values(warned_at=NOW, warned_to=silent.email)
    )
    session.execute(
        update(Message)
        .where(Message.member_id == silent.id)
        .values(state="sent", sent_at=NOW, smtp_reply="250 OK", attempts=1)
    )
    clock.travel(JULY_1)
    close(session, settings, JULY_1)
    happened = dict(told())
    assert happened["case.closed"]["outcome"] == "kept"
    assert happened["member.lapsed"] == {
        "external_id": silent.external_id,
        "case": {"id": case_of(session, silent).public_id, "month": "2026-06"},
        "deadline": "2026-06-30",
        "deadline_at": "2026-06-30T22:00:00+00:00",
        "access_until": "2026-06-30",
        "saved_until": "2027-04-30",
        "access_ends_at": "2026-06-30T22:00:00+00:00",
        "keep_until": "2027-04-30T22:00:00+00:00",
    }


def test_what_is_told_is_signed_with_every_secret(
    session: Session, told: Any, hooked: WebhookCatcher, clock: FrozenClock
) -> None:
    own_settings.choose_language(session, factories.using(session).id, "de", NOW)
    session.commit()
    send(installed().webhooks)()
    [call] = hooked.calls
    given = [call.headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature")]
    for secret in (OLD, NEW):
        assert webhooks.is_signed([secret], *given, call.body, NOW)
    assert json.loads(call.body)["timestamp"] == NOW.isoformat()


@pytest.mark.parametrize("how", ["undo", "restart", "elsewhere", "reversed"])
def test_each_way_of_coming_back_is_told(
    session: Session, settings: Settings, told: Any, hooked: WebhookCatcher, clock: FrozenClock, how: str
) -> None:
    hooked.answers = ACKNOWLEDGED
    member = lapsed(session, settings, **({"paid_through": at("2026-09-01")} if how == "undo" else {}))
    clock.travel(JULY_1)
    told()
    if how in ("undo", "restart"):
        returning.order(session, settings, member.id, returning.quote(member, settings, JULY_1), JULY_1)
    elif how == "elsewhere":
        member.paid_through = at("2026-12-01")
        session.flush()
        returning.returned_elsewhere(session, settings, JULY_1)
    else:
        uses = select(Member.id.label("member_id"), Member.joined_at.label("used_at"))
        used = uses.where(Member.id == member.id).subquery()
        late = select(used.c.member_id, (select(OutgoingEvent.at).limit(1)).scalar_subquery().label("used_at"))
        assert returning.reverse_for_use(session, settings, late, JULY_1) == 1
    assert [(kind, data["how"]) for kind, data in told()] == [("member.returned", how)]
    assert states(session)[-1] == ("member.returned", "done")


def test_what_a_member_changes_here_is_told_without_what_it_is(session: Session, told: Any) -> None:
    member = factories.using(session)
    own_settings.choose_language(session, member.id, "de", NOW)
    assert told() == [("member.changed", {"external_id": member.external_id, "what": "locale"})]


def test_an_erasure_is_told_when_it_begins_and_when_it_is_done(
    session: Session, settings: Settings, told: Any, hooked: WebhookCatcher
) -> None:
    hooked.answers = ACKNOWLEDGED
    member = factories.using(session, external_id="customer-4711")
    session.commit()
    assert not purging.erase(session, settings, member.id, NOW)
    assert told() == [("member.erasing", {"external_id": "customer-4711"})]
    session.execute(update(BillingOrder).values(state="done", done_at=NOW))
    assert purge(session, settings, NOW) == 1
    assert told() == [("member.purged", {"external_id": "customer-4711"})]


def test_a_cancelled_round_tells_that_nobody_is_asked_any_more(session: Session, settings: Settings, told: Any) -> None:
    factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    campaigns.cancel(session, settings, "2026-06", NOW)
    assert [(kind, data.get("outcome")) for kind, data in told()] == [
        ("case.opened", None),
        ("case.closed", "withdrawn"),
    ]


def test_thousands_are_told_of_by_one_statement(session: Session, settings: Settings, app: Flask) -> None:
    for _ in range(3):
        factories.dormant(session)
    session.commit()
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    statements: list[str] = []
    event.listen(session.get_bind(), "before_cursor_execute", lambda *given: statements.append(given[2]))
    campaigns.approve(session, settings, "2026-06", NOW)
    assert len([one for one in statements if "INSERT INTO outgoing_event" in one]) == 1
    session.commit()
    assert states(session) == [("case.opened", "queued")] * 3


def test_without_an_address_nothing_is_written_down(
    make_app: Callable[..., Flask], session: Session, settings: Settings
) -> None:
    app = make_app()
    with app.app_context():
        assert send(installed().webhooks)() == sending.Sent()
    assert endpoint.present(session) is None
    own_settings.choose_language(session, factories.using(session).id, "de", NOW)
    session.commit()
    assert states(session) == []


# Acknowledgements, and what is kept of whom is erased


def erased(session: Session, settings: Settings) -> Member:
    member = factories.using(
        session, external_id="customer-4711", email="erika@example.org", price_minor=None, billing_ref=None
    )
    session.commit()
    assert purging.erase(session, settings, member.id, NOW)
    session.commit()
    return member


@pytest.mark.parametrize("body", [b"", b"OK", b"[]", b'{"acknowledged": false}', b'{"acknowledged": "yes"}', b"\xff"])
def test_received_is_not_acknowledged(
    session: Session, settings: Settings, told: Any, hooked: WebhookCatcher, body: bytes
) -> None:
    erased(session, settings)
    hooked.answers = Answering(200, body=body)
    assert types(told()) == ["member.purged"]
    assert states(session)[-1] == ("member.purged", "sent")
    [open_] = desk.listed(session)
    assert (open_.type, open_.external_id, open_.state) == ("member.purged", "customer-4711", "sent")


def test_what_is_acknowledged_later_is_done_and_the_id_is_gone(
    session: Session, settings: Settings, told: Any, hooked: WebhookCatcher
) -> None:
    erased(session, settings)
    told()
    [open_] = desk.listed(session)
    assert desk.acknowledge(session, open_.id, NOW)
    assert desk.acknowledge(session, open_.id, NOW), "again changes nothing"
    assert not desk.acknowledge(session, "evt_0", NOW)
    assert desk.listed(session) == []
    assert set(session.scalars(select(OutgoingEvent.external_id))) == {None}
    assert desk.replay(session, NOW, since=at("2026-01-01")) == 0, "of whom is erased there is nothing left to tell"


def test_scenario_38_the_outbox_keeps_an_id_until_it_is_acknowledged_and_nothing_else(
    session: Session, settings: Settings, told: Any, hooked: WebhookCatcher
) -> None:
    member = factories.using(session, external_id="customer-4711", price_minor=None, billing_ref=None)
    own_settings.choose_language(session, member.id, "de", NOW)
    session.commit()
    assert purging.erase(session, settings, member.id, NOW)
    hooked.answers = ACKNOWLEDGED
    assert types(told()) == ["member.purged"], "of what came before there is nothing left to tell"
    assert {state for _, state in states(session)} == {"obsolete", "done"}
    for row in session.execute(select(OutgoingEvent.__table__)):
        assert "customer-4711" not in " ".join(map(str, row))


def test_what_nobody_acknowledges_is_told_to_operators_and_forgotten_in_the_end(
    session: Session, settings: Settings, told: Any
) -> None:
    factories.operator(session)
    erased(session, settings)
    told()
    session.execute(update(Message).values(state="obsolete"))
    assert desk.forget(session, NOW + timedelta(days=2)) == 0
    attention = select(Message.kind).where(Message.operator_id.is_not(None))
    assert session.scalars(attention).all() == ["needs_attention"]
    desk.forget(session, NOW + timedelta(days=30))
    [open_] = desk.listed(session)
    assert (open_.external_id, open_.state, open_.said) == (None, "failed", "never acknowledged; the id is forgotten")
    assert desk.forget(session, NOW + timedelta(days=90)) == 2
    session.commit()
    assert states(session) == []


def test_types_fit_their_column_and_their_words() -> None:
    assert {kind for kind in outgoing.TOLD.values()} | {Type.CASE_OPENED, Type.PURGED} == set(Type)


# Several at once


def test_scenario_42_four_senders_send_each_event_once_and_a_members_in_order(
    session: Session, app: Flask, hooked: WebhookCatcher
) -> None:
    members = [factories.using(session) for _ in range(6)]
    for _ in range(4):
        for member in members:
            own_settings.choose_language(session, member.id, "de", NOW)
    session.commit()
    expected = [
        (f"evt_{public_id}", member_id)
        for public_id, member_id in session.execute(
            select(OutgoingEvent.public_id, OutgoingEvent.member_id).order_by(OutgoingEvent.id)
        )
    ]
    session.commit()

    def run(_: int) -> sending.Sent:
        with app.app_context():
            return send(installed().webhooks)()

    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(run, range(4)))
    arrived = [call.headers["webhook-id"] for call in hooked.calls]
    assert sorted(arrived) == sorted(one for one, _ in expected)
    assert sum(one.delivered for one in done) == len(expected)
    for member in members:
        theirs = [one for one, whose in expected if whose == member.id]
        assert [one for one in arrived if one in theirs] == theirs
