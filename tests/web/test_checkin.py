"""The page behind a check-in link: what it shows and what a press does, in every state a case can be in."""

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from domain.lifecycle import Answer, Through
from models import BillingOrder, Case, Event, Member, Message
from services import campaigns, check_in, decisions, returning
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import accept_mails, case_of, close, kinds_to, opened, purge
from tests.web.browser import SITE, Browser

LATER = NOW + timedelta(hours=2)
AFTER = at("2026-07-01 06:00")
GENERAL = "Let us find your membership"


@pytest.fixture
def settings(app: Flask) -> Settings:
    found: Settings = app.extensions["dormouse"].settings
    return found


@pytest.fixture
def member(session: Session) -> Member:
    row = factories.dormant(session, external_id="K-1001", email="mia@example.org")
    session.commit()
    return row


@pytest.fixture
def warned(session: Session, settings: Settings, member: Member, clock: FrozenClock) -> Case:
    """The member's case, two hours after the mail was accepted."""
    opened(session, settings, NOW)
    clock.travel(LATER)
    case = case_of(session, member)
    session.commit()
    return case


@pytest.fixture
def url(session: Session, settings: Settings, warned: Case) -> str:
    """The link in the mail."""
    found = link(settings, warned)
    session.commit()
    return found


def link(settings: Settings, case: Case) -> str:
    return f"{SITE}/check-in/{check_in.token(settings, case.public_id, case.address_generation)}"


def answers(browser: Browser) -> list[str]:
    return [value for form in browser.page.forms for name, value in form.buttons if name == "answer"]


def stored(session: Session, case: Case) -> tuple[str | None, str]:
    session.commit()
    found = (case.answer, case.state)
    # Looking begins a transaction, too, and would be in the way of the next write.
    session.commit()
    return found


def everything(session: Session) -> tuple[object, ...]:
    """Enough of the tables to notice any change a page could make."""
    session.commit()
    found = (
        session.execute(select(Case.id, Case.answer, Case.state, Case.generation, Case.not_mine_at)).all(),
        session.execute(select(Member.id, Member.status, Member.last_sign_of_life_at)).all(),
        session.scalar(select(func.count()).select_from(Message)),
        session.scalar(select(func.count()).select_from(Event)),
    )
    session.commit()
    return found


def test_the_page_says_who_is_asked_why_what_it_costs_and_what_happens_when(browser: Browser, url: str) -> None:
    assert browser.open(url).status_code == 200
    text = browser.page.text
    for said in (
        "m…@example.org",
        "K-1001",
        "Standard",
        "You joined on 15 January 2025 and have not used Lumio since: 16 months.",
        "€12.99 a month",
        "about €208 (an estimate)",
        "we end your membership on Tuesday, 30 June 2026",
        "It continues as before, at €12.99 a month. We do not ask again before 3 June 2027.",
        "It ends on Tuesday, 30 June 2026, and you are not charged any more",
        "saved until 30 April 2027",
        "up to and including 30 June",
        "You do not need this link: you can also sign in as usual",
        "nobody ever asks for a password or for payment details",
        "This is not mine, or the member has died",
    ):
        assert said in text, said
    assert "mia@" not in browser.response.text
    assert "Member 1" not in browser.response.text


def test_the_page_in_german(browser: Browser, url: str, session: Session, warned: Case) -> None:
    warned.member.locale = "de-AT"
    session.commit()
    browser.open(url)
    text = browser.page.text
    assert browser.page.language == browser.response.headers["Content-Language"] == "de"
    for said in (
        "Mitgliedschaft weiterführen",
        "Mitgliedschaft beenden",
        "beenden wir Ihre Mitgliedschaft am Dienstag, 30. Juni 2026",
        "12,99\xa0€ im Monat",
        "bis einschließlich 30. Juni",
    ):
        assert said in text.replace(" €", "\xa0€"), said
    browser.press("answer", "lapse")
    assert "Ihre Mitgliedschaft endet zum 30. Juni 2026" in browser.page.h1
    assert re.search(r"\bYou|membership\b", browser.page.text) is None


