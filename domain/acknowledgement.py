"""What a service that bills by itself says of an order: in its answer, by webhook or by the API (docs/billing.md)."""

from datetime import datetime
from typing import Any

from domain.errors import BillingGone, BillingPermanent, BillingRefused, BillingUnknown
from domain.money import Money
from domain.ports import BillingReceipt, Subscription

FACTS = ("status", "stopping", "price_minor", "currency", "interval", "plan", "billed_by")
INSTANTS = ("period_start", "paid_through", "next_charge_at")


def outcome(said: dict[str, Any]) -> BillingReceipt | BillingPermanent:
    """What the service says of an order: done, or why it is not."""
    match said.get("status"):
        case "done":
            found = said.get("subscription")
            told = subscription(str(found.get("billing_ref", "")), found) if isinstance(found, dict) else None
            return BillingReceipt(
                reference=str(said.get("reference") or said.get("order") or "")[:200],
                next_charge_at=_instant(said.get("next_charge_at")),
                billing_ref=said.get("billing_ref"),
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
        case _:
            return BillingPermanent(reason(said))


def subscription(billing_ref: str, found: dict[str, Any]) -> Subscription:
    facts: dict[str, Any] = {name: found[name] for name in FACTS if found.get(name) is not None}
    facts |= {name: _instant(found.get(name)) for name in INSTANTS}
    return Subscription(billing_ref=billing_ref, **facts)


def _refunded(said: dict[str, Any]) -> Money | None:
    minor, currency = said.get("refunded_minor"), said.get("currency")
    if type(minor) is not int or minor < 0 or not isinstance(currency, str) or len(currency) != 3:
        return None
    return Money(minor, currency)


def reason(said: dict[str, Any]) -> str:
    return f"the service says: {str(said.get('reason') or said.get('status'))[:300]}"


def _is_link(value: object) -> bool:
    return isinstance(value, str) and value.startswith("https://")


def _instant(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    found = datetime.fromisoformat(value)
    return found if found.tzinfo is not None else None
