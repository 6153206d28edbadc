"""Import what members used and when: ``external_id,used_at``, any number of rows a member, in any order.

The latest use is kept; but every use counts for a membership that ended before the use was reported (design promise 2).
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, Table, case, func, or_, select, update
from sqlalchemy.orm import Session

from domain.errors import BadValue
from models import Member, change, for_writing
from models.base import UTCDateTime
from services import erasure, returning
from services.feeds import record_use
from services.files import cells, columns, reading, staging
from services.files.member_rows import cleaner_of_ids
from services.files.member_upsert import is_news, stage_news, use_table, wait_for_month_end
from services.files.reading import Counts, Reject, Unreadable
from settings import Settings

COLUMNS = ("external_id", "used_at")
BATCH = 30_000
"""Uses are small, and the more of them are recorded at once, the fewer times is one page of members written."""
STATEMENT = 5_000
FEED = "activity"

Read = tuple[int, str, str | None, str | None, str | None]
"""Line, text, external_id, used_at as stored, and the reason where the row cannot be taken."""


def import_activity(
    session: Session,
    settings: Settings,
    path: Path,
    now: datetime,
    *,
    commit: Callable[[], None],
    source: str = FEED,
    through: datetime | None = None,
    rejected: Callable[[Reject], None] = lambda reject: None,
    progress: reading.Progress = lambda done: None,
) -> Counts:
    """Import a CSV or NDJSON file of uses; ``through`` declares the feed ``source`` complete up to then.

    ``updated`` counts members whose last use moved, batch by batch; ``unchanged`` the other good rows. Raises BadValue
    for a file that cannot be read or whose columns are wrong.
    """
    if through is not None and through > now:
        raise BadValue(f"--through {through.isoformat()} is in the future; a feed is complete up to now at most")
    instants = cells.Instants(settings.zone, now, session.get_bind().dialect.name)
    counts = Counts()
    with reading.opened(path) as file:
        lines = reading.numbered_lines(file, progress)
        read = _of_json(lines, instants) if reading.is_json(path) else _of_csv(lines, instants)
        for texts, rows, refused in _batches(read):
            for_writing(session)
            counts = counts.plus(_take(session, settings, source, rows, refused, now))
            commit()
            for line in sorted(refused):
                external_id, reason = refused[line]
                rejected(Reject(line, external_id, reason, reading.shown(texts[line])))
            # The reader holds on to these while it makes the next ones.
            texts.clear()
            rows.clear()
    if through is not None:
        for_writing(session)
        record_use(session, source, complete_through=through)
        commit()
    return counts


Row = tuple[int, str, str]
Refused = dict[int, tuple[str | None, str]]


def _take(
    session: Session, settings: Settings, source: str, rows: list[Row], refused: Refused, now: datetime
) -> Counts:
    incoming = staging.temporary(
        "incoming_activity",
        [("line", BigInteger()), ("external_id", Member.__table__.c.external_id.type), ("used_at", UTCDateTime())],
    )
    uses = use_table()
    with staging.staged(session, incoming, rows), staging.staged(session, uses):
        with staging.by_key(session):
            wait_for_month_end(session, incoming)
            glance = _glance(session, incoming)
            if glance.unknown:
                _refuse_unknown(session, settings, incoming, refused)
            if glance.news:
                stage_news(session, incoming, incoming.c.used_at, uses)
            updated = _record(session, incoming, rows)
        if glance.last_used_at is not None:
            record_use(session, source, last_event_at=glance.last_used_at)
        if glance.news:
            returning.reverse_for_use(session, settings, select(uses), now)
    session.expire_all()
    return Counts(0, updated, len(rows) - glance.unknown - updated, len(refused))


def _glance(session: Session, incoming: Table) -> Any:
    """One row: how many uses are nobody's, how many may concern an end, and the latest of the others."""
    used_at = incoming.c.used_at
    return session.execute(
        select(
            func.count(case((Member.id.is_(None), 1))).label("unknown"),
            func.count(case((is_news(used_at), 1))).label("news"),
            func.max(case((Member.id.is_not(None), used_at))).label("last_used_at"),
        ).select_from(incoming.outerjoin(Member, Member.external_id == incoming.c.external_id))
    ).one()


