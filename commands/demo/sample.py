"""About two thousand members of Lumio, a streaming service that does not exist, with what they saved there.

The same seed and day give the same files, byte for byte. Dates are relative to the day, so that the sample is as
dormant next year as it is today. What comes out are the files an engineer would export: members, uses, libraries.
"""

import csv
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Any

from commands.demo.names import FIRST, LAST, LISTS, PROFILES, SETTINGS, TITLES
from domain.dates import add_months

SEED = 20200521

COLUMNS = (
    "external_id",
    "email",
    "name",
    "locale",
    "joined_at",
    "last_used_at",
    "plan",
    "price",
    "currency",
    "billing_interval",
    "subscription_status",
    "paid_through",
    "exempt_reason",
)


class Kind(StrEnum):
    """What a sample member is an example of. The first four are dormant."""

    NEVER_USED = "never_used"
    STOPPED_USING = "stopped_using"
    SHARED_ADDRESS = "shared_address"
    ANNUAL = "annual"
    ACTIVE = "active"
    SOON = "soon"
    EXEMPT = "exempt"
    FREE = "free"
    TRIAL = "trial"
    PAUSED = "paused"
    PAST_DUE = "past_due"


DORMANT = (Kind.NEVER_USED, Kind.STOPPED_USING, Kind.SHARED_ADDRESS, Kind.ANNUAL)

MEMBERSHIP: Mapping[Kind, int] = {
    Kind.NEVER_USED: 16,
    Kind.STOPPED_USING: 10,
    Kind.SHARED_ADDRESS: 2,
    Kind.ANNUAL: 2,
    Kind.SOON: 12,
    Kind.EXEMPT: 3,
    Kind.FREE: 14,
    Kind.TRIAL: 21,
    Kind.PAUSED: 9,
    Kind.PAST_DUE: 7,
    Kind.ACTIVE: 1774,
}
"""Under two in a hundred are dormant, as the breaker expects of a service that is doing well."""

PILOT: Mapping[Kind, int] = {Kind.NEVER_USED: 6, Kind.STOPPED_USING: 4, Kind.ACTIVE: 120}
"""The few the service began with two months earlier: where the sample's lapsed members come from."""

PLANS = (("Basic", "7.99", 3), ("Standard", "12.99", 5), ("Premium", "17.99", 2))


@dataclass(frozen=True)
class Sample:
    """One made-up member: a row of the members' file, the uses of late, and a library line."""

    kind: Kind
    row: dict[str, str]
    library: dict[str, Any]
    uses: list[datetime] = field(default_factory=list)

    @property
    def external_id(self) -> str:
        return self.row["external_id"]

    @property
    def locale(self) -> str:
        return self.row["locale"]


def membership(now: datetime, zone: tzinfo, makeup: Mapping[Kind, int] = MEMBERSHIP, first: int = 1001) -> list[Sample]:
    """The members as the service would export them at ``now``, numbered from ``first``."""
    rng = random.Random(SEED + first)
    kinds = [kind for kind, count in makeup.items() for _ in range(count)]
    maker = _Maker(rng, now.astimezone(zone))
    return [maker.member(kind, first + number) for number, kind in enumerate(kinds)]


