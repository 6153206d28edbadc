"""The signed-in pages: the membership in plain words, its end by one's own wish, its data."""

import json
from io import BytesIO
from zipfile import ZipFile

import pytest
from flask import Flask
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from blueprints.account.history import SENT
from domain.notices import TO_OPERATORS, Kind
from models import (
    BillingOrder,
    Case,
    Event,
    ListItem,
    MagicLink,
    Member,
    Message,
    Profile,
    SavedList,
    SignIn,
    db,
)  # fmt: skip
from services import events
from settings import ROOT
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import accept_mails, opened
from tests.web.browser import SITE, Browser, Page
from tests.web.test_auth import mailed

EVERY_PAGE_LOADS = ("dormouse.css", "dormouse.svg", "vendor/simple-2.3.7.min.css")


def here(browser: Browser, session: Session, member: Member, path: str = "/account") -> str:
    session.commit()
    browser.sign_in_as(member)
    browser.open(path)
    assert browser.response.status_code == 200
    return browser.page.text


def lapsed(session: Session, **facts: object) -> Member:
    """Ended with 30 June, saved until 30 April."""
    return factories.member(
        session,
        **{
            "status": "lapsed",
            "lapsed_at": at("2026-06-30 22:00"),
            "access_ends_at": at("2026-06-30 22:00"),
            "keep_until": at("2027-04-30 22:00"),
            **facts,
        },
    )


@pytest.mark.parametrize("path", ["/account", "/account/end", "/account/data", "/account/erase"])
def test_nobody_sees_a_membership_without_signing_in(browser: Browser, path: str) -> None:
    browser.open(path)
    assert browser.url == f"{SITE}/sign-in"


def test_a_membership_in_plain_words(session: Session, browser: Browser) -> None:
    member = factories.stopped_using(session, external_id="m-77", plan="Standard", paid_through=at("2026-06-30 22:00"))
    text = here(browser, session, member)
    for fact in ("m-77", "Standard", "€12.99 a month", "2 May 2022", "1 March 2024", "30 June 2026"):
        assert fact in text
    assert "active" in text


def test_never_used_is_said_and_not_left_empty(session: Session, browser: Browser) -> None:
    assert "not used since you joined" in here(browser, session, factories.member(session))


def test_a_lapsed_membership_says_what_is_saved_and_how_to_come_back(
    session: Session, browser: Browser, clock: FrozenClock
) -> None:
    clock.travel(at("2026-07-15"))
    text = here(browser, session, lapsed(session))
    assert "Your membership ended on 30 June 2026." in text
    assert "saved until 30 April 2027" in text
    assert "/come-back" in browser.page.links
    assert "End my membership" not in text


def test_a_lapsed_membership_that_is_paid_for_says_how_long_it_can_be_used(
    session: Session, browser: Browser, clock: FrozenClock
) -> None:
    clock.travel(at("2026-07-15"))
    member = lapsed(session, access_ends_at=at("2027-05-31 22:00"), keep_until=at("2028-03-31 22:00"))
    assert "up to and including 31 May 2027" in here(browser, session, member)


def test_an_ended_membership_says_so_and_asks_nothing(session: Session, browser: Browser) -> None:
    text = here(browser, session, factories.member(session, status="ended"))
    assert "Your membership has ended." in text
    assert "End my membership" not in text


def test_the_library_is_shown_in_its_order_with_counts_and_first_titles(session: Session, browser: Browser) -> None:
    member, other = factories.member(session), factories.member(session)
    factories.library(session, member, items=8)
    factories.library(session, other, items=1)
    text = here(browser, session, member)
    assert text.index("Mia") < text.index("Kids")
    assert text.index("favourites (8 titles)") < text.index("watch list (8 titles)")
    assert "Title 0 Title 1 Title 2 Title 3 Title 4 and 3 more Title 5 Title 6 Title 7" in text
    assert [tag for tag, _ in browser.page.elements if tag == "details"] == ["details"] * 4, "the rest unfolds"
    assert "subtitles: de" in text