def test_the_mails_language_yields_to_a_choice(browser: Browser, url: str, session: Session, warned: Case) -> None:
    warned.member.locale = "de"
    session.commit()
    browser.open(url + "?lang=en")
    assert browser.page.language == "en"
    browser.open(url)
    assert browser.page.language == "en"


def test_there_is_one_form_by_post_with_two_equal_buttons(browser: Browser, url: str) -> None:
    browser.open(url)
    [form] = browser.page.forms
    assert form.method == "post"
    assert form.buttons == [("answer", "keep"), ("answer", "lapse")]
    buttons = [attributes for tag, attributes in browser.page.elements if tag == "button"]
    assert [attributes.get("class") for attributes in buttons] == [None, None]
    assert not any("autofocus" in attributes for _tag, attributes in browser.page.elements)
    assert "<script" not in browser.response.text


def test_headers_keep_the_page_out_of_caches_indexes_and_foreign_referrers(browser: Browser, url: str) -> None:
    headers = browser.open(url).headers
    assert headers["Cache-Control"] == "no-store"
    assert "noindex" in headers["X-Robots-Tag"]
    assert headers["Referrer-Policy"] == "same-origin"


def test_scenario_26_looking_changes_nothing(browser: Browser, url: str, session: Session) -> None:
    before = everything(session)
    for method in ("GET", "HEAD", "OPTIONS", "GET"):
        assert browser.open(url, method).status_code == 200
        assert browser.open(url + "/not-mine", method).status_code == 200
    assert everything(session) == before


@pytest.mark.parametrize(
    ("wish", "h1", "other"),
    [
        ("keep", "Your membership continues", ["lapse"]),
        ("lapse", "Your membership ends on 30 June 2026", ["keep"]),
    ],
)
def test_an_answer_is_stored_said_confirmed_by_mail_and_can_be_changed(
    browser: Browser, url: str, session: Session, warned: Case, wish: str, h1: str, other: list[str]
) -> None:
    browser.open(url)
    assert browser.press("answer", wish).status_code == 200
    assert browser.page.h1.strip() == h1
    assert "The receipt is on its way by e-mail to m…@example.org" in browser.page.text
    assert answers(browser) == other
    assert stored(session, warned) == (wish, "open")
    assert warned.answered_through == "link"
    assert kinds_to(session, warned.member) == ["warning", f"receipt_{wish}"]

    browser.open(url)
    assert browser.page.h1.strip() == h1
    assert "On 3 June 2026 you told us" in browser.page.text
    browser.press("answer", other[0])
    assert stored(session, warned) == (other[0], "open")


def test_the_same_answer_twice_is_one_answer(
    browser: Browser, another_browser: Browser, url: str, session: Session
) -> None:
    browser.open(url)
    another_browser.open(url)
    browser.press("answer", "keep")
    before = everything(session)
    another_browser.press("answer", "keep")
    assert another_browser.page.h1 == browser.page.h1
    assert everything(session) == before


def test_scenario_23_back_and_forth_has_a_receipt_for_each_and_the_last_holds(
    browser: Browser, url: str, session: Session, warned: Case
) -> None:
    browser.open(url)
    for wish in ("keep", "lapse", "keep", "lapse"):
        browser.press("answer", wish)
    assert stored(session, warned) == ("lapse", "open")
    assert kinds_to(session, warned.member)[1:] == ["receipt_keep", "receipt_lapse"] * 2


def test_an_unknown_answer_changes_nothing_and_shows_both_buttons(browser: Browser, url: str, session: Session) -> None:
    before = everything(session)
    browser.open(url)
    fields = browser.page.form.fields
    for data in ({**fields, "answer": "perhaps"}, fields):
        response = browser.open(url, "POST", data=data)
        assert response.status_code == 400
        assert answers(browser) == ["keep", "lapse"]
        assert "Not saved yet" in browser.page.text
    assert everything(session) == before


