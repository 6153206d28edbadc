"""The come-back page: what it shows, what it orders, and what it says where there is nothing to order."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain.links import Purpose
from domain.notices import Kind
from models import Event, MagicLink, Member, Message
from services import magic_links, outbox
from services.mail.sample import sample
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import accept_mails, kinds_to, orders_of, purge
from tests.web.browser import SITE, Browser

GENERAL = "Let us see what is waiting for you"
UNKNOWN = "This link leads nowhere any more"
RUNS_AGAIN = "Welcome back: your membership runs again"
ENDED = at("2026-04-30 22:00")
KEPT = at("2027-02-28 23:00")


@pytest.fixture
def settings(app: Flask) -> Settings:
    found: Settings = app.extensions["dormouse"].settings
    return found


@pytest.fixture
def lapsed(session: Session) -> Member:
    """Ended with April, saved until the end of February, with two profiles of two lists each."""
    row = factories.member(
        session,
        external_id="K-1001",
        email="mia@example.org",
        status="lapsed",
        lapsed_at=ENDED,
        access_ends_at=ENDED,
        keep_until=KEPT,
    )
    factories.library(session, row, items=7)
    session.commit()
    return row


def link(session: Session, member: Member, expires_at: object = KEPT) -> str:
    assert member.email is not None
    token = magic_links.mint(session, Purpose.COME_BACK, member.id, member.email, expires_at, NOW)  # type: ignore[arg-type]
    session.commit()
    return f"{SITE}/come-back/{token}"


@pytest.fixture
def url(session: Session, lapsed: Member) -> str:
    return link(session, lapsed)


def orders(browser: Browser) -> list[str]:
    return [value for form in browser.page.forms for name, value in form.buttons if name == "order"]


def everything(session: Session) -> tuple[object, ...]:
    session.commit()
    found = (
        session.execute(select(Member.id, Member.status, Member.last_sign_of_life_at)).all(),
        session.execute(select(MagicLink.id, MagicLink.used_at)).all(),
        session.scalar(select(func.count()).select_from(Message)),
        session.scalar(select(func.count()).select_from(Event)),
    )
    session.commit()
    return found


def change(session: Session, member: Member, **facts: object) -> None:
    for name, value in facts.items():
        setattr(member, name, value)
    session.commit()


def status(session: Session, member: Member) -> str:
    session.commit()
    found = member.status
    session.commit()
    return found


def test_the_page_shows_what_is_waiting_the_price_the_day_and_until_when(browser: Browser, url: str) -> None:
    assert browser.open(url).status_code == 200
    assert browser.page.h1 == "Everything is still here"
    text = browser.page.text
    for said in (
        "Your membership ended on 30 April 2026",
        "saved until Sunday, 28 February 2027",
        "€12.99 a month",
        "today, Wednesday, 3 June 2026: €12.99",
        "Restart and pay €12.99 a month",
        "Mia",
        "Kids",
        "favourites (7 titles)",
        "Title 0",
        "and 2 more Title 5 Title 6",
        "Looking at this page orders nothing.",
        "m…@example.org",
        "K-1001",
    ):
        assert said in text, said
    [form] = browser.page.forms
    assert (form.method, form.buttons) == ("post", [("order", "restart")])
    assert browser.response.headers["Cache-Control"] == "no-store"
    assert browser.response.headers["Referrer-Policy"] == "same-origin"


def test_the_page_in_german(browser: Browser, session: Session, lapsed: Member, url: str) -> None:
    change(session, lapsed, locale="de")
    browser.open(url)
    assert browser.page.language == "de"
    assert browser.page.h1 == "Alles ist noch da"
    assert "Zahlungspflichtig bestellen" in browser.page.text
    assert "12,99" in browser.page.text
    assert "bis Sonntag, 28. Februar 2027 gespeichert" in browser.page.text
    browser.press("order", "restart")
    assert browser.page.h1 == "Willkommen zurück"
    assert "Die erste Abbuchung ist am Mittwoch, 3. Juni 2026" in browser.page.text


def test_looking_changes_nothing_and_uses_no_link_up(browser: Browser, session: Session, url: str) -> None:
    before = everything(session)
    for method in ("GET", "HEAD", "OPTIONS", "GET"):
        assert browser.open(url, method).status_code == 200
    assert everything(session) == before


def test_a_restart_is_ordered_once_and_uses_the_link_up(
    browser: Browser, another_browser: Browser, session: Session, lapsed: Member, url: str
) -> None:
    browser.open(url)
    another_browser.open(url)
    assert browser.press("order", "restart").status_code == 200
    assert browser.page.h1 == "Welcome back"
    assert "The first charge is made on Wednesday, 3 June 2026: €12.99." in browser.page.text
    assert status(session, lapsed) == "active"
    assert lapsed.returned_at == NOW
    assert orders_of(session, lapsed) == [("restart", "queued")]
    assert kinds_to(session, lapsed) == ["welcome_back"]
    before = everything(session)
    another_browser.press("order", "restart")
    assert another_browser.page.h1.strip() == RUNS_AGAIN
    assert everything(session) == before
    assert browser.open(url).status_code == 200
    assert browser.page.h1.strip() == RUNS_AGAIN
    assert "K-1001" not in browser.response.text
    assert orders(browser) == []


def test_the_used_link_of_who_has_ended_again_says_nothing_of_now(
    browser: Browser, session: Session, lapsed: Member, url: str
) -> None:
    browser.open(url)
    browser.press("order", "restart")
    session.commit()
    change(session, lapsed, status="lapsed", lapsed_at=ENDED, access_ends_at=ENDED, keep_until=KEPT)
    browser.open(url)
    assert browser.page.h1 == GENERAL


def test_after_the_purge_the_link_says_that_all_is_deleted(
    browser: Browser, session: Session, settings: Settings, lapsed: Member, clock: FrozenClock, url: str
) -> None:
    """Its row went with everything else, so the page says what is true of whoever holds a link without one."""
    change(session, lapsed, mail_state="bounced")
    gone = KEPT + timedelta(days=1)
    assert purge(session, settings, gone) == 1
    session.commit()
    clock.travel(gone)
    browser.open(url)
    assert browser.page.h1 == UNKNOWN
    assert "they have been deleted for good. Nobody can bring them back" in browser.page.text
    assert "no mail of ours can reach you" in browser.page.text


@pytest.mark.parametrize("added", [".", ",", ")", ">", ").", "%3E"])
def test_what_a_mail_program_adds_to_a_link_is_no_part_of_it(browser: Browser, url: str, added: str) -> None:
    browser.open(url + added)
    assert browser.page.h1 == "Everything is still here"
    browser.press("order", "restart")
    assert browser.page.h1 == "Welcome back"


def test_an_order_at_a_changed_price_leads_to_the_page_anew(
    browser: Browser, session: Session, lapsed: Member, url: str
) -> None:
    """By a redirect: a browser's way back then leads to a page that was opened, not to one that was sent."""
    browser.open(url)
    change(session, lapsed, price_minor=1399)
    assert browser.press("order", "restart", follow=False).status_code == 303
    browser.open(browser.response.headers["Location"])
    assert "Nothing has been ordered." in browser.page.text
    assert "€13.99" in browser.page.text


