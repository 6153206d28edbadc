"""The notice for the service's own pages: for whom the token names, for pages of the service, and for nobody else."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from settings import ROOT, Settings
from tests import factories
from tests.conftest import NOW
from tests.services.support import opened
from tests.web.service import ISSUER, SETTINGS, STRANGER, signed

SCRIPT = ROOT / "static" / "notice.js"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """The notice itself is tried on both databases in tests/services/test_notice.py."""
    return sqlite_url


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app(**SETTINGS)


@pytest.fixture
def asked(session: Session, settings: Settings) -> None:
    factories.dormant(session, external_id="K-1001", locale="de")
    factories.using(session, external_id="K-1002")
    session.commit()
    opened(session, settings, NOW)


def notice(app: Flask, who: str = "K-1001", query: str = "", origin: str = ISSUER, **changes: Any) -> TestResponse:
    token = signed(who, NOW, **{"purpose": "/api/notice", "seconds": 900, "jti": None, **changes})
    headers = {"Authorization": f"Bearer {token}", "Origin": origin}
    return app.test_client().get(f"/api/notice{query}", headers=headers)


def test_whoever_is_asked_has_a_notice_and_nobody_else(app: Flask, asked: None) -> None:
    found = notice(app)
    assert found.status_code == 200
    assert found.json is not None
    assert (found.json["language"], found.json["state"], found.json["deadline"]) == ("de", "open", "2026-06-30")
    assert found.json["link"].startswith("http://members.example.org/check-in/")
    assert found.headers["Access-Control-Allow-Origin"] == ISSUER
    assert found.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in found.headers
    assert notice(app, query="?locale=en-GB").json["language"] == "en"  # type: ignore[index]
    assert notice(app, "K-1002").status_code == 204
    assert notice(app, "K-9999").status_code == 204


@pytest.mark.parametrize(
    "changes",
    [
        {"seconds": 901},
        {"iat": (NOW - timedelta(seconds=900)).timestamp(), "exp": NOW.timestamp()},
        {"key": STRANGER},
        {"purpose": "/sign-in/service"},
        {"iss": "https://elsewhere.example"},
        {"sub": None},
    ],
)
def test_another_token_gets_nothing(app: Flask, asked: None, changes: dict[str, Any]) -> None:
    refused = notice(app, **changes)
    assert (refused.status_code, refused.mimetype) == (401, "application/problem+json")
    assert refused.headers["Access-Control-Allow-Origin"] == ISSUER, "so that whoever builds it can read why"


def test_without_a_token_there_is_nothing(app: Flask) -> None:
    assert app.test_client().get("/api/notice").status_code == 401
    assert app.test_client().get("/api/notice", headers={"Authorization": "Basic YTpi"}).status_code == 401


@pytest.mark.parametrize(
    "origin", ["https://elsewhere.example", "null", f"{ISSUER}:444", ISSUER.replace("https", "http")]
)
def test_pages_of_others_may_not_read_it(app: Flask, asked: None, origin: str) -> None:
    found = notice(app, origin=origin)
    assert "Access-Control-Allow-Origin" not in found.headers
    assert "Origin" in found.headers["Vary"]
    asks = app.test_client().options("/api/notice", headers={"Origin": origin})
    assert "Access-Control-Allow-Origin" not in asks.headers


def test_a_page_of_the_service_may_ask_before_it_sends_the_token(app: Flask) -> None:
    asks = app.test_client().options(
        "/api/notice", headers={"Origin": ISSUER, "Access-Control-Request-Headers": "authorization"}
    )
    assert asks.status_code == 200
    assert asks.headers["Access-Control-Allow-Origin"] == ISSUER
    assert asks.headers["Access-Control-Allow-Headers"] == "Authorization"
    assert "Access-Control-Allow-Credentials" not in asks.headers


def test_the_script_is_small_needs_nothing_and_may_be_loaded_by_any_page(app: Flask) -> None:
    text = SCRIPT.read_text()
    assert len(text.encode()) < 4096
    assert "import" not in text
    served = app.test_client().get("/static/notice.js")
    assert served.headers["Access-Control-Allow-Origin"] == "*"
    assert served.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    served.close()
    style = app.test_client().get("/static/dormouse.css")
    assert "Access-Control-Allow-Origin" not in style.headers
    style.close()