def test_what_a_member_called_things_is_shown_as_text(session: Session, browser: Browser) -> None:
    member = factories.member(session, plan="<script>alert(1)</script>", external_id='"><img src=x>')
    factories.library(session, member)
    member.name = "<b>"
    session.commit()
    here(browser, session, member)
    assert not [tag for tag, _ in browser.page.elements if tag == "script"]
    assert "<script>alert(1)</script>" in browser.page.text


def test_the_page_costs_few_queries_however_much_there_is(app: Flask, session: Session, browser: Browser) -> None:
    member = factories.member(session)
    factories.library(session, member, items=200)
    for day in range(1, 29):
        events.record(session, "kept_unasked", at(f"2026-05-{day:02}"), member_id=member.id)
    session.commit()
    browser.sign_in_as(member)
    with app.app_context():
        engine = db.engine
    seen: list[str] = []

    @db.event.listens_for(engine, "before_cursor_execute")
    def count(connection, cursor, statement, *rest):  # type: ignore[no-untyped-def]
        if statement.startswith("SELECT"):
            seen.append(statement)

    browser.open("/account")
    db.event.remove(engine, "before_cursor_execute", count)
    assert len(seen) <= 8, seen


def test_what_happened_is_told_in_plain_words_the_latest_first(session: Session, browser: Browser) -> None:
    member, other = factories.member(session), factories.member(session)
    events.record(session, "mail_accepted", at("2026-06-01 12:00"), detail="warning", member_id=member.id)
    events.record(session, "answered_keep", at("2026-06-02 12:00"), detail="link", member_id=member.id)
    events.record(session, "case_closed", at("2026-06-03 09:00"), detail="kept", member_id=member.id)
    events.record(session, "campaign_opened", at("2026-06-01 10:00"), member_id=member.id)
    events.record(session, "said_not_mine", at("2026-06-01 10:00"), member_id=other.id)
    text = here(browser, session, member)
    told = (
        "3 June 2026 The month ended: your membership continues, as you chose.",
        "2 June 2026 You chose to keep your membership.",
        "1 June 2026 We asked you by e-mail whether to keep your membership.",
    )
    assert [text.index(line) for line in told] == sorted(text.index(line) for line in told)
    assert "has died" not in text


def test_a_member_ends_the_membership_unasked_and_takes_it_back(app: Flask, session: Session, browser: Browser) -> None:
    member = factories.member(session)
    text = here(browser, session, member, "/account/end")
    assert "would end on Tuesday, 30 June 2026" in text
    assert "saved until 30 April 2027" in text
    assert session.scalar(select(func.count()).select_from(Case)) == 0, "looking ends nothing"

    browser.press()
    assert browser.url == f"{SITE}/check-in"
    session.commit()
    case = session.scalars(select(Case)).one()
    assert (case.answer, case.answered_through, case.deadline_at) == ("lapse", "account", at("2026-06-30 22:00"))
    assert [order.kind for order in session.scalars(select(BillingOrder))] == ["stop"]
    assert [message.kind for message in session.scalars(select(Message))] == ["receipt_lapse"]

    browser.open("/account")
    assert "30 June 2026" in browser.page.text
    assert "membership-notice" in browser.page.ids
    browser.open("/account/end")
    assert browser.url == f"{SITE}/check-in", "there is a question now, which has a page"
    browser.press("answer", "keep")
    session.commit()
    assert session.scalars(select(Case)).one().answer == "keep"


def test_ending_twice_ends_once(session: Session, browser: Browser, another_browser: Browser) -> None:
    member = factories.member(session)
    here(browser, session, member, "/account/end")
    here(another_browser, session, member, "/account/end")
    browser.press()
    another_browser.press()
    session.commit()
    assert session.scalar(select(func.count()).select_from(Case)) == 1
    assert session.scalar(select(func.count()).select_from(Message)) == 1


