"""What a service that bills by itself says of an order: in its answer, by webhook or by the API (docs/billing.md).

Each of these raises ValueError for what cannot be what it should be: the text says what was given.
"""

from datetime import datetime
from typing import Any

from domain.errors import BillingElsewhere, BillingGone, BillingPermanent, BillingRefused, BillingUnknown
from domain.money import Money
from domain.policy import SubscriptionStatus
from domain.ports import BillingReceipt, Subscription

LONGEST = {"billing_ref": 200, "reference": 200, "currency": 3, "interval": 10, "plan": 100, "billed_by": 50}


def outcome(said: dict[str, Any]) -> BillingReceipt | BillingPermanent:
    """What the service says of an order: done, or why it is not."""
    match said.get("status"):
        case "done":
            found = said.get("subscription")
            told = subscription(str(found.get("billing_ref", "")), found) if isinstance(found, dict) else None
            return BillingReceipt(
                reference=_plain(said.get("reference") or said.get("order") or "")[:200],
                next_charge_at=_instant(said, "next_charge_at"),
                billing_ref=_text(said, "billing_ref"),
                refunded=_refunded(said),
                read_back=told,
            )
        case "refused":
            pay_at = said.get("pay_at")
            return BillingRefused(reason(said), pay_at if _is_link(pay_at) else None)
        case "unknown":
            return BillingUnknown(reason(said))
        case "gone":
            return BillingGone(reason(said))
        case "elsewhere":
            billed_by = _text(said, "billed_by")
            return BillingPermanent(reason(said)) if billed_by is None else BillingElsewhere(reason(said), billed_by)
        case _:
            return BillingPermanent(reason(said))


def subscription(billing_ref: str, found: dict[str, Any]) -> Subscription:
    price = found.get("price_minor")
    if price is not None and (type(price) is not int or price < 0):
        raise ValueError(f"price_minor is no number of minor units: {price!r}"[:200])
    return Subscription(
        billing_ref=billing_ref,
        status=SubscriptionStatus(str(found.get("status"))),
        stopping=found.get("stopping") is True,
        price_minor=price,
        currency=_text(found, "currency"),
        interval=_text(found, "interval"),
        plan=_text(found, "plan"),
        period_start=_instant(found, "period_start"),
        paid_through=_instant(found, "paid_through"),
        next_charge_at=_instant(found, "next_charge_at"),
        billed_by=_text(found, "billed_by"),
    )


def _refunded(said: dict[str, Any]) -> Money | None:
    minor, currency = said.get("refunded_minor"), said.get("currency")
    if type(minor) is not int or minor < 0 or not isinstance(currency, str) or len(currency) != 3:
        return None
    return Money(minor, currency)


def reason(said: dict[str, Any]) -> str:
    return f"the service says: {_plain(said.get('reason') or said.get('status'))[:300]}"


def _plain(value: object) -> str:
    # PostgreSQL keeps no text with a null character.
    return str(value).replace("\0", "")


def _text(said: dict[str, Any], name: str) -> str | None:
    value = said.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST[name]:
        raise ValueError(f"{name} is no text of at most {LONGEST[name]} characters: {value!r}"[:200])
    return _plain(value) or None


def _is_link(value: object) -> bool:
    return isinstance(value, str) and value.startswith("https://")


def _instant(said: dict[str, Any], name: str) -> datetime | None:
    value = said.get(name)
    if value is None:
        return None
    found = datetime.fromisoformat(value) if isinstance(value, str) else None
    if found is None or found.tzinfo is None:
        raise ValueError(f"{name} is no ISO 8601 instant with an offset: {value!r}"[:200])
    return found
