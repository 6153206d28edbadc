"""A member comes back in a browser."""

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from domain.links import Purpose
from services import magic_links
from tests import factories
from tests.browser.conftest import Looks
from tests.conftest import NOW
from tests.factories import at

pytestmark = pytest.mark.parametrize("context", [True, False], ids=["scripts", "no-scripts"], indirect=True)
"""No flow needs a script."""


def test_come_back_to_everything_as_it_was(page: Page, session: Session, site: str, looks_right: Looks) -> None:
    ended, keep_until = at("2026-04-30 22:00"), at("2027-02-28 23:00")
    member = factories.member(
        session, status="lapsed", lapsed_at=ended, access_ends_at=ended, keep_until=keep_until, name="Mia"
    )
    factories.library(session, member, items=12)
    assert member.email is not None
    token = magic_links.mint(session, Purpose.COME_BACK, member.id, member.email, keep_until, NOW)
    session.commit()

    page.goto(f"{site}/come-back/{token}")
    expect(page.get_by_role("heading", name="Kids")).to_be_visible()
    looks_right(page, "Everything is still here")
    page.get_by_role("button", name="Restart and pay €12.99 a month").click()
    looks_right(page, "Welcome back")
    session.commit()
    assert member.status == "active"
    session.commit()

    page.goto(f"{site}/come-back/{token}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Welcome back: your membership runs again")
