"""SIGKILL while orders are carried out at Stripe: before a call arrives there, after its effect, between the database's
statements. Nobody ends up both lapsed and charged, charged twice, or begun twice; Stripe's own record is the witness.

Stripe forgets the keys of calls at each death here: what was done must be found by looking.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from subprocess import Popen
from typing import Any

import pytest
from sqlalchemy import select

from domain.lifecycle import OrderKind, OrderState
from domain.money import pro_rata
from models import BillingOrder, Member
from services import billing
from tests import factories
from tests.adapters.stripe_world import BREAKS, KEY, WEBHOOK_SECRET, Fault, StripeProxy, StripeWorld, running_stripe
from tests.faults.harness import KILLED, PATIENCE, Site

SINCE = timedelta(days=10)
"""The rest of a period that is given back begins so long after its beginning."""


Call = Callable[[str, str], bool]


def never(method: str, path: str) -> bool:
    return False


def begins_a_subscription(method: str, path: str) -> bool:
    return method == "POST" and path.partition("?")[0].rstrip("/").endswith("/subscriptions")


def the(number: int) -> Call:
    """The call of this number, from one on."""
    left = iter(range(number - 1, -1, -1))
    return lambda method, path: next(left, -1) == 0


@pytest.fixture(scope="module")
def stripe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeProxy]:
    with running_stripe(tmp_path_factory.mktemp("stripe")) as proxy:
        yield proxy


def settle(site: Site, stripe: StripeProxy, *, call: Call = never, arrives: bool = False, die_at: int = 0) -> int:
    """``flask jobs run settle-billing``: 0, or KILLED. At the first such ``call``, which still arrives or not; or at a
    point of the work with the database."""
    here = {
        "BILLING": "stripe",
        "STRIPE_KEY": KEY,
        "STRIPE_API": stripe.address,
        "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "BILLING_CONNECTIONS": "1",
        "BILLING_RATE": "1000",
        "DIE_AT": str(die_at or ""),
    }
    stripe.answered.clear()
    with site.running("flask", "jobs", "run", "settle-billing", **here) as process:
        stripe.faults = death_at(site, process, call, arrives=arrives)
        code = process.wait(PATIENCE)
    stripe.faults = lambda method, path: None
    assert code in (0, KILLED), (site.folder / "output").read_text()
    return code


def death_at(site: Site, process: Popen[str], call: Call, *, arrives: bool) -> Any:
    dead = False

    def fault(method: str, path: str) -> Fault | None:
        nonlocal dead
        if dead or not call(method, path):
            return None
        dead = True
        site.kill(process)
        return None if arrives else BREAKS

    return fault


def ordered(site: Site, world: StripeWorld) -> dict[str, str]:
    """Who has which subscription: one ends, one keeps after all, one comes back, and of one the rest goes back."""
    refs = {name: world.subscribe() for name in ("ends", "keeps", "returns", "rest")}
    world.api.subscriptions.cancel(refs["returns"])
    with site.session() as session:

        def order(name: str, kind: OrderKind, **more: Any) -> None:
            member = session.scalars(select(Member).where(Member.external_id == name)).one()
            billing.order(session, kind=kind, key=f"{kind}:{name}", member=member, now=site.now, **more)
            session.flush()

        for name, ref in refs.items():
            factories.member(session, external_id=name, billing_ref=ref)
        for name in ("ends", "keeps", "rest"):
            order(name, OrderKind.STOP)
        order("keeps", OrderKind.UNDO)
        order("returns", OrderKind.RESTART)
        order("rest", OrderKind.REFUND, since=world.now + SINCE)
        for row in session.scalars(select(BillingOrder).where(BillingOrder.key.in_(["stop:rest", "refund:rest"]))):
            row.at_once = True
    return refs


def test_nobody_is_charged_after_an_end_twice_or_begun_twice(site: Site, stripe: StripeProxy, long: bool) -> None:
    stripe.begin()
    world = StripeWorld(stripe)
    refs = ordered(site, world)
    whose = world.customer_of(refs["returns"])
    stripe.calls.clear()

    deaths = 0
    for arrives in (True, False) if long else ():
        number = 1
        while settle(site, stripe, call=the(number), arrives=arrives) == KILLED:
            deaths, number = deaths + 1, number + 1
            site.wait_for_leases()
    # The short form dies at what must not be done twice: where it was not done, and where nobody has heard that it was.
    for arrives in () if long else (False, True):
        assert settle(site, stripe, call=begins_a_subscription, arrives=arrives) == KILLED
        deaths += 1
        site.wait_for_leases()
    point = 1 if long else 9
    while (long or deaths < 3) and settle(site, stripe, die_at=point) == KILLED:
        deaths, point = deaths + 1, point + 1
        site.wait_for_leases()
    assert settle(site, stripe) == 0
    assert site.kills == deaths >= (20 if long else 3)

    with site.session() as session:
        orders = session.scalars(select(BillingOrder)).all()
        assert {(order.key, order.state) for order in orders} == {(order.key, OrderState.DONE) for order in orders}
        refunded = {order.key: order.refunded_minor for order in orders}["refund:rest"]
    ended, kept, rest = (world.billing.read(refs[name], now=world.now) for name in ("ends", "keeps", "rest"))
    assert (ended.charges_on, kept.charges_on, rest.status) == (False, True, "ended")
    for name in ("ends", "keeps"):
        assert [one.refunded_minor for one in charged(world, refs[name])] == [0]
    [paid] = charged(world, refs["rest"])
    assert paid.period_end is not None
    owed = pro_rata(paid.amount_minor, paid.period_start, paid.period_end, world.now + SINCE)
    assert (paid.refunded_minor, refunded) == (owed, owed)
    params: Any = {"customer": whose, "limit": 100}
    [begun] = [one.id for one in world.api.subscriptions.list(params).data if one.id != refs["returns"]]
    assert [one.amount_minor for one in charged(world, begun)] == [1299]
    assert [one.refunded_minor for one in charged(world, refs["returns"])] == [0]


def charged(world: StripeWorld, ref: str) -> Any:
    return world.billing.charges(ref, since=world.now - timedelta(days=2))
