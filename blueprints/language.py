"""Which language a page is in, and what every page needs to be laid out."""

from typing import Any
from urllib.parse import urlencode

from flask import Flask, Response, g, has_request_context, request, session
from flask_babel import get_locale
from flask_login import current_user

from blueprints import problems
from domain.links import masked
from services.installation import installed
from services.wording import LANGUAGES, language, spoken_address, supported

NAMES = {"en": "English", "de": "Deutsch"}


def choose() -> str | None:
    """The explicit choice, else the language of whoever is signed in, else the browser's, else the service's."""
    if not has_request_context():
        return None
    chosen = session.get("lang")
    if chosen in LANGUAGES:
        return str(chosen)
    if not g.get("bare") and current_user.is_authenticated:
        return supported(current_user.member.locale)
    return request.accept_languages.best_match(LANGUAGES) or installed().settings.default_locale


def of_its_mail(locale: str | None) -> str:
    """A page behind a mailed link goes on in the language of the mail, unless its reader has chosen another."""
    return language() if "lang" in session or not locale else locale


def bare() -> None:
    """From here on this request asks the database nothing about who is here: pages shown when it cannot be asked."""
    g.bare = True


def init_app(app: Flask) -> None:
    app.jinja_env.globals["languages"] = NAMES
    settings = app.extensions["dormouse"].settings
    app.jinja_env.globals["service_name"] = settings.service_name
    app.jinja_env.globals["service_url"] = settings.service_url
    app.jinja_env.filters["masked"] = masked
    app.jinja_env.filters["spoken"] = spoken_address

    @app.before_request
    def _remember_choice() -> None:
        if problems.wanted():
            return
        # A footer link asks for a language; a form may do so by the same name.
        wanted = request.values.get("lang") if request.method == "POST" else request.args.get("lang")
        if wanted in LANGUAGES:
            session["lang"] = wanted

    @app.context_processor
    def _layout() -> dict[str, Any]:
        return {
            "language": _language(),
            "in_language": _in_language,
            "bare": g.get("bare", False),
            "not_saved": g.get("not_saved", False),
        }

    @app.after_request
    def _declare(response: Response) -> Response:
        if response.mimetype == "text/html":
            response.headers.setdefault("Content-Language", _language())
            response.vary.update(["Accept-Language", "Cookie"])
        return response


def _language() -> str:
    locale = get_locale()
    return locale.language if locale is not None else "en"


def _in_language(tag: str) -> str:
    """This page in another language: the link names no path, so it says nothing that its page does not."""
    return "?" + urlencode({**request.args.to_dict(), "lang": tag})
