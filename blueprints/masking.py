"""No live token in a server's log (design promise 9): what ``flask run`` and gunicorn write of requests is masked here.

Both log the path of each request, gunicorn's access log also the referrer, and a check-in link's path is its token. The
filter sits on their loggers, so it holds whatever format and whatever handlers an operator chooses. What a proxy in
front writes is its own: docs/security.md says how to mask it there.
"""

import logging
import re

from flask import Flask

LOGGERS = ("werkzeug", "gunicorn.access", "gunicorn.error")
MASK = "…"


class Masked(logging.Filter):
    """Puts an ellipsis where, in a path of ours that ends in a token, the token is."""

    def __init__(self) -> None:
        super().__init__()
        self._pages: set[str] = set()
        self._token = re.compile(r"(?!)")

    def know(self, pages: set[str]) -> None:
        """``pages``: such as ``/check-in/``. A path in a query comes with its slashes encoded."""
        self._pages |= pages
        any_of_them = "|".join(re.escape(page).replace("/", "(?:/|%2F)") for page in sorted(self._pages))
        self._token = re.compile(rf"""({any_of_them})[^\s"'?&]+""", re.IGNORECASE)

    def filter(self, record: logging.LogRecord) -> bool:
        written = record.getMessage()
        masked = self._token.sub(rf"\1{MASK}", written)
        if masked != written:
            record.msg, record.args = masked, None
        return True


masked = Masked()


def init_app(app: Flask) -> None:
    masked.know({rule.rule.partition("<")[0] for rule in app.url_map.iter_rules() if "token" in rule.arguments})
    for name in LOGGERS:
        logging.getLogger(name).addFilter(masked)
