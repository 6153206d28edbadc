"""The service's own logo and colours are on every page, and allowed by its policy."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from settings import LARGEST_LOGO, SettingsError, load
from tests.web.browser import Browser

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle cx="4" cy="4" r="4"/></svg>'


def test_without_settings_a_page_has_the_usual_look(browser: Browser) -> None:
    browser.open("/programme")
    assert "/look/" not in browser.response.text
    assert browser.open("/look/logo").status_code == 404
    assert browser.open("/look/colours.css").status_code == 404


def test_logo_and_colours_are_files_that_browsers_may_keep(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    (tmp_path / "own.svg").write_text(SVG)
    browser = Browser(make_app(service_logo="own.svg", service_colour="#0b5d7a", service_highlight="#d79b3f"))
    browser.open("/programme")
    fetched = [found.get("href") or found["src"] for _tag, found in browser.page.elements if "/look/" in str(found)]
    assert len(fetched) == 3, "icon, style sheet and picture"
    for address in fetched:
        answer = browser.client.get(address)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert "Set-Cookie" not in answer.headers
    assert browser.client.get(fetched[0]).text == SVG
    css = browser.client.get(fetched[1]).text
    assert "--accent:#0b5d7a;" in css
    assert "--glow-border:#d79b3f;" in css
    assert "prefers-color-scheme:dark" in css


def test_another_colour_has_another_address(make_app: Callable[..., Flask]) -> None:
    seen = set()
    for colour in ("#0b5d7a", "#7a0b5d"):
        browser = Browser(make_app(service_colour=colour))
        browser.open("/programme")
        seen |= {found["href"] for _tag, found in browser.page.elements if "colours.css" in found.get("href", "")}
    assert len(seen) == 2


def test_a_colour_that_cannot_be_read_names_one_that_can(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="would do") as refused:
        load(instance_path=tmp_path, service_colour="#ffcc00")
    better = str(refused.value).split()[-3]
    assert load(instance_path=tmp_path, service_colour=better).palettes is not None


def test_a_logo_that_is_too_heavy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.png").write_bytes(b"x" * (LARGEST_LOGO + 1))
    with pytest.raises(SettingsError, match="SERVICE_LOGO"):
        load(instance_path=tmp_path, service_logo="own.png")
