"""Uses in: the latest is kept, each counts for an end it came before."""

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.errors import BadValue
from models import Erasure, Member, UseFeed
from services import activity
from services.erasure import digests
from services.files.reading import Counts
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.filing import Files
from tests.services.support import case_of, close, kinds_to, opened

AFTER = at("2026-07-01 06:00")


@pytest.fixture
def files(session: Session, settings: Settings, tmp_path: Path) -> Files:
    return Files(session, settings, tmp_path, NOW)


def test_the_latest_use_is_kept_in_whatever_order_they_come(files: Files, session: Session) -> None:
    never, used = factories.member(session), factories.member(session, last_used_at=at("2026-05-01"))
    counts = files.uses(
        "external_id,used_at\n"
        f"{never.external_id},2026-03-01\n{never.external_id},2026-04-01T10:00:00+02:00\n{never.external_id},2026-02-01\n"
        f"{used.external_id},2026-04-30T10:00:00Z\n"
    )
    assert counts == Counts(updated=1, unchanged=3)
    assert (never.last_used_at, used.last_used_at) == (at("2026-04-01 08:00"), at("2026-05-01"))


def test_scenario_03_a_use_in_the_future_is_rejected(files: Files, session: Session) -> None:
    member = factories.member(session)
    counts = files.uses(
        f"external_id,used_at\n{member.external_id},2026-06-03T10:00:01Z\n{member.external_id},2026-06-03\n"
    )
    assert counts == Counts(updated=1, rejected=1)
    assert files.reasons == ["used_at 2026-06-03T10:00:01Z is in the future"]
    assert member.last_used_at == at("2026-06-02 22:00")


def test_what_cannot_be_taken_is_rejected_with_its_line(files: Files, session: Session, settings: Settings) -> None:
    member = factories.member(session, external_id="m-1")
    session.add(Erasure(digest=digests(settings, "gone")[0], purged_at=at("2026-04-30 08:00")))
    counts = files.uses(
        "used_at;external_id\n2026-05-01;m-1\n2026-05-01;nobody\n;m-1\nyesterday;m-1\n2026-05-01;\n2026-05-01\n2026-05-01;gone\n"
    )
    assert counts == Counts(updated=1, rejected=6)
    assert [(reject.line, reject.external_id) for reject in files.rejects] == [
        (3, "nobody"), (4, "m-1"), (5, "m-1"), (6, None), (7, None), (8, "gone"),
    ]  # fmt: skip
    assert files.reasons[0] == "external_id is no member's"
    assert files.reasons[1] == "used_at is empty"
    assert "'yesterday' is no date" in files.reasons[2]
    assert files.reasons[3] == "external_id is empty"
    assert files.reasons[5].startswith("external_id was erased on 2026-04-30")
    assert member.last_used_at == at("2026-04-30 22:00")


def test_batches_add_up(files: Files, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "BATCH", 2)
    member = factories.member(session)
    rows = "".join(f"{member.external_id},2026-05-0{day}\n" for day in (1, 5, 3, 4, 6))
    assert files.uses(f"external_id,used_at\n{rows}nobody,2026-05-01\n") == Counts(updated=2, unchanged=3, rejected=1)
    assert member.last_used_at == at("2026-05-05 22:00")


def test_a_feed_remembers_its_latest_use_and_how_far_it_is_complete(files: Files, session: Session) -> None:
    member = factories.member(session, external_id="m-1")
    assert member.id
    files.uses("external_id,used_at\nm-1,2026-06-01T10:00:00Z\n", source="plays", through=at("2026-06-02"))
    files.uses("external_id,used_at\nm-1,2026-05-01T10:00:00Z\n", source="plays", through=at("2026-05-02"))
    files.uses("external_id,used_at\nnobody,2026-06-03T08:00:00Z\n", source="plays")
    feed = session.get_one(UseFeed, "plays")
    assert (feed.last_event_at, feed.complete_through) == (at("2026-06-01 10:00"), at("2026-06-02"))
    files.uses("external_id,used_at\nm-1,2026-05-01T10:00:00Z\n")
    assert session.get_one(UseFeed, "activity").last_event_at == at("2026-05-01 10:00")


def test_a_file_without_uses_may_still_say_how_far_the_feed_is_complete(files: Files, session: Session) -> None:
    assert files.uses("external_id,used_at\n", source="plays", through=at("2026-06-02")) == Counts()
    assert session.get_one(UseFeed, "plays").complete_through == at("2026-06-02")


def test_a_feed_cannot_be_complete_through_the_future(files: Files) -> None:
    with pytest.raises(BadValue, match="in the future"):
        files.uses("external_id,used_at\n", through=at("2026-06-04"))


def test_a_wrong_header_imports_nothing(files: Files) -> None:
    with pytest.raises(BadValue, match="unknown column 'used': did you mean used_at"):
        files.uses("external_id,used\nm-1,2026-05-01\n")
    with pytest.raises(BadValue, match="the column used_at is missing"):
        files.uses("external_id\nm-1\n")


def test_json_lines_are_taken_too(files: Files, session: Session) -> None:
    member = factories.member(session, external_id="m-1")
    counts = files.uses('{"external_id": "m-1", "used_at": "2026-05-01"}\n{"external_id": 5}\n[]\n', "uses.ndjson")
    assert counts == Counts(updated=1, rejected=2)
    assert member.last_used_at == at("2026-04-30 22:00")


def test_scenario_19_a_use_before_the_lapse_reverses_it_even_when_a_later_one_was_reported_first(
    files: Files, session: Session, settings: Settings
) -> None:
    member = factories.dormant(session, external_id="m-1")
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, AFTER)
    assert session.scalars(select(Member.status)).one() == "lapsed"
    files.now = at("2026-07-02 06:00")
    files.uses("external_id,used_at\nm-1,2026-07-01T07:00:00Z\n")
    assert session.scalars(select(Member.status)).one() == "lapsed"
    files.uses("external_id,used_at\nm-1,2026-07-01T07:30:00Z\nm-1,2026-06-30T21:00:00Z\n")
    assert (member.status, case_of(session, member).state) == ("active", "returned")
    assert kinds_to(session, member)[-1] == "returned"
