"""`flask campaign`: forecast, steps and status, for people and as JSON."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models import Campaign, Case, Message, db
from tests import factories
from tests.doubles import FrozenClock
from tests.factories import at


def campaign(app: Flask, *words: str) -> Result:
    result: Result = app.test_cli_runner().invoke(args=["campaign", *words])
    db.session.rollback()
    return result


@pytest.fixture
def round_of_june(session: Session) -> None:
    """Two dormant members among a hundred who pay, and one exempt."""
    factories.dormant(session, external_id="never")
    factories.stopped_using(session, external_id="stopped", price_minor=4900, currency="EUR")
    factories.dormant(session, exempt_reason="staff")
    for _ in range(98):
        factories.using(session)
    factories.live_feed(session, at("2026-06-02"))
    session.commit()


@pytest.mark.usefixtures("round_of_june")
def test_the_preview_says_who_why_not_and_how_much_and_changes_nothing(app: Flask, session: Session) -> None:
    said = campaign(app, "preview").stdout
    for line in (
        "never_used            1",
        "stopped_using         1",
        "dormant               2",
        "1.98 % of 101 paying members.",
        "exempt by import            1",
        "used or joined lately enough       98",
        "€61.99",
        "it would end memberships on 30 June 2026.",
    ):
        assert " ".join(line.split()) in " ".join(said.split()), said
    assert session.scalar(select(func.count()).select_from(Case)) == 0

    figures = json.loads(campaign(app, "preview", "--json").stdout)
    assert (figures["dormant"], figures["by_rule"]) == (2, {"never_used": 1, "stopped_using": 1})
    assert figures["out_by_reason"] == {"recent": 98, "exempt_by_import": 1}
    assert figures["hold"] is None


@pytest.mark.usefixtures("round_of_june")
def test_the_preview_as_csv_has_the_columns_of_the_contract(app: Flask, tmp_path: Path) -> None:
    campaign(app, "preview", "--csv", str(tmp_path / "dormant.csv"))
    with (tmp_path / "dormant.csv").open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["external_id"])
    assert list(rows[0]) == [
        "external_id", "rule", "joined_at", "last_used_at", "last_sign_of_life_at", "price", "currency",
    ]  # fmt: skip
    assert [(row["external_id"], row["rule"], row["price"], row["last_used_at"]) for row in rows] == [
        ("never", "never_used", "12.99", ""),
        ("stopped", "stopped_using", "49.00", "2024-03-01T20:15:00+00:00"),
    ]


def test_the_preview_says_when_no_member_has_a_price(app: Flask, session: Session) -> None:
    factories.dormant(session, price_minor=None, currency=None)
    factories.dormant(session, price_minor=None, currency=None)
    session.commit()
    assert "No price is known" in campaign(app, "preview").stdout
    assert json.loads(campaign(app, "preview", "--json").stdout)["priced"] == 0
    factories.dormant(session)
    session.commit()
    assert "No price is known" not in campaign(app, "preview").stdout
    assert json.loads(campaign(app, "preview", "--json").stdout)["priced"] == 1


@pytest.mark.usefixtures("round_of_june")
def test_the_preview_of_another_day(app: Flask) -> None:
    for when, dormant in (("2026-01-14", 0), ("2026-01-15", 1), ("2026-03-01T12:00+01:00", 2)):
        assert json.loads(campaign(app, "preview", "--at", when, "--json").stdout)["dormant"] == dormant
    assert "no day or instant" in campaign(app, "preview", "--at", "soon").stderr
    assert "has no offset" in campaign(app, "preview", "--at", "2026-03-01T12:00").stderr


def test_a_text_that_a_spreadsheet_would_run_is_disarmed(app: Flask, session: Session, tmp_path: Path) -> None:
    factories.dormant(session, external_id='=HYPERLINK("https://evil.example")')
    session.commit()
    campaign(app, "preview", "--csv", str(tmp_path / "dormant.csv"))
    assert (tmp_path / "dormant.csv").read_text().splitlines()[1].startswith("\"'=HYPERLINK(")


def test_scenario_04_the_preview_says_before_when_nobody_is_dormant(make_app: Callable[..., Flask]) -> None:
    app = make_app(use_known_since="2026-01-10")
    with app.app_context():
        said = campaign(app, "preview").stdout
    assert "before 10 January 2027 nobody is dormant for never having used it" in said
    assert "before 10 January 2028 nobody is dormant for having stopped using it" in said


@pytest.mark.usefixtures("round_of_june")
def test_a_round_is_drafted_approved_held_released_and_cancelled(app: Flask, session: Session) -> None:
    assert campaign(app, "draft", "2026-06").stdout.startswith("The campaign of 2026-06 is draft: 2 cases.\nApprove it")
    assert "Approve by  16 June 2026\nEnds on     30 June 2026\n" in campaign(app, "status", "2026-06").stdout
    assert campaign(app, "approve", "2026-06").stdout.startswith("The campaign of 2026-06 is open: 2 cases.")
    assert session.scalar(select(func.count()).select_from(Message).where(Message.kind == "warning")) == 2
    session.rollback()
    assert "An operator has held it." in campaign(app, "hold", "2026-06").stdout
    said = campaign(app, "status", "2026-06").stdout
    assert "Held because  An operator has held it." in said
    assert "0 sent, 2 queued, 0 failed; none of them goes out while it is held\n" in said
    assert campaign(app, "release", "2026-06").exit_code == 0
    found = json.loads(campaign(app, "status", "2026-06", "--json").stdout)
    assert (found["month"], found["state"], found["hold_reason"]) == ("2026-06", "open", None)
    assert found["deadline_at"] == "2026-06-30T22:00:00+00:00"
    assert found["totals"]["cases"] == {"open": 2}
    assert campaign(app, "cancel", "2026-06").exit_code == 0
    assert json.loads(campaign(app, "status", "2026-06", "--json").stdout)["totals"]["cases"] == {"withdrawn": 2}
    assert session.scalars(select(Campaign.state)).all() == ["cancelled"]
    cancelled = next(line for line in campaign(app, "status", "2026-06").output.splitlines() if "Cancelled" in line)
    assert re.search(r"2026-06-\d\d \d\d:\d\d", cancelled)


def test_a_round_that_holds_itself_can_be_released(app: Flask, session: Session) -> None:
    factories.dormant(session)
    session.commit()
    assert "No use of any member has ever been recorded" in campaign(app, "draft", "2026-06").stdout
    assert campaign(app, "approve", "2026-06").stderr == (
        "Error: The campaign of 2026-06 is held; release it or cancel it.\n"
    )
    assert campaign(app, "release", "2026-06").stdout.startswith("The campaign of 2026-06 is open: 1 case.")


def test_another_month_and_no_month_are_refused(app: Flask, clock: FrozenClock) -> None:
    assert "Only the current month can be drafted" in campaign(app, "draft", "2026-05").stderr
    for text in ("2026-6", "2026-13", "june", "2026-06-01"):
        assert campaign(app, "status", text).stderr == f"Error: {text!r} is no month; write it like 2026-06\n"