def test_scenario_28_a_press_without_csrf_token_shows_the_page_again(
    browser: Browser, url: str, session: Session, warned: Case
) -> None:
    before = everything(session)
    browser.open(url)
    assert browser.press("answer", "lapse", csrf=False).status_code == 400
    assert answers(browser) == ["keep", "lapse"]
    assert "Not saved yet" in browser.page.text
    assert everything(session) == before
    assert browser.press("answer", "lapse").status_code == 200
    assert stored(session, warned) == ("lapse", "open")


def test_scenario_28_a_page_open_for_two_days_takes_the_press(
    browser: Browser, url: str, session: Session, warned: Case, clock: FrozenClock
) -> None:
    browser.open(url)
    clock.tick(days=2)
    assert browser.press("answer", "keep").status_code == 200
    assert stored(session, warned) == ("keep", "open")


def test_scenario_26_a_press_right_after_the_mail_has_to_be_repeated(
    browser: Browser, url: str, session: Session, warned: Case, clock: FrozenClock
) -> None:
    clock.travel(NOW + timedelta(seconds=30))
    before = everything(session)
    browser.open(url)
    assert browser.press("answer", "lapse").status_code == 200
    assert browser.page.h1 == "Not saved yet: one step left"
    assert answers(browser) == ["keep", "lapse"]
    assert everything(session) == before
    browser.press("answer", "lapse")
    assert browser.page.h1.strip() == "Your membership ends on 30 June 2026"
    assert stored(session, warned) == ("lapse", "open")


def test_scenario_26_a_minute_after_the_mail_a_press_counts(
    browser: Browser, url: str, session: Session, warned: Case, clock: FrozenClock
) -> None:
    clock.travel(NOW + timedelta(seconds=61))
    browser.open(url)
    browser.press("answer", "keep")
    assert stored(session, warned) == ("keep", "open")


@pytest.mark.parametrize("agent", ["Mozilla/5.0 (compatible; bingbot/2.0)", "MailScanner/5", "BingPreview/1.0b"])
def test_scenario_26_a_client_that_calls_itself_a_machine_has_to_press_again(
    browser: Browser, url: str, session: Session, warned: Case, agent: str
) -> None:
    browser.client.environ_base["HTTP_USER_AGENT"] = agent
    browser.open(url)
    assert browser.press("answer", "lapse").status_code == 200
    assert browser.page.h1 == "Not saved yet: one step left"
    assert stored(session, warned) == (None, "open")


def test_scenario_26_a_scanner_of_the_receipt_does_not_turn_the_answer_round(
    browser: Browser,
    another_browser: Browser,
    settings: Settings,
    session: Session,
    warned: Case,
    clock: FrozenClock,
    url: str,
) -> None:
    browser.open(url)
    browser.press("answer", "keep")
    accept_mails(session, settings, LATER)
    session.commit()
    clock.tick(seconds=20)
    another_browser.open(url)
    another_browser.press("answer", "lapse")
    assert another_browser.page.h1 == "Not saved yet: one step left"
    assert stored(session, warned) == ("keep", "open")
    # Whoever has answered here before may change their mind at once.
    browser.press("answer", "lapse")
    assert stored(session, warned) == ("lapse", "open")


def test_a_marker_of_another_case_lets_nothing_through(
    browser: Browser, settings: Settings, session: Session, warned: Case, clock: FrozenClock, url: str
) -> None:
    clock.travel(NOW)
    browser.open(url)
    fields = {**browser.page.form.fields, "answer": "lapse", "step": check_in.second_step(settings, "f" * 32, 1)}
    browser.open(url, "POST", data=fields)
    assert browser.page.h1 == "Not saved yet: one step left"
    assert stored(session, warned) == (None, "open")


