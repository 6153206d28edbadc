"""The API: members, uses and libraries in, the way of files; members, libraries and notices out; and problems."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from pydantic import TypeAdapter
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from blueprints.api import shapes
from models import Member, UseFeed
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import case_of, close, opened
from tests.web.api import Program
from tests.web.browser import Browser

EVA = {"email": "eva@example.org", "joined_at": "2024-01-05"}


@pytest.fixture
def program(app: Flask) -> Program:
    return Program(app)


@pytest.fixture
def settings(app: Flask) -> Settings:
    found: Settings = app.extensions["dormouse"].settings
    return found


def one(session: Session, external_id: str) -> Member:
    session.rollback()
    return session.scalars(select(Member).where(Member.external_id == external_id)).one()


# Members


def test_a_member_is_put_once_and_again(program: Program, session: Session) -> None:
    sent = {**EVA, "price": 12.99, "currency": "EUR", "locale": "de_AT", "last_used_at": "2026-05-30T20:15:00+02:00"}
    first = program.put("/members/a%2Fb", sent)
    assert (first.status_code, first.get_json()) == (201, {"external_id": "a/b", "result": "created"})
    again = program.put("/members/a%2Fb", {**sent, "price": "12.99", "external_id": "a/b"})
    assert (again.status_code, again.get_json()) == (200, {"external_id": "a/b", "result": "unchanged"})
    member = one(session, "a/b")
    assert (member.price_minor, member.locale, member.last_used_at) == (1299, "de-AT", at("2026-05-30 18:15"))
    # As in a file: a use is never lowered, a missing name leaves, null clears.
    program.put("/members/a%2Fb", {**EVA, "last_used_at": "2026-01-01", "locale": None})
    member = one(session, "a/b")
    assert (member.price_minor, member.locale, member.last_used_at) == (1299, None, at("2026-05-30 18:15"))


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        ({**EVA, "email": 5}, 422, "/email: Input should be a valid string."),
        ({"email": "a@example.org"}, 422, "/joined_at: Field required."),
        ({**EVA, "prise": "1"}, 422, "/prise: Extra inputs are not permitted."),
        ([EVA], 422, "The body: "),
        ({**EVA, "email": "none"}, 409, "no e-mail address"),
        ({**EVA, "joined_at": "2034-01-01"}, 409, "joined_at 2034-01-01 is in the future"),
        ({**EVA, "price": 12.999, "currency": "EUR"}, 409, "more than 2 digits"),
        ({**EVA, "price": "12.99"}, 409, "price and currency need one another"),
        ({**EVA, "external_id": "b"}, 409, "another one than in the address"),
        ({**EVA, "name": "Eva\r\nBcc: x"}, 409, "line break"),
    ],
)
def test_what_cannot_be_put_is_a_problem_that_says_why(
    program: Program, session: Session, sent: Any, status: int, said: str
) -> None:
    answer = program.put("/members/a", sent)
    assert (answer.status_code, said in answer.get_json()["detail"]) == (status, True), answer.text
    assert session.scalars(select(Member)).all() == []


def test_a_batch_takes_what_is_good_and_says_of_each_other_row_why_not(program: Program, session: Session) -> None:
    rows = [
        {"external_id": "a", **EVA},
        {"external_id": "b"},
        5,
        {"external_id": "a", **EVA},
        {"external_id": "c", **EVA, "x": 1},
    ]
    answer = program.post("/members/batch", {"members": rows})
    found = answer.get_json()
    assert (answer.status_code, found["created"], found["rejected"]) == (200, 1, 4)
    assert [(each["row"], each["external_id"]) for each in found["rejects"]] == [
        (2, "b"),
        (3, None),
        (4, "a"),
        (5, "c"),
    ]
    assert found["rejects"][2]["reason"] == "external_id is already in row 1"
    assert "unknown column 'x'" in found["rejects"][3]["reason"]
    lines = "\n".join(json.dumps({"external_id": name, **EVA}) for name in "ad") + "\nnonsense\n"
    answer = program.call("POST", "/members/batch", data=lines, content_type="application/x-ndjson")
    found = answer.get_json()
    assert (found["created"], found["unchanged"], found["rejects"][0]["row"]) == (1, 1, 3)
    assert session.scalars(select(Member.external_id).order_by(Member.external_id)).all() == ["a", "d"]


def test_more_than_ten_thousand_rows_or_sixteen_megabytes_are_too_much(program: Program) -> None:
    assert program.post("/members/batch", {"members": [0] * 10_001}).status_code == 422
    lines = "{}\n" * 10_001
    assert program.call("POST", "/activity", data=lines, content_type="application/x-ndjson").status_code == 413
    assert program.call("PUT", "/members/a", data=b" " * 16_000_001, content_type="application/json").status_code == 413


def test_a_member_is_shown_as_the_command_shows_it(app: Flask, program: Program, session: Session) -> None:
    member = factories.stopped_using(session, external_id="a")
    factories.library(session, member)
    session.commit()
    answer = program.get("/members/a")
    shown = app.test_cli_runner().invoke(args=["members", "show", "a", "--json"]).stdout
    assert answer.get_json() == json.loads(shown)
    TypeAdapter(shapes.MemberOut).validate_python(answer.get_json())
    same = program.get("/members/a", headers={"If-None-Match": answer.headers["ETag"]})
    assert (same.status_code, same.text) == (304, "")
    assert program.get("/members/b").status_code == 404


def test_pages_of_members_lead_through_all_of_them_once(program: Program, session: Session) -> None:
    for name in ("b", "ä", "a", "d", "C"):
        factories.member(session, external_id=name, status="ended" if name == "d" else "active")
    session.commit()
    seen, cursor = [], ""
    while cursor is not None:
        page = program.get(f"/members?limit=2{cursor and '&cursor=' + cursor}").get_json()
        TypeAdapter(shapes.Page).validate_python(page)
        seen += [each["external_id"] for each in page["members"]]
        cursor = page["next"]
    assert sorted(seen) == sorted(["b", "ä", "a", "d", "C"])
    assert [each["external_id"] for each in program.get("/members?status=ended").get_json()["members"]] == ["d"]
    for wrong in ("limit=0", "limit=1001", "limit=1.0", "limit=many", "status=purged", "cursor=%21", "cursor="):
        assert program.get(f"/members?{wrong}").status_code in (409, 422), wrong


def test_erasing_stops_charges_first_and_can_be_repeated(app: Flask, program: Program, session: Session) -> None:
    factories.member(session, external_id="a")
    factories.member(session, external_id="free", status="ended")
    session.commit()
    assert program.call("DELETE", "/members/free").status_code == 204
    for _ in range(2):
        answer = program.call("DELETE", "/members/a")
        assert (answer.status_code, answer.get_json()["state"]) == (202, "waiting")
    assert program.get("/members/a").status_code == 404
    assert "asked to be erased" in program.put("/members/a", EVA).get_json()["detail"]
    jobs = app.extensions["dormouse_jobs"]
    jobs.run("settle-billing", NOW)
    jobs.run("purge", NOW)
    assert program.call("DELETE", "/members/a").status_code == 204
    assert "was erased on 2026-06-03" in program.put("/members/a", EVA).get_json()["detail"]
    assert program.call("DELETE", "/members/nobody").status_code == 404


# Uses


def uses(*rows: tuple[str, str, str]) -> dict[str, Any]:
    return {
        "source": "plays",
        "uses": [{"external_id": who, "used_at": when, "type": what} for who, when, what in rows],
    }


def test_uses_are_taken_as_those_of_a_file_and_the_feed_remembers_how_far_it_is(
    program: Program, session: Session
) -> None:
    factories.member(session, external_id="a")
    session.commit()
    sent = uses(
        ("a", "2026-05-01", "play"),
        ("a", "2026-05-02T10:00:00Z", "play"),
        ("z", "2026-05-01", "play"),
        ("a", "2034-01-01", "x"),
    )
    found = program.post("/activity", {**sent, "through": "2026-06-03T11:00:00+02:00"}).get_json()
    assert {name: found[name] for name in ("updated", "unchanged", "ignored", "rejected")} == {
        "updated": 1, "unchanged": 1, "ignored": 0, "rejected": 2,
    }  # fmt: skip
    assert [each["reason"] for each in found["rejects"]] == [
        "external_id is no member's",
        "used_at 2034-01-01 is in the future",
    ]
    assert one(session, "a").last_used_at == at("2026-05-02 10:00")
    feed = session.get_one(UseFeed, "plays")
    assert (feed.last_event_at, feed.complete_through) == (at("2026-05-02 10:00"), at("2026-06-03 09:00"))
    assert program.post("/activity", sent).get_json()["updated"] == 0
    # A feed without anything new is complete all the same; and never further than now, nor back again.
    assert (
        program.post("/activity", {"source": "plays", "through": "2026-06-03T10:00:00Z", "uses": []}).status_code == 200
    )
    assert (
        program.post("/activity", {"source": "plays", "through": "2026-06-03T10:00:01Z", "uses": []}).status_code == 409
    )
    assert program.post("/activity", {"source": "plays", "through": "2026-06-01", "uses": []}).status_code == 200
    session.rollback()
    assert session.get_one(UseFeed, "plays").complete_through == NOW


def test_only_declared_types_are_use(make_app: Callable[..., Flask], session: Session) -> None:
    factories.member(session, external_id="a")
    session.commit()
    program = Program(make_app(use_types=("play", "read")))
    found = program.post(
        "/activity", uses(("a", "2026-05-01", "play"), ("a", "2026-05-03", "login"), ("a", "2026-05-02", "read"))
    )
    assert (found.get_json()["updated"], found.get_json()["ignored"]) == (1, 1)
    assert one(session, "a").last_used_at == at("2026-05-01 22:00")
    untyped = program.post("/activity", {"uses": [{"external_id": "a", "used_at": "2026-06-01"}]})
    assert untyped.get_json()["ignored"] == 1
    # What is no use does not keep a dead feed alive (promise 8).
    session.rollback()
    assert [feed.source for feed in session.scalars(select(UseFeed))] == ["plays"]


def test_uses_come_as_lines_and_as_cloudevents_too(make_app: Callable[..., Flask], session: Session) -> None:
    for name in "abc":
        factories.member(session, external_id=name)
    session.commit()
    program = Program(make_app(use_types=("play",)))
    query = "/activity?source=player&through=2026-06-03"
    lines = '{"external_id": "a", "used_at": "2026-05-01", "type": "play"}\n\n{"external_id": "a"}\n'
    found = program.call("POST", query, data=lines, content_type="application/x-ndjson").get_json()
    assert (found["updated"], found["ignored"], found["rejected"]) == (1, 1, 0)
    event = {"specversion": "1.0", "id": "1", "source": "/player", "type": "play", "time": "2026-05-02T18:15:00Z"}
    events = [{**event, "subject": "b"}, {**event, "subject": "b", "type": "login"}, {"subject": "b"}, event]
    found = program.call(
        "POST", query, data=json.dumps(events), content_type="application/cloudevents-batch+json"
    ).get_json()
    assert (found["updated"], found["ignored"], [each["row"] for each in found["rejects"]]) == (1, 1, [3, 4])
    single = json.dumps({**event, "subject": "c"})
    found = program.call("POST", query, data=single, content_type="application/cloudevents+json").get_json()
    assert found["updated"] == 1
    assert one(session, "b").last_used_at == one(session, "c").last_used_at == at("2026-05-02 18:15")
    assert session.get_one(UseFeed, "player").complete_through == at("2026-06-02 22:00")


def test_scenario_19_a_use_that_is_reported_by_the_api_after_the_end_reverses_it(
    app: Flask, program: Program, session: Session, settings: Settings, clock: FrozenClock
) -> None:
    with app.app_context():
        member = factories.dormant(session, external_id="a")
        session.commit()
        opened(session, settings, NOW)
        after = at("2026-07-01 06:00")
        close(session, settings, after)
        assert one(session, "a").status == "lapsed"
    clock.travel(after)
    answer = program.post("/activity", uses(("a", "2026-06-30T23:00:00+02:00", "play")))
    assert answer.get_json()["updated"] == 1
    assert one(session, "a").status == "active"
    assert case_of(session, member).state == "returned"


# Libraries

LIBRARY = {
    "profiles": [
        {
            "name": "Eva",
            "settings": {"volume": 0.5, "subtitles": ["de"]},
            "lists": [{"kind": "favourites", "name": "", "items": [{"ref": "t-9", "title": "Nine", "added_at": None}]}],
        }
    ]
}


def test_a_library_comes_back_as_it_was_put(program: Program, session: Session) -> None:
    factories.member(session, external_id="a")
    session.commit()
    assert [program.put("/members/a/library", LIBRARY).status_code for _ in range(2)] == [201, 200]
    answer = program.get("/members/a/library")
    assert answer.get_json() == {"external_id": "a", **LIBRARY}
    assert program.get("/members/a/library", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    assert program.put("/members/a/library", {"profiles": [{"name": "Eva", "lsts": []}]}).status_code == 422
    assert program.put("/members/a/library", {"profiles": [{"name": "x" * 201}]}).status_code == 409
    assert program.put("/members/b/library", LIBRARY).status_code == 404
    assert program.get("/members/a/library").get_json() == {"external_id": "a", **LIBRARY}


def test_a_lapsed_members_library_stays_and_is_there_after_the_return(
    app: Flask, program: Program, session: Session, settings: Settings, clock: FrozenClock
) -> None:
    with app.app_context():
        member = factories.dormant(session, external_id="a")
        session.commit()
        program.put("/members/a/library", LIBRARY)
        opened(session, settings, NOW)
        after = at("2026-07-01 06:00")
        close(session, settings, after)
    clock.travel(after)
    answer = program.put("/members/a/library", {"profiles": []})
    problem = answer.get_json()
    assert answer.status_code == 409
    assert (problem["library"], problem["keep_until"]) == ({"external_id": "a", **LIBRARY}, "2027-04-30T22:00:00+00:00")
    shapes.Problem.model_validate(problem)
    program.put("/members/a", {**EVA, "email": member.email, "joined_at": "2025-01-15", "paid_through": "2026-08-15"})
    assert one(session, "a").status == "active"
    assert program.get("/members/a/library").get_json() == {"external_id": "a", **LIBRARY}
    assert program.put("/members/a/library", {"profiles": []}).status_code == 200


# The notice


@pytest.mark.parametrize("locale", ["en", "de"])
def test_the_notice_says_what_the_banner_says(
    app: Flask, program: Program, session: Session, settings: Settings, locale: str
) -> None:
    member = factories.dormant(session, external_id="a", locale=locale)
    session.commit()
    assert program.get("/members/a/notice").status_code == 204
    assert program.get("/members/b/notice").status_code == 404
    with app.app_context():
        opened(session, settings, NOW)
    session.commit()
    answer = program.get("/members/a/notice?amounts=true")
    notice = answer.get_json()
    shapes.NoticeOut.model_validate(notice)
    browser = Browser(app, locale)
    browser.sign_in_as(member)
    browser.open("/programme")
    for said in (notice["title"], notice["text"], notice["action"]):
        assert " ".join(said.split()) in browser.page.text
    assert (notice["state"], notice["deadline"], notice["language"]) == ("open", "2026-06-30", locale)
    assert notice["amounts"]["price"]["minor"] == 1299
    assert notice["amounts"]["paid_since"]["minor"] == 16 * 1299
    assert (
        program.get("/members/a/notice?amounts=true", headers={"If-None-Match": answer.headers["ETag"]}).status_code
        == 304
    )
    other = program.get(f"/members/a/notice?locale={'de-CH' if locale == 'en' else 'en-GB'}").get_json()
    assert (other["language"] != locale, other["title"] != notice["title"], other["amounts"]) == (True, True, None)


def test_the_link_of_the_notice_is_answered_without_signing_in(
    app: Flask, program: Program, session: Session, settings: Settings, clock: FrozenClock
) -> None:
    factories.dormant(session, external_id="a")
    session.commit()
    with app.app_context():
        opened(session, settings, NOW)
    session.commit()
    link = program.get("/members/a/notice").get_json()["link"]
    clock.tick(hours=1)
    browser = Browser(app)
    browser.open(link)
    browser.press("answer", "keep")
    notice = program.get("/members/a/notice").get_json()
    assert (notice["state"], notice["answer"], notice["title"]) == ("kept", "keep", "Your membership continues")


# Problems


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/members//a", 404),
        ("PATCH", "/members/a", 405),
        ("DELETE", "/members", 405),
        ("POST", "/activity", 415),
        ("PUT", "/members/a", 415),
    ],
)
def test_whatever_goes_wrong_is_a_problem_and_no_page(program: Program, method: str, path: str, status: int) -> None:
    answer = program.call(method, path)
    assert answer.status_code == status
    if status == 405:
        assert answer.headers["Allow"]


def test_a_body_that_cannot_be_read_is_said_to_be_so(program: Program) -> None:
    for body in (b"{", b"", b"\xff", b'{"a": NaN}', b"[" * 100_000, b"9" * 5_000):
        answer = program.call("PUT", "/members/a", data=body, content_type="application/json")
        assert answer.status_code == 400, body[:10]


def test_a_failure_of_ours_tells_nothing_of_where_it_was(app: Flask, program: Program, session: Session) -> None:
    app.testing = False
    factories.member(session, external_id="a")
    session.execute(text("ALTER TABLE profile RENAME TO elsewhere"))
    session.commit()
    answer = program.get("/members/a/library")
    assert (answer.status_code in (500, 503), "profile" in answer.text) == (True, False)
