"""A service that bills by itself (BILLING=webhook): signed commands to it, and its acknowledgements.

A command is posted as Standard Webhooks says, under the order's key as its id, to the one address of BILLING_URL. What
the service has done it says in its answer or later, in a signed call to /hooks/billing; until then the command is sent
again, and nothing counts as done. The format is described in docs/billing.md.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from domain import webhooks
from domain.acknowledgement import outcome, reason, subscription
from domain.errors import (
    BillingClosed,
    BillingPending,
    BillingPermanent,
    BillingTemporary,
    BillingUnknown,
    NotSigned,
)
from domain.ports import Acknowledged, BillingReceipt, Charge, Outcome, Page, Subscription, WebhookSender


class WebhookBilling:
    def __init__(self, sender: WebhookSender, url: str, secrets: Sequence[str]) -> None:
        self._sender, self._url, self._secrets = sender, url, secrets

    def read(self, billing_ref: str, *, now: datetime) -> Subscription:
        said = self._ask("read", f"read:{billing_ref}", now, subscription=billing_ref)
        found = said.get("subscription")
        if not isinstance(found, dict):
            raise BillingPermanent("the service does not tell what it charges: import its members instead")
        with _readable():
            return subscription(billing_ref, found)

    def list(self, cursor: str | None, *, limit: int, now: datetime) -> Page:
        said = self._ask("list", f"list:{cursor or ''}", now, cursor=cursor, limit=limit)
        found = said.get("subscriptions")
        if not isinstance(found, list):
            raise BillingPermanent("the service does not tell what it charges: import its members instead")
        with _readable():
            return Page(tuple(_listed(one) for one in found), said.get("cursor"))

    def charges(self, billing_ref: str, *, since: datetime) -> Sequence[Charge] | None:
        return None

    def stop(self, billing_ref: str, *, key: str, now: datetime, at_once: bool = False) -> BillingReceipt:
        return self._order("stop", key, now, subscription=billing_ref, at_once=at_once)

    def undo(self, billing_ref: str, *, key: str, now: datetime) -> BillingReceipt:
        return self._order("undo", key, now, subscription=billing_ref)

    def restart(
        self, billing_ref: str, *, price_minor: int, currency: str, interval: str, key: str, now: datetime
    ) -> BillingReceipt:
        price = {"price_minor": price_minor, "currency": currency, "interval": interval}
        return self._order("restart", key, now, subscription=billing_ref, **price)

    def refund(
        self, billing_ref: str, *, since: datetime, key: str, now: datetime, pro_rata: bool = False
    ) -> BillingReceipt:
        return self._order("refund", key, now, subscription=billing_ref, since=since.isoformat(), pro_rata=pro_rata)

    def news(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> Sequence[str | Acknowledged]:
        given = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
        if not webhooks.is_signed(self._secrets, *given, body, now):
            raise NotSigned("The signature is missing, wrong or too old; see BILLING_SECRET.")
        event = json.loads(body)
        data = event.get("data") if isinstance(event, dict) else None
        if not isinstance(data, dict):
            raise ValueError('this is no {"type": …, "data": {…}}')
        match event.get("type"):
            case "billing.acknowledged" if isinstance(data.get("order"), str):
                return (Acknowledged(data["order"], outcome(data)),)
            case "subscription.changed" if isinstance(data.get("subscription"), str):
                return (data["subscription"],)
        return ()

    def _order(self, what: str, key: str, now: datetime, **data: Any) -> BillingReceipt:
        said = self._ask(what, key, now, order=key, **data)
        if "status" not in said:
            raise BillingPending("the service has taken the order; its acknowledgement is awaited")
        with _readable():
            found = outcome(said)
        if isinstance(found, BillingReceipt):
            return found
        raise found

    def _ask(self, what: str, message_id: str, now: datetime, **data: Any) -> dict[str, Any]:
        command = {"type": f"billing.{what}", "timestamp": now.isoformat(), "data": data}
        body = json.dumps(command).encode()
        reply = self._sender.post(self._url, body, webhooks.signed(self._secrets, message_id, body, now))
        match reply.outcome:
            case Outcome.TEMPORARY:
                raise BillingTemporary(f"BILLING_URL: {reply.text}")
            case Outcome.GONE:
                raise BillingClosed("BILLING_URL takes no more commands (410)")
            case Outcome.PERMANENT:
                raise BillingPermanent(f"BILLING_URL: {reply.text}")
        try:
            said = json.loads(reply.body or b"{}")
        except ValueError:
            return {}
        if not isinstance(said, dict):
            return {}
        if said.get("status") == "unknown":
            raise BillingUnknown(reason(said))
        return said


@contextmanager
def _readable() -> Iterator[None]:
    """What cannot be read may have been done all the same: it is asked for again, under the same key."""
    try:
        yield
    except ValueError as error:
        raise BillingTemporary(f"the service's answer cannot be read: {error}") from error


def _listed(one: Any) -> Subscription:
    if not isinstance(one, dict) or not isinstance(one.get("billing_ref"), str):
        raise ValueError("a subscription in the list has no billing_ref")
    return subscription(one["billing_ref"], one)