def test_scenario_07_two_members_of_one_address_are_two_pages_in_two_tabs(
    browser: Browser, settings: Settings, session: Session
) -> None:
    one = factories.dormant(session, external_id="K-1", email="us@example.org", plan="Alone")
    two = factories.dormant(session, external_id="K-2", email="us@example.org", plan="Together")
    session.commit()
    opened(session, settings, NOW)
    session.commit()
    links = [link(settings, case_of(session, member)) for member in (one, two)]
    session.execute(update(Message).values(sent_at=NOW - timedelta(hours=1)))
    session.commit()
    browser.open(links[0])
    first = browser.page.form
    assert "K-1" in browser.page.text
    assert "Alone" in browser.page.text
    browser.open(links[1])
    assert "K-2" in browser.page.text
    assert "Together" in browser.page.text
    browser.url = links[0]
    browser.press("answer", "keep", form=first)
    session.commit()
    assert (case_of(session, one).answer, case_of(session, two).answer) == ("keep", None)
    browser.open(links[1])
    browser.press("answer", "lapse")
    session.commit()
    assert (case_of(session, one).answer, case_of(session, two).answer) == ("keep", "lapse")


def test_whoever_is_signed_in_answers_for_the_case_of_the_link(
    browser: Browser, url: str, session: Session, warned: Case
) -> None:
    somebody_else = factories.dormant(session, external_id="K-2")
    session.commit()
    browser.sign_in_as(somebody_else)
    browser.open(url)
    assert "K-1001" in browser.page.text
    browser.press("answer", "keep")
    assert stored(session, warned) == ("keep", "open")
    assert somebody_else.last_kept_at is None


# States, and what each says. None of them is an error page.


def test_a_member_who_used_it_since_has_nothing_to_decide(
    browser: Browser, url: str, session: Session, warned: Case
) -> None:
    warned.member.last_used_at = NOW + timedelta(hours=1)
    session.commit()
    browser.open(url)
    assert browser.page.h1.strip() == "Your membership continues"
    assert "You used Lumio on 3 June 2026, so there is nothing to decide" in browser.page.text
    assert answers(browser) == ["lapse"]
    assert "changed your mind" not in browser.page.text, "there was no answer"
    browser.press("answer", "lapse")
    assert stored(session, warned) == ("lapse", "open")


def test_an_exempted_member_has_nothing_to_decide(
    browser: Browser, settings: Settings, session: Session, warned: Case, url: str
) -> None:
    decisions.exempt(session, warned.member_id, "a gift", NOW)
    session.commit()
    browser.open(url)
    assert "not part of this programme" in browser.page.text
    assert "a gift" not in browser.page.text
    close(session, settings, AFTER)
    browser.open(url)
    assert stored(session, warned) == (None, "exempted")
    assert "not part of this programme" in browser.page.text


def test_a_member_who_pays_no_longer_reads_why_nothing_is_asked(
    browser: Browser, url: str, session: Session, warned: Case
) -> None:
    warned.member.subscription_status = "paused"
    session.commit()
    browser.open(url)
    assert "Your membership is paused, so there is nothing to ask." in browser.page.text
    assert "nothing ends by it" in browser.page.text


def test_a_dead_address_ends_nothing(
    browser: Browser, settings: Settings, session: Session, warned: Case, url: str
) -> None:
    warned.member.mail_state = "bounced"
    session.commit()
    browser.open(url)
    assert "Our mail did not reach your address, so nothing ends" in browser.page.text
    close(session, settings, AFTER)
    browser.open(url)
    assert stored(session, warned) == (None, "unreachable")
    assert "Our mail did not reach your address, so nothing ends" in browser.page.text