def test_inside_the_paid_period_the_end_is_taken_back(
    browser: Browser, session: Session, lapsed: Member, url: str
) -> None:
    change(session, lapsed, access_ends_at=at("2026-08-14 22:00"), keep_until=at("2027-06-30 22:00"))
    browser.open(url)
    assert orders(browser) == ["undo"]
    assert "Friday, 14 August 2026" in browser.page.text
    assert "Saturday, 15 August 2026: €12.99, nothing before that" in browser.page.text
    browser.press("order", "undo")
    assert browser.page.h1 == "Welcome back"
    assert "The next charge is on Saturday, 15 August 2026 as before" in browser.page.text
    assert status(session, lapsed) == "active"


def test_a_free_membership_names_no_charge(browser: Browser, session: Session, lapsed: Member, url: str) -> None:
    change(session, lapsed, price_minor=0)
    browser.open(url)
    assert "none: it is free of charge" in browser.page.text
    assert "Restart and pay" not in browser.page.text
    browser.press("order", "restart")
    assert status(session, lapsed) == "active"
    assert orders_of(session, lapsed) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"price_minor": 1399},
        {"currency": "CHF"},
        {"billing_interval": "year"},
        {"access_ends_at": at("2026-08-14 22:00")},
    ],
    ids=lambda changed: "-".join(changed),
)
def test_scenario_31_what_changed_since_the_page_was_shown_is_not_ordered(
    browser: Browser, session: Session, lapsed: Member, url: str, changed: dict[str, object]
) -> None:
    browser.open(url)
    change(session, lapsed, **changed)
    before = everything(session)
    assert browser.press("order", "restart").status_code == 200
    assert "Nothing has been ordered." in browser.page.text
    assert everything(session) == before
    browser.press("order", orders(browser)[0])
    assert browser.page.h1 == "Welcome back"


