"""An order the provider refused is shown, told to operators once a day, and can be tried again."""

from collections.abc import Callable
from datetime import datetime
from functools import partial

from flask import Flask
from sqlalchemy import select

from domain.errors import BillingError, BillingPermanent, BillingTemporary
from domain.lifecycle import OrderKind
from domain.ports import Subscription
from models import BillingOrder, Message, db
from services import billing, billing_answers, billing_asking, provider_news
from services.installation import installed
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock


def test_a_refused_order_waits_for_an_operator(make_app: Callable[..., Flask]) -> None:
    app = make_app()
    runner = app.test_cli_runner()
    with app.app_context():
        session = db.session()
        factories.operator(session)
        members = [factories.member(session) for _ in range(2)]
        for member in members:
            billing.order(session, kind=OrderKind.STOP, key=f"stop:{member.id}", member=member, now=NOW)
        for claimed in billing_asking.claim(session, NOW, 10):
            billing_answers.record(session, claimed, BillingPermanent("the card company does not know it"), NOW)
        session.commit()
        assert list(session.scalars(select(Message.kind))) == ["needs_attention"], "one mail a day"
    listed = runner.invoke(args=["billing", "list"]).output
    assert "the card company does not know it" in listed
    assert "2 orders were refused" in runner.invoke(args=["doctor"]).output
    assert runner.invoke(args=["billing", "retry", "1"]).exit_code == 0
    refused = runner.invoke(args=["billing", "retry", "1"])
    assert (refused.exit_code, "only a failed one" in refused.output) == (1, True)
    assert runner.invoke(args=["billing", "retry", "99"]).exit_code == 1
    with app.app_context():
        states = dict(db.session.execute(select(BillingOrder.id, BillingOrder.state)).all())
        assert states == {1: "queued", 2: "failed"}


def test_word_that_could_not_be_read_is_shown_until_it_is(make_app: Callable[..., Flask], clock: FrozenClock) -> None:
    app = make_app()
    runner = app.test_cli_runner()
    provider = Unreadable()
    with app.app_context():
        session = db.session()
        provider_news.heard(session, ["sub_1", "sub_2"], NOW)
        session.commit()
        settings = installed().settings
        look = partial(provider_news.look, session, settings, provider, clock, session.commit, lambda: False)
        look()
    listed = runner.invoke(args=["billing", "list"]).output
    assert "no order has failed" in listed
    assert [line.split() for line in listed.splitlines() if line.startswith("sub_")] == [
        ["sub_1", "yes", "busy"], ["sub_2", "no", "forbidden"],
    ]  # fmt: skip
    assert (
        "2 subscriptions of which the provider has sent word could not be read" in runner.invoke(args=["doctor"]).output
    )
    provider.errors = {}
    clock.tick(hours=1)
    runner.invoke(args=["billing", "reconcile"])
    with app.app_context():
        look()
    assert "sub_" not in runner.invoke(args=["billing", "list"]).output


class Unreadable:
    def __init__(self) -> None:
        self.errors: dict[str, BillingError] = {
            "sub_1": BillingTemporary("busy"),
            "sub_2": BillingPermanent("forbidden"),
        }

    def read(self, billing_ref: str, *, now: datetime) -> Subscription:
        if billing_ref in self.errors:
            raise self.errors[billing_ref]
        return Subscription(billing_ref, "active")
