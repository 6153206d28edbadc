"""Signing in by a mailed link, and out again."""

import re
from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from blueprints.auth.paths import is_local
from models import MagicLink, Member, Message, for_writing
from services.mail import dispatch
from tests import factories
from tests.doubles import FrozenClock
from tests.web.browser import SITE, Browser


def mailed(app: Flask, session: Session, clock: FrozenClock) -> str:
    """The link in the mail that is due, as delivery mints it."""
    session.commit()
    for_writing(session)
    with app.app_context():
        [claimed] = dispatch.claim(session, app.extensions["dormouse"].settings, clock.now(), 10)
    session.commit()
    assert claimed.link is not None
    return claimed.link


def ask(browser: Browser, email: str) -> None:
    browser.open("/sign-in")
    assert list(browser.page.form.fields) == ["csrf_token", "email"]
    browser.press(email=email)


def signed_in(browser: Browser) -> bool:
    browser.open("/account")
    return browser.url == f"{SITE}/account"


def test_a_member_signs_in_by_mail(app: Flask, session: Session, clock: FrozenClock, browser: Browser) -> None:
    factories.member(session, email="mia@example.org", external_id="m-7007")
    session.commit()
    ask(browser, "mia@example.org")
    assert "If this address belongs to a membership, a mail is on its way" in browser.page.text
    link = mailed(app, session, clock)
    assert link.startswith(f"{SITE}/sign-in/")

    browser.open(link)
    assert browser.response.status_code == 200
    browser.open(link + ".")
    assert browser.response.status_code == 200, "a mail program's full stop is no part of it"
    browser.press()
    assert browser.url == f"{SITE}/account"
    assert "m-7007" in browser.page.text


def test_a_member_reads_it_all_in_german(app: Flask, session: Session, clock: FrozenClock) -> None:
    factories.member(session, email="mia@example.org", locale="de-AT")
    session.commit()
    browser = Browser(app, language="de")
    ask(browser, "mia@example.org")
    assert browser.page.language == "de"
    assert "Wenn zu dieser Adresse eine Mitgliedschaft gehört" in browser.page.text
    browser.language = "en"
    browser.open(mailed(app, session, clock))
    browser.press()
    assert browser.page.h1 == "Ihre Mitgliedschaft", "signed in, it is the member's language"


def test_strangers_and_members_get_the_same_answer(app: Flask, session: Session, browser: Browser) -> None:
    factories.member(session, email="aaa@example.org")
    session.commit()
    answers = []
    for email in ("aaa@example.org", "bbb@example.org"):
        ask(browser, email)
        answers.append((browser.response.status_code, browser.response.text.replace(email, "")))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("email", ["", "mia", "@example.org", "mia@", "m ia@example.org", "a\nb@example.org"])
def test_what_is_no_address_is_asked_for_again_with_what_was_typed(
    session: Session, browser: Browser, email: str
) -> None:
    ask(browser, email)
    assert browser.response.status_code == 400
    assert "not a complete e-mail address" in browser.page.text
    assert browser.page.ids["email"]["aria-describedby"] == "email-wrong email-hint"
    assert "#email" in browser.page.links
    assert session.scalar(select(func.count()).select_from(MagicLink)) == 0


def test_asking_wakes_delivery_after_the_mail_is_in_the_outbox(app: Flask, session: Session, browser: Browser) -> None:
    factories.member(session, email="mia@example.org")
    session.commit()
    seen: list[int] = []

    def wake() -> None:
        session.rollback()
        seen.append(session.scalar(select(func.count()).select_from(Message)) or 0)
        session.rollback()

    app.extensions["dormouse_wake"] = wake
    ask(browser, "mia@example.org")
    assert seen == [1]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_scenario_26_opening_a_sign_in_link_consumes_nothing(
    app: Flask, session: Session, clock: FrozenClock, browser: Browser, another_browser: Browser, method: str
) -> None:
    factories.member(session, email="mia@example.org")
    session.commit()
    ask(browser, "mia@example.org")
    link = mailed(app, session, clock)
    for _ in range(3):
        another_browser.open(link, method=method)
    assert not signed_in(another_browser)
    browser.open(link)
    browser.press()
    assert signed_in(browser)


def test_a_link_signs_in_once_and_then_offers_a_new_one(
    app: Flask, session: Session, clock: FrozenClock, browser: Browser, another_browser: Browser
) -> None:
    factories.member(session, email="mia@example.org")
    session.commit()
    ask(browser, "mia@example.org")
    link = mailed(app, session, clock)
    another_browser.open(link)
    browser.open(link)
    browser.press()
    another_browser.press()
    assert another_browser.response.status_code == 410
    assert "email" in another_browser.page.form.fields
    assert not signed_in(another_browser)