def test_scenario_31_a_page_of_yesterday_names_another_first_charge(
    browser: Browser, session: Session, lapsed: Member, url: str, clock: FrozenClock
) -> None:
    browser.open(url)
    clock.tick(days=1)
    browser.press("order", "restart")
    assert "Nothing has been ordered." in browser.page.text
    assert "today, Thursday, 4 June 2026" in browser.page.text
    assert status(session, lapsed) == "lapsed"


@pytest.mark.parametrize(
    "broken",
    [{"price": "1"}, {"price": "x"}, {"kind": "undo"}, {"first_charge": "2026-06-03T10:00"}, {"saved_until": "soon"}],
    ids=str,
)
def test_a_form_that_was_tampered_with_orders_nothing(
    browser: Browser, session: Session, url: str, broken: dict[str, str]
) -> None:
    before = everything(session)
    browser.open(url)
    assert browser.press("order", "restart", **broken).status_code == 200
    assert "Nothing has been ordered." in browser.page.text
    assert everything(session) == before


def test_an_unknown_order_and_a_missing_csrf_token_show_the_page_again(
    browser: Browser, session: Session, url: str
) -> None:
    before = everything(session)
    browser.open(url)
    fields = browser.page.form.fields
    assert browser.open(url, "POST", data={**fields, "order": "everything"}).status_code == 400
    assert orders(browser) == ["restart"]
    assert browser.press("order", "restart", csrf=False).status_code == 400
    assert orders(browser) == ["restart"]
    assert "Not saved yet" in browser.page.text
    assert everything(session) == before


def test_a_button_that_is_not_on_the_page_orders_nothing(browser: Browser, session: Session, url: str) -> None:
    before = everything(session)
    browser.open(url)
    browser.open(url, "POST", data={**browser.page.form.fields, "order": "undo"})
    assert "Nothing has been ordered." in browser.page.text
    assert orders(browser) == ["restart"]
    assert everything(session) == before


def test_a_client_that_calls_itself_a_machine_orders_nothing(
    browser: Browser, session: Session, lapsed: Member, url: str
) -> None:
    browser.client.environ_base["HTTP_USER_AGENT"] = "Mozilla/5.0 (compatible; MailScanner/5)"
    browser.open(url)
    assert browser.press("order", "restart").status_code == 200
    assert browser.page.h1 == "Not saved yet: one step left"
    assert status(session, lapsed) == "lapsed"
    browser.press("order", "restart")
    assert status(session, lapsed) == "active"


def test_past_keep_until_but_not_yet_purged_it_still_works(
    browser: Browser, session: Session, lapsed: Member, clock: FrozenClock
) -> None:
    clock.travel(KEPT + timedelta(days=2))
    browser.sign_in_as(lapsed)
    browser.open("/come-back")
    assert "That day is over, but nothing has been deleted yet" in browser.page.text
    browser.press("order", "restart")
    assert browser.page.h1 == "Welcome back"


def test_signed_in_the_page_has_one_form_and_orders_for_oneself(
    browser: Browser, session: Session, lapsed: Member
) -> None:
    browser.sign_in_as(lapsed)
    browser.open("/come-back")
    assert [form.buttons for form in browser.page.forms] == [[("order", "restart")]]
    assert "/sign-out" in browser.page.links, "a link, for the page has one form"
    browser.press("order", "restart")
    assert browser.page.h1 == "Welcome back"
    assert status(session, lapsed) == "active"
    before = everything(session)
    browser.open("/come-back")
    assert browser.page.h1.strip() == "Your membership is active"
    assert orders(browser) == []
    assert everything(session) == before


def test_two_tabs_order_once(browser: Browser, session: Session, lapsed: Member) -> None:
    browser.sign_in_as(lapsed)
    browser.open("/come-back")
    form = browser.page.form
    browser.press("order", "restart")
    before = everything(session)
    browser.url = SITE + "/come-back"
    browser.press("order", "restart", form=form)
    assert browser.page.h1.strip() == "Your membership is active"
    assert everything(session) == before


def test_whoever_is_signed_in_orders_for_the_member_of_the_link(
    browser: Browser, session: Session, lapsed: Member, url: str
) -> None:
    somebody_else = factories.using(session)
    session.commit()
    browser.sign_in_as(somebody_else)
    browser.open(url)
    browser.press("order", "restart")
    assert browser.page.h1 == "Welcome back"
    assert status(session, lapsed) == "active"


