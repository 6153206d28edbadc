"""A service that says "du" or "Abo" does so everywhere: on every page a member sees, and in every mail."""

from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from domain.lifecycle import Answer, Through
from domain.notices import TO_OPERATORS, WORDING_VERSION, Kind
from models import db
from services import decisions
from services.mail.sample import sample
from tests.catalogues import FORMAL
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.services.support import case_of
from tests.web.browser import Browser
from tests.web.everywhere import LATER, addresses, cast

WORDS = [("Mitgliedschaft", "du"), ("Abo", "sie"), ("Abo", "du")]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Words do not depend on the database."""
    return sqlite_url


@pytest.fixture
def session(app: Flask) -> Session:
    with app.app_context():
        return Session(db.engine)


@pytest.mark.parametrize(("word", "form"), WORDS)
def test_pages_and_mails_keep_to_the_words_that_were_chosen(
    make_app: Callable[..., Flask], session: Session, clock: FrozenClock, word: str, form: str
) -> None:
    app = make_app(membership_word=word, german_form=form)
    settings = app.extensions["dormouse"].settings
    people = cast(session, settings, locale="de")
    clock.travel(LATER)
    said = {}
    for member in (people.asked, people.lapsed, None):
        browser = Browser(app, language="de")
        if member is not None:
            browser.sign_in_as(member)
        for endpoint, path in addresses(app, people, "GET"):
            answer = browser.open(path, follow=False)
            if answer.mimetype == "text/html" and not endpoint.startswith("console."):
                said[endpoint, member] = browser.page.text + browser.page.title
            answer.close()
    with app.app_context():
        for kind in set(Kind) - set(TO_OPERATORS):
            mail = sample(settings, kind, "de", "mia@example.org", NOW)
            # "Sie" of what is no person begins a sentence, or follows the greeting.
            said[kind, None] = f"{mail.subject}\n{mail.text}"
    session.close()
    assert len(said) > 40
    for what, text in said.items():
        if form == "du":
            assert not FORMAL.search(text), (what, FORMAL.search(text))
        if word == "Abo":
            assert "itgliedschaft" not in text, (what, text)


def test_english_says_subscription(make_app: Callable[..., Flask]) -> None:
    browser = Browser(make_app(membership_word="Abo"))
    browser.open("/programme")
    assert "You keep your subscription or end it" in browser.page.text
    assert "membership" not in browser.response.text.lower().replace("/end-membership", "")


def test_an_answer_remembers_the_words(make_app: Callable[..., Flask], session: Session) -> None:
    settings = make_app(membership_word="Abo", german_form="du").extensions["dormouse"].settings
    people = cast(session, settings)
    decisions.answer(session, settings, people.case.id, Answer.KEEP, Through.LINK, NOW)
    session.commit()
    assert case_of(session, people.asked).wording_version == f"{WORDING_VERSION}/abo-du"
    session.close()