def test_ending_what_has_ended_meanwhile_shows_what_holds(session: Session, browser: Browser) -> None:
    member = factories.member(session)
    here(browser, session, member, "/account/end")
    member.status = "ended"
    session.commit()
    browser.press()
    assert browser.url == f"{SITE}/account"
    assert "Your membership has ended." in browser.page.text


def test_scenario_28_the_end_without_a_csrf_token_shows_its_page_again(session: Session, browser: Browser) -> None:
    member = factories.member(session)
    here(browser, session, member, "/account/end")
    browser.press(csrf=False)
    assert browser.response.status_code == 400
    assert "Not saved yet." in browser.page.text
    session.commit()
    assert session.scalar(select(func.count()).select_from(Case)) == 0
    browser.press()
    session.commit()
    assert session.scalar(select(func.count()).select_from(Case)) == 1


def test_the_download_holds_everything_for_programs_and_for_people(session: Session, browser: Browser) -> None:
    member = factories.stopped_using(session, external_id="m-77", name="Mia <Kern>", email="mia@example.org")
    other = factories.member(session, name="Somebody Else", email="else@example.org")
    factories.library(session, member)
    factories.library(session, other)
    events.record(session, "answered_keep", at("2026-06-02"), member_id=member.id)
    here(browser, session, member)
    response = browser.client.get("/account/data")
    assert response.mimetype == "application/zip"
    assert response.headers["Cache-Control"] == "no-store"
    archive = ZipFile(BytesIO(response.data))
    assert archive.namelist() == ["membership.json", "membership.html"]
    facts = json.loads(archive.read("membership.json"))
    assert (facts["external_id"], facts["name"], facts["email"]) == ("m-77", "Mia <Kern>", "mia@example.org")
    assert facts["library"]["profiles"][0]["lists"][0]["items"][2]["title"] == "Title 2"
    assert facts["events"][0]["code"] == "answered_keep"
    html = archive.read("membership.html").decode()
    assert "Mia &lt;Kern&gt;" in html
    assert "Title 2" in html
    assert "else@example.org" not in html + archive.read("membership.json").decode()


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_page_of_the_download_is_in_the_words_of_the_account(app: Flask, session: Session, language: str) -> None:
    member = factories.stopped_using(
        session, locale=language, status="lapsed", lapsed_at=at("2026-04-30 22:00"), last_kept_at=None,
        access_ends_at=at("2026-04-30 22:00"), keep_until=at("2027-02-28 23:00"),
    )  # fmt: skip
    factories.library(session, member)
    events.record(session, "answered_keep", at("2026-06-02 23:30"), member_id=member.id)
    session.add(
        BillingOrder(
            key="stop:1", member_id=member.id, kind="stop", billing_ref="m-1", state="done",
            created_at=at("2026-04-30 22:10"), due_at=at("2026-04-30 22:10"), done_at=at("2026-05-02 08:00"),
        )
    )  # fmt: skip
    session.commit()
    browser = Browser(app, language=language)
    browser.sign_in_as(member)
    archive = ZipFile(BytesIO(browser.client.get("/account/data").data))
    page = Page(archive.read("membership.html").decode())
    html = archive.read("membership.html").decode()
    said = {
        "en": (
            "Your membership ended on 30 April 2026.",
            "saved until 28 February 2027",
            "€12.99 a month",
            "3 June 2026: You chose to keep your membership.",
            "1 May 2026: We asked the payment provider to charge nothing more. It was confirmed on 2 May 2026.",
            "subtitles: de, autoplay: no",
            "Title 0 (added on 1 February 2025)",
            "Europe/Berlin",
        ),
        "de": (
            "Ihre Mitgliedschaft ist zum 30. April 2026 beendet.",
            "12,99",
            "3. Juni 2026: Sie haben sich entschieden, Ihre Mitgliedschaft weiterzuführen.",
            "1. Mai 2026: Wir haben den Zahlungsanbieter gebeten, nichts mehr abzubuchen.",
            "subtitles: de, autoplay: nein",
            "hinzugefügt am 1. Februar 2025",
        ),
    }[language]
    assert page.language == language
    for words in said:
        assert words in html, words
    for raw in ("Dormant", "dormant", "True", "False", "1299", "T23:30", "+00:00", "answered_keep", "lapsed", "minor"):
        assert raw not in html, raw
    assert json.loads(archive.read("membership.json"))["price_minor"] == 1299, "for programs it is all there"


