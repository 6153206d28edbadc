"""Libraries in and out: what comes out is what went in."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models import ListItem, Member, Profile
from services import library
from services.files.reading import Counts
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.services.filing import Files


@pytest.fixture
def files(session: Session, settings: Settings, tmp_path: Path) -> Files:
    return Files(session, settings, tmp_path, NOW)


def line(external_id: str = "m-1", **changes: Any) -> dict[str, Any]:
    return {
        "external_id": external_id,
        "profiles": [
            {
                "name": "Zoë <b>",
                "settings": {"z": 1, "a": [True, None, 1.5, "ü"], "nested": {"autoplay": False}, "big": 10**18},
                "lists": [
                    {
                        "kind": "favourites",
                        "name": "Favourites",
                        "items": [
                            {"ref": "t-9", "title": "Nine", "added_at": "2025-02-01T20:15:00.123456+00:00"},
                            {"ref": "t-1", "title": "=One", "added_at": None},
                            {"ref": "t-9", "title": "Nine", "added_at": "2024-12-31T23:00:00+00:00"},
                        ],
                    },
                    {"kind": "history", "name": "", "items": []},
                ],
            },
            {"name": "Kids", "settings": {}, "lists": []},
        ],
        **changes,
    }


def test_what_comes_out_is_what_went_in(files: Files, session: Session) -> None:
    first, second = factories.member(session, external_id="m-1"), factories.member(session, external_id="m-2")
    factories.member(session, external_id="without")
    lines = [line("m-1"), {"external_id": "m-2", "profiles": [{"name": "B", "settings": {"x": "y"}, "lists": []}]}]
    assert files.libraries(lines) == Counts(created=2)
    assert [library.load(session, first.id), library.load(session, second.id)] == lines
    exported = list(library.export_libraries(session))
    assert [json.dumps(one) for one in exported] == [json.dumps(one) for one in lines]
    assert files.libraries(exported) == Counts(updated=2)
    assert list(library.export_libraries(session)) == lines


def test_instants_of_other_offsets_come_out_in_utc(files: Files, session: Session) -> None:
    member = factories.member(session, external_id="m-1")
    item = {"ref": "t-1", "title": "T", "added_at": "2025-02-01T01:00:00+02:00"}
    files.libraries(
        [
            line(
                profiles=[
                    {
                        "name": "A",
                        "lists": [{"kind": "k", "name": "", "items": [item, {**item, "added_at": "2025-02-01"}]}],
                    }
                ]
            )
        ]
    )
    items = library.load(session, member.id)["profiles"][0]["lists"][0]["items"]
    assert [one["added_at"] for one in items] == ["2025-01-31T23:00:00+00:00", "2025-01-31T23:00:00+00:00"]


def test_a_line_replaces_what_was_there_and_leaves_others_alone(files: Files, session: Session) -> None:
    member, other = factories.member(session, external_id="m-1"), factories.member(session)
    factories.library(session, member)
    factories.library(session, other)
    before = library.load(session, other.id)
    assert files.libraries([{"external_id": "m-1", "profiles": []}]) == Counts(updated=1)
    assert library.load(session, member.id) == {"external_id": "m-1", "profiles": []}
    assert library.load(session, other.id) == before
    assert session.scalar(select(func.count()).select_from(ListItem)) == 12


def test_a_lapsed_members_library_stays_as_it_was(files: Files, session: Session) -> None:
    end = factories.at("2026-05-31 22:00")
    member = factories.member(
        session,
        external_id="m-1",
        status="lapsed",
        lapsed_at=end,
        access_ends_at=end,
        keep_until=factories.at("2027-04-01"),
    )
    factories.library(session, member)
    before = library.load(session, member.id)
    assert files.libraries([line()]) == Counts(rejected=1)
    assert files.reasons == ["the member has lapsed: the library is kept as it was until they come back"]
    assert library.load(session, member.id) == before


def test_bad_lines_stop_nothing(files: Files, session: Session) -> None:
    for number in range(1, 4):
        factories.member(session, external_id=f"m-{number}")

    def profile(**parts: Any) -> dict[str, Any]:
        return line("m-2", profiles=[{"name": "A", **parts}])

    def item(**parts: Any) -> dict[str, Any]:
        return profile(lists=[{"kind": "k", "name": "", "items": [parts]}])

    bad = [
        "not json",
        "[]",
        {"profiles": []},
        line("nobody"),
        {"external_id": "m-2"},
        line("m-2", avatar="x"),
        profile(setings={}),
        profile(settings=[]),
        profile(name=5),
        profile(lists=[{"name": "x", "items": []}]),
        item(ref="", title=""),
        item(ref="1", title="", added_at="x"),
        profile(name="A\u0000"),
        profile(settings={"a": float("nan")}),
        profile(settings={"a": "\u0000"}),
        profile(settings={"a": "\ud800"}),
    ]
    found = files.libraries([line("m-1"), *bad, line("m-3"), line("m-1")])
    assert found == Counts(created=2, rejected=len(bad) + 1)
    assert [reject.line for reject in files.rejects] == [*range(2, len(bad) + 2), len(bad) + 3]
    parts = [
        "no JSON",
        "no JSON object",
        "external_id must be text",
        "external_id is no member's",
        "profiles must be a list",
        "the line holds 'avatar'",
        "profiles[0] holds 'setings', which has no place: did you mean settings?",
        "profiles[0].settings must be an object",
        "profiles[0].name must be text",
        "profiles[0].lists[0].kind must be text",
        "profiles[0].lists[0].items[0].ref must be text, and not empty",
        "profiles[0].lists[0].items[0].added_at 'x' is no date",
        "profiles[0].name holds a control character",
        "NaN",
        "cannot be stored",
        "cannot be stored",
        "external_id is already on line 1 of this file",
    ]
    for part, reason in zip(parts, files.reasons, strict=True):
        assert part in reason


def test_a_library_of_many_items_and_many_members_keeps_its_order(
    files: Files, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "WINDOW", 3)
    lines = []
    for number in range(8):
        factories.member(session, external_id=f"m-{number}")
        items = [{"ref": f"t-{(n * 37) % 501}", "title": "", "added_at": None} for n in range(501)]
        lines.append(
            line(
                f"m-{number}",
                profiles=[{"name": "A", "settings": {}, "lists": [{"kind": "k", "name": "", "items": items}]}],
            )
        )
    assert files.libraries(lines) == Counts(created=8)
    assert list(library.export_libraries(session)) == lines


def test_the_database_holds_each_position_once(files: Files, session: Session) -> None:
    member = factories.member(session, external_id="m-1")
    files.libraries([line()])
    positions = session.scalars(select(Profile.position).where(Profile.member_id == member.id).order_by(Profile.id))
    assert positions.all() == [0, 1]
    assert session.scalars(select(Member.external_id)).all() == ["m-1"]
