"""What every answer says to browsers, and the one address that every request is taken to be for."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, Request, Response, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from werkzeug.middleware.proxy_fix import ProxyFix

from blueprints import problems
from settings import Settings

# Styles and pictures of our own, no script at all, and forms that lead nowhere else.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
ALWAYS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: forms over HTTPS are checked against the Referer, which must reach us and nobody else.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}
HTTPS = {"Strict-Transport-Security": "max-age=31536000"}
PUBLIC_PAGES = frozenset({"static", "programme.show"})
"""Whatever is not listed here may show something personal and is kept by no cache."""


def init_app(app: Flask) -> None:
    settings: Settings = app.extensions["dormouse"].settings
    app.wsgi_app = PublicAddress(app.wsgi_app, settings.public_url)  # type: ignore[method-assign]
    if settings.trusted_proxies:
        # Only the client's address is taken from the proxies; the address of the site is a setting.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    https = settings.public_url.startswith("https:")
    app.wsgi_app = Protected(app.wsgi_app, ALWAYS | (HTTPS if https else {}))  # type: ignore[method-assign]

    @app.after_request
    def _protect(response: Response) -> Response:
        headers, endpoint = response.headers, request.endpoint
        if endpoint not in PUBLIC_PAGES:
            headers.setdefault("Cache-Control", "no-store")
            headers.setdefault("X-Robots-Tag", "noindex")
        # A public page shows whoever is signed in their notice.
        elif endpoint != "static" and "_user_id" in session:
            headers.setdefault("Cache-Control", "no-store")
        return response


class Protected:
    """Says with every answer what ``headers`` say, but for what a page says itself, stricter or fitter."""

    def __init__(self, application: WSGIApplication, headers: dict[str, str]) -> None:
        self._application = application
        self._headers = [(name.casefold(), (name, value)) for name, value in headers.items()]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def begin(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            has = {name.casefold() for name, _ in headers}
            return start_response(
                status, [*headers, *(header for name, header in self._headers if name not in has)], *error
            )

        return self._application(environ, begin)


class SessionsOfPages(SecureCookieSessionInterface):
    """Sessions as Flask keeps them, for pages: a program has none, whatever cookie it sends, and gets none.

    Nor does a form begin one that another site has posted: no cookie came with it, and a new one would take the place
    of the one that the browser has, and sign out whoever is signed in. Only signing in itself may (auth/service.py).
    """

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        return self.session_class() if problems.wanted(request) else super().open_session(app, request)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        if problems.wanted() or (_posted_elsewhere(request) and "_user_id" not in session):
            return
        super().save_session(app, session, response)


def _posted_elsewhere(request: Request) -> bool:
    """Whether the browser says that a page of another site has sent this; where it says nothing it is our own."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return False
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "cross-site"
    # Browsers say nothing of the site over plain HTTP. Of a frame that is shut in they name no origin but "null".
    origin = request.headers.get("Origin")
    return origin is not None and origin.casefold() != request.host_url.rstrip("/").casefold()


class PublicAddress:
    """Takes every request to be for PUBLIC_URL: its scheme, its host and its path.

    So a Host header that somebody made up reaches no link and no redirect, and it does not matter whether the proxy in
    front strips the path of PUBLIC_URL from what it passes on.
    """

    def __init__(self, application: WSGIApplication, public_url: str) -> None:
        url = urlsplit(public_url)
        self._application = application
        self._scheme = url.scheme
        self._host = url.netloc.rpartition("@")[2]
        self._prefix = url.path.rstrip("/")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.url_scheme"] = self._scheme
        environ["HTTP_HOST"] = self._host
        path = environ.get("SCRIPT_NAME", "").rstrip("/") + environ.get("PATH_INFO", "")
        if path == self._prefix or path.startswith(self._prefix + "/"):
            path = path[len(self._prefix) :]
        environ["SCRIPT_NAME"] = self._prefix
        environ["PATH_INFO"] = path or "/"
        return self._application(environ, start_response)
