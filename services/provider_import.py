"""Members from a billing provider: page by page, each brought in as a file of members would be, and on record at once.

An import that was interrupted goes on after the last page it has brought in.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from babel.numbers import get_currency_precision
from sqlalchemy import delete
from sqlalchemy.orm import Session

from domain.dates import INTERVALS
from domain.money import to_decimal
from domain.ports import Billing, Subscription
from models import ImportCursor, for_writing, insert
from services import billing_provider
from services.files.reading import Counts, Reject
from services.importing import import_members
from settings import Settings

PAGE = 100


def import_from(
    session: Session,
    settings: Settings,
    billing: Billing,
    now: datetime,
    *,
    commit: Callable[[], None],
    rejected: Callable[[Reject], None],
    progress: Callable[[int], None] = lambda done: None,
) -> Counts:
    """Bring in whoever has a subscription that runs at the provider; ``progress`` is told how many have been seen.

    ``commit`` is called after each page, and after the cursor; rolling back instead makes it a dry run. A second
    subscription of one customer is rejected: one member has one. Raises BillingError when the provider does not answer.
    """
    for_writing(session)
    billing_provider.hold_to_mode(session, settings, now)
    commit()
    source = settings.billing
    row = session.get(ImportCursor, source)
    cursor = None if row is None else row.cursor
    session.rollback()
    counts, seen, done = Counts(), set[str](), 0
    while True:
        page = billing.list(cursor, limit=PAGE, now=now)
        lines = []
        for found in page.subscriptions:
            done += 1
            line = _line(found)
            if line["external_id"] in seen:
                reason = f"{line['external_id']} has another subscription: give one an external_id of its own"
                rejected(Reject(done, line["external_id"], reason, found.billing_ref))
                counts = counts.plus(Counts(rejected=1))
                continue
            seen.add(str(line["external_id"]))
            lines.append(line)
        with _file(lines) as path:
            counts = counts.plus(import_members(session, settings, path, now, commit=commit, rejected=rejected).counts)
        cursor = page.cursor
        for_writing(session)
        _remember(session, source, cursor, now)
        commit()
        progress(done)
        if cursor is None:
            return counts


def _line(found: Subscription) -> dict[str, str | None]:
    who = found.customer
    priced = found.price_minor is not None and found.currency is not None
    joined = (None if who is None else who.joined_at) or found.started_at
    return {
        "external_id": None if who is None else who.external_id or who.ref,
        "email": None if who is None else who.email,
        "name": None if who is None else who.name,
        "locale": None if who is None else who.locale,
        "joined_at": None if joined is None else joined.isoformat(),
        "plan": found.plan,
        "price": str(_decimal(found)) if priced else None,
        "currency": found.currency if priced else None,
        "billing_interval": found.interval if found.interval in INTERVALS else None,
        "subscription_status": str(found.status),
        "paid_through": None if found.paid_through is None else found.paid_through.isoformat(),
        "billing_ref": found.billing_ref,
        "billed_by": found.billed_by,
    }


def _decimal(found: Subscription) -> object:
    assert found.price_minor is not None
    assert found.currency is not None
    return to_decimal(found.price_minor, get_currency_precision(found.currency))


def _remember(session: Session, source: str, cursor: str | None, now: datetime) -> None:
    if cursor is None:
        session.execute(delete(ImportCursor).where(ImportCursor.source == source))
        return
    values = {"cursor": cursor, "at": now}
    session.execute(
        insert(session, ImportCursor)
        .values(source=source, **values)
        .on_conflict_do_update(index_elements=["source"], set_=values)
    )


@contextmanager
def _file(lines: list[dict[str, str | None]]) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "page.ndjson"
        # An empty value clears what is on record, and so does a missing address: it is the row's reason to be rejected.
        written = ({name: "" if value is None else value for name, value in line.items()} for line in lines)
        path.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in written), encoding="utf-8")
        yield path