def test_the_download_lists_every_mail_that_went_out(
    app: Flask, session: Session, clock: FrozenClock, browser: Browser
) -> None:
    member = factories.dormant(session)
    session.commit()
    settings = app.extensions["dormouse"].settings
    opened(session, settings, clock.now())
    here(browser, session, member, "/account/erase")
    browser.press()
    session.commit()
    accept_mails(session, settings, clock.now())
    assert session.scalar(select(func.count()).select_from(Message).where(Message.sent_at.is_not(None))) == 2
    session.execute(update(Message).where(Message.kind == "warning").values(state="bounced"))
    session.commit()
    html = ZipFile(BytesIO(browser.client.get("/account/data").data)).read("membership.html").decode()
    said = html[html.index("What we sent you by e-mail") :]
    assert "3 June 2026: We asked you by e-mail whether to keep your membership. It came back." in said
    assert "3 June 2026: We asked you by e-mail to confirm that your data is to be deleted for good.<" in said


def test_every_mail_to_members_has_its_words() -> None:
    assert set(SENT) == set(Kind) - set(TO_OPERATORS)


def test_erasing_takes_a_mail_and_a_press_and_looking_erases_nothing(
    app: Flask, session: Session, clock: FrozenClock, browser: Browser, another_browser: Browser
) -> None:
    member = factories.member(session, email="mia@example.org", price_minor=0, billing_ref=None, external_id="m-77")
    factories.library(session, member)
    here(browser, session, member, "/account/erase")
    assert "m…@example.org" in browser.page.text
    browser.press()
    assert "We have sent a mail to m…@example.org" in browser.page.text
    link = mailed(app, session, clock)
    assert link.startswith(f"{SITE}/account/erase/")

    for method in ("GET", "HEAD", "OPTIONS"):
        another_browser.open(link, method=method)
    browser.open(link)
    assert "m-77" in browser.page.text
    session.commit()
    assert session.get_one(Member, member.id).status == "active"
    browser.press(csrf=False)
    session.commit()
    assert session.get_one(Member, member.id).status == "active"

    browser.press()
    assert browser.page.h1 == "Your data is deleted for good"
    session.commit()
    gone = session.get_one(Member, member.id)
    assert (gone.status, gone.email, gone.external_id) == ("purged", None, None)
    assert session.scalar(select(func.count()).select_from(MagicLink)) == 0
    browser.open("/account")
    assert browser.url == f"{SITE}/sign-in"
    another_browser.open(link)
    assert another_browser.response.status_code == 410
    assert "If you have pressed the button behind it, your data has been deleted for good" in another_browser.page.text


def test_scenario_36_erasing_waits_for_the_stop_of_payments(
    app: Flask, session: Session, clock: FrozenClock, browser: Browser
) -> None:
    member = factories.member(session, email="mia@example.org", billing_ref="sub-1")
    here(browser, session, member, "/account/erase")
    browser.press()
    browser.open(mailed(app, session, clock))
    browser.press()
    assert browser.page.h1 == "Your data is being deleted"
    browser.open(browser.url)
    assert browser.page.h1 == "Your data is being deleted", "and so says the link that was used"
    session.commit()
    kept = session.get_one(Member, member.id)
    assert (kept.status, kept.billing_ref) == ("ended", "sub-1")
    assert [order.kind for order in session.scalars(select(BillingOrder))] == ["stop"]
    text = here(browser, session, kept)
    assert "You asked us on 3 June 2026 to delete your data for good." in text
    assert "Have your data deleted" not in text


