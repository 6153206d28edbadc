"""Libraries in and out: what members find again exactly as they left it.

An imported line replaces its member's library. Order, settings and dates come out as they went in; instants in UTC.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from domain.errors import BadValue, Refused
from domain.lifecycle import MemberStatus
from models import ListItem, Member, Profile, SavedList, for_writing
from services.files import cells, library_line, reading, staging
from services.files.library_line import LONGEST_LINE, Line
from services.files.reading import Counts, Reject, Unreadable
from settings import Settings

WINDOW = 500
HEAVY = 20_000
"""A batch holds up to so many members, and about so many items."""

PROFILES = (Profile.member_id, Profile.id, Profile.position, Profile.name, Profile.settings)
LISTS = (SavedList.member_id, SavedList.id, SavedList.profile_id, SavedList.position, SavedList.kind, SavedList.name)
ITEMS = (ListItem.member_id, ListItem.list_id, ListItem.position, ListItem.ref, ListItem.title, ListItem.added_at)
"""The columns a library is put together from; the first of each is the member."""

NOT_TAKEN = {
    MemberStatus.LAPSED: "the member has lapsed: the library is kept as it was until they come back",
    MemberStatus.PURGED: "the member was erased",
}


def load(session: Session, member_id: int) -> dict[str, Any]:
    """One member's library in the shape of the library line."""
    return next(_load(session, [member_id]))


def export_libraries(session: Session) -> Iterator[dict[str, Any]]:
    """The library line of each member who has profiles, in windows, in the order of member ids."""
    last = 0
    while True:
        owners = list(
            session.scalars(
                select(Profile.member_id)
                .distinct()
                .where(Profile.member_id > last)
                .order_by(Profile.member_id)
                .limit(WINDOW)
            )
        )
        if not owners:
            return
        yield from _load(session, owners)
        last = owners[-1]


