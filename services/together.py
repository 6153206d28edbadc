"""Several small questions in one statement: what a page shows of a member costs one round trip, however many tables."""

from collections import namedtuple
from typing import Any

from sqlalchemy import BigInteger, Integer, Select, String, Text, cast, literal_column, null, type_coerce, union_all
from sqlalchemy.orm import Session
from sqlalchemy.types import JSON, TypeEngine

from models.base import UTCDateTime

KINDS: tuple[tuple[type[TypeEngine[Any]], TypeEngine[Any]], ...] = (
    (Integer, BigInteger().with_variant(Integer, "sqlite")),
    (String, Text()),
    (JSON, JSON()),
)
"""What a column may hold beside an instant, and the type of the places it is put into."""


class Together:
    """SELECTs that are asked as one UNION ALL. They may differ in number and types of their columns.

    A column is a number, a text, a JSON value or an instant. Made once, with bound parameters for what differs from
    call to call. The order of rows is nobody's: sort what has an order.
    """

    def __init__(self, **parts: Any) -> None:
        self._rows: list[Any] = []
        self._places: list[list[int]] = []
        self._names = list(parts)
        asked = [part.subquery(name) for name, part in parts.items()]
        room: dict[str, int] = {}
        types: list[TypeEngine[Any]] = []
        at: dict[tuple[str, int], int] = {}
        for part in asked:
            taken: dict[str, int] = {}
            places = []
            for column in part.c:
                of = _type_of(column.type)
                kind = type(of).__name__
                nth = taken[kind] = taken.get(kind, -1) + 1
                if nth >= room.get(kind, 0):
                    room[kind] = nth + 1
                    at[kind, nth] = len(types)
                    types.append(of)
                places.append(at[kind, nth])
            self._rows.append(namedtuple(part.name, part.c.keys()))
            self._places.append(places)
        arms: list[Any] = []
        for number, (part, places) in enumerate(zip(asked, self._places, strict=True)):
            filled: list[Any] = [cast(null(), of) for of in types]
            for column, place in zip(part.c, places, strict=True):
                filled[place] = type_coerce(column, types[place])
            arms.append(
                Select(
                    literal_column(str(number), Integer).label("part"),
                    *(column.label(f"c{place}") for place, column in enumerate(filled)),
                )
            )
        self._statement = union_all(*arms)

    def fetch(self, session: Session, **values: Any) -> dict[str, list[Any]]:
        """The rows of each part, as tuples with the names of its columns."""
        found: list[list[Any]] = [[] for _ in self._names]
        for row in session.execute(self._statement, values):
            part = row[0]
            found[part].append(self._rows[part]._make([row[place + 1] for place in self._places[part]]))
        return dict(zip(self._names, found, strict=True))


def _type_of(found: TypeEngine[Any]) -> TypeEngine[Any]:
    if isinstance(found, UTCDateTime):
        return found
    for kind, of in KINDS:
        if isinstance(found, kind):
            return of
    raise TypeError(f"no place is known for {found!r}")
