"""The demo's own pages: there in demo mode only, the mails shut in, and journeys that skip no day."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from commands.demo.catcher import Catcher
from models import Campaign, Case, JobRun, Member, db
from services import demo as service
from tests.conftest import NOW
from tests.demo.test_catcher import post
from tests.doubles import FrozenClock
from tests.factories import at, dormant, using
from tests.web.browser import Browser

PATHS = ["/demo/", "/demo/mail", "/demo/mail/1", "/demo/mail/1/html"]


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app(demo=True, campaign_approval="auto")


@pytest.fixture
def browser(app: Flask) -> Browser:
    return Browser(app)


@pytest.mark.parametrize("path", PATHS)
def test_outside_demo_mode_there_is_nothing_of_it(make_app: Callable[..., Flask], path: str) -> None:
    browser = Browser(make_app())
    assert browser.open(path).status_code == 404
    assert "demo-bar" not in browser.open("/sign-in").text


@pytest.mark.parametrize("path", ["/demo/", "/demo/mail", "/sign-in", "/programme", "/no-such-page"])
def test_every_page_has_the_bar_and_no_style_or_script_of_its_own(browser: Browser, path: str) -> None:
    response = browser.open(path)
    assert 'class="demo-bar"' in response.text
    assert "<script" not in response.text
    assert "<style" not in response.text
    assert " style=" not in response.text


def test_a_mail_is_shut_in_and_only_there_may_it_have_styles(browser: Browser, tmp_path: Path) -> None:
    with Catcher(tmp_path / "mail") as catcher:
        post(catcher, "anna@example.org", "Grüße <script>")
    page = browser.open("/demo/mail/1")
    assert "Grüße &lt;script&gt;" in page.text
    assert page.headers["Content-Security-Policy"].endswith("frame-src 'self'")
    [frame] = [found for tag, found in browser.page.elements if tag == "iframe"]
    assert frame["sandbox"] == "allow-top-navigation-by-user-activation"

    mail = browser.open(frame["src"])
    policy = mail.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert "allow-scripts" not in policy
    assert mail.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert "'unsafe-inline'" not in browser.open("/demo/mail").headers["Content-Security-Policy"]


def test_a_mail_or_member_that_is_not_there_is_not_found(browser: Browser) -> None:
    browser.open("/demo/")
    token = browser.page.forms[0].fields["csrf_token"]
    assert browser.open("/demo/mail/99").status_code == 404
    assert browser.open("/demo/mail/99/html").status_code == 404
    assert browser.open("/demo/be/nobody", "POST", data={"csrf_token": token}).status_code == 404
    assert browser.open("/demo/use/nobody", "POST", data={"csrf_token": token}).status_code == 404
    assert browser.open("/demo/travel", "POST", data={"csrf_token": token, "to": "mars"}).status_code == 404


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "https://evil.example", "evil"])
def test_a_journey_leads_back_to_this_site_only(app: Flask, browser: Browser, path: str) -> None:
    browser.open("/demo/")
    bar = browser.page.forms[0]
    bar.fields["back"] = path
    answer = browser.press("to", "tomorrow", form=bar, follow=False)
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/demo/"


def test_nothing_happens_on_get(browser: Browser) -> None:
    for path in ("/demo/travel", "/demo/be/m-1", "/demo/use/m-1"):
        assert browser.open(path).status_code == 405


def test_a_journey_lives_through_a_whole_month(app: Flask, browser: Browser, clock: FrozenClock) -> None:
    with app.app_context():
        dormant(db.session())
        for _ in range(30):
            using(db.session())
        db.session.commit()
    app.extensions["dormouse_travel"](NOW + timedelta(days=40))
    with app.app_context():
        closes = {run.period for run in db.session.scalars(select(JobRun).where(JobRun.job == "close"))}
        # The day of the reminder, of the last call, and the month end.
        assert {"2026-06-23", "2026-06-28", "2026-06"} <= closes
        assert db.session.scalars(select(Member.status).where(Member.last_used_at.is_(None))).all() == ["lapsed"]
    assert clock.now() >= NOW + timedelta(days=40)


def test_a_journey_into_the_past_goes_nowhere(app: Flask, clock: FrozenClock) -> None:
    app.extensions["dormouse_travel"](NOW - timedelta(days=1))
    assert clock.now() == NOW


def test_a_journey_stops_wherever_something_falls_due(app: Flask, session: Session) -> None:
    settings = app.extensions["dormouse"].settings
    asked = dormant(session)
    campaign = Campaign(month="2026-06", state="open", policy={}, drafted_at=NOW, opened_at=NOW, dormant_count=1)
    session.add(campaign)
    session.flush()
    deadline = at("2026-06-30 22:00")
    session.add(
        Case(campaign_id=campaign.id, member_id=asked.id, rule="never_used", opened_at=NOW, deadline_at=deadline)
    )
    dormant(
        session,
        status="lapsed",
        lapsed_at=at("2025-09-30 22:00"),
        access_ends_at=at("2025-09-30 22:00"),
        keep_until=at("2026-07-31 22:00"),
    )
    to, now, found = at("2026-08-03 12:00"), NOW, []
    while now < to:
        now = service.next_morning(session, settings, now, to)
        found.append(f"{now.astimezone(settings.zone):%d.%m.}")
    # Seven and two days before 30 June; the firsts of months; thirty days before 1 August; and at least once a week.
    assert " ".join(found) == "10.06. 17.06. 23.06. 28.06. 01.07. 02.07. 09.07. 16.07. 23.07. 30.07. 01.08. 03.08."


def test_the_money_counts_a_year_by_its_months(app: Flask, session: Session) -> None:
    dormant(session, price_minor=1200, billing_interval="month")
    dormant(session, price_minor=12000, billing_interval="year")
    using(session)
    found = service.unused(session, app.extensions["dormouse"].settings, NOW)
    assert (found.members, found.a_month.minor, found.a_month.currency) == (2, 2200, "EUR")


@pytest.fixture
def session(app: Flask) -> Session:
    with app.app_context():
        yield db.session()