def test_an_ended_membership_is_no_matter_of_this_page(browser: Browser, session: Session) -> None:
    ended = factories.member(session, status="ended")
    session.commit()
    browser.sign_in_as(ended)
    browser.open("/come-back")
    assert browser.page.h1.strip() == "Your membership has ended"
    assert orders(browser) == []


def test_links_that_open_nothing_offer_a_new_one(
    browser: Browser, session: Session, lapsed: Member, clock: FrozenClock, url: str
) -> None:
    sign_in = magic_links.mint(session, Purpose.SIGN_IN, lapsed.id, "mia@example.org", KEPT, NOW)
    session.commit()
    expired = link(session, lapsed, expires_at=NOW)
    for broken in (url[:-1], url + "x", url + "/", f"/come-back/{sign_in}", expired):
        assert browser.open(broken).status_code == 200
        assert browser.page.h1 == (UNKNOWN if sign_in in broken else GENERAL)
        assert browser.page.form.action == "/sign-in"
        assert "K-1001" not in browser.response.text
    change(session, lapsed, email="other@example.org", email_key="other@example.org")
    browser.open(url)
    assert browser.page.h1 == GENERAL


def test_strangers_are_told_what_may_be_waiting_and_led_there(
    browser: Browser, session: Session, lapsed: Member, clock: FrozenClock
) -> None:
    """Who comes by memory or from a search: the page says nothing about anybody, and asks for the mailbox."""
    browser.open("/programme")
    assert "/come-back" in browser.page.links
    browser.open("/come-back")
    assert "saved for 10 months" in browser.page.text
    assert browser.response.headers["X-Robots-Tag"] == "all"
    browser.press(email="mia@example.org")
    assert "mail is on its way" in browser.page.text
    assert lapsed.email is not None
    token = magic_links.mint(session, Purpose.SIGN_IN, lapsed.id, lapsed.email, KEPT, NOW)
    session.commit()
    browser.open(f"/sign-in/{token}")
    browser.press()
    assert browser.url.endswith("/come-back")
    assert browser.page.h1 == "Everything is still here"


def test_it_says_when_the_service_was_last_used(browser: Browser, session: Session, url: str, lapsed: Member) -> None:
    browser.open(url)
    assert "You have not used Lumio since you joined on 15 January 2025." in browser.page.text
    change(session, lapsed, last_used_at=at("2025-03-01 20:00"))
    browser.open(url)
    assert "You last used Lumio on 1 March 2025." in browser.page.text


def test_scenario_26_a_press_within_a_minute_of_the_mail_has_to_be_made_once_more(
    browser: Browser, session: Session, settings: Settings, url: str, lapsed: Member, clock: FrozenClock
) -> None:
    outbox.put(session, kind=Kind.LAST_CHANCE, once_key="last_chance", now=NOW, member=lapsed)
    session.commit()
    accept_mails(session, settings, NOW)
    before = everything(session)
    browser.open(url)
    browser.press("order", "restart")
    assert browser.page.h1 == "Not saved yet: one step left"
    assert everything(session) == before
    browser.press("order", "restart")
    assert browser.page.h1 == "Welcome back"


@pytest.mark.parametrize(("language", "shown"), [("en", "Withdraw within 14 days."), ("de", "Binnen 14 Tagen.")])
def test_the_right_of_withdrawal_is_beside_the_order_and_in_the_mail(
    make_app: Callable[..., Flask], session: Session, url: str, language: str, shown: str
) -> None:
    app = make_app(withdrawal_notice_en="Withdraw within 14 days.\\nTell us.", withdrawal_notice_de="Binnen 14 Tagen.")
    browser = Browser(app)
    browser.open(f"{url}?lang={language}")
    assert shown in browser.page.text
    assert "withdrawal" in browser.page.ids
    with app.app_context():
        mail = sample(app.extensions["dormouse"].settings, Kind.WELCOME_BACK, language, "mia@example.org", NOW)
    assert shown in mail.text


def test_without_a_right_of_withdrawal_nothing_is_said_of_it(browser: Browser, url: str) -> None:
    browser.open(url)
    assert "withdrawal" not in browser.page.ids


def test_after_the_purge_the_way_leads_to_the_service(
    make_app: Callable[..., Flask], session: Session, url: str, lapsed: Member
) -> None:
    app = make_app(service_url="https://www.lumio.example")
    change(session, lapsed, status="ended", lapsed_at=None, access_ends_at=None, keep_until=None)
    browser = Browser(app)
    browser.open(url)
    assert "https://www.lumio.example" in browser.page.links