class _Maker:
    def __init__(self, rng: random.Random, now: datetime) -> None:
        self._rng, self._now = rng, now
        self._today = now.date()
        self._shared: dict[str, str] = {}

    def member(self, kind: Kind, number: int) -> Sample:
        rng = self._rng
        # Both languages of every kind, whatever the seed.
        locale = "de" if number % 5 in (0, 2, 3) else "en"
        first, last = rng.choice(FIRST[locale]), rng.choice(LAST[locale])
        email = f"{_plain(first)}.{_plain(last)}{number}@example.{'org' if locale == 'de' else 'com'}"
        if kind is Kind.SHARED_ADDRESS:
            shared = self._shared or {"locale": locale, "last": last, "email": f"familie.{_plain(last)}@example.org"}
            self._shared = shared
            locale, last, email = shared["locale"], shared["last"], shared["email"]
        joined, last_use, uses = self._life(kind)
        row = dict.fromkeys(COLUMNS, "") | {
            "external_id": f"LU-{number}",
            "email": email,
            "name": f"{first} {last}",
            "locale": locale,
            "joined_at": joined.isoformat(),
            "last_used_at": "" if last_use is None else last_use.isoformat(),
            **self._subscription(kind, joined),
        }
        return Sample(kind, row, self._library(row["external_id"], locale, first, joined, last_use), uses)

    def _life(self, kind: Kind) -> tuple[date, datetime | None, list[datetime]]:
        """The day of joining, the last use the members' file knows, and the uses the activity file adds."""
        rng, today = self._rng, self._today
        match kind:
            case Kind.NEVER_USED | Kind.EXEMPT | Kind.PAUSED | Kind.PAST_DUE:
                return self._months_ago(13, 40), None, []
            case Kind.STOPPED_USING | Kind.SHARED_ADDRESS | Kind.ANNUAL:
                last = self._evening(self._months_ago(25, 44))
                return last.date() - timedelta(days=rng.randint(40, 700)), last, []
            case Kind.SOON:
                return self._months_ago(3, 10), None, []
            case Kind.TRIAL:
                return today - timedelta(days=rng.randint(1, 25)), None, []
            case Kind.FREE:
                return self._months_ago(2, 30), None, []
        joined = self._months_ago(2, 70)
        days = sorted(rng.sample(range(2, 28), rng.randint(1, 4)), reverse=True)
        uses = [self._evening(today - timedelta(days=day)) for day in days]
        return joined, self._evening(today - timedelta(days=rng.randint(28, 30))), uses

    def _subscription(self, kind: Kind, joined: date) -> dict[str, str]:
        rng, today = self._rng, self._today
        plan, price, interval = rng.choices([p[:2] for p in PLANS], [p[2] for p in PLANS])[0] + ("month",)
        paid_through = today + timedelta(days=rng.randint(1, 28))
        if kind is Kind.ANNUAL:
            plan, price, interval = "Standard 12", "129.00", "year"
            paid_through = today + timedelta(days=rng.randint(150, 250))
        elif kind is Kind.FREE:
            plan, price, paid_through = "Mini", "0.00", None
        elif kind is Kind.TRIAL:
            paid_through = joined + timedelta(days=30)
        elif kind is Kind.PAST_DUE:
            paid_through = today - timedelta(days=rng.randint(3, 20))
        return {
            "plan": plan,
            "price": price,
            "currency": "EUR",
            "billing_interval": interval,
            "subscription_status": str(kind) if kind in (Kind.TRIAL, Kind.PAUSED, Kind.PAST_DUE) else "active",
            "paid_through": "" if paid_through is None else paid_through.isoformat(),
            "exempt_reason": rng.choice(("lifetime deal", "press account", "staff")) if kind is Kind.EXEMPT else "",
        }

    def _library(
        self, external_id: str, locale: str, first: str, joined: date, last: datetime | None
    ) -> dict[str, Any]:
        rng = self._rng
        until = last.date() if last else joined + timedelta(days=1)
        names = [first, *rng.sample(PROFILES[locale], rng.randint(0, 2))]
        # Who never watched anything has no history, but often a list of what was meant to be watched.
        kinds = LISTS[locale] if last else LISTS[locale][:2]
        return {
            "external_id": external_id,
            "profiles": [
                {
                    "name": name,
                    "settings": {setting: rng.choice(values) for setting, values in SETTINGS[locale]},
                    "lists": [
                        {"kind": kind, "name": title, "items": self._items(locale, joined, until)}
                        for kind, title in kinds
                    ],
                }
                for name in names
            ],
        }

    def _items(self, locale: str, joined: date, until: date) -> list[dict[str, str]]:
        rng, titles = self._rng, TITLES[locale]
        chosen = rng.sample(range(len(titles)), rng.randint(2, 6))
        span = max(1, (until - joined).days)
        days = sorted(joined + timedelta(days=rng.randrange(span)) for _ in chosen)
        return [
            {"ref": f"lumio:{locale}:{n + 1:03}", "title": titles[n], "added_at": self._evening(day).isoformat()}
            for n, day in zip(chosen, days, strict=True)
        ]

    def _months_ago(self, least: int, most: int) -> date:
        """A day at least, and at most, so many months back."""
        return add_months(self._today, -self._rng.randint(least, most)) - timedelta(days=self._rng.randint(0, 20))

    def _evening(self, day: date) -> datetime:
        at = time(self._rng.randint(17, 22), self._rng.randint(0, 59))
        return datetime.combine(day, at, tzinfo=self._now.tzinfo)


def _plain(name: str) -> str:
    spelled = {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ı": "i"}
    return "".join(spelled.get(letter, letter) for letter in name.lower())


def write_members(path: Path, samples: Iterable[Sample]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(sample.row for sample in samples)
    return path


def write_uses(path: Path, samples: Iterable[Sample]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["external_id", "used_at"])
        writer.writerows([sample.external_id, use.isoformat()] for sample in samples for use in sample.uses)
    return path


def write_libraries(path: Path, samples: Iterable[Sample]) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(sample.library, ensure_ascii=False) + "\n" for sample in samples)
    return path
