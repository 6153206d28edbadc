"""An order the provider refused is shown, told to operators once a day, and can be tried again."""

from collections.abc import Callable

from flask import Flask
from sqlalchemy import select

from domain.errors import BillingPermanent
from domain.lifecycle import OrderKind
from models import BillingOrder, Message, db
from services import billing, billing_answers, billing_asking
from tests import factories
from tests.conftest import NOW


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
