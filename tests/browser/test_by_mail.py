"""What is done behind the links of mails: real ones, delivered to a server, read there, and followed in a browser."""

import re
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from flask import Flask
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from models import Member
from tests import factories
from tests.browser.conftest import Looks
from tests.doubles import FrozenClock, SmtpCatcher

pytestmark = pytest.mark.parametrize("context", [True, False], ids=["scripts", "no-scripts"], indirect=True)
"""No flow needs a script."""

PRESENT, NEW = "mia@example.org", "mia.new@example.org"


class Words(NamedTuple):
    sign_in: str
    your_address: str
    send_sign_in: str
    look: str
    one_more_step: str
    membership: str
    change: str
    new_address: str
    send_link: str
    confirm_new: str
    confirm: str
    one_more_mailbox: str
    shall_it: str
    use_it: str
    changed: str
    to_membership: str
    to_erasing: str
    erasing: str
    send_mail: str
    last_step: str
    erase: str
    erased: str


WORDS = {
    "en": Words(
        sign_in="Sign in",
        your_address="Your e-mail address",
        send_sign_in="Send me a sign-in link",
        look="Look into your mailbox",
        one_more_step="One more step",
        membership="Your membership",
        change="Change your e-mail address",
        new_address="Your new e-mail address",
        send_link="Send the link",
        confirm_new="Confirm your new address",
        confirm="Confirm this address",
        one_more_mailbox="One more mailbox",
        shall_it="Shall our mails go to another address?",
        use_it="Use the new address",
        changed="Your address is changed",
        to_membership="Go to your membership",
        to_erasing="Have your data deleted for good",
        erasing="Delete your data for good",
        send_mail="Send me this mail",
        last_step="The last step",
        erase="Delete my data for good",
        erased="Your data is deleted for good",
    ),
    "de": Words(
        sign_in="Anmelden",
        your_address="Ihre E-Mail-Adresse",
        send_sign_in="Link zum Anmelden schicken",
        look="Bitte sehen Sie in Ihr Postfach",
        one_more_step="Noch ein Schritt",
        membership="Ihre Mitgliedschaft",
        change="E‑Mail‑Adresse ändern",
        new_address="Ihre neue E-Mail-Adresse",
        send_link="Link schicken",
        confirm_new="Bestätigen Sie Ihre neue Adresse",
        confirm="Diese Adresse bestätigen",
        one_more_mailbox="Noch ein Postfach",
        shall_it="Sollen unsere E-Mails an eine andere Adresse gehen?",
        use_it="Neue Adresse verwenden",
        changed="Ihre Adresse ist geändert",
        to_membership="Zu Ihrer Mitgliedschaft",
        to_erasing="Ihre Daten endgültig löschen lassen",
        erasing="Ihre Daten endgültig löschen",
        send_mail="Diese E-Mail schicken",
        last_step="Der letzte Schritt",
        erase="Meine Daten endgültig löschen",
        erased="Ihre Daten sind endgültig gelöscht",
    ),
}


@dataclass
class Mailbox:
    """What the application's own delivery brings to a mail server."""

    app: Flask
    smtp: SmtpCatcher
    clock: FrozenClock

    def text(self, address: str) -> str:
        """Of the only mail that is due, which goes to this address."""
        self.smtp.mails.clear()
        self.app.extensions["dormouse_jobs"].run("deliver", self.clock.now())
        [mail] = self.smtp.mails
        assert mail.recipients == [address]
        body = mail.message.get_body(("plain",))
        assert body is not None
        return str(body.get_content())

    def link(self, address: str) -> str:
        [link] = re.findall(r"http\S+", self.text(address))
        return str(link)


@pytest.fixture
def mailbox(app: Flask, smtp: SmtpCatcher, clock: FrozenClock) -> Mailbox:
    return Mailbox(app, smtp, clock)


def mia(session: Session, language: str) -> Member:
    # Nothing is charged, so that an erasure need not wait for a payment provider.
    member = factories.using(
        session, email=PRESENT, name="Mia Carter", locale=language, price_minor=0, billing_ref=None
    )
    session.commit()
    return member


