"""The erasures, once more outside the database: ``erasures.log``, which a restore replays (scenario 43).

A database that is restored from a backup knows nothing of the erasures since. So each is also a line of a file in the
instance folder, and of one beside each backup: the keyed digest of the external id and the instant, nothing personal.
A line is written right after the commit of its purge; what a crash in between leaves out, the next purge or backup
writes, because each begins by comparing the file with the table.
"""

import logging
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models import Erasure
from settings import Settings

NAME = "erasures.log"
LINE = re.compile(r"([0-9a-f]{64}) (\S+)", re.ASCII)
OVERLAP = timedelta(days=2)
"""Rows that are this much older than the last line are compared again: commits do not come in the order of instants."""

log = logging.getLogger("dormouse.erasures")


def path_of(settings: Settings) -> Path:
    return settings.instance_path / NAME


def keep_up(session: Session, settings: Settings) -> bool:
    """Write down what is committed and not in the file yet: to be called after the commit of an erasure.

    False, and a line in the log, where the file cannot be written.
    """
    return write_down(settings, missing(session, settings))


def missing(session: Session, settings: Settings) -> dict[str, datetime]:
    """The erasures in the database that the file lacks, or knows an earlier instant of."""
    try:
        known = read(path_of(settings))
    except OSError:
        known = {}
    rows = select(Erasure.digest, Erasure.purged_at).order_by(Erasure.purged_at)
    if known:
        # Not from ahead of the table: an instant that a wrong clock wrote must not hide those after it.
        latest = session.scalar(select(func.max(Erasure.purged_at)))
        rows = rows.where(Erasure.purged_at >= min(filter(None, (max(known.values()), latest))) - OVERLAP)
    found = session.execute(rows).all()
    return {digest: at for digest, at in found if digest not in known or known[digest] < at}


def write_down(settings: Settings, erasures: Mapping[str, datetime]) -> bool:
    """Add what ``missing`` gave, once the transaction that read it is over."""
    path = path_of(settings)
    try:
        append(path, erasures)
    except OSError as error:
        log.error("%s cannot be written (%s): a restore would not know of the latest erasures", path, error.strerror)
        return False
    return True


def append(path: Path, erasures: Mapping[str, datetime]) -> None:
    """Add lines, on the disk when this returns. Two who append at once both get theirs in; a line may come twice."""
    if not erasures:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
        # What a crash cut short stays a line of its own, which nobody reads.
        start = "" if not end or file.read(1) == b"\n" else "\n"
        lines = "".join(f"{digest} {at.astimezone(UTC).isoformat()}\n" for digest, at in erasures.items())
        file.write((start + lines).encode())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> dict[str, datetime]:
    """Digest and latest instant of each erasure in a file; empty where there is none. Skips what is no whole line."""
    found: dict[str, datetime] = {}
    try:
        with path.open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                known = LINE.fullmatch(line.rstrip("\n"))
                at = None if known is None else _instant(known[2])
                if known is not None and at is not None:
                    found[known[1]] = max(at, found.get(known[1], at))
    except FileNotFoundError:
        pass
    return found


def merged(files: Iterable[Path]) -> dict[str, datetime]:
    together: dict[str, datetime] = {}
    for path in files:
        for digest, at in read(path).items():
            together[digest] = max(at, together.get(digest, at))
    return together


def _instant(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
