"""What every billing adapter has to do, as domain/ports.py says: the same cases for each (see docs/billing.md).

A test module of an adapter has a class that inherits from ``RefundingContract``, or from ``BillingContract`` where the
service gives money back by itself when it is told to, and a fixture ``world`` that gives a
``World``: the adapter, connected to something real enough to charge.
"""

from datetime import datetime, timedelta
from typing import Protocol

import pytest

from domain.errors import BillingGone, BillingUnknown
from domain.money import pro_rata
from domain.ports import Billing, Subscription

DAY = timedelta(days=1)


class World(Protocol):
    billing: Billing
    now: datetime

    def subscribe(self, *, price_minor: int = 1299, currency: str = "EUR", interval: str = "month") -> str:
        """A subscription that runs and has been charged once, for the period that has just begun; its reference."""


class BillingContract:
    def read(self, world: World, ref: str) -> Subscription:
        return world.billing.read(ref, now=world.now)

    def test_a_subscription_is_told_as_it_is(self, world: World) -> None:
        found = self.read(world, world.subscribe(price_minor=2450, currency="USD", interval="year"))
        assert (found.status, found.stopping, found.charges_on) == ("active", False, True)
        assert (found.price_minor, found.currency, found.interval) == (2450, "USD", "year")
        assert found.paid_through is not None
        assert timedelta(days=360) < found.paid_through - world.now < timedelta(days=370)
        assert found.next_charge_at == found.paid_through

    def test_a_reference_nobody_knows_is_said_to_be_unknown(self, world: World) -> None:
        with pytest.raises(BillingUnknown):
            self.read(world, "sub_nobody")

    def test_a_stop_ends_charges_and_leaves_what_is_paid(self, world: World) -> None:
        ref = world.subscribe()
        before = self.read(world, ref)
        receipt = world.billing.stop(ref, key="stop:1", now=world.now)
        assert receipt.reference
        assert receipt.next_charge_at is None
        after = self.read(world, ref)
        assert receipt.read_back == after
        assert (after.stopping, after.charges_on, after.next_charge_at) == (True, False, None)
        assert after.paid_through == before.paid_through

    def test_what_is_stopped_already_is_no_failure(self, world: World) -> None:
        ref = world.subscribe()
        world.billing.stop(ref, key="stop:1", now=world.now)
        assert world.billing.stop(ref, key="stop:2", now=world.now).read_back == self.read(world, ref)
        world.billing.stop(ref, key="stop:3", now=world.now, at_once=True)
        world.billing.stop(ref, key="stop:4", now=world.now)
        assert self.read(world, ref).status == "ended"

    def test_undo_goes_on_with_the_same_day_and_charges_nothing_now(self, world: World) -> None:
        ref = world.subscribe()
        before = self.read(world, ref)
        world.billing.stop(ref, key="stop:1", now=world.now)
        receipt = world.billing.undo(ref, key="undo:1", now=world.now)
        assert receipt.next_charge_at == before.next_charge_at
        assert self.read(world, ref) == before
        assert len(world.billing.charges(ref, since=world.now - DAY) or [()]) == 1

    def test_the_same_key_gets_the_same_answer_and_nothing_is_done_again(self, world: World) -> None:
        ref = world.subscribe()
        first = world.billing.stop(ref, key="stop:1", now=world.now)
        world.billing.undo(ref, key="undo:1", now=world.now)
        assert world.billing.stop(ref, key="stop:1", now=world.now) == first
        assert self.read(world, ref).charges_on

    def test_ended_at_once_is_over_and_cannot_be_undone(self, world: World) -> None:
        ref = world.subscribe()
        world.billing.stop(ref, key="stop:1", now=world.now, at_once=True)
        found = self.read(world, ref)
        assert (found.status, found.charges_on) == ("ended", False)
        with pytest.raises(BillingGone):
            world.billing.undo(ref, key="undo:1", now=world.now)

    def test_a_restart_is_charged_once_under_one_key(self, world: World) -> None:
        ref = world.subscribe()
        world.billing.stop(ref, key="stop:1", now=world.now, at_once=True)
        later = world.now + DAY

        def restart() -> str:
            receipt = world.billing.restart(
                ref, price_minor=1299, currency="EUR", interval="month", key="restart:1", now=later
            )
            assert receipt.next_charge_at is not None
            assert receipt.next_charge_at > later + 25 * DAY
            return receipt.billing_ref or ref

        new = restart()
        assert restart() == new
        found = world.billing.read(new, now=later)
        assert (found.status, found.charges_on, found.price_minor) == ("active", True, 1299)
        charges = world.billing.charges(new, since=world.now - DAY)
        if charges is not None:
            assert len(charges) == (2 if new == ref else 1)

    def test_a_list_has_each_subscription_once(self, world: World) -> None:
        refs = {world.subscribe() for _ in range(5)}
        found: list[str] = []
        cursor: str | None = None
        for _ in range(5):
            page = world.billing.list(cursor, limit=2, now=world.now)
            assert len(page.subscriptions) <= 2
            found += [one.billing_ref for one in page.subscriptions]
            cursor = page.cursor
            if cursor is None:
                break
        assert cursor is None
        assert len(found) == len(set(found))
        assert refs <= set(found)


class RefundingContract(BillingContract):
    """The same of an adapter that gives money back by itself and tells what it has charged."""

    def test_a_refund_gives_back_whole_periods_once(self, world: World) -> None:
        ref = world.subscribe()
        start = self.charge(world, ref).period_start
        world.billing.refund(ref, since=start + timedelta(seconds=1), key="refund:1", now=world.now)
        assert self.charge(world, ref).refunded_minor == 0
        for key in ("refund:2", "refund:2", "refund:3"):
            world.billing.refund(ref, since=start, key=key, now=world.now)
            assert self.charge(world, ref).refunded_minor == 1299

    @pytest.mark.parametrize(("currency", "price"), [("EUR", 1299), ("JPY", 1300), ("KWD", 4990)])
    def test_the_rest_of_a_period_goes_back_to_the_minor_unit(self, world: World, currency: str, price: int) -> None:
        ref = world.subscribe(price_minor=price, currency=currency)
        charge = self.charge(world, ref)
        assert charge.period_end is not None
        since = charge.period_start + (charge.period_end - charge.period_start) / 3
        told = [
            world.billing.refund(ref, since=since, key=key, now=world.now, pro_rata=True).refunded
            for key in ("refund:1", "refund:1", "refund:2")
        ]
        owed = pro_rata(price, charge.period_start, charge.period_end, since)
        assert abs(owed - price * 2 / 3) <= 1
        # A provider may give back no less than the currency's coin: ten fils of a Kuwaiti dinar.
        went_back = self.charge(world, ref).refunded_minor
        assert abs(went_back - owed) <= (9 if currency == "KWD" else 0)
        # Asked again under its key it says what it has done; another key finds nothing left to do.
        assert [None if one is None else one.minor for one in told] == [went_back, went_back, 0]

    def charge(self, world: World, ref: str):  # type: ignore[no-untyped-def]
        charges = world.billing.charges(ref, since=world.now - DAY)
        assert charges is not None
        (only,) = charges
        return only
