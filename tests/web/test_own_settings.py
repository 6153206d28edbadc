"""The pages where members set their address and their language."""

from datetime import datetime

import pytest
from flask import Flask
from sqlalchemy import update
from sqlalchemy.orm import Session

from models import Member, Message, for_writing
from services import own_settings
from services.mail import dispatch
from tests import factories
from tests.doubles import FrozenClock
from tests.web.browser import SITE, Browser


@pytest.fixture
def mia(session: Session, browser: Browser) -> Member:
    row = factories.using(session, email="old@example.org", external_id="C-7", locale="en")
    session.commit()
    browser.sign_in_as(row)
    return row


def mailed(app: Flask, session: Session, clock: FrozenClock) -> dict[str, str | None]:
    """Links by address, as delivery mints them."""
    session.commit()
    for_writing(session)
    with app.app_context():
        claimed = dispatch.claim(session, app.extensions["dormouse"].settings, clock.now(), 10)
    session.commit()
    return {one.to_address: one.link for one in claimed}


def test_an_address_is_changed_by_links_at_both_addresses(
    app: Flask, session: Session, clock: FrozenClock, browser: Browser, another_browser: Browser, mia: Member
) -> None:
    browser.open("/account")
    browser.open(next(link for link in browser.page.links if link.endswith("/account/email")))
    assert "o…@example.org" in browser.page.text
    browser.press(email="new@example.org")
    assert "new@example.org" in browser.page.text
    [(address, link)] = mailed(app, session, clock).items()
    assert address == "new@example.org"
    assert link is not None
    assert link.startswith(f"{SITE}/account/email/")

    another_browser.open(link)
    assert "C-7" not in another_browser.page.text, "nobody has proven yet that it is the member's"
    session.refresh(mia)
    assert mia.email == "old@example.org"
    session.commit()
    another_browser.press()
    assert another_browser.page.h1 == "One more mailbox"
    assert "o…@example.org" not in another_browser.page.text, "it may be a stranger's mailbox, by a slip of the finger"
    session.refresh(mia)
    assert mia.email == "old@example.org"
    [(address, second)] = mailed(app, session, clock).items()
    assert address == "old@example.org"
    assert second is not None

    clock.tick(minutes=2)
    another_browser.open(second)
    assert "n…@example.org" in another_browser.page.text
    another_browser.press("answer", "yes")
    assert another_browser.page.h1 == "Your address is changed"
    assert "We have told the old address." in another_browser.page.text
    session.refresh(mia)
    assert mia.email == "new@example.org"
    session.commit()
    assert mailed(app, session, clock) == {"old@example.org": None}
    another_browser.open(second)
    assert another_browser.response.status_code == 410
    assert another_browser.page.h1 == "This link has been used"
    another_browser.open(link)
    assert another_browser.response.status_code == 410
    another_browser.open(link, "POST", data={"csrf_token": "none"})
    assert another_browser.response.status_code in (400, 410)


@pytest.fixture
def second(
    app: Flask, session: Session, clock: FrozenClock, browser: Browser, another_browser: Browser, mia: Member
) -> str:
    """The link that went to the present address, minutes ago; ``another_browser`` has opened it."""
    browser.open("/account/email")
    browser.press(email="new@example.org")
    [link] = mailed(app, session, clock).values()
    assert link is not None
    another_browser.open(link)
    another_browser.press()
    [link] = mailed(app, session, clock).values()
    assert link is not None
    another_browser.open(link)
    return link


def form_token(browser: Browser) -> dict[str, str]:
    return {"csrf_token": browser.page.form.fields["csrf_token"]}


def test_at_the_old_address_one_says_that_it_was_somebody_else(
    session: Session, browser: Browser, another_browser: Browser, mia: Member, second: str
) -> None:
    another_browser.press("answer", "no")
    assert another_browser.page.h1 == "Your address stays as it is"
    session.refresh(mia)
    assert mia.email == "old@example.org"
    session.commit()
    browser.open("/account")
    assert browser.url == f"{SITE}/sign-in", "who asked for it is signed out"
    another_browser.open(second)
    assert another_browser.response.status_code == 410
    assert another_browser.page.h1 == "This link has been used"


