"""What a file calls its columns, and what they are called here."""

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from domain.errors import BadValue
from services.files import reading

IGNORED = ""
"""What a map gives for a column that is to be left out."""

MEANT = {
    ours: frozenset(theirs.split())
    for ours, theirs in {
        "external_id": "id uuid no nr number member member_id member_no member_number user user_id account account_id"
        " customer customer_id customer_no customer_number kundennummer mitgliedsnummer",
        "email": "mail e_mail mail_address email_address e_mail_address emailadresse e_mail_adresse",
        "name": "full_name fullname display_name customer_name member_name",
        "locale": "language lang sprache",
        "joined_at": "joined join_date joining_date created created_at registered registered_at registration_date"
        " signed_up signed_up_at signup_date member_since since start_date started_at beitritt",
        "last_used_at": "last_use last_used used used_at last_usage last_activity last_activity_at last_active"
        " last_watched last_played last_visit zuletzt_genutzt",
        "used_at": "used use use_at last_use last_used last_used_at at when date time timestamp occurred_at watched_at"
        " played_at",
        "plan": "product tariff tier package subscription subscription_plan tarif",
        "price": "amount fee cost costs preis",
        "currency": "currency_code ccy währung waehrung",
        "billing_interval": "interval period billing_period cycle billing_cycle frequency",
        "subscription_status": "status state",
        "paid_through": "paid_until paid_till paid_to period_end current_period_end renews_at renewal_date expires_at"
        " valid_until next_billing_date",
        "billing_ref": "subscription_id stripe_subscription_id",
        "billed_by": "store app_store billing_source billing_channel payment_channel purchased_from sold_by",
        "exempt_reason": "exempt exemption",
    }.items()
}
"""What other exports call our columns, where the spelling does not give it away."""

SIGNING_IN = re.compile("log_?in|sign_?in|logon")
"""Signing in is never a use, however much last_login looks like last_used_at."""


class UnknownColumn(BadValue):
    """A column that has no meaning here, and is neither mapped nor left out."""


def read_map(path: Path, known: tuple[str, ...]) -> dict[str, str]:
    """A map from a file's names to ours: a JSON object, or a CSV of two columns (theirs, ours). Ours may be empty."""
    with reading.opened(path) as file:
        lines = reading.numbered_lines(file, lambda done: None)
        found = _json_map(path, lines) if reading.is_json(path) else _csv_map(path, lines)
    for theirs, ours in found.items():
        if ours not in (*known, IGNORED):
            raise BadValue(f"{path} maps {theirs!r} to {ours!r}, which is no column{did_you_mean(ours, known)}")
    return found


def resolve(
    names: Iterable[str], known: tuple[str, ...], mapped: Mapping[str, str], *, ignore_unknown: bool
) -> list[str | None]:
    """Our name for each of a file's columns, or None for one that is left out. Raises BadValue for an unknown one."""
    found: list[str | None] = []
    for position, theirs in enumerate(names, 1):
        ours = mapped.get(theirs, theirs)
        if ours in known:
            if ours in found:
                raise BadValue(f"the column {ours} is there twice")
            found.append(ours)
        elif (ours == IGNORED and theirs != IGNORED) or ignore_unknown:
            found.append(None)
        elif not theirs:
            raise BadValue(f"column {position} has no name; name it, or leave it out with --ignore-unknown")
        else:
            raise UnknownColumn(
                f"unknown column {theirs!r}{did_you_mean(theirs, known)}; name it in --map, or use --ignore-unknown"
            )
    return found


def did_you_mean(name: str, known: tuple[str, ...]) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    plain = re.sub(r"[\s.-]+", "_", spaced.casefold())
    meant = [ours for ours, theirs in MEANT.items() if ours in known and plain in theirs]
    close = meant or ([] if SIGNING_IN.search(plain) else get_close_matches(plain, known, 1))
    return f": did you mean {close[0]}?" if close else f" (there are {', '.join(known)})"


def _json_map(path: Path, lines: reading.Numbered) -> dict[str, str]:
    try:
        found = json.loads("\n".join(text for _, text in lines))
    except json.JSONDecodeError as error:
        raise BadValue(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(ours, str | None) for ours in found.values()):
        raise BadValue(f'{path} must be one JSON object such as {{"Customer No": "external_id"}}')
    return {str(theirs): (ours or IGNORED).strip() for theirs, ours in found.items()}


def _csv_map(path: Path, lines: reading.Numbered) -> dict[str, str]:
    found: dict[str, str] = {}
    for line, text in lines:
        delimiter = ";" if text.count(";") > text.count(",") else ","
        for _, _, cells in reading.csv_records(iter([(line, text)]), delimiter, 2):
            if isinstance(cells, reading.Unreadable):
                raise BadValue(
                    f"{path}, line {line}: write the file's column and ours, such as Customer No,external_id"
                )
            found[cells[0].strip()] = cells[1].strip()
    return found
