"""The service's own logo and colours: a generated style sheet and a picture, as files that browsers may keep.

Their addresses name their content, so a change of the settings is seen at once. Without settings of its own a service
gets the look of static/, and neither of these is on any page.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from flask import Blueprint, Flask, Response, abort

from services.installation import installed
from settings import Settings

blueprint = Blueprint("look", __name__)

FOR_EVER = "public, max-age=31536000, immutable"
TYPES = {".svg": "image/svg+xml", ".png": "image/png", ".webp": "image/webp"}


@dataclass(frozen=True, slots=True)
class Look:
    """What the layout has to know: the versions of style sheet and logo, None for neither, and the icon's type."""

    stylesheet: str | None
    logo: str | None
    icon_type: str


def init_app(app: Flask) -> None:
    settings: Settings = app.extensions["dormouse"].settings
    css, logo = css_of(settings), settings.logo
    app.jinja_env.globals["look"] = Look(
        None if css is None else _version(css.encode()),
        None if logo is None else _version(logo.read_bytes()),
        TYPES[".svg" if logo is None else logo.suffix],
    )


@blueprint.get("/look/colours.css")
def stylesheet() -> Response:
    css = css_of(installed().settings)
    if css is None:
        abort(404)
    return _file(css.encode(), "text/css; charset=utf-8")


@blueprint.get("/look/logo")
def logo() -> Response:
    path: Path | None = installed().settings.logo
    if path is None:
        abort(404)
    return _file(path.read_bytes(), TYPES[path.suffix])


def css_of(settings: Settings) -> str | None:
    """The custom properties of static/dormouse.css in the service's colours."""
    palettes = settings.palettes
    if palettes is None:
        return None

    def rules(palette: dict[str, str]) -> str:
        return ":root{" + "".join(f"--{name}:{colour};" for name, colour in palette.items()) + "}"

    light, dark = palettes
    # On paper the style sheet of the site decides.
    return f"@media screen{{{rules(light)}}}\n@media screen and (prefers-color-scheme:dark){{{rules(dark)}}}\n"


def _file(content: bytes, content_type: str) -> Response:
    # An operator's SVG may carry styles of its own; as a picture it runs nothing, and opened by itself neither.
    policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    headers = {"Cache-Control": FOR_EVER} | ({"Content-Security-Policy": policy} if "svg" in content_type else {})
    return Response(content, content_type=content_type, headers=headers)


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