@pytest.mark.parametrize("wish", ["yes", "no"])
@pytest.mark.parametrize("how", ["by its name", "within a minute of the mail"])
def test_scenario_26_a_press_that_a_machine_may_have_made_has_to_be_repeated(
    session: Session, clock: FrozenClock, another_browser: Browser, mia: Member, second: str, how: str, wish: str
) -> None:
    before = mia.email, mia.session_generation
    sent = {**form_token(another_browser), "answer": wish}
    session.execute(
        update(Message)
        .where(Message.kind == "old_address")
        .values(state="sent", sent_at=clock.now(), smtp_reply="250 ok", lease_token=None, lease_until=None)
    )
    session.commit()
    if how == "by its name":
        clock.tick(minutes=5)
        another_browser.client.environ_base["HTTP_USER_AGENT"] = "Mozilla/5.0 (compatible; Barracuda Sentinel bot)"
    else:
        clock.tick(seconds=20)
    another_browser.open(second, "POST", data=sent)
    assert another_browser.page.h1 == "Not saved yet: one step left"
    session.refresh(mia)
    assert (mia.email, mia.session_generation) == before
    session.commit()
    another_browser.press("answer", wish)
    session.refresh(mia)
    generation = mia.session_generation - before[1]
    assert (mia.email, generation) == (("new@example.org", 0) if wish == "yes" else ("old@example.org", 1))


@pytest.mark.parametrize("answer", ["", "perhaps"])
def test_an_answer_that_is_none_is_asked_for_again(
    session: Session, another_browser: Browser, mia: Member, second: str, answer: str
) -> None:
    another_browser.open(second, "POST", data={**form_token(another_browser), "answer": answer})
    assert another_browser.response.status_code == 400
    assert another_browser.page.h1 == "Shall our mails go to another address?"
    session.refresh(mia)
    assert mia.email == "old@example.org"


def test_a_refusal_from_a_page_that_is_too_old_is_asked_for_again(another_browser: Browser, second: str) -> None:
    another_browser.open(second, "POST", data={"answer": "no"})
    assert another_browser.response.status_code == 400
    assert "Shall our mails go to another address?" in another_browser.page.text


def test_scenario_7_at_a_shared_address_the_page_says_which_membership(
    session: Session, another_browser: Browser, mia: Member, second: str
) -> None:
    factories.using(session, email="old@example.org", external_id="C-8", plan="Family")
    session.commit()
    another_browser.open(second)
    assert "C-7" in another_browser.page.text


def test_too_late_is_not_called_used(another_browser: Browser, clock: FrozenClock, second: str) -> None:
    clock.tick(hours=2)
    another_browser.open(second)
    assert another_browser.response.status_code == 410
    assert another_browser.page.h1 == "The time of this link is over"
    assert "sign out on all devices" in another_browser.page.text


def test_the_page_goes_on_in_the_language_of_its_mail(
    session: Session, another_browser: Browser, mia: Member, second: str
) -> None:
    mia.locale = "de"
    session.commit()
    another_browser.open(second)
    assert another_browser.page.language == "de"


def test_where_there_is_no_other_address_nobody_was_told(
    app: Flask, session: Session, clock: FrozenClock, browser: Browser, mia: Member
) -> None:
    mia.mail_state = "bounced"
    session.commit()
    browser.open("/account/email")
    browser.press(email="old@example.org")
    [link] = mailed(app, session, clock).values()
    assert link is not None
    browser.open(link)
    browser.press()
    assert browser.page.h1 == "Your address is changed"
    assert "We have told the old address" not in browser.page.text
    assert mailed(app, session, clock) == {}