def test_scenario_20_past_the_deadline_but_not_closed_keep_counts(
    browser: Browser, settings: Settings, session: Session, warned: Case, clock: FrozenClock, url: str
) -> None:
    clock.travel(AFTER)
    browser.open(url)
    assert "is over, but your membership has not been ended yet: your answer still counts" in browser.page.text
    browser.press("answer", "keep")
    close(session, settings, AFTER)
    assert stored(session, warned) == ("keep", "kept")
    browser.open(url)
    assert "you told us to keep it" in browser.page.text
    assert answers(browser) == []


@pytest.mark.parametrize("answered", [None, Answer.LAPSE])
def test_after_the_end_the_page_says_what_is_saved_and_the_way_back(
    browser: Browser,
    settings: Settings,
    session: Session,
    warned: Case,
    clock: FrozenClock,
    answered: Answer | None,
    url: str,
) -> None:
    browser.open(url)
    form = browser.page.form
    if answered:
        decisions.answer(session, settings, warned.id, answered, Through.LINK, LATER)
        session.commit()
    close(session, settings, AFTER)
    clock.travel(AFTER)
    before = everything(session)
    for _look in range(2):
        assert browser.page is not None
        assert browser.press("answer", "keep", form=form).status_code == 200
        assert browser.page.h1.strip() == "Your membership ended on 30 June 2026"
        assert "saved until 30 April 2027" in browser.page.text
        assert "/come-back" in browser.page.links
        assert answers(browser) == []
    assert everything(session) == before


def test_an_annual_plan_says_if_it_ends_once(browser: Browser, url: str, session: Session, warned: Case) -> None:
    member = warned.member
    member.billing_interval, member.paid_through = "year", at("2027-05-14 22:00")
    session.commit()
    browser.open(url)
    assert browser.page.text.count("If it ends,") == 1
    assert "If you simply use Lumio at any time up to and including 30 June" in browser.page.text


def test_an_annual_plan_is_used_to_its_end(browser: Browser, url: str, session: Session, warned: Case) -> None:
    warned.member.paid_through = at("2027-05-15 22:00")
    warned.member.billing_interval = "year"
    session.commit()
    browser.open(url)
    assert "you can use what is paid for up to and including Saturday, 15 May 2027" in browser.page.text
    assert "saved until 31 March 2028" in browser.page.text


def test_who_came_back_reads_that_the_membership_runs(
    browser: Browser, settings: Settings, session: Session, warned: Case, clock: FrozenClock, url: str
) -> None:
    close(session, settings, AFTER)
    clock.travel(AFTER)
    session.refresh(warned.member)
    quoted = returning.quote(warned.member, settings, AFTER)
    returning.order(session, settings, warned.member_id, quoted, AFTER)
    session.commit()
    browser.open(url)
    assert browser.page.h1.strip() == "Welcome back: your membership runs again"
    assert answers(browser) == []


def test_a_purged_member_reads_the_truth_and_no_facts(
    browser: Browser, settings: Settings, session: Session, clock: FrozenClock, url: str
) -> None:
    close(session, settings, AFTER)
    gone = at("2027-05-02 06:00")
    session.execute(update(Message).where(Message.state == "queued").values(state="failed"))
    session.execute(update(Member).values(mail_state="bounced"))
    session.execute(update(BillingOrder).values(state="done", done_at=gone))
    session.commit()
    assert purge(session, settings, gone) == 1
    clock.travel(gone)
    for suffix in ("", "/not-mine"):
        assert browser.open(url + suffix).status_code == 200
        assert browser.page.h1.strip() == "Your data has been deleted for good"
        assert "K-1001" not in browser.response.text
        assert "m…@" not in browser.response.text
        assert browser.page.forms == []


def test_a_withdrawn_campaign_asks_nothing_and_honours_an_end(
    browser: Browser, settings: Settings, session: Session, warned: Case, url: str
) -> None:
    campaigns.cancel(session, settings, "2026-06", LATER)
    session.commit()
    browser.open(url)
    assert "We have taken our question back. Please ignore our mail: nothing ends by it." in browser.page.text
    assert answers(browser) == ["lapse"]
    browser.press("answer", "lapse")
    assert browser.page.h1.strip() == "Your membership ends on 30 June 2026"
    assert stored(session, warned) == ("lapse", "open")


