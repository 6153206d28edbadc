"""A quote on its way through the form and back: kind, price and day as the page showed them."""

from collections.abc import Mapping
from datetime import datetime

from services.returning import Quote


def fields(quote: Quote) -> dict[str, str]:
    """The hidden fields of the order's form."""
    return {
        "kind": quote.kind,
        "price": "" if quote.price_minor is None else str(quote.price_minor),
        "currency": quote.currency or "",
        "interval": quote.interval or "",
        "first_charge": "" if quote.first_charge_at is None else quote.first_charge_at.isoformat(),
        "saved_until": quote.saved_until.isoformat(),
    }


def read(form: Mapping[str, str]) -> Quote | None:
    """What the form says was quoted; None where it says nothing that a page of ours would have."""
    try:
        quote = Quote(
            kind=form["kind"],
            price_minor=int(form["price"]) if form["price"] else None,
            currency=form["currency"] or None,
            interval=form["interval"] or None,
            first_charge_at=datetime.fromisoformat(form["first_charge"]) if form["first_charge"] else None,
            saved_until=datetime.fromisoformat(form["saved_until"]),
        )
    except (KeyError, ValueError):
        return None
    instants = (quote.first_charge_at, quote.saved_until)
    return quote if all(instant is None or instant.tzinfo is not None for instant in instants) else None
