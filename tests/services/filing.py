"""Files for tests of imports, and imports of them that give their rejects back."""

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from services.activity import import_activity
from services.files.member_file import Naming
from services.files.reading import Counts, Reject
from services.importing import Imported, Options, import_members
from services.library import import_libraries
from settings import Settings

COLUMNS = "external_id,email,joined_at"


class Files:
    """Imports texts as files, committing as the commands do."""

    def __init__(self, session: Session, settings: Settings, folder: Path, now: datetime) -> None:
        self._session, self._settings, self._folder, self.now = session, settings, folder, now
        self.rejects: list[Reject] = []

    def write(self, content: str | bytes, name: str = "file.csv") -> Path:
        path = self._folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def members(self, content: str | bytes, name: str = "members.csv", **options: Any) -> Imported:
        naming = Naming(options.pop("mapped", {}), options.pop("ignore_unknown", False))
        commit = self._session.rollback if options.pop("dry_run", False) else self._session.commit
        return import_members(
            self._session,
            self._settings,
            self.write(content, name),
            self.now,
            commit=commit,
            options=Options(naming, **options),
            **self._noted(),
        )

    def member(self, header: str, *cells: str) -> Imported:
        """One member m-1 with these further columns."""
        values = ",".join(("m-1", "eva@example.org", "2024-01-05", *cells))
        return self.members(f"{COLUMNS},{header}\n{values}\n")

    def uses(self, content: str, name: str = "activity.csv", **options: Any) -> Counts:
        path = self.write(content, name)
        return import_activity(
            self._session, self._settings, path, self.now, commit=self._session.commit, **self._noted(), **options
        )

    def libraries(self, lines: Iterable[dict[str, Any] | str]) -> Counts:
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        path = self.write("\n".join(texts), "library.ndjson")
        return import_libraries(
            self._session, self._settings, path, self.now, commit=self._session.commit, **self._noted()
        )

    @property
    def reasons(self) -> list[str]:
        return [reject.reason for reject in self.rejects]

    def _noted(self) -> dict[str, Any]:
        # An import begins its own transactions.
        self._session.commit()
        self.rejects = []
        return {"rejected": self.rejects.append}