def test_a_held_campaign_is_said_and_an_end_honoured(
    browser: Browser, settings: Settings, session: Session, warned: Case, url: str
) -> None:
    campaigns.hold(session, settings, "2026-06", LATER)
    session.commit()
    browser.open(url)
    assert "nothing ends without a word from you" in browser.page.text
    assert "we end your membership on" not in browser.page.text
    browser.press("answer", "lapse")
    assert stored(session, warned) == ("lapse", "open")


def test_on_silence_keep_promises_that_it_continues(make_app: Callable[..., Flask], session: Session, url: str) -> None:
    browser = Browser(make_app(on_silence="keep"))
    browser.open(url)
    assert "If we hear nothing from you, your membership continues as it is." in browser.page.text
    assert "we end your membership on" not in browser.page.text


def test_a_newer_case_is_pointed_to(
    browser: Browser, settings: Settings, session: Session, warned: Case, clock: FrozenClock, url: str
) -> None:
    decisions.answer(session, settings, warned.id, Answer.KEEP, Through.LINK, LATER)
    session.commit()
    close(session, settings, AFTER)
    decisions.end_membership(session, settings, warned.member_id, Through.ACCOUNT, AFTER)
    session.commit()
    clock.travel(AFTER)
    browser.open(url)
    assert browser.page.h1.strip() == "We have asked you again since"
    assert answers(browser) == []


@pytest.mark.parametrize(
    ("facts", "h1"),
    [
        ({"status": "ended"}, "Your membership has ended"),
        ({"status": "ended", "erase_requested_at": LATER}, "Your data is being deleted for good"),
    ],
    ids=["ended", "erasing"],
)
def test_who_has_left_otherwise_is_asked_nothing(
    browser: Browser, session: Session, warned: Case, url: str, facts: dict[str, object], h1: str
) -> None:
    browser.open(url)
    form = browser.page.form
    for name, value in facts.items():
        setattr(warned.member, name, value)
    session.commit()
    browser.open(url)
    assert browser.page.h1.strip() == h1
    assert answers(browser) == []
    assert browser.press("answer", "keep", form=form).status_code == 200
    assert browser.page.h1.strip() == h1
    assert stored(session, warned) == (None, "open")


def test_an_operators_answer_is_told_as_such(
    browser: Browser, settings: Settings, session: Session, warned: Case, url: str
) -> None:
    decisions.answer(session, settings, warned.id, Answer.LAPSE, Through.OPERATOR, LATER, "asked us by telephone")
    session.commit()
    browser.open(url)
    assert "our team noted for you that you want it to end" in browser.page.text
    assert "telephone" not in browser.response.text
    assert answers(browser) == ["keep"]


# Links that open nothing.


def test_scenario_13_a_link_of_an_earlier_address_shows_and_takes_nothing(
    browser: Browser, url: str, session: Session, warned: Case
) -> None:
    old = url
    browser.open(old)
    form = browser.page.form
    warned.address_generation = 2
    session.commit()
    before = everything(session)
    assert browser.press("answer", "lapse", form=form).status_code == 200
    assert browser.page.h1 == GENERAL
    assert browser.open(old).status_code == 200
    assert browser.page.h1 == GENERAL
    for fact in ("K-1001", "€12", "Standard", "m…@", "30 June"):
        assert fact not in browser.response.text
    assert browser.page.form.action == "/sign-in"
    assert everything(session) == before


