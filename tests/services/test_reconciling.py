"""Our records against the provider's."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from adapters.billing.local import LocalBilling
from domain.lifecycle import Through
from domain.ports import Page, Subscription
from jobs import runner
from models import BillingOrder, LocalSubscription, Member, db
from services import decisions, provider_news, reconciling
from services.reconciling import Kind
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at

ENDED: dict[str, Any] = {
    "status": "lapsed", "lapsed_at": at("2026-05-31 22:00"), "access_ends_at": at("2026-05-31 22:00"),
    "keep_until": at("2027-03-31 22:00"),
}  # fmt: skip


@pytest.fixture
def books(app: Flask) -> LocalBilling:
    return LocalBilling(db.engine)


def charged(books: LocalBilling, session: Session, ref: str, price: int = 1299) -> str:
    session.commit()
    books.restart(ref, price_minor=price, currency="EUR", interval="month", key=f"made:{ref}", now=NOW)
    return ref


def found(session: Session, settings: Settings, books: Any, *, fix: bool = False) -> dict[str, tuple[Kind, bool]]:
    session.commit()
    differences = reconciling.reconcile(session, settings, books, NOW, session.commit, fix=fix)
    return {one.billing_ref: (one.kind, one.repaired) for one in differences}


def test_who_agrees_is_not_listed(session: Session, settings: Settings, books: LocalBilling) -> None:
    factories.using(session, billing_ref="runs")
    factories.member(session, billing_ref="over", **ENDED)
    charged(books, session, "runs")
    charged(books, session, "over")
    books.stop("over", key="stop", now=NOW)
    assert found(session, settings, books) == {}


def test_every_difference_is_listed_and_what_is_clear_is_repaired(
    app: Flask, session: Session, settings: Settings, books: LocalBilling
) -> None:
    factories.member(session, billing_ref="over", **ENDED)
    ending = factories.using(session, billing_ref="ending")
    decisions.end_membership(session, settings, ending.id, Through.ACCOUNT, NOW)
    settling = factories.using(session, billing_ref="settling")
    decisions.end_membership(session, settings, settling.id, Through.ACCOUNT, NOW)
    factories.using(session, billing_ref="stopped there")
    factories.using(session, billing_ref="dearer there")
    for ref in ("over", "ending", "settling", "stopped there", "nobody"):
        charged(books, session, ref)
    charged(books, session, "dearer there", price=1499)
    books.stop("stopped there", key="stop", now=NOW)
    # The stop of one was carried out, and somebody took it back at the provider.
    session.execute(update(BillingOrder).where(BillingOrder.billing_ref == "ending").values(state="done"))
    expected = {
        "over": Kind.CHARGED_AFTER_END,
        "ending": Kind.CHARGED_THOUGH_ENDING,
        "nobody": Kind.CHARGED_UNKNOWN,
        "stopped there": Kind.STOPS_THOUGH_ACTIVE,
        "dearer there": Kind.FACTS_DIFFER,
    }
    assert found(session, settings, books) == {ref: (kind, False) for ref, kind in expected.items()}
    runner_ = app.test_cli_runner()
    listed = runner_.invoke(args=["billing", "reconcile"])
    assert (listed.exit_code, "5 differences, 0 repaired" in listed.output) == (1, True)

    repaired = found(session, settings, books, fix=True)
    assert repaired == {ref: (kind, kind in reconciling.CAN_BE_REPAIRED) for ref, kind in expected.items()}
    runner.run_queue(app, "settle-billing")
    session.rollback()
    stopped = session.scalars(
        select(LocalSubscription.billing_ref).where(LocalSubscription.stopped_at.is_not(None))
    ).all()
    assert set(stopped) == {"over", "ending", "settling", "stopped there"}
    assert session.scalars(select(Member.price_minor).where(Member.billing_ref == "dearer there")).one() == 1499
    assert set(found(session, settings, books)) == {"nobody", "stopped there"}


class ElsewhereBilled(LocalBilling):
    """A provider whose list leaves out what has ended, as Stripe's does."""

    def list(self, cursor: str | None, *, limit: int, now: Any) -> Page:
        return Page((), None)


def test_who_pays_here_and_is_not_in_the_list_is_asked_about(
    make_app: Callable[..., Flask], session: Session, settings: Settings
) -> None:
    books = ElsewhereBilled(db.engine)
    factories.using(session, billing_ref="ended there")
    factories.using(session, billing_ref="unknown there")
    charged(books, session, "ended there")
    books.stop("ended there", key="stop", now=NOW, at_once=True)
    stripe = settings.model_copy(update={"billing": "stripe"})
    assert found(session, stripe, books) == {
        "ended there": (Kind.FACTS_DIFFER, False),
        "unknown there": (Kind.NOT_THERE, False),
    }
    found(session, stripe, books, fix=True)
    assert (
        session.scalars(select(Member.subscription_status).where(Member.billing_ref == "ended there")).one() == "ended"
    )


def test_facts_of_somebody_nobody_knows_change_nothing(session: Session, settings: Settings) -> None:
    assert not provider_news.apply(session, settings, Subscription("sub_nobody", "active"), NOW)
