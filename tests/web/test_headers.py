"""What every answer says to browsers, and the address that requests are taken to be for."""

import re
from collections.abc import Callable

import pytest
from flask import Flask, redirect, request, url_for

from tests.web.browser import Page


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """No page here depends on the database, so one is enough."""
    return sqlite_url


POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGES = ["/programme", "/sign-in", "/sign-in/token", "/sign-out", "/account/erase/token", "/check-in/token", "/nope"]


@pytest.mark.parametrize("path", [*PAGES, "/", "/account", "/healthz", "/readyz", "/metrics", "/static/dormouse.css"])
def test_every_answer_is_protected(app: Flask, path: str) -> None:
    with app.test_client().get(path) as response:
        headers = response.headers
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["X-Frame-Options"] == "DENY"
    assert "geolocation=()" in headers["Permissions-Policy"]
    assert "Strict-Transport-Security" not in headers


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_a_script_a_style_of_its_own_or_anything_from_elsewhere(app: Flask, path: str) -> None:
    page = Page(app.test_client().get(path).text)
    for tag, attributes in page.elements:
        assert tag not in ("script", "style", "iframe", "object")
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        for name in ("src", "href", "action"):
            assert not attributes.get(name, "").startswith(("http:", "https:", "//", "data:", "javascript:"))


@pytest.mark.parametrize("path", [path for path in PAGES if path != "/programme"])
def test_pages_that_may_be_personal_are_kept_by_nobody(app: Flask, path: str) -> None:
    headers = app.test_client().get(path).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Robots-Tag"] == "noindex"


def test_the_public_page_may_be_found(app: Flask) -> None:
    assert "X-Robots-Tag" not in app.test_client().get("/programme").headers


def test_https_is_made_to_stay(make_app: Callable[..., Flask]) -> None:
    client = make_app(public_url="https://members.example.org").test_client()
    response = client.get("/sign-in")
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
    cookie = response.headers["Set-Cookie"]
    assert "Secure" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


def test_forms_work_over_https_behind_a_proxy_that_speaks_http_to_us(make_app: Callable[..., Flask]) -> None:
    client = make_app(public_url="https://members.example.org/club").test_client()
    asked = {"Host": "127.0.0.1:8000"}
    html = client.get("/sign-in", headers=asked).text
    token = re.search(r'name="csrf_token" value="([^"]+)"', html)
    assert token is not None
    for referer, status in (("https://members.example.org/club/sign-in", 200), ("https://evil.example/", 400)):
        response = client.post(
            "/sign-in",
            data={"email": "mia@example.org", "csrf_token": token[1]},
            headers={**asked, "Referer": referer},
        )
        assert response.status_code == status


@pytest.mark.parametrize(
    ("script_name", "path"),
    [("", "/club/programme"), ("", "/programme"), ("/club", "/programme")],
)
def test_a_path_in_the_public_url_is_kept_whether_the_proxy_strips_it_or_not(
    make_app: Callable[..., Flask], script_name: str, path: str
) -> None:
    app = make_app(public_url="http://example.org/club")
    response = app.test_client().get(path, environ_overrides={"SCRIPT_NAME": script_name, "PATH_INFO": path})
    assert response.status_code == 200
    page = Page(response.text)
    assert "/club/sign-in" in page.links
    assert ("link", "/club/static/dormouse.css") in [(tag, found.get("href")) for tag, found in page.elements]
    assert not [link for link in page.links if link.startswith("/") and not link.startswith("/club/")]


def test_the_beginning_of_a_public_path_is_a_page(make_app: Callable[..., Flask]) -> None:
    client = make_app(public_url="http://example.org/club").test_client()
    for path in ("/club", "/club/", "/", ""):
        response = client.get("/", environ_overrides={"SCRIPT_NAME": "", "PATH_INFO": path})
        assert response.headers["Location"] == "/club/programme"
    assert client.get("/", environ_overrides={"SCRIPT_NAME": "", "PATH_INFO": "/clubs"}).status_code == 404


@pytest.mark.parametrize("header", ["Host", "X-Forwarded-Host"])
@pytest.mark.parametrize("proxies", [0, 1])
def test_a_made_up_host_reaches_no_link_and_no_redirect(
    make_app: Callable[..., Flask], header: str, proxies: int
) -> None:
    app = make_app(trusted_proxies=proxies)

    @app.get("/where/")
    def where() -> str:
        return url_for("programme.show", _external=True) + request.host_url

    @app.get("/away")
    def away() -> object:
        return redirect(url_for("programme.show", _external=True))

    client = app.test_client()
    for path in ("/where", "/where/", "/away", "/", "/account", "//account", "/sign-in"):
        response = client.get(path, headers={header: "evil.example", "X-Forwarded-Proto": "ftp"})
        assert "evil.example" not in response.text + str(response.headers)
        assert "ftp:" not in response.text + str(response.headers)
    assert client.get("/where/").text == "http://members.example.org/programme" + "http://members.example.org/"


def test_a_page_may_bring_a_policy_of_its_own(app: Flask) -> None:
    @app.get("/own")
    def own() -> object:
        return "", {"Content-Security-Policy": "sandbox"}

    assert app.test_client().get("/own").headers["Content-Security-Policy"] == "sandbox"