def test_a_link_is_good_for_fifteen_minutes(app: Flask, session: Session, clock: FrozenClock, browser: Browser) -> None:
    factories.member(session, email="mia@example.org")
    session.commit()
    ask(browser, "mia@example.org")
    link = mailed(app, session, clock)
    clock.tick(minutes=15)
    browser.open(link)
    assert browser.response.status_code == 410
    assert "works once, for 15 minutes" in browser.page.text


def test_scenario_07_a_shared_address_asks_which_membership(
    app: Flask, session: Session, clock: FrozenClock, browser: Browser
) -> None:
    factories.member(session, email="family@example.org", external_id="m-1001", plan="Standard", name="Mia")
    second = factories.member(session, email="family@example.org", external_id="m-1002", plan="Family", name=None)
    other = factories.member(session, email="other@example.org")
    session.commit()
    ask(browser, "family@example.org")
    browser.open(mailed(app, session, clock))
    browser.press()
    assert browser.page.h1 == "Which membership?"
    assert "Mia: Standard, customer number m-1001" in browser.page.text
    assert " Family, customer number m-1002" in browser.page.text
    form = browser.page.form
    assert ("member", other.public_id) not in form.buttons

    form.buttons.append(("member", other.public_id))
    browser.press("member", other.public_id, form=form)
    assert browser.response.status_code == 410
    browser.open("/sign-in/which")
    browser.press("member", second.public_id)
    assert browser.url == f"{SITE}/account"
    assert "m-1002" in browser.page.text
    assert "m-1001" not in browser.page.text


def test_the_choice_of_a_membership_lasts_as_long_as_a_link(
    app: Flask, session: Session, clock: FrozenClock, browser: Browser
) -> None:
    first = factories.member(session, email="family@example.org")
    factories.member(session, email="family@example.org")
    session.commit()
    ask(browser, "family@example.org")
    browser.open(mailed(app, session, clock))
    browser.press()
    clock.tick(minutes=15)
    browser.press("member", first.public_id)
    assert browser.response.status_code == 410
    assert not signed_in(browser)


def test_without_a_proven_address_there_is_nothing_to_choose(session: Session, browser: Browser) -> None:
    assert browser.open("/sign-in/which").status_code == 410


@pytest.mark.parametrize("path", ["/sign-in", "/sign-in/some-token"])
def test_scenario_28_a_form_without_its_csrf_token_is_shown_again_and_does_nothing(
    session: Session, browser: Browser, path: str, app: Flask, clock: FrozenClock
) -> None:
    factories.member(session, email="mia@example.org")
    session.commit()
    if path != "/sign-in":
        ask(browser, "mia@example.org")
        path = mailed(app, session, clock)
    before = session.scalar(select(func.count()).select_from(MagicLink))
    browser.open(path)
    browser.press(csrf=False)
    assert browser.response.status_code == 400
    assert "Not saved yet." in browser.page.text
    session.commit()
    assert session.scalar(select(func.count()).select_from(MagicLink)) == before
    assert session.scalar(select(func.count()).where(MagicLink.used_at.is_not(None))) == 0
    assert browser.page.form.buttons


def test_a_form_works_days_later(app: Flask, session: Session, clock: FrozenClock, browser: Browser) -> None:
    browser.open("/sign-in")
    clock.tick(days=2)
    browser.press(email="mia@example.org")
    assert browser.response.status_code == 200


def test_scenario_30_a_token_is_in_the_address_of_its_own_page_and_nowhere_else(
    app: Flask,
    session: Session,
    clock: FrozenClock,
    browser: Browser,
    caplog: pytest.LogCaptureFixture,
) -> None:
    factories.member(session, email="mia@example.org")
    session.commit()
    ask(browser, "mia@example.org")
    token = mailed(app, session, clock).rpartition("/")[2]
    pages = [browser.open(f"/sign-in/{token}"), browser.press(csrf=False), browser.press(follow=False)]
    for response in pages:
        assert token not in response.text
        assert token not in str(response.headers)
    assert token not in caplog.text
    for table in (MagicLink.__table__, Message.__table__):
        assert token not in str(session.execute(select(table)).all())


def test_the_session_says_who_and_which_generation_and_starts_from_nothing(
    app: Flask, session: Session, clock: FrozenClock, browser: Browser
) -> None:
    member = factories.member(session, email="mia@example.org")
    session.commit()
    with browser.client.session_transaction() as kept:
        kept["left_by_somebody"] = "else"
        kept["lang"] = "de"
    ask(browser, "mia@example.org")
    browser.open(mailed(app, session, clock))
    browser.press()
    with browser.client.session_transaction() as kept:
        assert "left_by_somebody" not in kept
        assert kept["lang"] == "de"
        assert kept["_user_id"] == f"{member.public_id}.1"
        assert kept.permanent
    assert "remember_token" not in str(browser.response.headers)


