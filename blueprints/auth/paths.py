"""Where to go after signing in: only ever to a page of this site."""

from urllib.parse import urlsplit

from flask import redirect, request, session, url_for
from werkzeug.wrappers import Response


def to_sign_in() -> Response:
    """To the sign-in page, and back to this one afterwards if it was only looked at."""
    if request.method == "GET":
        session["next"] = request.path
    return redirect(url_for("auth.sign_in"))


def after_sign_in(wanted: str | None) -> str:
    """The page that was asked for, or the membership's."""
    return request.root_path + wanted if wanted and is_local(wanted) else url_for("account.show")


def is_local(path: str) -> bool:
    """Whether browsers take this for a path on this site: they read ``//host`` and ``/\\host`` as another one."""
    parts = urlsplit(path)
    return (
        path.startswith("/")
        and path[1:2] not in ("/", "\\")
        and not (parts.scheme or parts.netloc)
        and path.isprintable()
        and "\\" not in path
    )