def _refuse_unknown(session: Session, settings: Settings, incoming: Table, refused: Refused) -> None:
    joined = incoming.outerjoin(Member, Member.external_id == incoming.c.external_id)
    found = select(incoming.c.line, incoming.c.external_id).select_from(joined).where(Member.id.is_(None))
    unknown = session.execute(found).all()
    ids = list({row.external_id for row in unknown})
    purged = erasure.purged(session, settings, ids) if erasure.any_on_record(session) else {}
    for line, external_id in unknown:
        at = purged.get(external_id)
        reason = "external_id is no member's" if at is None else erasure.was_erased(at, settings)
        refused[line] = (external_id, reason)


def _record(session: Session, incoming: Table, rows: list[Row]) -> int:
    """Move each member's last use forward; how many moved."""
    if session.get_bind().dialect.name == "sqlite":
        # SQLite holds every page that a statement changes in memory until the statement is through.
        ids = sorted({external_id for _, external_id, _ in rows})
        ranges = [ids[start : start + STATEMENT] for start in range(0, len(ids), STATEMENT)]
        return sum(_record_some(session, _latest(incoming).where(_between(incoming, some))) for some in ranges)
    # Rows are locked in the order of their ids, as the month end does it, so that the two never deadlock.
    found = _latest(incoming).subquery()
    return _record_some(
        session, select(found).join(Member, Member.external_id == found.c.external_id).order_by(Member.id)
    )


def _latest(incoming: Table) -> Select[Any]:
    used_at = func.max(incoming.c.used_at).label("used_at")
    return select(incoming.c.external_id, used_at).group_by(incoming.c.external_id)


def _between(incoming: Table, ids: list[str]) -> ColumnElement[bool]:
    return incoming.c.external_id.between(ids[0], ids[-1])


def _record_some(session: Session, latest: Select[Any]) -> int:
    last = latest.subquery()
    return change(
        session,
        update(Member)
        .where(
            Member.external_id == last.c.external_id,
            or_(Member.last_used_at.is_(None), Member.last_used_at < last.c.used_at),
        )
        .values(last_used_at=last.c.used_at),
    )


# Reading


def _batches(read: Iterator[Read]) -> Iterator[tuple[dict[int, str], list[Row], Refused]]:
    texts: dict[int, str] = {}
    rows: list[Row] = []
    refused: Refused = {}
    for line, text, external_id, used_at, reason in read:
        texts[line] = text
        if external_id is None or used_at is None:
            refused[line] = (external_id, reason or "the row cannot be read")
        else:
            rows.append((line, external_id, used_at))
        if len(texts) == BATCH:
            yield texts, rows, refused
            texts, rows, refused = {}, [], {}
    if texts:
        yield texts, rows, refused


def _of_csv(lines: reading.Numbered, instants: cells.Instants) -> Iterator[Read]:
    header, delimiter = reading.csv_header(lines, COLUMNS)
    found = columns.resolve(header, COLUMNS, {}, ignore_unknown=False)
    for name in COLUMNS:
        if name not in found:
            raise BadValue(f"the column {name} is missing; required are {', '.join(COLUMNS)}")
    id_at, used_at = found.index("external_id"), found.index("used_at")
    clean = _cleaner(instants)
    for line, text, row in reading.csv_records(lines, delimiter, len(found)):
        if isinstance(row, Unreadable):
            yield line, text, None, None, row.reason
        else:
            yield line, text, *clean(row[id_at], row[used_at])


def _of_json(lines: reading.Numbered, instants: cells.Instants) -> Iterator[Read]:
    clean = _cleaner(instants)
    for line, text, record in reading.json_records(lines):
        if isinstance(record, Unreadable):
            yield line, text, None, None, record.reason
            continue
        external_id, used_at = record.get("external_id"), record.get("used_at")
        if isinstance(external_id, str) and isinstance(used_at, str):
            yield line, text, *clean(external_id, used_at)
        else:
            yield line, text, None, None, 'external_id and used_at must both be there as text, such as "2026-05-30"'


def _cleaner(instants: cells.Instants) -> Callable[[str, str], tuple[str | None, str | None, str | None]]:
    clean_id, clean_instant = cleaner_of_ids(), instants.cleaner("used_at")

    def clean(external_id: str, used_at: str) -> tuple[str | None, str | None, str | None]:
        found = None
        try:
            found = clean_id(external_id)
            used = clean_instant(used_at)
        except BadValue as error:
            return found, None, str(error)
        if found is None:
            return None, None, "external_id is empty"
        return found, used, None if used else "used_at is empty"

    return clean
