"""What Stripe says of a subscription or an invoice, in our words.

Amounts: Stripe counts in the currency's smallest unit as we do, but for two currencies without decimals that it writes
with two, and for those with three decimals whose last digit it wants to be zero.
"""

from datetime import UTC, datetime
from typing import Any

from domain.policy import SubscriptionStatus
from domain.ports import Customer, Subscription

STATUSES = {
    "active": SubscriptionStatus.ACTIVE,
    "trialing": SubscriptionStatus.TRIAL,
    "paused": SubscriptionStatus.PAUSED,
    "past_due": SubscriptionStatus.PAST_DUE,
    "unpaid": SubscriptionStatus.PAST_DUE,
    "incomplete": SubscriptionStatus.PAST_DUE,
    "canceled": SubscriptionStatus.ENDED,
    "incomplete_expired": SubscriptionStatus.ENDED,
}
INTERVALS = {
    ("week", 1): "week",
    ("month", 1): "month",
    ("month", 3): "quarter",
    ("month", 12): "year",
    ("year", 1): "year",
}
DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}

BEFORE = "dormouse_continues"
"""In the metadata of a subscription that was restarted: the one it continues."""

WRITTEN_WITH_TWO = ("ISK", "UGX")
THREE_DECIMALS = ("BHD", "JOD", "KWD", "OMR", "TND")
COIN = 10
"""The smallest amount of a currency with three decimals that Stripe moves."""


def subscription(found: Any) -> Subscription:
    """``found`` is a subscription as the API gives it; its customer expanded, where one wants to know whose it is."""
    items = found["items"]["data"]
    cycles = [_cycle(item) for item in items]
    # Items of one subscription may be charged at different intervals: what a member pays is what comes most often.
    shortest = min(cycles, key=_days, default=None)
    charged = [item for item, cycle in zip(items, cycles, strict=True) if cycle == shortest]
    amounts = [_amount(item) for item in charged]
    currency = _price(charged[0])["currency"].upper() if charged else None
    known = currency is not None and None not in amounts
    starts, ends = (
        [instant(item.get(f"current_period_{end}") or found.get(f"current_period_{end}")) for item in items]
        for end in ("start", "end")
    )
    status = STATUSES.get(found["status"], SubscriptionStatus.PAST_DUE)
    if found.get("pause_collection") and status is not SubscriptionStatus.ENDED:
        status = SubscriptionStatus.PAUSED
    ended = status is SubscriptionStatus.ENDED
    stopping = not ended and bool(found.get("cancel_at_period_end") or found.get("cancel_at"))
    paid_through = instant(found.get("ended_at")) if ended else max(filter(None, ends), default=None)
    return Subscription(
        billing_ref=found["id"],
        status=status,
        stopping=stopping,
        price_minor=ours(sum(amount or 0 for amount in amounts), currency) if known else None,
        currency=currency if known else None,
        interval=None if shortest is None else INTERVALS.get(shortest, f"{shortest[1]} {shortest[0]}s"[:10]),
        plan=" + ".join(filter(None, (_price(item).get("nickname") for item in items)))[:100] or None,
        started_at=instant(found.get("start_date")),
        period_start=min(filter(None, starts), default=None),
        paid_through=paid_through,
        next_charge_at=None if ended or stopping else min(filter(None, ends), default=None),
        customer=customer(found.get("customer"), found.get("metadata")),
        continues=(found.get("metadata") or {}).get(BEFORE),
    )


def customer(found: Any, metadata: Any = None) -> Customer | None:
    if found is None:
        return None
    named = (metadata or {}).get("external_id")
    if isinstance(found, str):
        return Customer(found, external_id=named)
    locales = found.get("preferred_locales") or []
    return Customer(
        ref=found["id"],
        email=found.get("email"),
        name=found.get("name"),
        locale=locales[0] if locales else None,
        external_id=named or (found.get("metadata") or {}).get("external_id"),
        joined_at=instant(found.get("created")),
    )


def period(invoice: Any) -> tuple[datetime, datetime | None]:
    """The period an invoice of a subscription pays for: that of its lines; its own is the one before it."""
    spans = [line["period"] for line in invoice["lines"]["data"] if line.get("period")]
    if not spans:
        return instant(invoice["created"]) or datetime.min.replace(tzinfo=UTC), None
    starts = [span["start"] for span in spans]
    ends = [span["end"] for span in spans]
    return datetime.fromtimestamp(max(starts), UTC), datetime.fromtimestamp(max(ends), UTC)


def instant(seconds: int | None) -> datetime | None:
    return None if not seconds else datetime.fromtimestamp(seconds, UTC)


def ours(amount: int, currency: str | None) -> int:
    return amount // 100 if currency in WRITTEN_WITH_TWO else amount


def theirs(minor: int, currency: str, most: int) -> int:
    """An amount to give back, in Stripe's units: what cannot be split goes to the member, up to what is there."""
    if currency in WRITTEN_WITH_TWO:
        minor *= 100
    if currency in THREE_DECIMALS:
        minor = -(-minor // COIN) * COIN
    return min(minor, most)


def _price(item: Any) -> Any:
    return item.get("price") or item["plan"]


def _cycle(item: Any) -> tuple[str, int]:
    found = _price(item)
    found = found.get("recurring") or found
    return str(found["interval"]), int(found.get("interval_count") or 1)


def _days(cycle: tuple[str, int]) -> int:
    return DAYS.get(cycle[0], 30) * cycle[1]


def _amount(item: Any) -> int | None:
    """None where the price is in steps or by use: what will be charged is not known before."""
    found = _price(item)
    each = found.get("unit_amount", found.get("amount"))
    if each is None or found.get("billing_scheme") == "tiered":
        return None
    return int(each) * int(item.get("quantity") or 1)