def ask_for_a_link(page: Page, site: str, language: str) -> None:
    words = WORDS[language]
    page.goto(f"{site}/sign-in?lang={language}")
    page.get_by_label(words.your_address).fill(PRESENT)
    page.get_by_role("button", name=words.send_sign_in).click()
    expect(page.locator("h1")).to_have_text(words.look)


def ask_for_another_address(page: Page, language: str) -> None:
    """On the page of the membership."""
    words = WORDS[language]
    page.get_by_role("link", name=words.change).click()
    page.get_by_label(words.new_address).fill(NEW)
    page.get_by_role("button", name=words.send_link).click()
    expect(page.locator("h1")).to_have_text(words.look)


def address_of(session: Session, member: Member) -> str | None:
    session.refresh(member)
    email = member.email
    session.commit()
    return email


@pytest.mark.parametrize("language", ["en", "de"])
def test_sign_in_change_the_address_and_erase(
    page: Page, session: Session, site: str, clock: FrozenClock, mailbox: Mailbox, looks_right: Looks, language: str
) -> None:
    member, words = mia(session, language), WORDS[language]
    ask_for_a_link(page, site, language)
    looks_right(page, words.look)
    page.goto(mailbox.link(PRESENT))
    looks_right(page, words.one_more_step)
    page.get_by_role("button", name=words.sign_in).click()
    looks_right(page, words.membership)

    ask_for_another_address(page, language)
    looks_right(page, words.look)
    page.goto(mailbox.link(NEW))
    looks_right(page, words.confirm_new)
    page.get_by_role("button", name=words.confirm).click()
    looks_right(page, words.one_more_mailbox)
    assert address_of(session, member) == PRESENT

    link = mailbox.link(PRESENT)
    # Sooner, one step would be left: it could be a machine that presses.
    clock.tick(minutes=2)
    page.goto(link)
    looks_right(page, words.shall_it)
    page.get_by_role("button", name=words.use_it).click()
    looks_right(page, words.changed)
    assert address_of(session, member) == NEW
    assert "http" not in mailbox.text(PRESENT), "it is told, and has no say any more"

    page.get_by_role("link", name=words.to_membership).click()
    expect(page.locator("h1")).to_have_text(words.membership)
    expect(page.get_by_text(NEW)).to_be_visible()
    page.get_by_role("link", name=words.to_erasing).click()
    looks_right(page, words.erasing)
    page.get_by_role("button", name=words.send_mail).click()
    expect(page.get_by_role("status")).to_be_visible()
    page.goto(mailbox.link(NEW))
    looks_right(page, words.last_step)
    assert address_of(session, member) == NEW
    page.get_by_role("button", name=words.erase).click()
    looks_right(page, words.erased)
    mailbox.text(NEW)
    assert address_of(session, member) is None
    page.goto(f"{site}/account")
    expect(page.locator("h1")).to_have_text(words.sign_in)


def test_that_was_not_me(page: Page, session: Session, site: str, mailbox: Mailbox, looks_right: Looks) -> None:
    member = mia(session, "en")
    ask_for_a_link(page, site, "en")
    page.goto(mailbox.link(PRESENT))
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("h1")).to_have_text("Your membership")
    ask_for_another_address(page, "en")
    page.goto(mailbox.link(NEW))
    page.get_by_role("button", name="Confirm this address").click()
    expect(page.locator("h1")).to_have_text("One more mailbox")
    page.goto(f"{site}/account")
    expect(page.locator("h1")).to_have_text("Your membership")
    whoever_asked = page.context.cookies()

    # Somebody else in a browser of their own, within seconds of the mail, when it could be a machine that presses.
    page.context.clear_cookies()
    page.goto(mailbox.link(PRESENT))
    page.get_by_role("button", name="That was not me").click()
    looks_right(page, "Not saved yet: one step left")
    page.get_by_role("button", name="That was not me").click()
    looks_right(page, "Your address stays as it is")
    assert address_of(session, member) == PRESENT

    page.context.clear_cookies()
    page.context.add_cookies(whoever_asked)  # type: ignore[arg-type]
    page.goto(f"{site}/account")
    expect(page.locator("h1")).to_have_text("Sign in")
