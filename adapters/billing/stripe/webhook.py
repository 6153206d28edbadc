"""What Stripe sends by webhook. Only whom it is about is taken from it: it may come twice, late and in any order."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import stripe

from domain.errors import NotSigned

TOLERANCE = timedelta(minutes=5)
ABOUT = ("customer.subscription.", "invoice.", "checkout.session.")
"""Kinds of events that say something of a subscription, by how their names begin."""


def news(body: bytes, header: str, secrets: Sequence[str], live: bool, now: datetime) -> Sequence[str]:
    """The subscriptions of an event, none for one of a kind that says nothing of any, or of the other mode."""
    if not any(_is_signed(body, header, secret, now) for secret in secrets):
        raise NotSigned("The signature is missing, wrong or too old; see STRIPE_WEBHOOK_SECRET.")
    event = json.loads(body)
    kind, found = str(event.get("type")), (event.get("data") or {}).get("object") or {}
    if bool(event.get("livemode")) != live or not kind.startswith(ABOUT):
        return ()
    named = found.get("id") if kind.startswith("customer.subscription.") else _named_in(found)
    return () if named is None else (named if isinstance(named, str) else str(named["id"]),)


def _named_in(found: Any) -> Any:
    """Of an invoice the newer versions of the API name the subscription under what the invoice came of."""
    parent = (found.get("parent") or {}).get("subscription_details") or {}
    return found.get("subscription") or parent.get("subscription")


def _is_signed(body: bytes, header: str, secret: str, now: datetime) -> bool:
    """The library checks the signature; the age of it by the clock that everything here goes by."""
    try:
        stripe.WebhookSignature.verify_header(body, header, secret)
        made_at = int(dict(part.split("=", 1) for part in header.split(","))["t"])
    except (stripe.SignatureVerificationError, UnicodeDecodeError, ValueError, KeyError):
        return False
    return abs(now.timestamp() - made_at) <= TOLERANCE.total_seconds()
