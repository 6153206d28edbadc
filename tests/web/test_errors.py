"""Pages that cannot do what was asked: what happened, what to do next, and nothing of the inside."""

import logging
from pathlib import Path

import pytest
from flask import Flask, abort, request
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError

from app import create_app
from blueprints.errors import PAGES
from domain.errors import (
    BadValue,
    BillingPermanent,
    BillingTemporary,
    DormouseError,
    NotFound,
    QuoteChanged,
    Refused,
    TooMany,
)
from models import Member, db, for_writing
from services.installation import Ports
from tests.conftest import make_settings
from tests.doubles import FrozenClock
from tests.web.browser import Browser, Page

SECRET = "what only the inside knows"


def serving(app: Flask) -> FlaskClient:
    """As it is served: errors become pages instead of reaching the test."""
    app.testing = False
    app.config["PROPAGATE_EXCEPTIONS"] = False
    return app.test_client()


def failing(app: Flask, error: Exception) -> FlaskClient:
    @app.get("/fail/<token>")
    def fail(token: str) -> str:
        raise error

    return serving(app)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 413, 429, 500, 503])
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_error_has_a_page_that_says_what_to_do_next(app: Flask, status: int, language: str) -> None:
    @app.get("/fail")
    def fail() -> str:
        abort(status)

    response = serving(app).get("/fail", headers={"Accept-Language": language})
    page = Page(response.text)
    assert response.status_code == status
    assert page.language == language
    assert page.h1
    assert len(page.text) > len(page.h1) + 40
    assert "/sign-in" in page.links
    assert "Content-Security-Policy" in response.headers
    with app.test_request_context(headers={"Accept-Language": language}):
        assert page.h1 == PAGES[status].title


def test_german_pages_are_not_the_english_ones(app: Flask) -> None:
    def heads(language: str) -> set[str]:
        with app.test_request_context(headers={"Accept-Language": language}):
            return {str(part) for page in PAGES.values() for part in (page.title, page.next)}

    assert not heads("en") & heads("de")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound(SECRET), 404),
        (TooMany(SECRET), 429),
        (Refused(SECRET), 409),
        (QuoteChanged(SECRET), 409),
        (BadValue(SECRET), 400),
        (BillingTemporary(SECRET), 503),
        (BillingPermanent(SECRET), 409),
        (DormouseError(SECRET), 500),
        (ZeroDivisionError(SECRET), 500),
    ],
)
def test_refusals_and_mistakes_get_their_status_and_no_traceback(app: Flask, error: Exception, status: int) -> None:
    response = failing(app, error).get("/fail/x")
    assert response.status_code == status
    assert SECRET not in response.text
    assert "Traceback" not in response.text


def test_a_mistake_is_logged_without_the_address_it_happened_at(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        failing(app, ZeroDivisionError("by nothing")).get("/fail/a-live-token?also=here")
    assert "GET /fail/<token> failed" in caplog.text
    assert "by nothing" in caplog.text
    assert "a-live-token" not in caplog.text
    assert "also=here" not in caplog.text


def test_what_a_failed_statement_was_given_is_not_logged(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/fail")
    def fail() -> str:
        db.session.add(Member(external_id=SECRET))
        db.session.commit()
        return ""

    assert serving(app).get("/fail").status_code == 500
    assert "IntegrityError" in caplog.text
    assert "db.session.commit()" in caplog.text
    assert SECRET not in caplog.text


def test_what_a_failed_page_had_begun_is_taken_back(app: Flask) -> None:
    @app.get("/fail")
    def fail() -> str:
        for_writing(db.session())
        db.session.execute(db.text("DELETE FROM use_feed"))
        raise Refused("no")

    client = serving(app)
    assert client.get("/fail").status_code == 409
    assert client.get("/fail").status_code == 409, "nothing is left locked"


def test_a_database_that_is_down_is_503_even_for_who_is_signed_in(
    tmp_path: Path, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(make_settings(f"sqlite:///{tmp_path / 'none' / 'x.db'}", tmp_path), Ports(clock=clock))
    browser = Browser(app, language="de")
    browser.client = serving(app)
    with browser.client.session_transaction() as session:
        session["_user_id"] = f"{'0' * 32}.1"
    browser.open("/account")
    assert browser.response.status_code == 503
    assert browser.response.headers["Retry-After"]
    assert browser.page.language == "de"
    assert browser.page.h1 == "Wir sind gerade nicht erreichbar"
    assert "GET /account: the database does not answer" in caplog.text
    assert "SELECT" not in browser.response.text


def test_a_database_that_is_busy_for_too_long_is_503(app: Flask) -> None:
    error = OperationalError("UPDATE member", {}, Exception("database is locked"))
    assert failing(app, error).get("/fail/x").status_code == 503


def test_the_wrong_method_says_which_is_right(app: Flask) -> None:
    response = app.test_client().get("/sign-out/everywhere")
    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]


def test_more_than_a_megabyte_is_refused(browser: Browser) -> None:
    browser.open("/sign-in")
    browser.press(email="x" * 1_100_000)
    assert browser.response.status_code == 413


def test_scenario_28_a_form_whose_page_has_another_address_says_that_nothing_is_saved(app: Flask) -> None:
    response = app.test_client().post("/sign-out/everywhere")
    assert response.status_code == 400
    assert "Not saved yet." in Page(response.text).text


def test_a_failed_csrf_check_never_runs_a_function_that_would_see_a_post(app: Flask) -> None:
    ran = []

    @app.route("/both", methods=["GET", "POST"])
    def both() -> str:
        ran.append(request.method)
        return ""

    assert app.test_client().post("/both").status_code == 400
    assert not ran
