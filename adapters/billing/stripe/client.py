"""Stripe as a billing provider: cancel at period end and its undo, restart on the same card or by Checkout, refunds.

Stripe forgets idempotency keys after a day or so, so no call relies on them alone: a stop and its undo look at what
holds first, a restart leaves its key in the new subscription's metadata and looks for it, a refund counts what has gone
back already. What Stripe cannot tell (an answer that did not come, a busy server) is BillingTemporary.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import stripe

from adapters.billing.stripe import reading, webhook
from adapters.billing.stripe.reading import BEFORE
from domain.errors import (
    BillingGone,
    BillingPermanent,
    BillingRefused,
    BillingTemporary,
    BillingUnknown,
)
from domain.money import Money
from domain.money import pro_rata as share_of
from domain.ports import BillingReceipt, Charge, Page, Subscription

TIMEOUT_SECONDS = 20
TRIES = 4
"""So often one call is tried while Stripe says that we ask too often; the order is tried again later anyway."""

KEY = "dormouse_key"
"""In the metadata of a subscription that was restarted: the order's key."""


class StripeBilling:
    """``key`` is a secret or restricted key; ``live`` says which of both kinds it has to be, and whose objects count.

    ``come_back_at`` is where Checkout sends a member who has paid, or has changed their mind. ``base`` replaces
    Stripe's own address, ``pause`` waits so many seconds between two tries.
    """

    def __init__(
        self,
        key: str,
        *,
        live: bool,
        come_back_at: str,
        webhook_secrets: Sequence[str],
        pause: Callable[[float], None],
        base: str | None = None,
    ) -> None:
        self._live, self._come_back_at, self._pause = live, come_back_at, pause
        self._webhook_secrets = webhook_secrets
        self._api = stripe.StripeClient(
            key,
            base_addresses={"api": base} if base else None,
            http_client=stripe.RequestsClient(timeout=TIMEOUT_SECONDS),
            # Tries again with the same key on lost lines, conflicts and server errors.
            max_network_retries=1,
        ).v1

    def read(self, billing_ref: str, *, now: datetime) -> Subscription:
        return reading.subscription(self._retrieve(billing_ref))

    def list(self, cursor: str | None, *, limit: int, now: datetime) -> Page:
        params: dict[str, Any] = {"limit": limit, "expand": ["data.customer"]}
        if cursor is not None:
            params["starting_after"] = cursor
        page = self._ask(lambda: self._api.subscriptions.list(params))
        found = tuple(reading.subscription(self._of_our_mode(one)) for one in page["data"])
        return Page(found, page["data"][-1]["id"] if page["has_more"] and page["data"] else None)

    def charges(self, billing_ref: str, *, since: datetime) -> Sequence[Charge] | None:
        found = []
        for invoice in self._paid_invoices(billing_ref):
            start, end = reading.period(invoice)
            paid_at = reading.instant((invoice.get("status_transitions") or {}).get("paid_at"))
            charged_at = paid_at or reading.instant(invoice.get("created")) or start
            if charged_at < since:
                continue
            currency = invoice["currency"].upper()
            found.append(
                Charge(
                    period_start=start,
                    period_end=end,
                    charged_at=charged_at,
                    amount_minor=reading.ours(invoice["amount_paid"], currency),
                    refunded_minor=reading.ours(
                        sum(one["amount"] for one in self._refunds(_payment(invoice))), currency
                    ),
                    currency=currency,
                )
            )
        return sorted(found, key=lambda charge: charge.charged_at)

    def stop(self, billing_ref: str, *, key: str, now: datetime, at_once: bool = False) -> BillingReceipt:
        found = self._retrieve(billing_ref)
        held = reading.subscription(found)
        if held.status == "ended" or (held.stopping and not at_once):
            return self._stopped(billing_ref, found)
        if found.get("schedule"):
            # A schedule owns how its subscription ends; released, it goes on as it is and can be stopped.
            schedule = found["schedule"]
            self._write(
                f"{key}:release", lambda options: self._api.subscription_schedules.release(schedule, {}, options)
            )
        if at_once or found["status"] == "incomplete":
            params: Any = {"invoice_now": False, "prorate": False}
            self._write(key, lambda options: self._api.subscriptions.cancel(billing_ref, params, options))
        else:
            self._update(billing_ref, key, {"cancel_at_period_end": True})
        return self._stopped(billing_ref)

    def undo(self, billing_ref: str, *, key: str, now: datetime) -> BillingReceipt:
        found = self._retrieve(billing_ref)
        held = reading.subscription(found)
        if held.status == "ended":
            raise BillingGone(f"{billing_ref} is over at Stripe: only a restart begins it again")
        if held.stopping:
            at_period_end = bool(found.get("cancel_at_period_end"))
            self._update(billing_ref, key, {"cancel_at_period_end": False} if at_period_end else {"cancel_at": ""})
        return self._receipt(billing_ref)

    def restart(
        self, billing_ref: str, *, price_minor: int, currency: str, interval: str, key: str, now: datetime
    ) -> BillingReceipt:
        found = self._retrieve(billing_ref)
        held = reading.subscription(found)
        if held.charges_on:
            # Nothing was stopped, or somebody has taken it back there: to charge again would be to charge twice.
            return self._receipt(billing_ref, found)
        if held.status != "ended":
            raise BillingTemporary(f"{billing_ref} is about to end at Stripe, and only then can begin again")
        whose = found["customer"] if isinstance(found["customer"], str) else found["customer"]["id"]
        running = self._running_instead(whose, billing_ref, key)
        if running is not None:
            return self._receipt(running)
        if (held.price_minor, held.currency, held.interval) != (price_minor, currency, interval):
            raise BillingPermanent(
                f"at Stripe {billing_ref} costs {held.price_minor} {held.currency} minor units a {held.interval}, and"
                f" {price_minor} {currency} a {interval} were agreed: import the members again"
            )
        items = [
            {"price": (item.get("price") or item["plan"])["id"], "quantity": item.get("quantity") or 1}
            for item in found["items"]["data"]
        ]
        metadata = {**_plain(found.get("metadata")), KEY: key, BEFORE: billing_ref}
        params: dict[str, Any] = {
            "customer": whose,
            "items": items,
            "metadata": metadata,
            "payment_behavior": "error_if_incomplete",
            "off_session": True,
        }
        if found.get("default_payment_method"):
            params["default_payment_method"] = found["default_payment_method"]
        try:
            made = self._write(key, lambda options: self._api.subscriptions.create(params, options))
        except BillingRefused as refused:
            raise BillingRefused(str(refused), self._checkout(whose, items, metadata, key)) from refused
        return self._receipt(made["id"])

    def refund(
        self, billing_ref: str, *, since: datetime, key: str, now: datetime, pro_rata: bool = False
    ) -> BillingReceipt:
        reference, refunded = "nothing to refund", Money(0, "")
        for invoice in self._paid_invoices(billing_ref):
            start, end = reading.period(invoice)
            paid, currency = invoice["amount_paid"], invoice["currency"].upper()
            if start >= since:
                owed = paid
            elif pro_rata and end is not None:
                share = share_of(reading.ours(paid, currency), start, end, since)
                owed = reading.theirs(share, currency, paid)
            else:
                continue
            payment = _payment(invoice)
            if payment is None:
                continue
            earlier = self._refunds(payment)
            before = [one for one in earlier if _plain(one.get("metadata")).get(KEY) == key]
            missing = owed - sum(one["amount"] for one in earlier)
            if before:
                # Asked again: what went back the first time is what this key has done.
                reference = before[0]["id"]
                refunded = refunded.plus(reading.ours(sum(one["amount"] for one in before), currency), currency)
            if missing <= 0:
                continue
            params: Any = {"payment_intent": payment, "amount": missing, "metadata": {KEY: key}}
            made = self._write(
                f"{key}:{invoice['id']}", lambda options, params=params: self._api.refunds.create(params, options)
            )
            reference = made["id"]
            refunded = refunded.plus(reading.ours(missing, currency), currency)
        return BillingReceipt(reference, refunded=refunded, read_back=self.read(billing_ref, now=now))

    def news(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> Sequence[str]:
        return webhook.news(body, headers.get("Stripe-Signature", ""), self._webhook_secrets, self._live, now)

    def _running_instead(self, customer: str, ended: str, key: str) -> str | None:
        """A subscription that this order has begun already, or that the customer has begun to go on with."""
        params: Any = {"customer": customer, "limit": 100}
        page = self._ask(lambda: self._api.subscriptions.list(params))
        for one in page["data"]:
            metadata = _plain(one.get("metadata"))
            if metadata.get(KEY) == key or metadata.get(BEFORE) == ended:
                return str(one["id"])
        return None

    def _checkout(self, customer: str, items: Any, metadata: dict[str, str], key: str) -> str | None:
        """Where the member can pay with another card; what is paid there is heard of by the webhook."""
        params: Any = {
            "mode": "subscription",
            "customer": customer,
            "line_items": items,
            "subscription_data": {"metadata": metadata},
            "success_url": self._come_back_at,
            "cancel_url": self._come_back_at,
        }
        session = self._write(f"{key}:checkout", lambda options: self._api.checkout.sessions.create(params, options))
        address = session.get("url")
        return None if address is None else str(address)

    def _paid_invoices(self, billing_ref: str) -> Iterator[Any]:
        params: dict[str, Any] = {
            "subscription": billing_ref,
            "status": "paid",
            "limit": 100,
            "expand": ["data.payments"],
        }
        while True:
            page = self._ask(lambda params=params: self._api.invoices.list(params))
            # Nothing was taken for an invoice over nothing, as in a trial.
            yield from (one for one in page["data"] if one["amount_paid"])
            if not page["has_more"]:
                return
            params = {**params, "starting_after": page["data"][-1]["id"]}

    def _refunds(self, payment: str | None) -> Sequence[Any]:
        """Of one payment, those that went through or are about to."""
        if payment is None:
            return []
        params: Any = {"payment_intent": payment, "limit": 100}
        page = self._ask(lambda: self._api.refunds.list(params))
        return [one for one in page["data"] if one.get("status") not in ("failed", "canceled")]

    def _update(self, billing_ref: str, key: str, params: Any) -> None:
        self._write(key, lambda options: self._api.subscriptions.update(billing_ref, params, options))

    def _retrieve(self, billing_ref: str) -> Any:
        return self._of_our_mode(self._ask(lambda: self._api.subscriptions.retrieve(billing_ref)))

    def _receipt(self, billing_ref: str, found: Any = None) -> BillingReceipt:
        """What holds after a change, asked for anew."""
        told = reading.subscription(self._retrieve(billing_ref) if found is None else found)
        return BillingReceipt(billing_ref, told.next_charge_at, billing_ref, told)

    def _stopped(self, billing_ref: str, found: Any = None) -> BillingReceipt:
        return replace(self._receipt(billing_ref, found), next_charge_at=None)

    def _of_our_mode(self, found: Any) -> Any:
        if bool(found.get("livemode")) != self._live:
            ours, its = ("live", "test") if self._live else ("test", "live")
            raise BillingPermanent(f"{found['id']} is in Stripe's {its} mode, and this installation in {ours} mode")
        return found

    def _write(self, key: str, call: Callable[[Any], Any]) -> Any:
        return self._ask(lambda: call({"idempotency_key": key}))

    def _ask(self, call: Callable[[], Any]) -> Any:
        for attempt in range(TRIES):
            try:
                with _our_errors():
                    return call().to_dict()
            except stripe.RateLimitError as busy:
                if attempt + 1 == TRIES:
                    raise BillingTemporary("Stripe says that it is asked too often") from busy
                self._pause(random.uniform(0.5, 1.0) * 2**attempt)
        raise AssertionError("the last try returns or raises")


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except stripe.RateLimitError:
        raise
    except stripe.CardError as error:
        raise BillingRefused(f"the card was declined: {error.user_message or error.code}") from error
    except (stripe.APIConnectionError, stripe.APIError) as error:
        status = error.http_status
        raise BillingTemporary(f"Stripe did not answer: {type(error).__name__} {status or ''}".strip()) from error
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise BillingPermanent(
            f"Stripe does not accept STRIPE_KEY for this: {error.user_message or error.code}"
        ) from error
    except stripe.IdempotencyError as error:
        raise BillingPermanent(f"Stripe has seen this order with other values: {error.user_message}") from error
    except stripe.InvalidRequestError as error:
        if error.http_status == 404:
            raise BillingUnknown(f"Stripe knows no {error.param or 'such object'}: {error.user_message}") from error
        raise BillingPermanent(f"Stripe refused: {error.user_message}") from error


def _payment(invoice: Any) -> str | None:
    for one in (invoice.get("payments") or {}).get("data", []):
        payment = one["payment"]
        if one.get("status") == "paid" and payment.get("payment_intent"):
            found = payment["payment_intent"]
            return found if isinstance(found, str) else str(found["id"])
    found = invoice.get("payment_intent")
    return found if found is None or isinstance(found, str) else str(found["id"])


def _plain(metadata: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in (metadata or {}).items()}
