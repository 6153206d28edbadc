"""Import members from a file of any size: read, check, stage and upsert it in batches, each its own transaction.

A bad row is reported and stops nothing; a bad header stops everything before the first row. What follows from a batch
(a new address, a late use, somebody paid for again) follows in its transaction.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import BigInteger, func, select
from sqlalchemy.orm import Session

from domain.lifecycle import MemberStatus
from models import Member, for_writing
from services import erasure, returning, warning
from services.feeds import record_use
from services.files import member_file, reading, staging
from services.files.member_file import Names, Naming, Refusal
from services.files.member_rows import Row, Rows, staged_columns
from services.files.member_upsert import Upsert, end_absent, stage_news, use_table, wait_for_month_end
from services.files.reading import Counts, Reject
from settings import Settings

FEED = "members"
"""The name under which the uses of member files count as a feed."""


@dataclass(frozen=True, slots=True)
class Options:
    naming: Naming = field(default_factory=Naming)
    complete: bool = False
    """The file lists everybody: active members who are absent from it have ended."""
    correct_use: bool = False
    """The file's last uses replace what is on record, also by earlier ones or none."""


@dataclass(frozen=True, slots=True)
class Imported:
    counts: Counts
    ended: int = 0
    refusal: str | None = None
    """Why the members who are absent from a complete file were not marked as ended."""


@dataclass(slots=True)
class Batch:
    """Rows by their columns; and of all rows, good or bad, whose they are and what they were."""

    rows: dict[Names, list[Row]] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    ids: list[tuple[str, int]] = field(default_factory=list)
    refused: dict[int, Refusal] = field(default_factory=dict)

    def clear(self) -> None:
        """Let the rows go: the reader holds on to a batch while it makes the next one."""
        for part in (self.rows, self.texts, self.ids, self.refused):
            part.clear()


def import_members(
    session: Session,
    settings: Settings,
    path: Path,
    now: datetime,
    *,
    commit: Callable[[], None],
    rejected: Callable[[Reject], None] = lambda reject: None,
    progress: reading.Progress = lambda done: None,
    options: Options | None = None,
) -> Imported:
    """Import a CSV or NDJSON file; ``commit`` is called after each batch, and may roll back instead (a dry run).

    Raises BadValue for a file that cannot be read or whose columns are wrong; then nothing was imported.
    """
    options = options or Options()
    importer = _Importer(session, settings, now, options)
    rows = Rows(settings, now, session.get_bind().dialect.name)
    counts, without_id = Counts(), 0
    with reading.opened(path) as file, staging.Seen() as seen:
        for batch in _batches(member_file.read(path, file, options.naming, rows, progress)):
            without_id += len(batch.texts) - len(batch.ids)
            _refuse_repeated(batch, seen, "on line {} of this file")
            for_writing(session)
            counts = counts.plus(importer.take(batch))
            commit()
            _tell(batch, rejected)
            batch.clear()
        if not options.complete:
            return Imported(counts)
        return _end_absent(session, settings, seen, counts, without_id, now, commit)


def import_records(
    session: Session,
    settings: Settings,
    records: Iterable[reading.JsonRecord],
    now: datetime,
    *,
    rejected: Callable[[Reject], None],
) -> Counts:
    """Import objects as those of an NDJSON file, in the caller's transaction, which has begun for writing.

    At most ``staging.BATCH`` of them; a record's line is its row, counted from 1. An unknown name rejects its row.
    """
    importer = _Importer(session, settings, now, Options())
    rows = Rows(settings, now, session.get_bind().dialect.name)
    counts = Counts()
    with staging.Seen() as seen:
        for batch in _batches(member_file.of_records(iter(records), Naming(), rows, headed=False)):
            _refuse_repeated(batch, seen, "in row {}")
            counts = counts.plus(importer.take(batch))
            _tell(batch, rejected)
    return counts


def _refuse_repeated(batch: Batch, seen: staging.Seen, where: str) -> None:
    repeated = seen.add(batch.ids)
    for external_id, line in batch.ids if repeated else ():
        if line in repeated:
            reason = f"external_id is already {where.format(repeated[line])}"
            batch.refused.setdefault(line, Refusal(reason, external_id))


def _tell(batch: Batch, rejected: Callable[[Reject], None]) -> None:
    for line in sorted(batch.refused):
        refusal = batch.refused[line]
        rejected(Reject(line, refusal.external_id, refusal.reason, reading.shown(batch.texts[line])))


def _batches(read: Iterator[member_file.Read]) -> Iterator[Batch]:
    batch = Batch()
    for line, text, names, row in read:
        batch.texts[line] = text
        if isinstance(row, Refusal):
            batch.refused[line] = row
            if row.external_id is not None:
                batch.ids.append((row.external_id, line))
        else:
            if names not in batch.rows:
                batch.rows[names] = []
            batch.rows[names].append(row)
            batch.ids.append((row[1], line))
        if len(batch.texts) == staging.BATCH:
            yield batch
            batch = Batch()
    if batch.texts:
        yield batch


