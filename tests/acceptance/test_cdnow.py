"""A real member file of a real company runs through the programme, with exactly the right people in it.

The members are 2,357 customers of CDNOW (tests/data/README.md): joined with their first purchase, used it with a later
one. Everything goes through the commands an operator types, a real SMTP server, and the pages members see.
"""

import csv
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Select, func, select

from models import BillingOrder, Case, Member, db
from services.library import load as load_library
from tests.doubles import FrozenClock, Received, SmtpCatcher

SOURCE = Path(__file__).parent.parent / "data" / "cdnow-sample-members.csv"


@pytest.fixture
def members_csv(tmp_path: Path) -> Path:
    """The file in the import format, with addresses made up from the ids."""
    target = tmp_path / "members.csv"
    with SOURCE.open(newline="") as source, target.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(
            ["external_id", "email", "joined_at", "last_used_at", "plan", "price", "currency", "billing_interval"]
        )
        for row in csv.DictReader(source):
            used = row["last_purchase_on"] if row["last_purchase_on"] > row["joined_on"] else ""
            number = row["external_id"]
            writer.writerow([number, f"c{number}@example.org", row["joined_on"], used, "Club", "9.99", "USD", "month"])
    return target


def text(mail: Received) -> str:
    return str(mail.message.get_body(("plain",)).get_content())


@pytest.fixture
def cdnow(make_app: Callable[..., Flask], clock: FrozenClock) -> Flask:
    clock.travel(datetime(1999, 12, 1, 9, 0, tzinfo=UTC))
    return make_app(service_timezone="UTC", service_name="CDNOW", mail_connections=10)


def run(app: Flask, *line: str) -> str:
    result = app.test_cli_runner().invoke(args=list(line))
    assert result.exit_code == 0, result.output
    return result.output


def ask(app: Flask, statement: Select[Any]) -> list[Any]:
    """What the tables hold, each time in a context of its own, as every command has."""
    with app.app_context():
        return [tuple(row) for row in db.session.execute(statement).all()]


def count(app: Flask, *where: Any) -> int:
    [(found,)] = ask(app, select(func.count()).where(*where))
    return int(found)


def test_the_preview_names_exactly_the_right_number(cdnow: Flask, members_csv: Path) -> None:
    printed = run(cdnow, "members", "import", str(members_csv))
    assert printed.splitlines()[-1] == "created 2357, updated 0, unchanged 0, rejected 0"
    for at, never, stopped in (
        ("1998-07-01", 1218, 0),
        ("1999-03-01", 1218, 84),
        ("1999-12-01", 1218, 560),
        ("2000-02-29", 1218, 734),
    ):
        found = json.loads(run(cdnow, "campaign", "preview", "--at", at, "--json"))
        assert (found["by_rule"]["never_used"], found["by_rule"]["stopped_using"]) == (never, stopped), at
        assert found["members"] == 2357
        assert found["hold"]["reason"] == "too_many" or found["hold"]["reason"] == "feed_silent"