def test_signing_out_is_a_press(session: Session, browser: Browser) -> None:
    member = factories.member(session)
    session.commit()
    browser.sign_in_as(member)
    browser.open("/sign-out")
    assert signed_in(browser)
    browser.open("/sign-out")
    browser.press()
    assert browser.page.h1 == "You are signed out"
    assert not signed_in(browser)


def test_signing_out_everywhere_ends_every_session_of_this_member_only(
    session: Session, browser: Browser, another_browser: Browser, app: Flask
) -> None:
    member, other = factories.member(session), factories.member(session)
    session.commit()
    third = Browser(app)
    browser.sign_in_as(member)
    another_browser.sign_in_as(member)
    third.sign_in_as(other)
    browser.open("/account")
    [everywhere] = [form for form in browser.page.forms if form.action.endswith("/everywhere")]
    browser.press(form=everywhere)
    assert browser.page.h1 == "You are signed out"
    assert not signed_in(another_browser)
    assert signed_in(third)


def test_a_purged_member_is_no_longer_signed_in(session: Session, browser: Browser) -> None:
    member = factories.member(session)
    session.commit()
    browser.sign_in_as(member)
    assert signed_in(browser)
    erased = ("external_id", "email", "email_key", "name", "billing_ref")
    for name in erased:
        setattr(member, name, None)
    member.status, member.purged_at = "purged", member.joined_at
    session.commit()
    assert not signed_in(browser)


@pytest.mark.parametrize("forged", ["", "x", "1.1", "a.b.c", "{}.2", "{}.", "{}.1x", "{}.²"])
def test_a_session_that_names_nobody_is_nobody(session: Session, browser: Browser, forged: str) -> None:
    member = factories.member(session)
    session.commit()
    with browser.client.session_transaction() as kept:
        kept["_user_id"] = forged.format(member.public_id)
    assert not signed_in(browser)


def test_after_signing_in_one_gets_the_page_one_asked_for(
    app: Flask, session: Session, clock: FrozenClock, browser: Browser
) -> None:
    factories.member(session, email="mia@example.org")
    session.commit()
    browser.open("/account/erase")
    assert browser.url == f"{SITE}/sign-in"
    ask(browser, "mia@example.org")
    browser.open(mailed(app, session, clock))
    browser.press()
    assert browser.url == f"{SITE}/account/erase"


@pytest.mark.parametrize(
    "elsewhere",
    ["//evil.example", "/\\evil.example", "https://evil.example", "\\\\evil.example", "/\t/evil.example", "evil", ""],
)
def test_signing_in_never_leads_to_another_site(
    app: Flask, session: Session, clock: FrozenClock, browser: Browser, elsewhere: str
) -> None:
    assert not is_local(elsewhere)
    factories.member(session, email="mia@example.org")
    session.commit()
    browser.response = browser.client.get("/sign-in", query_string={"next": elsewhere})
    ask(browser, "mia@example.org")
    browser.open(mailed(app, session, clock))
    browser.press()
    assert browser.url == f"{SITE}/account"


def test_too_many_requests_from_one_address_of_the_net_are_answered_with_429(browser: Browser) -> None:
    for n in range(30):
        ask(browser, f"somebody{n}@example.org")
        assert browser.response.status_code == 200
    ask(browser, "another@example.org")
    assert browser.response.status_code == 429
    assert browser.page.h1 == "A little slower, please"


def test_behind_a_proxy_the_limit_counts_the_visitor_and_not_the_proxy(
    make_app: Callable[..., Flask], session: Session
) -> None:
    client = make_app(trusted_proxies=1).test_client()
    for n in range(2):
        html = client.get("/sign-in").text
        token = re.search(r'name="csrf_token" value="([^"]+)"', html)
        assert token is not None
        client.post(
            "/sign-in",
            data={"email": f"somebody{n}@example.org", "csrf_token": token[1]},
            headers={"X-Forwarded-For": f"198.51.100.99, 192.0.2.{n}"},
        )
    assert session.scalar(select(func.count(func.distinct(MagicLink.ip_digest)))) == 2


def test_who_is_signed_in_costs_one_query(app: Flask, session: Session, browser: Browser) -> None:
    member = factories.member(session)
    session.commit()
    browser.sign_in_as(member)
    with app.app_context():
        from models import db

        engine = db.engine
    seen: list[str] = []

    @db.event.listens_for(engine, "before_cursor_execute")
    def count(connection, cursor, statement, *rest):  # type: ignore[no-untyped-def]
        if statement.startswith("SELECT"):
            seen.append(statement)

    browser.open("/", follow=False)
    db.event.remove(engine, "before_cursor_execute", count)
    assert len(seen) == 1
    assert session.scalar(select(Member.id)) == member.id
