"""The demo's own pages: there in demo mode only, the mails shut in, and journeys that skip no day."""

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

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
    # A link in it opens in the whole window, where one answers.
    assert '<head><base target="_top">' in mail.text
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


def case_of(session: Session, member: Member, **values: Any) -> Case:
    """A live case of this month's open round, warned."""
    campaign = session.scalar(select(Campaign)) or Campaign(
        month="2026-06", state="open", policy={}, drafted_at=NOW, opened_at=NOW, dormant_count=1
    )
    session.add(campaign)
    session.flush()
    values = {"warned_at": NOW, "warned_to": member.email, "deadline_at": at("2026-06-30 22:00"), **values}
    case = Case(campaign_id=campaign.id, member_id=member.id, rule="never_used", opened_at=NOW, **values)
    session.add(case)
    session.flush()
    return case


def lapsed(session: Session, keep_until: str, **values: Any) -> Member:
    ended = {"lapsed_at": at("2026-05-31 22:00"), "access_ends_at": at("2026-05-31 22:00")}
    return dormant(session, status="lapsed", keep_until=at(keep_until), **ended, **values)


def stops(app: Flask, session: Session, now: datetime = NOW) -> dict[str, str]:
    """The stops as the bar has them, by their days."""
    settings = app.extensions["dormouse"].settings
    return {str(place.stop): f"{place.at:%Y-%m-%d}" for place in service.destinations(session, settings, now)}


def test_stops_are_in_the_order_of_their_days_and_only_where_there_is_something_to_see(
    app: Flask, session: Session
) -> None:
    assert list(stops(app, session)) == ["tomorrow", "month_end", "nine_months"]
    case_of(session, dormant(session, paid_through=at("2026-06-10")))
    # Charged on 10 June for the last time, so access ends in July; ten whole months after that.
    assert list(stops(app, session).items()) == [
        ("tomorrow", "2026-06-04"),
        ("reminder", "2026-06-23"),
        ("month_end", "2026-07-01"),
        ("nine_months", "2027-03-03"),
        ("past_keep_until", "2027-06-01"),
    ]
    found = stops(app, session, at("2026-09-20"))
    assert list(found.values()) == sorted(found.values())


def test_past_saved_until_stays_with_this_rounds_members(app: Flask, session: Session) -> None:
    for _ in range(2):
        case_of(session, dormant(session, paid_through=at("2026-06-10")))
    case_of(session, dormant(session), answer="keep", answered_at=NOW, answered_through="link")
    lapsed(session, "2027-03-31 22:00")
    lapsed(session, "2028-03-31 22:00", billing_interval="year")
    assert stops(app, session)["past_keep_until"] == "2027-06-01"
    # The same after the month end, whoever else ends later.
    for member in session.scalars(select(Member).where(Member.paid_through.is_not(None))):
        member.status, member.keep_until = "lapsed", at("2027-05-31 22:00")
        member.lapsed_at = member.access_ends_at = at("2026-06-30 22:00")
    for case in session.scalars(select(Case)):
        case.state, case.closed_at = "withdrawn", at("2026-07-01")
    lapsed(session, "2027-08-31 22:00")
    session.flush()
    assert stops(app, session, at("2026-07-01"))["past_keep_until"] == "2027-06-01"


def person(app: Flask, browser: Browser, role: str, member: Member) -> str:
    """What the first page says of the only one of the cast."""
    path = app.extensions["dormouse"].settings.instance_path / "cast.json"
    path.write_text(json.dumps([{"role": role, "external_id": member.external_id}]))
    found = re.search(r"</h3>(.*?)</p>", browser.open("/demo/").text, re.S)
    assert found is not None
    return " ".join(re.sub(r"<[^>]*>", " ", found[1]).split())


def test_what_is_said_of_a_person_is_true_after_time_has_gone_by(app: Flask, browser: Browser) -> None:
    with app.app_context():
        session = db.session()
        young = using(session, external_id="young", joined_at=at("2026-03-01"), last_used_at=None)
        stopped = dormant(session, external_id="stopped", last_used_at=at("2023-01-01"), joined_at=at("2022-01-01"))
        exempt = dormant(session, external_id="exempt", exempt_reason="staff")
        gone = lapsed(session, "2027-03-31 22:00", external_id="gone")
        session.commit()
        assert person(app, browser, "soon", young) == (
            "Never used it, but joined lately. Joined on 1 March 2026, so there is nothing to ask."
        )
        assert person(app, browser, "exempt", exempt) == "Is never asked. Exempt: the member file says so."
        assert person(app, browser, "lapsed", gone).startswith("Ended already, can come back. Ended on 31 May 2026;")
        assert person(app, browser, "stopped_using", stopped) == (
            "Used it, then stopped. Last used it on 1 January 2023, and will be asked in the next round."
        )

        young.joined_at = at("2024-03-01")
        stopped.last_used_at = at("2026-06-02")
        gone.status, gone.lapsed_at, gone.access_ends_at, gone.keep_until = "active", None, None, None
        gone.returned_at = at("2026-06-02")
        session.commit()
        assert person(app, browser, "soon", young).startswith("Joined, never used it. Joined on 1 March 2024, and")
        assert person(app, browser, "stopped_using", stopped).startswith("Uses it. Last used it on 2 June 2026, so")
        assert person(app, browser, "lapsed", gone).startswith("Joined, never used it. Came back on 2 June 2026, so")
        session.delete(stopped)
        session.commit()
        assert person(app, browser, "stopped_using", stopped) == "All data has been erased."


def test_the_first_page_says_who_was_asked_only_where_somebody_was(app: Flask, browser: Browser) -> None:
    with app.app_context():
        session = db.session()
        said = browser.open("/demo/").text
        assert "At the moment nobody pays" in said
        assert "Nobody is waiting to be asked" in said
        assert "asked by e-mail" not in said
        member = dormant(session)
        session.commit()
        assert "They have not been asked yet" in browser.open("/demo/").text
        case_of(session, member)
        session.commit()
        assert "One person has been asked by e-mail" in browser.open("/demo/").text


def test_who_watched_something_is_named(app: Flask, browser: Browser) -> None:
    with app.app_context():
        using(db.session(), external_id="m-77", name="Eva Blum")
        db.session.commit()
    browser.open("/demo/")
    token = browser.page.forms[0].fields["csrf_token"]
    browser.open("/demo/use/m-77", "POST", data={"csrf_token": token})
    assert "Eva Blum has just watched something." in browser.response.text


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
