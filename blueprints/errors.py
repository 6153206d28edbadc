"""What a page says when it cannot do what was asked: what happened, and what to do next. Never a traceback.

Programs get the same as problem details (blueprints/problems.py).

Refusals of the use cases get their status here and nowhere else. A failed CSRF check shows the form's own page again:
a form that posts to the address of its page needs nothing for that, as long as page and POST are two functions.
"""

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Flask, current_app, g, make_response, render_template, request
from flask_babel import lazy_gettext
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.routing import RequestRedirect
from werkzeug.wrappers import Response

from blueprints import problems
from blueprints.language import bare
from domain.errors import BadValue, BillingPermanent, BillingTemporary, DormouseError, NotFound, Refused, TooMany
from models import db


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    next: str
    """What happened in a few words more, and what to do."""


PAGES = {
    400: Page(
        lazy_gettext("We did not understand that"),
        lazy_gettext("Something was missing in what your browser sent. Nothing has changed. Go back and try again."),
    ),
    403: Page(
        lazy_gettext("This is not open to you"),
        lazy_gettext("Nothing has changed. If you think this page is yours, sign in with the address we write to."),
    ),
    404: Page(
        lazy_gettext("There is no such page"),
        lazy_gettext("Perhaps the address was cut off. Sign in and you find everything about your membership."),
    ),
    405: Page(
        lazy_gettext("This cannot be opened like that"),
        lazy_gettext("This address takes the press of a button only. Nothing has changed. Sign in to start anew."),
    ),
    409: Page(
        lazy_gettext("This has changed meanwhile"),
        lazy_gettext("Nothing was done. Open the page again to see what holds now."),
    ),
    410: Page(
        lazy_gettext("This is no longer here"),
        lazy_gettext("Sign in and you find what holds now, and what you can do."),
    ),
    413: Page(
        lazy_gettext("That is too much at once"),
        lazy_gettext("What was sent is larger than this page takes. Nothing has changed. Send less."),
    ),
    429: Page(
        lazy_gettext("A little slower, please"),
        lazy_gettext("This was asked for too often from your connection. Please try again in an hour."),
    ),
    500: Page(
        lazy_gettext("That is our mistake"),
        lazy_gettext("Something went wrong here, and nothing was saved. Please try again in a few minutes."),
    ),
    503: Page(
        lazy_gettext("We are not reachable for a moment"),
        lazy_gettext("Nothing was changed and nothing is lost. Please try again in a few minutes."),
    ),
}

STATUS: tuple[tuple[type[DormouseError], int], ...] = (
    (NotFound, 404),
    (TooMany, 429),
    (Refused, 409),
    (BadValue, 400),
    (BillingTemporary, 503),
    (BillingPermanent, 409),
    (DormouseError, 500),
)


def init_app(app: Flask) -> None:
    app.register_error_handler(CSRFError, _not_saved)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(DormouseError, _refused)
    for unreachable in (OperationalError, InterfaceError, NoConnectionFree):
        app.register_error_handler(unreachable, _no_database)
    app.before_request(_lead_no_program_astray)
    app.log_exception = _log  # type: ignore[method-assign]


def page(status: int) -> Response:
    """The page for a status, in the design of all others; a program gets a problem instead."""
    if problems.wanted():
        return problems.problem(status)
    known = PAGES.get(status) or PAGES[400 if status < 500 else 500]
    return make_response(render_template("errors/error.html", page=known, status=status), status)


def _http(error: HTTPException) -> Response:
    if error.response is not None:
        return error.response
    if isinstance(error, InternalServerError):
        _give_up()
    if problems.wanted():
        return problems.of_http(error)
    answer = page(error.code or 500)
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            answer.headers[name] = value
    return answer


def _refused(error: DormouseError) -> Response:
    db.session.rollback()
    status = next(status for kind, status in STATUS if isinstance(error, kind))
    return problems.problem(status, str(error)) if problems.wanted() else page(status)


def _lead_no_program_astray() -> Response | None:
    """Werkzeug would send on whoever doubles a slash, and with a page: to a program that is another address."""
    elsewhere = isinstance(request.routing_exception, RequestRedirect) and problems.wanted()
    return problems.problem(404) if elsewhere else None


def _not_saved(error: CSRFError) -> Response:
    """The page that holds the form, once more and with a line on top; nothing of what was sent is looked at."""
    g.not_saved = True
    try:
        endpoint, values = current_app.create_url_adapter(request).match(method="GET")  # type: ignore[union-attr]
    except HTTPException:
        return page(400)
    # One function for both would now see a POST and act on it.
    if endpoint == request.endpoint:
        return page(400)
    answer = make_response(current_app.ensure_sync(current_app.view_functions[endpoint])(**values))
    if answer.status_code == 200:
        answer.status_code = 400
    return answer


def _no_database(error: SQLAlchemyError) -> Response:
    _give_up()
    current_app.logger.error("%s: the database does not answer: %s", _where(), _brief(error))
    answer = page(503)
    answer.headers["Retry-After"] = "120"
    return answer


def _give_up() -> None:
    """Leave whatever was begun; from here on nothing is asked of the database for this answer."""
    bare()
    db.session.remove()


def _where() -> str:
    return f"{request.method} {request.url_rule.rule if request.url_rule else 'an unknown address'}"


def _log(exc_info: Any) -> None:
    """What failed and where in the code. Flask's own line would name the address, which may hold a live token."""
    current_app.logger.error("%s failed\n%s", _where(), "\n".join(_told(exc_info[1])))


def _told(error: BaseException) -> Iterator[str]:
    """An error and what led to it, the first cause first."""
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None:
        yield from _told(earlier)
    yield "".join(traceback.format_tb(error.__traceback__)) + _brief(error)


def _brief(error: BaseException) -> str:
    """Of what a database says, the first line: PostgreSQL goes on with the row, which may be somebody's."""
    text = str(getattr(error, "orig", None) or error)
    from_database = isinstance(error, DBAPIError) or hasattr(error, "sqlstate")
    return f"{type(error).__name__}: {text.partition(chr(10))[0] if from_database else text}"