def test_an_erase_link_is_good_for_an_hour(app: Flask, session: Session, clock: FrozenClock, browser: Browser) -> None:
    member = factories.member(session)
    here(browser, session, member, "/account/erase")
    browser.press()
    link = mailed(app, session, clock)
    clock.tick(minutes=60)
    browser.open(link)
    assert browser.response.status_code == 410
    assert "nothing has been deleted by it" in browser.page.text
    assert "pressed the button" not in browser.page.text


def test_a_sign_in_link_erases_nothing(app: Flask, session: Session, clock: FrozenClock, browser: Browser) -> None:
    factories.member(session, email="mia@example.org")
    session.commit()
    browser.open("/sign-in")
    browser.press(email="mia@example.org")
    token = mailed(app, session, clock).rpartition("/")[2]
    browser.open(f"/account/erase/{token}")
    assert browser.response.status_code == 410


def test_pressing_for_the_mail_again_and_again_does_not_flood_the_mailbox(session: Session, browser: Browser) -> None:
    member = factories.member(session)
    session.commit()
    browser.sign_in_as(member)
    for _ in range(6):
        browser.open("/account/erase")
        browser.press()
    assert "Several mails are on their way to you already" in browser.page.text
    session.commit()
    assert session.scalar(select(func.count()).select_from(Message)) == 5


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_signed_in_page_is_in_one_language(
    app: Flask, session: Session, clock: FrozenClock, language: str
) -> None:
    member = factories.member(session, locale=language)
    session.commit()
    browser = Browser(app, language="fr")
    browser.sign_in_as(member)
    said = {
        "/account": {"en": "Your membership", "de": "Ihre Mitgliedschaft"},
        "/account/end": {"en": "End your membership", "de": "Mitgliedschaft beenden"},
        "/account/erase": {"en": "Delete your data for good", "de": "Ihre Daten endgültig löschen"},
    }
    for path, headings in said.items():
        browser.open(path)
        assert browser.page.language == browser.response.headers["Content-Language"] == language
        assert browser.page.h1 == headings[language]
    assert session.scalar(select(func.count()).select_from(Event)) == 0


@pytest.mark.parametrize("path", ["/account", "/come-back"])
def test_a_page_with_all_there_can_be_weighs_less_than_60_kb(
    app: Flask, session: Session, browser: Browser, path: str
) -> None:
    """Long lists, much that happened, many devices, and the notice above; with the files that every page loads."""
    member = factories.dormant(
        session, name="Wolfeschlegelsteinhausenbergerdorff", plan="Familien-Jahresmitgliedschaft"
    )
    for profile_number in range(3):
        profile = Profile(
            member_id=member.id, position=profile_number, name=f"Profile {profile_number}", settings={"subtitles": "de"}
        )
        session.add(profile)
        session.flush()
        for place, name in enumerate(("Favourites", "Seen", "To watch")):
            saved = SavedList(member_id=member.id, profile_id=profile.id, position=place, kind="x", name=name)
            session.add(saved)
            session.flush()
            session.add_all(
                ListItem(
                    member_id=member.id, list_id=saved.id, position=n, ref=f"r{n}", title=f"The Long Way Home & {n}"
                )
                for n in range(400)
            )
    session.add_all(Event(at=NOW, code="email_change_refused", member_id=member.id) for _ in range(150))
    session.add_all(SignIn(member_id=member.id, device="android_phone", at=NOW) for _ in range(31))
    session.commit()
    if path == "/account":
        opened(session, app.extensions["dormouse"].settings, NOW)
    else:
        ended = {"lapsed_at": NOW, "access_ends_at": NOW, "keep_until": NOW.replace(year=2027), "status": "lapsed"}
        session.execute(update(Member).values(**ended))
    session.commit()
    session.refresh(member)
    browser.sign_in_as(member)
    session.commit()
    browser.open(path)
    assert ("membership-notice" in browser.page.ids) == (path == "/account")
    assert "The Long Way Home & 4" in browser.page.text
    files = sum((ROOT / "static" / name).stat().st_size for name in EVERY_PAGE_LOADS)
    assert len(browser.response.data) + files < 60_000, len(browser.response.data)