def test_who_gets_no_mail_any_more_is_not_asked_at_the_old_address(
    app: Flask, session: Session, clock: FrozenClock, browser: Browser, mia: Member
) -> None:
    mia.mail_state = "bounced"
    session.commit()
    browser.open("/account/email")
    assert "you need not confirm it there" in browser.page.text
    browser.press(email="new@example.org")
    assert "present address" not in browser.page.text, "it is not asked"
    [link] = mailed(app, session, clock).values()
    assert link is not None
    browser.open(link)
    browser.press()
    assert browser.page.h1 == "Your address is changed"


@pytest.mark.parametrize("wanted", ["", "mia", "old@example.org"])
def test_what_is_no_other_address_is_asked_for_again(browser: Browser, mia: Member, wanted: str) -> None:
    browser.open("/account/email")
    browser.press(email=wanted)
    assert browser.response.status_code == 400
    assert browser.page.ids["email"]["aria-invalid"] == "true"
    assert "#email" in browser.page.links
    assert browser.page.form.fields["email"] == wanted


def test_too_many_requests_are_said(browser: Browser, mia: Member) -> None:
    for n in range(6):
        browser.open("/account/email")
        browser.press(email=f"n{n}@example.org")
    assert "Several mails are on their way" in browser.page.text


def test_a_language_is_chosen_and_stays(browser: Browser, session: Session, mia: Member, app: Flask) -> None:
    browser.open("/account?lang=en")
    browser.open("/account/language")
    browser.open(
        "/account/language", "POST", data={"csrf_token": browser.page.form.fields["csrf_token"], "language": "de"}
    )
    assert browser.url == f"{SITE}/account"
    assert browser.page.language == "de"
    session.commit()
    session.refresh(mia)
    assert (mia.locale, mia.locale_chosen_at is not None) == ("de", True)
    session.commit()
    fresh = Browser(app, language="en")
    fresh.sign_in_as(mia)
    session.commit()
    fresh.open("/account")
    assert fresh.page.h1 == "Ihre Mitgliedschaft"


def test_a_language_we_do_not_have_is_not_saved(browser: Browser, session: Session, mia: Member) -> None:
    browser.open("/account/language")
    browser.open(
        "/account/language", "POST", data={"csrf_token": browser.page.form.fields["csrf_token"], "language": "xx"}
    )
    assert browser.response.status_code == 400
    session.refresh(mia)
    assert mia.locale == "en"


@pytest.mark.parametrize("path", ["/account/email", "/account/language"])
def test_strangers_are_asked_to_sign_in(browser: Browser, path: str) -> None:
    browser.open(path)
    assert browser.url == f"{SITE}/sign-in"


def test_a_link_that_is_none_says_where_to_get_one(browser: Browser) -> None:
    browser.open("/account/email/none")
    assert browser.response.status_code == 410
    assert browser.page.h1 == "This link cannot be used"
    assert "/account" in browser.page.links


@pytest.mark.parametrize(("first", "then"), [("no", "yes"), ("yes", "no"), ("yes", "yes")])
def test_of_two_presses_at_once_the_second_is_told_that_the_link_has_been_used(
    session: Session,
    clock: FrozenClock,
    another_browser: Browser,
    mia: Member,
    second: str,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    then: str,
) -> None:
    """Both have found the link good before either has the member's row."""
    look = own_settings.asked_about
    token = second.rpartition("/")[2]
    beforehand = iter([True])

    def looked_at(session: Session, token: str, now: datetime) -> object:
        found = look(session, token, now)
        if next(beforehand, False):
            if first == "yes":
                own_settings.confirm(session, installation.settings, token, now)
            else:
                own_settings.refuse(session, token, now)
        return found

    installation = another_browser.app.extensions["dormouse"]
    monkeypatch.setattr(own_settings, "asked_about", looked_at)
    sent = {**form_token(another_browser), "answer": then}
    clock.tick(minutes=2)
    another_browser.open(f"/account/email/{token}", "POST", data=sent)
    assert another_browser.response.status_code == 410
