"""Ending without signing in, and the pages of one's own settings, in a browser."""

import pytest
from flask import Flask
from playwright.sync_api import Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from models import Case
from tests import factories
from tests.browser.conftest import Looks
from tests.browser.test_answering import sign_in

pytestmark = pytest.mark.parametrize("context", [True, False], ids=["scripts", "no-scripts"], indirect=True)
"""No flow needs a script."""


def test_end_without_signing_in(page: Page, session: Session, site: str, looks_right: Looks) -> None:
    factories.using(session, name="Mia Öztürk", email="mia@example.org")
    session.commit()
    page.goto(f"{site}/programme")
    page.get_by_role("link", name="End a membership here").click()
    looks_right(page, "End a membership here")
    page.get_by_label("Your name or your customer number").fill("Mia Öztürk")
    page.get_by_label("Your e-mail address").fill("mia@example.org")
    page.get_by_role("button", name="End it now").click()
    looks_right(page, "We have your request to end a membership")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download it as text").click()
    assert "Mia Öztürk" in download.value.path().read_text()
    assert session.scalar(select(Case.answer)) == "lapse"


def test_own_settings_look_right(page: Page, app: Flask, session: Session, site: str, looks_right: Looks) -> None:
    member = factories.using(session)
    session.commit()
    sign_in(page, app, site, member)
    session.commit()
    pages = {"email": "Change your e-mail address", "language": "Change the language", "": "Your membership"}
    for path, heading in pages.items():
        page.goto(f"{site}/account/{path}".rstrip("/"))
        looks_right(page, heading)
    page.get_by_role("link", name="Change the language").click()
    page.get_by_label("Deutsch").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ihre Mitgliedschaft")
