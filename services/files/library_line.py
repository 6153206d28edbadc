"""The library line: one member's profiles, settings, lists and items, as JSON; the same on the way in and out.

Nothing of a line is dropped in silence: what there is no place for is a reason to reject it.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from domain.errors import BadValue
from services.files import cells
from services.files.columns import did_you_mean
from services.files.reading import complaint

LONGEST_LINE = 16_000_000

PROFILE = ("name", "settings", "lists")
LIST = ("kind", "name", "items")
ITEM = ("ref", "title", "added_at")


@dataclass(frozen=True, slots=True)
class Line:
    external_id: str
    profiles: list[dict[str, Any]]
    """As in the file, checked; ``added_at`` of each item is a datetime or None."""

    @property
    def weight(self) -> int:
        return 1 + sum(len(saved["items"]) for profile in self.profiles for saved in profile["lists"])


def read_line(record: dict[str, Any], instants: cells.Instants) -> Line:
    """Raises BadValue that says where in the line something is wrong, and what would be right."""
    external_id = _text(record, "external_id", "", 200)
    _only(record, ("external_id", "profiles"), "")
    clean = instants.cleaner("added_at", future=True)

    def instant(item: dict[str, Any], where: str) -> datetime | None:
        value = item.get("added_at")
        if value is not None and not isinstance(value, str):
            raise BadValue(f"{where}.added_at must be text or null")
        try:
            stored = clean(value or "")
        except BadValue as error:
            raise BadValue(f"{where}.{error}") from None
        return None if stored is None else cells.from_stored(stored)

    profiles = []
    for p, profile in _objects(record, "profiles", "", required=True):
        _only(profile, PROFILE, p)
        lists = []
        for s, saved in _objects(profile, "lists", f"{p}."):
            _only(saved, LIST, s)
            items = []
            for i, item in _objects(saved, "items", f"{s}."):
                _only(item, ITEM, i)
                ref, title = _text(item, "ref", f"{i}.", 500), _text(item, "title", f"{i}.", 500, empty=True)
                items.append({"ref": ref, "title": title, "added_at": instant(item, i)})
            name = _text(saved, "name", f"{s}.", 200, empty=True)
            lists.append({"kind": _text(saved, "kind", f"{s}.", 50), "name": name, "items": items})
        settings = profile.get("settings", {})
        if not isinstance(settings, dict):
            raise BadValue(f'{p}.settings must be an object such as {{"subtitles": "de"}}')
        _storable(settings, f"{p}.settings")
        name = _text(profile, "name", f"{p}.", 200, empty=True)
        profiles.append({"name": name, "settings": settings, "lists": lists})
    return Line(external_id, profiles)


def _objects(
    owner: dict[str, Any], name: str, where: str, *, required: bool = False
) -> list[tuple[str, dict[str, Any]]]:
    found = owner.get(name, None if required else [])
    if not isinstance(found, list):
        raise BadValue(f"{where}{name} must be a list" + (", and be there" if required else ""))
    for position, one in enumerate(found):
        if not isinstance(one, dict):
            raise BadValue(f"{where}{name}[{position}] must be an object")
    return [(f"{where}{name}[{position}]", one) for position, one in enumerate(found)]


def _text(owner: dict[str, Any], name: str, where: str, longest: int, *, empty: bool = False) -> str:
    value = owner.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise BadValue(f"{where}{name} must be text" + ("" if empty else ", and not empty"))
    if len(value) > longest:
        raise BadValue(f"{where}{name} is longer than {longest} characters")
    if not value.isprintable():
        wrong = complaint(f"{where}{name}", value)
        if wrong is not None:
            raise BadValue(wrong)
    return value


def _only(owner: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in owner:
        if name not in known:
            raise BadValue(
                f"{where or 'the line'} holds {cells.quoted(name)}, which has no place{did_you_mean(name, known)}"
            )


def _storable(settings: dict[str, Any], where: str) -> None:
    try:
        plain = json.dumps(settings, allow_nan=False)
    except ValueError:
        raise BadValue(f"{where} holds a number that JSON does not know, such as NaN") from None
    if "\\u0000" in plain or ("\\ud" in plain and _broken(settings)):
        raise BadValue(f"{where} holds a character that cannot be stored, such as U+0000")


def _broken(settings: dict[str, Any]) -> bool:
    try:
        json.dumps(settings, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