def test_scenario_27_broken_links_get_one_general_page(
    browser: Browser, settings: Settings, warned: Case, url: str
) -> None:
    good = url
    other = check_in.token(settings.model_copy(update={"secret_key": "another installation"}), warned.public_id, 1)
    for broken in (good[:-1], good[:-5], good + "x", good + "/", good + "/more", good[:-1] + "~", f"/check-in/{other}"):
        assert browser.open(broken).status_code == 200, broken
        assert browser.page.h1 == GENERAL
        assert browser.page.form.action == "/sign-in"
        assert "invalid" not in browser.response.text.lower()


def test_scenario_29_a_case_that_is_gone_opens_nothing(browser: Browser, settings: Settings, warned: Case) -> None:
    browser.open(f"/check-in/{check_in.token(settings, 'f' * 32, 1)}")
    assert browser.page.h1 == GENERAL


# Not mine.


def test_not_mine_tells_the_operators_and_changes_nothing_else(
    browser: Browser, url: str, session: Session, warned: Case
) -> None:
    factories.operator(session)
    session.commit()
    browser.open(url)
    [path] = [found for found in browser.page.links if found.endswith("/not-mine")]
    browser.open(path)
    assert [name for name, _value in browser.page.form.buttons] != ["answer"]
    assert browser.press("report", "not-mine").status_code == 200
    assert "our team knows" in browser.page.h1
    assert stored(session, warned) == (None, "open")
    assert warned.not_mine_at == LATER
    assert session.scalar(select(func.count()).where(Message.kind == "needs_attention")) == 1
    browser.open(url)
    assert "We are looking into it" in browser.page.text
    assert answers(browser) == ["keep", "lapse"]
    browser.open(url + "/not-mine")
    assert browser.page.h1 == "Thank you, our team knows"


def test_not_mine_by_a_machine_has_to_be_pressed_again(
    browser: Browser, url: str, session: Session, warned: Case, clock: FrozenClock
) -> None:
    clock.travel(NOW)
    browser.open(url + "/not-mine")
    browser.press("report", "not-mine")
    assert browser.page.h1 == "Not saved yet: one step left"
    session.commit()
    assert warned.not_mine_at is None
    browser.press("report", "not-mine")
    session.commit()
    assert warned.not_mine_at == NOW


# Signed in.


def test_the_same_page_without_a_link_for_whoever_is_signed_in(
    browser: Browser, settings: Settings, session: Session, warned: Case
) -> None:
    browser.sign_in_as(warned.member)
    browser.open("/check-in")
    assert [form.buttons for form in browser.page.forms] == [[("answer", "keep"), ("answer", "lapse")]]
    browser.press("answer", "lapse")
    assert browser.page.h1.strip() == "Your membership ends on 30 June 2026"
    assert stored(session, warned) == ("lapse", "open")
    assert warned.answered_through == "account"
    assert browser.press("answer", "keep", csrf=False).status_code == 400
    browser.press("answer", "keep")
    assert stored(session, warned) == ("keep", "open")


def test_signed_in_without_a_question_there_is_nothing_to_decide(browser: Browser, member: Member) -> None:
    browser.sign_in_as(member)
    assert browser.open("/check-in").status_code == 200
    assert browser.page.h1 == "There is nothing to decide"
    browser.open("/programme")
    assert browser.page.links.count("/sign-in") == 0, "who is signed in need not sign in"
    assert "Go to your membership" in browser.page.text


@pytest.mark.parametrize("added", [".", ",", ")", ">", ">,"])
def test_what_a_mail_program_adds_to_a_link_is_no_part_of_it(
    browser: Browser, url: str, session: Session, warned: Case, added: str
) -> None:
    browser.open(url + added)
    assert "K-1001" in browser.page.text
    assert f"{url.removeprefix(SITE)}/not-mine" in browser.page.links
    browser.press("answer", "keep")
    assert stored(session, warned) == ("keep", "open")


def test_strangers_are_asked_to_sign_in(browser: Browser) -> None:
    browser.open("/check-in")
    assert browser.url.endswith("/sign-in")
