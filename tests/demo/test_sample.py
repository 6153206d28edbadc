"""The made-up membership: the same every time, and as dormant as a healthy service is."""

import json
from collections import Counter
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from commands.demo import sample
from commands.demo.names import SETTINGS
from commands.demo.sample import Kind, Sample
from domain.policy import DORMANT, Code, Facts, Policy, assess

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 22, 21, 0, tzinfo=UTC)
# Ends of months, a leap day, the day clocks change, and the first of January.
DAYS = [
    NOW,
    datetime(2027, 2, 28, 12, tzinfo=UTC),
    datetime(2028, 2, 29, 12, tzinfo=UTC),
    datetime(2027, 10, 31, 1, tzinfo=UTC),
    datetime(2026, 12, 31, 23, 30, tzinfo=UTC),
]


@lru_cache(maxsize=2)
def everybody(now: datetime) -> list[Sample]:
    """Kept for who asks next, as it takes a second to make them."""
    return sample.membership(now, BERLIN)


def instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=BERLIN)


def facts(one: Sample) -> Facts:
    uses = [*one.uses, *([instant(one.row["last_used_at"])] if one.row["last_used_at"] else [])]
    return Facts(
        status="active",
        joined_at=instant(one.row["joined_at"]),
        last_used_at=max(uses, default=None),
        price_minor=round(float(one.row["price"]) * 100),
        subscription_status=one.row["subscription_status"],
        exempt_reason=one.row["exempt_reason"] or None,
    )


@pytest.mark.parametrize("now", DAYS)
def test_each_is_what_it_is_an_example_of(now: datetime) -> None:
    wanted = {
        Kind.NEVER_USED: Code.NEVER_USED,
        Kind.STOPPED_USING: Code.STOPPED_USING,
        Kind.SHARED_ADDRESS: Code.STOPPED_USING,
        Kind.ANNUAL: Code.STOPPED_USING,
        Kind.ACTIVE: Code.RECENT,
        Kind.SOON: Code.RECENT,
        Kind.EXEMPT: Code.EXEMPT_BY_IMPORT,
        Kind.FREE: Code.FREE,
        Kind.TRIAL: Code.TRIAL,
        Kind.PAUSED: Code.PAUSED,
        Kind.PAST_DUE: Code.PAST_DUE,
    }
    for one in [*everybody(now), *sample.membership(now, BERLIN, sample.PILOT, 101)]:
        assert assess(facts(one), Policy(zone=BERLIN), now).code == wanted[one.kind], one.row


def test_under_two_percent_are_dormant_and_more_than_the_breaker_lets_pass_unseen() -> None:
    members = everybody(NOW)
    decisions = Counter(assess(facts(one), Policy(zone=BERLIN), NOW).code for one in members)
    dormant = sum(count for code, count in decisions.items() if code in DORMANT)
    paying = dormant + decisions[Code.RECENT]
    assert 25 <= dormant <= 40
    assert dormant < paying * 0.02
    assert 1900 < len(members) + sum(sample.PILOT.values()) < 2100


def test_the_same_day_gives_the_same_files(tmp_path: Path) -> None:
    def files(name: str) -> list[bytes]:
        folder = tmp_path / name
        folder.mkdir()
        members = sample.membership(NOW, BERLIN)
        return [
            sample.write_members(folder / "members.csv", members).read_bytes(),
            sample.write_uses(folder / "activity.csv", members).read_bytes(),
            sample.write_libraries(folder / "library.ndjson", members).read_bytes(),
        ]

    assert files("once") == files("again")


@pytest.mark.parametrize("now", DAYS)
def test_nothing_is_in_the_future_or_before_joining(now: datetime) -> None:
    for one in everybody(now):
        joined = instant(one.row["joined_at"])
        items = [item for p in one.library["profiles"] for saved in p["lists"] for item in saved["items"]]
        uses = [*one.uses, *([instant(one.row["last_used_at"])] if one.row["last_used_at"] else [])]
        for when in (*uses, *(instant(item["added_at"]) for item in items)):
            assert joined <= when <= now, one.row


def test_addresses_can_belong_to_nobody_and_only_the_family_shares_one() -> None:
    members = [*everybody(NOW), *sample.membership(NOW, BERLIN, sample.PILOT, 101)]
    shared = [email for email, count in Counter(one.row["email"] for one in members).items() if count > 1]
    assert all(one.row["email"].endswith(("@example.org", "@example.com")) for one in members)
    assert len(shared) == 1
    assert len({one.external_id for one in members}) == len(members)


def test_every_kind_speaks_both_languages_where_there_are_several() -> None:
    members = everybody(NOW)
    for kind in (Kind.NEVER_USED, Kind.STOPPED_USING, Kind.ANNUAL, Kind.EXEMPT, Kind.ACTIVE):
        assert {one.locale for one in members if one.kind is kind} == {"de", "en"}, kind


def test_who_never_watched_anything_has_lists_but_no_history() -> None:
    for one in everybody(NOW):
        kinds = {saved["kind"] for profile in one.library["profiles"] for saved in profile["lists"]}
        assert "favourites" in kinds
        assert ("history" in kinds) == bool(one.row["last_used_at"])
        assert json.dumps(one.library)


def test_nobody_reads_settings_or_a_plan_in_another_language() -> None:
    for one in everybody(NOW):
        for profile in one.library["profiles"]:
            assert set(profile["settings"]) == {name for name, _values in SETTINGS[one.locale]}
            assert all(isinstance(value, str) for value in profile["settings"].values())
    assert {one.row["plan"] for one in everybody(NOW)} == {
        "Basic", "Standard", "Premium", "Standard 12", "Mini",
    }  # fmt: skip
