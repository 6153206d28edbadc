"""Whatever comes in: no 500, no traceback, no silent change. Few examples at each change, many in the long form."""

import json
import os
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from flask import Flask
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from app import create_app
from models import db
from services.files.member_rows import COLUMNS
from settings import Settings
from tests.conftest import make_settings
from tests.doubles import FrozenClock
from tests.web.browser import SITE, Browser
from tests.web.everywhere import LATER, Cast, addresses, cast, contents

LONG = os.environ.get("DORMOUSE_FAULTS") == "long"


def tries(few: int, many: int) -> examples:
    return examples(
        max_examples=many if LONG else few,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What comes in is looked at before it reaches a database; what PostgreSQL alone refuses has a test of its own."""
    return sqlite_url


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app()


@pytest.fixture
def session(app: Flask) -> Iterator[Session]:
    with app.app_context():
        engine = db.engine
    with Session(engine) as session:
        yield session


@pytest.fixture
def people(app: Flask, session: Session, clock: FrozenClock) -> Cast:
    settings: Settings = app.extensions["dormouse"].settings
    with app.app_context():
        found = cast(session, settings)
    clock.travel(LATER)
    return found


# Files

text = st.text(st.characters(codec="utf-8"), max_size=30)
nasty = st.sampled_from(
    ["", "\x00", "\ufeff", "\r\n", '"', '""', ",", ";", "=1+1", "<script>", "2024-02-30", "9999-12-31", "0001-01-01",
     "2024-01-01T00:00:00+99:99", "1e400", "-1", "NaN", "٣", "𝟙", "a@b", "ä@ö.ü", "a@" + "b" * 300, "\ud7ff", "EUR",
     "null", "[]", "{}", "0" * 5000]
)  # fmt: skip
cell = st.one_of(text, nasty)
MEMBERS = [*COLUMNS]
header = st.one_of(
    st.just(MEMBERS), st.lists(st.sampled_from(MEMBERS), max_size=14), st.lists(cell, min_size=1, max_size=5)
)


@st.composite
def table(draw: st.DrawFn, columns: st.SearchStrategy[list[str]]) -> bytes:
    """Something like CSV, and then a byte here and there that is not."""
    head = draw(columns)
    rows = draw(st.lists(st.lists(cell, max_size=len(head) + 2), max_size=6))
    separator = draw(st.sampled_from([",", ",", ";", "\t"]))
    content = "\n".join(separator.join(row) for row in [head, *rows]).encode("utf-8", "surrogatepass")
    return damaged(draw, content)


def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    if draw(st.booleans()) and content:
        where = draw(st.integers(0, len(content)))
        content = content[:where] + draw(st.binary(max_size=4)) + content[where + draw(st.integers(0, 3)) :]
    return content


library_key = st.one_of(
    st.sampled_from(
        ["external_id", "profiles", "name", "settings", "lists", "kind", "items", "ref", "title", "added_at"]
    ),
    cell,
)
json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), cell),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(library_key, inner, max_size=4)),
    max_leaves=12,
)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    found = [json.dumps(draw(json_like)) for _ in range(draw(st.integers(0, 4)))]
    return damaged(draw, "\n".join(found).encode())


def run(app: Flask, *words: str) -> int:
    """A command as an operator types it: it works, or it says in one line why it does not."""
    result = app.test_cli_runner().invoke(args=list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    assert result.exit_code in (0, 1), result.output
    if result.exit_code == 1:
        assert [line for line in result.output.splitlines() if line.startswith("Error: ")], result.output
    return result.exit_code


@tries(8, 1000)
@given(content=st.one_of(table(header), st.binary(max_size=200)))
def test_any_file_of_members_is_taken_or_refused_in_words(
    app: Flask, session: Session, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "members.csv"
    file.write_bytes(content)
    before = contents(session)
    dry = run(app, "members", "import", str(file), "--dry-run")
    assert contents(session) == before, "a dry run changes nothing"
    assert run(app, "members", "import", str(file)) == dry
    if dry:
        assert contents(session) == before, "what is refused changes nothing"


@tries(6, 2000)
@given(content=st.one_of(lines(), st.binary(max_size=200)))
def test_any_ndjson_of_members_is_taken_or_refused_in_words(app: Flask, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "members.ndjson"
    file.write_bytes(content)
    run(app, "members", "import", str(file))


@tries(6, 2000)
@given(content=st.one_of(table(st.just(["external_id", "used_at"])), st.binary(max_size=200)))
def test_any_file_of_uses_is_taken_or_refused_in_words(
    app: Flask, session: Session, people: Cast, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "uses.csv"
    file.write_bytes(content)
    members = [(row[0], row[1], row[2]) for row in contents(session)["member"]]
    run(app, "activity", "import", str(file))
    assert [(row[0], row[1], row[2]) for row in contents(session)["member"]] == members


@tries(6, 2000)
@given(content=st.one_of(lines(), st.binary(max_size=200)))
def test_any_file_of_libraries_is_taken_or_refused_in_words(
    app: Flask, session: Session, people: Cast, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "libraries.ndjson"
    file.write_bytes(content)
    members = contents(session)["member"]
    run(app, "library", "import", str(file))
    assert contents(session)["member"] == members


# Addresses, queries and forms

NEEDS_WORDS = ("checkin.answer", "checkin.answer_mine", "comeback.order", "comeback.order_mine", "auth.request_link",
               "auth.choose", "account.ask_to_erase", "ending.end")  # fmt: skip
"""Forms that act on what is in their fields; the press of any other is all it takes."""

segment = st.one_of(
    st.text(string.ascii_letters + string.digits + "-_.", max_size=120),
    st.text(max_size=60),
    nasty,
    st.sampled_from(["..", ".", "%00", "%2e%2e", "%ff", "a/b", "//", "\\", "a.b.c", "." * 300]),
)
anything = st.one_of(text, nasty, st.integers().map(str))
field = st.one_of(
    st.sampled_from(
        ["answer", "order", "email", "member", "who", "lang", "next", "step", "kind", "price", "currency",
         "first_charge", "csrf_token", "token"]
    ),
    text,
)  # fmt: skip
fields = st.dictionaries(field, anything, max_size=6)


def quoted(path: str) -> str:
    return quote(path.encode("utf-8", "surrogatepass"), safe="/%.-_")


def answered(browser: Browser, path: str, method: str = "GET", **sent: object) -> None:
    # Not by its own way of opening pages, which is as strict as no reader of what somebody typed himself.
    response = browser.client.open(path, method=method, **sent)  # type: ignore[arg-type]
    assert response.status_code < 500, (method, path)
    assert "Traceback" not in response.text if response.mimetype.startswith("text/") else True
    location = response.headers.get("Location", "/")
    # A doubled slash is mended with a whole address.
    assert location.startswith(("/", f"{SITE}/")), location
    assert not location.startswith(("//", "/\\"))
    response.close()


@tries(12, 2000)
@given(token=segment, cut=st.integers(0, 200), flip=st.integers(0, 200), sent=fields)
def test_any_token_gets_a_page_and_changes_nothing(
    app: Flask, session: Session, people: Cast, token: str, cut: int, flip: int, sent: dict[str, str]
) -> None:
    """Made up, or a live one with something cut off or flipped; looked at, and pressed with a good form token."""
    before = contents(session)
    browser = Browser(app)
    browser.open("/sign-in")
    csrf = browser.page.form.fields["csrf_token"]
    for begin, live in people.tokens.items():
        place = flip % len(live)
        flipped = live[:place] + ("A" if live[place] != "A" else "B") + live[place + 1 :]
        for wrong in (token, live[: cut % len(live)], flipped):
            assume(wrong != live)
            answered(browser, quoted(f"{begin}{wrong}"))
            answered(browser, quoted(f"{begin}{wrong}"), "POST", data={"answer": "lapse", **sent, "csrf_token": csrf})
    assert contents(session) == before


@tries(8, 1000)
@given(query=fields, signed_in=st.booleans())
def test_any_query_on_any_page_is_answered_and_changes_nothing(
    app: Flask, session: Session, people: Cast, query: dict[str, str], signed_in: bool
) -> None:
    before = contents(session)
    browser = Browser(app)
    if signed_in:
        browser.sign_in_as(people.asked)
    asked = urlencode({name: value.encode("utf-8", "surrogatepass") for name, value in query.items()})
    for _endpoint, path in addresses(app, people, "GET"):
        answered(browser, f"{path}?{asked}")
    assert contents(session) == before


@tries(8, 1000)
@given(sent=fields, signed_in=st.booleans())
def test_any_form_with_a_good_token_is_answered(
    app: Flask, session: Session, people: Cast, sent: dict[str, str], signed_in: bool
) -> None:
    """Nobody lapses, comes back or is erased by a form that does not say so in the words of its page."""
    for word in ("answer", "order"):
        sent.pop(word, None)
    before = contents(session)
    browser = Browser(app)
    if signed_in:
        browser.sign_in_as(people.asked)
    browser.open("/programme")
    browser.open("/account/erase" if signed_in else "/sign-in")
    csrf = browser.page.form.fields["csrf_token"]
    for endpoint, path in addresses(app, people, "POST"):
        if endpoint in NEEDS_WORDS:
            answered(browser, path, "POST", data={**sent, "csrf_token": csrf})
    after = contents(session)
    assert after["member"] == before["member"]
    assert after["member_case"] == before["member_case"]


@tries(8, 1000)
@given(
    body=st.binary(max_size=300),
    kind=st.sampled_from(
        [
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/json",
            "text/plain",
            "\x00",
        ]
    ),
)
def test_any_body_of_any_kind_is_answered(app: Flask, session: Session, people: Cast, body: bytes, kind: str) -> None:
    before = contents(session)
    browser = Browser(app)
    browser.sign_in_as(people.asked)
    for _endpoint, path in addresses(app, people, "POST"):
        answered(browser, path, "POST", data=body, content_type=kind)
    assert contents(session) == before


def test_a_null_character_from_the_net_is_no_mistake_of_ours_on_postgresql(
    make_app: Callable[..., Flask], postgres_url: str, tmp_path: Path
) -> None:
    """PostgreSQL takes no such character in a text, which SQLite does."""
    app = create_app(make_settings(postgres_url, tmp_path))
    app.testing = True
    browser = Browser(app)
    for page, name in (("/sign-in", "email"), ("/end-membership", "email"), ("/end-membership", "who")):
        browser.open(page)
        form = browser.page.form
        filled = {key: "a@example.org" if key == "email" else "Mia" for key in form.fields if key in ("email", "who")}
        filled[name] = "a\x00@example.org"
        answered(browser, page, "POST", data={**form.fields, **filled})
    for path in ("/check-in/a%00b", "/sign-in/a%00b", "/come-back/%00", "/account/erase/%00"):
        answered(browser, path)
    with app.app_context():
        db.engine.dispose()
