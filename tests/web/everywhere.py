"""Every address of the application with live tokens in it, and the contents of all tables, to compare."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from werkzeug.routing import Rule

from domain.links import Purpose
from models import Case, MagicLink, Member, db
from services import check_in, magic_links
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import case_of, opened

LATER = NOW + timedelta(hours=2)
ANY = {"filename": "dormouse.css", "form": "txt", "external_id": "K-1001", "event_id": "evt_none", "order": "none"}


@dataclass(frozen=True)
class Cast:
    """A member who is asked and one who has lapsed, and a live token for each kind of link."""

    asked: Member
    lapsed: Member
    case: Case
    tokens: dict[str, str]
    """By how the path begins, such as ``/check-in/``."""
    record: str
    """The number of the proof of how the membership of who is asked once ended, before they came back."""

    def path(self, rule: Rule) -> str | None:
        """An address of this rule that works; None where nothing is known for one of its parts."""
        begin = rule.rule.partition("<")[0]
        values = {**ANY, "token": self.tokens.get(begin), "record": self.record}
        if any(values.get(name) is None for name in rule.arguments):
            return None
        return re.sub(r"<(?:[^<>]*:)?(\w+)>", lambda part: str(values[part[1]]), rule.rule)


def cast(session: Session, settings: Settings, **facts: str) -> Cast:
    """``facts`` are columns of both members."""
    asked = factories.dormant(session, external_id="K-1001", email="mia@example.org", **facts)
    lapsed = factories.member(
        session,
        **{
            "external_id": "K-1002",
            "email": "ada@example.org",
            "status": "lapsed",
            "lapsed_at": at("2026-04-30 22:00"),
            "access_ends_at": at("2026-04-30 22:00"),
            "keep_until": at("2027-02-28 23:00"),
            **facts,
        },
    )
    for member in (asked, lapsed):
        factories.library(session, member)
    ended = Case(
        member_id=asked.id, rule="own_wish", opened_at=at("2025-02-10"), answer="lapse", answered_at=at("2025-02-10"),
        answered_through="account", deadline_at=at("2025-02-28 23:00"), state="lapsed",
        closed_at=at("2025-02-28 23:05"),
    )  # fmt: skip
    session.add(ended)
    session.commit()
    opened(session, settings, NOW)
    case = case_of(session, asked)
    tokens = {"/check-in/": check_in.token(settings, case.public_id, case.address_generation)}
    # The service of these tests hands nobody over; tests/web/test_from_service.py has one that does.
    tokens["/sign-in/service/"] = "none"
    for begin, purpose, member in (
        ("/sign-in/", Purpose.SIGN_IN, asked),
        ("/account/erase/", Purpose.ERASE, asked),
        ("/account/email/", Purpose.NEW_ADDRESS, asked),
        ("/come-back/", Purpose.COME_BACK, lapsed),
    ):
        assert member.email is not None
        tokens[begin] = magic_links.mint(session, purpose, member.id, member.email, LATER + timedelta(days=99), NOW)
    session.execute(
        update(MagicLink)
        .where(MagicLink.purpose == Purpose.NEW_ADDRESS)
        .values(new_address="mia@new.example", proven_at=NOW)
    )
    session.commit()
    return Cast(asked, lapsed, case, tokens, ended.public_id)


def addresses(app: Flask, cast: Cast, method: str) -> Iterator[tuple[str, str]]:
    """Endpoint and path of every rule that takes a method. One that cannot be filled in fails the test that asks."""
    for rule in app.url_map.iter_rules():
        if method in (rule.methods or set()):
            path = cast.path(rule)
            assert path is not None, f"tests/web/everywhere.py knows no value for {rule.rule}"
            yield rule.endpoint, path


def contents(session: Session) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables."""
    session.rollback()
    return {
        table.name: [tuple(row) for row in session.execute(select(table).order_by(*table.primary_key.columns))]
        for table in db.metadata.sorted_tables
    }
