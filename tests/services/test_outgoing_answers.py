"""What the service's answers and its silence do to events: tried again, in order, held back, given up, resumed."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from domain import outgoing
from domain.lifecycle import Through
from domain.ports import Outcome, WebhookReply
from models import EventEndpoint, Message, OutgoingEvent
from services import decisions, own_settings
from services.installation import installed
from services.outgoing import desk, endpoint, sending
from tests import factories
from tests.conftest import NOW
from tests.doubles import Answering, Called, FrozenClock, WebhookCatcher
from tests.factories import at
from tests.services.being_told import NEW, app, send, states, told, types

JULY_1 = at("2026-06-30 22:00")

__all__ = ["app", "told"]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """The statements are tried on both databases next door; what answers do to an address is the same on both."""
    return sqlite_url


# In order, once, and again


def test_a_members_events_wait_for_the_earlier_one_and_nobody_elses_do(
    session: Session, told: Any, hooked: WebhookCatcher, clock: FrozenClock
) -> None:
    first, second = factories.using(session), factories.using(session)
    for member in (first, second, first):
        own_settings.choose_language(session, member.id, "de", NOW)
    decisions.keep_membership(session, installed().settings, first.id, Through.ACCOUNT, NOW)
    stubborn = first.external_id

    def answer(call: Called) -> Answering:
        return Answering(500 if json.loads(call.body)["data"]["external_id"] == stubborn else 204)

    hooked.answers = answer
    assert sorted(data["external_id"] for _, data in told()) == sorted([first.external_id, second.external_id])
    hooked.answers = Answering()
    assert told() == [], "its turn has not come yet"
    clock.tick(seconds=10)
    assert types(told()) == ["member.changed", "member.changed", "member.kept"]


def test_it_is_the_same_event_at_every_attempt(
    session: Session, told: Any, hooked: WebhookCatcher, clock: FrozenClock
) -> None:
    own_settings.choose_language(session, factories.using(session).id, "de", NOW)
    session.commit()
    hooked.answers = Answering(500)
    seen = []
    for _ in range(2):
        send(installed().webhooks)()
        [call] = hooked.calls
        seen.append((call.headers["webhook-id"], call.body))
        stamps = call.headers["webhook-timestamp"]
        hooked.calls.clear()
        clock.tick(minutes=10)
    assert seen[0] == seen[1]
    assert int(stamps) > NOW.timestamp(), "signed anew, or receivers would find it too old"


def test_it_is_tried_for_days_and_then_given_up_and_operators_are_told(
    session: Session, told: Any, hooked: WebhookCatcher, clock: FrozenClock
) -> None:
    factories.operator(session)
    own_settings.choose_language(session, factories.using(session).id, "de", NOW)
    hooked.answers = Answering(404)
    tried = []
    while told():
        tried.append(clock.now())
        clock.travel(session.scalars(select(OutgoingEvent.due_at)).one())
    assert len(tried) == len(outgoing.WAITS) + 1
    assert len({tried[n + 1] - tried[n] for n in range(len(outgoing.WAITS))}) == len(outgoing.WAITS)
    assert timedelta(days=2.5) < tried[-1] - NOW < timedelta(days=4)
    assert states(session) == [("member.changed", "failed")]
    assert session.scalars(select(Message.kind)).all() == ["needs_attention"]
    hooked.answers = Answering()
    assert desk.replay(session, clock.now(), states=[outgoing.State.FAILED]) == 1
    assert types(told()) == ["member.changed"]


def test_attempts_that_failed_together_are_not_tried_together_again() -> None:
    waits = {outgoing.wait(3, f"{n}") for n in range(50)}
    assert len(waits) > 40
    nominal = outgoing.WAITS[2]
    assert all(nominal * 0.8 <= one <= nominal * 1.2 for one in waits if one is not None)


@pytest.mark.parametrize("status", [0, 429, 503])
def test_where_nobody_answers_all_wait_and_no_attempt_is_counted(
    session: Session, told: Any, hooked: WebhookCatcher, clock: FrozenClock, status: int
) -> None:
    operator = factories.operator(session)
    for _ in range(10):
        own_settings.choose_language(session, factories.using(session).id, "de", NOW)
    hooked.answers = Answering(status) if status else Answering(raw=b"")
    assert len(told()) == sending.AT_ONCE, "the others are not tried in vain"
    assert told() == []
    for _ in range(20):
        clock.tick(hours=1.3)
        assert len(told()) == sending.AT_ONCE
    session.rollback()
    assert set(session.scalars(select(OutgoingEvent.attempts))) == {0}
    standing = desk.standing(session, clock.now())
    assert standing is not None
    assert (standing.waiting, standing.failing_since) == (10, NOW)
    told_to = session.scalars(select(Message.operator_id)).all()
    assert set(told_to) == {operator.id}
    assert len(told_to) <= 2, "one mail a day"
    hooked.answers = Answering()
    clock.tick(hours=1.3)
    assert len(told()) == 10
    standing = desk.standing(session, clock.now())
    assert standing is not None
    assert (standing.waiting, standing.failing_since) == (0, None)


def test_who_asks_for_a_longer_wait_gets_it(
    session: Session, told: Any, hooked: WebhookCatcher, clock: FrozenClock
) -> None:
    own_settings.choose_language(session, factories.using(session).id, "de", NOW)
    hooked.answers = Answering(429, {"Retry-After": "600"})
    told()
    clock.tick(seconds=590)
    assert told() == []
    clock.tick(seconds=20)
    assert len(told()) == 1


def test_410_ends_it_until_an_operator_says_otherwise(
    session: Session, told: Any, hooked: WebhookCatcher, clock: FrozenClock
) -> None:
    factories.operator(session)
    own_settings.choose_language(session, factories.using(session).id, "de", NOW)
    hooked.answers = Answering(410)
    assert len(told()) == 1
    assert session.scalars(select(Message.kind)).all() == ["needs_attention"]
    hooked.answers = Answering()
    clock.tick(days=3)
    own_settings.choose_language(session, factories.using(session).id, "de", NOW)
    assert told() == []
    assert endpoint.resume(session)
    assert len(told()) == 2, "what has happened meanwhile is told too"


def test_another_address_is_a_new_beginning_and_none_is_the_end(
    session: Session, told: Any, hooked: WebhookCatcher, make_app: Callable[..., Flask]
) -> None:
    hooked.answers = Answering(410)
    own_settings.choose_language(session, factories.using(session).id, "de", NOW)
    told()
    hooked.answers = Answering()
    elsewhere = make_app(events_url=f"{hooked.url}/new", events_secret=(NEW,), webhook_networks=("127.0.0.1/32",))
    with elsewhere.app_context():
        send(installed().webhooks)()
    assert [call.path for call in hooked.calls] == ["/hooks", "/hooks/new"][-len(hooked.calls) :]
    with make_app().app_context():
        send(installed().webhooks)()
    session.rollback()
    assert session.scalar(select(EventEndpoint.id)) is None


def test_a_sender_slower_than_its_lease_is_ignored(session: Session, told: Any, clock: FrozenClock) -> None:
    own_settings.choose_language(session, factories.using(session).id, "de", NOW)
    session.commit()
    [slow] = sending.claim(session, NOW, 5)
    session.commit()
    assert sending.claim(session, NOW, 5) == []
    clock.tick(minutes=11)
    [other] = sending.claim(session, clock.now(), 5)
    assert other.public_id == slow.public_id
    settings, refused = installed().settings, WebhookReply(Outcome.PERMANENT, 404, "answered 404")
    assert sending.record(session, settings, slow, refused, clock.now()) is None
    accepted = WebhookReply(Outcome.ACCEPTED, 204, "answered 204")
    assert sending.record(session, settings, other, accepted, clock.now()) == "done"
