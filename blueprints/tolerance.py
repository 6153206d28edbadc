"""What mail programs add to the end of a link when they find one in a text is not part of its token."""

from typing import Any

from flask import Flask

ADDED = ".,)>"
"""No token ends in one of these, so taking them off opens nothing that was not meant."""


def init_app(app: Flask) -> None:
    @app.url_value_preprocessor
    def _without_what_was_added(_endpoint: str | None, values: dict[str, Any] | None) -> None:
        if values and "token" in values:
            values["token"] = values["token"].rstrip(ADDED)
