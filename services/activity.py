"""Import what members used and when: ``external_id,used_at``, any number of rows a member, in any order.

The latest use is kept; but every use counts for a membership that ended before the use was reported (design promise 2).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
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
from services.files import cells, reading, staging, use_rows
from services.files.member_upsert import is_news, stage_news, use_table, wait_for_month_end
from services.files.reading import Counts, Reject
from settings import Settings

BATCH = 30_000
"""Uses are small, and the more of them are recorded at once, the fewer times is one page of members written."""
STATEMENT = 5_000
FEED = "activity"


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
    _not_ahead(through, now, "--through")
    instants = cells.Instants(settings.zone, now, session.get_bind().dialect.name)
    counts = Counts()
    with reading.opened(path) as file:
        lines = reading.numbered_lines(file, progress)
        if reading.is_json(path):
            read = use_rows.of_records(reading.json_records(lines), instants, settings.use_types, typed=False)
        else:
            read = use_rows.of_csv(lines, instants)
        for batch in _batches(read):
            for_writing(session)
            counts = counts.plus(_take(session, settings, source, batch, now))
            commit()
            _tell(batch, rejected)
            # The reader holds on to it while it makes the next one.
            batch.clear()
    if through is not None:
        for_writing(session)
        record_use(session, source, complete_through=through)
        commit()
    return counts


def import_uses(
    session: Session,
    settings: Settings,
    records: Iterable[reading.JsonRecord],
    now: datetime,
    *,
    source: str,
    through: datetime | None,
    rejected: Callable[[Reject], None],
) -> Counts:
    """Import events as those of an NDJSON file, in the caller's transaction, which has begun for writing.

    At most ``BATCH`` of them; a record's line is its row, counted from 1. ``ignored`` counts those of types that the
    operator has not declared as use; without a declaration all are. Raises BadValue for a ``through`` that lies ahead.
    """
    _not_ahead(through, now, "through")
    instants = cells.Instants(settings.zone, now, session.get_bind().dialect.name)
    counts = Counts()
    for batch in _batches(use_rows.of_records(iter(records), instants, settings.use_types, typed=True)):
        counts = counts.plus(_take(session, settings, source, batch, now))
        _tell(batch, rejected)
    if through is not None:
        record_use(session, source, complete_through=through)
    return counts


def _not_ahead(through: datetime | None, now: datetime, called: str) -> None:
    if through is not None and through > now:
        raise BadValue(f"{called} {through.isoformat()} is in the future; a feed is complete up to now at most")


Row = tuple[int, str, str]


@dataclass(slots=True)
class Batch:
    """Rows that can be taken, and of all rows their texts and why some cannot."""

    rows: list[Row] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    refused: dict[int, tuple[str | None, str]] = field(default_factory=dict)
    ignored: int = 0

    def clear(self) -> None:
        for part in (self.rows, self.texts, self.refused):
            part.clear()


def _tell(batch: Batch, rejected: Callable[[Reject], None]) -> None:
    for line in sorted(batch.refused):
        external_id, reason = batch.refused[line]
        rejected(Reject(line, external_id, reason, reading.shown(batch.texts[line])))


def _take(session: Session, settings: Settings, source: str, batch: Batch, now: datetime) -> Counts:
    rows, refused = batch.rows, batch.refused
    if not rows:
        return Counts(rejected=len(refused), ignored=batch.ignored)
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
                _refuse_unknown(session, settings, incoming, batch)
            if glance.news:
                stage_news(session, incoming, incoming.c.used_at, uses)
            updated = _record(session, incoming, rows)
        if glance.last_used_at is not None:
            record_use(session, source, last_event_at=glance.last_used_at)
        if glance.news:
            returning.reverse_for_use(session, settings, select(uses), now)
    session.expire_all()
    return Counts(0, updated, len(rows) - glance.unknown - updated, len(refused), batch.ignored)


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


def _refuse_unknown(session: Session, settings: Settings, incoming: Table, batch: Batch) -> None:
    joined = incoming.outerjoin(Member, Member.external_id == incoming.c.external_id)
    found = select(incoming.c.line, incoming.c.external_id).select_from(joined).where(Member.id.is_(None))
    unknown = session.execute(found).all()
    ids = list({row.external_id for row in unknown})
    purged = erasure.purged(session, settings, ids) if erasure.any_on_record(session) else {}
    for line, external_id in unknown:
        at = purged.get(external_id)
        reason = "external_id is no member's" if at is None else erasure.was_erased(at, settings)
        batch.refused[line] = (external_id, reason)


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


def _batches(read: Iterator[use_rows.Read]) -> Iterator[Batch]:
    batch = Batch()
    for line, text, external_id, used_at, reason in read:
        batch.texts[line] = text
        if external_id is not None and used_at is not None:
            batch.rows.append((line, external_id, used_at))
        elif reason is None:
            batch.ignored += 1
        else:
            batch.refused[line] = (external_id, reason)
        if len(batch.texts) == BATCH:
            yield batch
            batch = Batch()
    if batch.texts:
        yield batch