def test_a_campaign_of_it_is_held_released_and_goes_to_the_end(
    cdnow: Flask, members_csv: Path, clock: FrozenClock, smtp: SmtpCatcher, tmp_path: Path
) -> None:
    app = cdnow
    clock.travel(datetime(1999, 3, 1, 9, 0, tzinfo=UTC))
    run(app, "members", "import", str(members_csv))
    libraries = tmp_path / "libraries.ndjson"
    with libraries.open("w") as out:
        for number in range(1, 2358):
            items = [{"ref": f"cd-{n}", "title": f"Album {n}", "added_at": "1997-03-01T12:00:00Z"} for n in (3, 1, 2)]
            lists = [{"kind": "favourites", "name": "Favourites", "items": items}]
            line = {
                "external_id": f"{number:04}",
                "profiles": [{"name": "Me", "settings": {"genre": "jazz"}, "lists": lists}],
            }
            out.write(json.dumps(line) + "\n")
    run(app, "library", "import", str(libraries))

    # Held: over half of the members are dormant. It says so, and sends nothing.
    run(app, "campaign", "draft", "1999-03")
    held = json.loads(run(app, "campaign", "status", "1999-03", "--json"))
    assert (held["state"], held["totals"]["cases"]) == ("held", {"open": 1302})
    assert "paying members" in run(app, "campaign", "status", "1999-03") or held["hold_reason"] == "feed_silent"
    run(app, "jobs", "run", "deliver")
    assert smtp.mails == []

    # Released, once for each reason that holds it.
    while json.loads(run(app, "campaign", "status", "1999-03", "--json"))["state"] == "held":
        run(app, "campaign", "release", "1999-03")
    run(app, "jobs", "run", "deliver")
    assert len(smtp.mails) == 1302
    assert len({mail.recipients[0] for mail in smtp.mails}) == 1302

    # Some keep, by the link of their mail; some end; some use it; the rest say nothing.
    asked = ask(
        app, select(Member.external_id, Member.email).join(Case, Case.member_id == Member.id).order_by(Member.id)
    )
    keepers, enders, users = asked[:40], asked[40:60], asked[60:160]
    client = app.test_client()
    clock.tick(days=1)
    for wish, people in (("keep", keepers), ("lapse", enders)):
        for _, email in people:
            link = re.search(r"http://members\.example\.org(/check-in/\S+)", text(smtp.to(email)[0]))
            assert link is not None
            page = client.get(link[1]).get_data(as_text=True)
            csrf = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
            assert csrf is not None
            answered = client.post(link[1], data={"answer": wish, "csrf_token": csrf[1]})
            assert answered.status_code in (200, 302, 303)
    plays = tmp_path / "plays.csv"
    plays.write_text(
        "external_id,used_at\n" + "".join(f"{external_id},1999-03-20T20:00:00Z\n" for external_id, _ in users)
    )
    clock.travel(datetime(1999, 3, 21, 9, 0, tzinfo=UTC))
    run(app, "activity", "import", str(plays))
    clock.travel(datetime(1999, 3, 25, 9, 0, tzinfo=UTC))
    run(app, "jobs", "run", "remind")
    run(app, "jobs", "run", "deliver")

    # Month end. What holds it, an operator releases again; and the books balance.
    clock.travel(datetime(1999, 4, 1, 6, 0, tzinfo=UTC))
    late = tmp_path / "late.csv"
    late.write_text("external_id,used_at\n0006,1999-03-31T23:00:00Z\n")
    run(app, "activity", "import", str(late))
    run(app, "jobs", "run", "close")
    ended = dict(ask(app, select(Case.state, func.count()).group_by(Case.state)))
    silent = 1302 - len(keepers) - len(users)
    assert ended == {"kept": 40, "returned": 100, "lapsed": silent}
    assert json.loads(run(app, "campaign", "status", "1999-03", "--json"))["state"] == "closed"
    run(app, "jobs", "run", "settle-billing")
    run(app, "jobs", "run", "deliver")
    assert count(app, BillingOrder.kind == "stop", BillingOrder.state == "done") == silent

    # Some come back, by the link of the mail that told them of the end, and find their lists.
    told = ((mail, text(mail)) for mail in reversed(smtp.mails))
    returning = list(islice(((mail, said) for mail, said in told if "/come-back/" in said), 25))
    clock.travel(datetime(1999, 6, 10, 9, 0, tzinfo=UTC))
    for mail, said in returning:
        link = re.search(r"http://members\.example\.org(/come-back/\S+)", said)
        assert link is not None
        page = client.get(link[1]).get_data(as_text=True)
        assert "Album 3" in page
        fields = dict(re.findall(r'<input type="hidden" name="([^"]+)"[^>]*value="([^"]*)"', page))
        done = client.post(link[1], data={**fields, "order": "restart"})
        assert done.status_code in (200, 302, 303), done.get_data(as_text=True)
        [(who, status)] = ask(app, select(Member.id, Member.status).where(Member.email == mail.recipients[0]))
        assert status == "active"
        with app.app_context():
            found = load_library(db.session(), who)
        assert [item["title"] for item in found["profiles"][0]["lists"][0]["items"]] == [
            "Album 3",
            "Album 1",
            "Album 2",
        ]

    # The rest are told a month before, and are gone after ten months.
    clock.travel(datetime(2000, 1, 4, 9, 0, tzinfo=UTC))
    run(app, "jobs", "run", "warn-purge")
    run(app, "jobs", "run", "deliver")
    clock.travel(datetime(2000, 1, 31, 9, 0, tzinfo=UTC))
    run(app, "jobs", "run", "settle-billing")
    run(app, "jobs", "run", "purge")
    assert count(app, Member.status == "purged") == 0, "saved until 31 January"
    clock.travel(datetime(2000, 2, 1, 9, 0, tzinfo=UTC))
    run(app, "jobs", "run", "purge")
    by_status = dict(ask(app, select(Member.status, func.count()).group_by(Member.status)))
    assert by_status == {"purged": silent - 25, "active": 2357 - silent + 25}
    assert count(app, Case.closed_at.is_(None)) == 0
    # Whom the next file still names stays gone.
    printed = run(app, "members", "import", str(members_csv))
    assert printed.splitlines()[-1].endswith(f"rejected {silent - 25}")