class _Importer:
    def __init__(self, session: Session, settings: Settings, now: datetime, options: Options) -> None:
        self._session, self._settings, self._now, self._options = session, settings, now, options
        self._upserts: dict[Names, Upsert] = {}

    def take(self, batch: Batch) -> Counts:
        """Bring a batch in, in the session's transaction; adds to its refusals."""
        counts = Counts()
        for names, rows in batch.rows.items():
            good = [row for row in rows if row[0] not in batch.refused] if batch.refused else rows
            counts = counts.plus(self._upsert(names, good, batch.refused))
        self._session.expire_all()
        return counts.plus(Counts(rejected=len(batch.refused)))

    def _upsert(self, names: Names, rows: list[Row], refused: dict[int, Refusal]) -> Counts:
        session, settings, now = self._session, self._settings, self._now
        if names not in self._upserts:
            columns = staged_columns(names)
            self._upserts[names] = Upsert(session, columns, now, correct_use=self._options.correct_use)
        upsert, uses = self._upserts[names], use_table()
        with staging.staged(session, upsert.table, rows), staging.staged(session, uses):
            with staging.by_key(session):
                wait_for_month_end(session, upsert.table)
                dropped = self._refuse_erased(upsert, refused)
                glance = upsert.glance(session)
                if glance.leaving:
                    dropped += self._refuse_leaving(upsert, refused)
                if glance.paid_again:
                    returning.learn_what_was_paid(session, settings, upsert.table)
                if glance.active_again:
                    upsert.note_active_again(session, now)
                if glance.news:
                    stage_news(session, upsert.table, upsert.table.c.last_used_at, uses)
                changed = upsert.run(session)
            if glance.last_used_at is not None:
                record_use(session, FEED, last_event_at=glance.last_used_at)
            if glance.moved:
                warning.address_changed(session, settings, now)
            if glance.paid_again:
                returning.returned_elsewhere(session, settings, now)
            if glance.news:
                returning.reverse_for_use(session, settings, select(uses), now)
        return Counts(glance.new, changed - glance.new, len(rows) - dropped - changed)

    def _refuse_erased(self, upsert: Upsert, refused: dict[int, Refusal]) -> int:
        """Whoever was erased stays so, unless they have joined anew since."""
        if not erasure.any_on_record(self._session):
            return 0
        new = upsert.unknown(self._session)
        purged = erasure.purged(self._session, self._settings, [row.external_id for row in new])
        lines = []
        for row in new:
            purged_at = purged.get(row.external_id)
            if purged_at is not None and row.joined_at <= purged_at:
                refused[row.line] = Refusal(erasure.was_erased(purged_at, self._settings), row.external_id)
                lines.append(row.line)
        upsert.drop(self._session, lines)
        return len(lines)

    def _refuse_leaving(self, upsert: Upsert, refused: dict[int, Refusal]) -> int:
        leaving = upsert.leaving(self._session)
        for row in leaving:
            refused[row.line] = Refusal("the member has asked to be erased, which is under way", row.external_id)
        upsert.drop(self._session, [row.line for row in leaving])
        return len(leaving)


def _end_absent(
    session: Session,
    settings: Settings,
    seen: staging.Seen,
    counts: Counts,
    without_id: int,
    now: datetime,
    commit: Callable[[], None],
) -> Imported:
    """Mark active members who are absent from the file, unless that looks wrong (design promise 8)."""
    if without_id:
        rows = "1 row does" if without_id == 1 else f"{without_id:,} rows do"
        return Imported(counts, 0, f"{rows} not say whose they are, so nobody was marked as ended")
    active = session.scalar(select(func.count()).where(Member.status == MemberStatus.ACTIVE)) or 0
    absent: list[tuple[int]] = []
    last = 0
    while True:
        window = session.execute(
            select(Member.id, Member.external_id)
            .where(Member.id > last, Member.status == MemberStatus.ACTIVE)
            .order_by(Member.id)
            .limit(staging.BATCH)
        ).all()
        if not window:
            break
        last = window[-1].id
        absent += [(member_id,) for member_id in seen.absent((row.id, row.external_id) for row in window)]
    session.rollback()
    if len(absent) > settings.hold_min_members and len(absent) * 100 > settings.max_dormant_percent * active:
        return Imported(
            counts,
            0,
            f"{len(absent):,} of {active:,} active members are absent from the file, more than"
            f" {settings.max_dormant_percent:g} % and more than {settings.hold_min_members}: nobody was marked as"
            " ended. Check that the file is complete",
        )
    for_writing(session)
    table = staging.temporary("absent_member", [("member_id", BigInteger())])
    with staging.staged(session, table, absent):
        ended = end_absent(session, table, now)
    commit()
    return Imported(counts, ended)