def _load(session: Session, member_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    found = [select(*part).where(part[0].in_(member_ids)) for part in (PROFILES, LISTS, ITEMS)]
    profiles = profiles_of(*(session.execute(part).all() for part in found))
    owners = select(Member.id, Member.external_id).where(Member.id.in_(member_ids)).order_by(Member.id)
    for member_id, external_id in session.execute(owners).all():
        yield {"external_id": external_id, "profiles": profiles.get(member_id, [])}


def profiles_of(profiles: Iterable[Any], lists: Iterable[Any], items: Iterable[Any]) -> dict[int, list[dict[str, Any]]]:
    """Rows of PROFILES, LISTS and ITEMS as the profiles of each member, in the shape of the library line."""
    titles: dict[int, list[dict[str, Any]]] = {}
    for item in sorted(items, key=_position):
        added = None if item.added_at is None else item.added_at.isoformat()
        titles.setdefault(item.list_id, []).append({"ref": item.ref, "title": item.title, "added_at": added})
    saved: dict[int, list[dict[str, Any]]] = {}
    for one in sorted(lists, key=_position):
        saved.setdefault(one.profile_id, []).append(
            {"kind": one.kind, "name": one.name, "items": titles.get(one.id, [])}
        )
    found: dict[int, list[dict[str, Any]]] = {}
    for profile in sorted(profiles, key=_position):
        found.setdefault(profile.member_id, []).append(
            {"name": profile.name, "settings": profile.settings, "lists": saved.get(profile.id, [])}
        )
    return found


def _position(row: Any) -> int:
    position: int = row.position
    return position


def import_libraries(
    session: Session,
    settings: Settings,
    path: Path,
    now: datetime,
    *,
    commit: Callable[[], None],
    rejected: Callable[[Reject], None] = lambda reject: None,
    progress: reading.Progress = lambda done: None,
) -> Counts:
    """Import NDJSON, one member's library a line; ``created`` and ``updated`` count first and replaced libraries."""
    counts = Counts()
    instants = cells.Instants(settings.zone, now, session.get_bind().dialect.name)
    with reading.opened(path) as file, staging.Seen() as seen:
        lines = reading.numbered_lines(file, progress, LONGEST_LINE)
        records = reading.json_records(lines, LONGEST_LINE, numbers=True)
        for batch in _batches(records, instants, seen):
            for_writing(session)
            refused = dict(batch.refused)
            created, updated = _replace(session, batch.lines, refused)
            commit()
            counts = counts.plus(Counts(created, updated, 0, len(refused)))
            for line in sorted(refused):
                external_id, reason = refused[line]
                rejected(Reject(line, external_id, reason, batch.texts[line]))
    return counts


def replace(session: Session, settings: Settings, record: dict[str, Any], now: datetime) -> bool:
    """Replace the library of the one member whom a library line names, in the caller's transaction.

    True: there was none before. Raises BadValue for what is no library line, Refused with the reason a line would get.
    """
    line = library_line.read_line(record, cells.Instants(settings.zone, now, session.get_bind().dialect.name))
    refused: Rejected = {}
    created, _ = _replace(session, {1: line}, refused)
    for _, reason in refused.values():
        raise Refused(reason)
    return created == 1


Rejected = dict[int, tuple[str | None, str]]


class _Batch:
    def __init__(self) -> None:
        self.lines: dict[int, Line] = {}
        self.texts: dict[int, str] = {}
        self.refused: Rejected = {}
        self.weight = 0


def _batches(records: Iterator[reading.JsonRecord], instants: cells.Instants, seen: staging.Seen) -> Iterator[_Batch]:
    batch = _Batch()
    for line, text, record in records:
        batch.texts[line] = reading.shown(text)
        external_id = None
        try:
            if isinstance(record, Unreadable):
                raise BadValue(record.reason)
            given = record.get("external_id")
            external_id = given if isinstance(given, str) and given.isprintable() else None
            read = library_line.read_line(record, instants)
            for first in seen.add([(read.external_id, line)]).values():
                raise BadValue(f"external_id is already on line {first} of this file")
        except BadValue as error:
            batch.refused[line] = (external_id, str(error))
        else:
            batch.lines[line] = read
            batch.weight += read.weight
        if len(batch.texts) >= WINDOW or batch.weight >= HEAVY:
            yield batch
            batch = _Batch()
    if batch.texts:
        yield batch


def _replace(session: Session, lines: dict[int, Line], refused: Rejected) -> tuple[int, int]:
    """Replace the libraries of a batch; adds to ``refused`` what is nobody's or must stay. New ones, replaced ones."""
    wanted = [line.external_id for line in lines.values()]
    found = session.execute(
        select(Member.external_id, Member.id, Member.status, Member.erase_requested_at)
        .where(Member.external_id.in_(wanted))
        .order_by(Member.id)
        # A lapse at the same moment either sees the new library or keeps this from replacing the old one.
        .with_for_update(key_share=True)
    ).all()
    members = {row.external_id: row for row in found}
    owners: list[tuple[int, Line]] = []
    for number, line in lines.items():
        member = members.get(line.external_id)
        if member is None:
            refused[number] = (line.external_id, "external_id is no member's")
        elif member.status in NOT_TAKEN:
            refused[number] = (line.external_id, NOT_TAKEN[member.status])
        elif member.erase_requested_at is not None:
            refused[number] = (line.external_id, "the member has asked to be erased, which is under way")
        else:
            owners.append((member.id, line))
    ids = [member_id for member_id, _ in owners]
    had = set(session.scalars(select(Profile.member_id).distinct().where(Profile.member_id.in_(ids))))
    for table in (ListItem, SavedList, Profile):
        session.execute(delete(table).where(table.member_id.in_(ids)).execution_options(synchronize_session=False))
    _insert(session, owners)
    session.expire_all()
    return len(owners) - len(had), len(had)


def _insert(session: Session, owners: list[tuple[int, Line]]) -> None:
    """Each table by one executemany; the order of ids is the order of rows, so that children find their parents."""
    profiles = [
        (member_id, position, profile) for member_id, line in owners for position, profile in enumerate(line.profiles)
    ]
    profile_ids = _inserted(
        session,
        Profile,
        [
            {"member_id": member_id, "position": position, "name": profile["name"], "settings": profile["settings"]}
            for member_id, position, profile in profiles
        ],
    )
    lists = [
        (member_id, profile_id, position, saved)
        for (member_id, _, profile), profile_id in zip(profiles, profile_ids, strict=True)
        for position, saved in enumerate(profile["lists"])
    ]
    list_ids = _inserted(
        session,
        SavedList,
        [
            {
                "member_id": member_id,
                "profile_id": profile_id,
                "position": position,
                "kind": saved["kind"],
                "name": saved["name"],
            }
            for member_id, profile_id, position, saved in lists
        ],
    )
    items = [
        {"member_id": member_id, "list_id": list_id, "position": position, **item}
        for (member_id, _, _, saved), list_id in zip(lists, list_ids, strict=True)
        for position, item in enumerate(saved["items"])
    ]
    if items:
        session.connection().execute(insert(ListItem.__table__), items)  # type: ignore[arg-type]


def _inserted(session: Session, table: type[Profile] | type[SavedList], rows: list[dict[str, Any]]) -> list[int]:
    if not rows:
        return []
    statement = insert(table.__table__).returning(table.id, sort_by_parameter_order=True)  # type: ignore[arg-type]
    return list(session.connection().execute(statement, rows).scalars())
