"""Every kind of mail in both languages, as a mail program gets it: whole, without a defect, with the right day."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from adapters.mail.letter import Letter
from app import create_app
from domain.dates import keep_until, next_month_end
from domain.notices import NOTICES, TO_OPERATORS, Kind
from domain.ports import Mail
from services.installation import installed
from services.mail.rendering import Rendered, render
from services.mail.words import Facts, greeting_name
from settings import Settings
from tests.conftest import NOW, make_settings

LANGUAGES = ("en", "de")
ZONE_DEADLINE = datetime(2026, 6, 30, 22, tzinfo=UTC)
"""1 July 00:00 in Berlin, which people read as 30 June."""

LINKS = {
    **dict.fromkeys(
        (*NOTICES, Kind.DEADLINE_MOVED, Kind.RECEIPT_KEEP, Kind.RECEIPT_LAPSE, Kind.USED_AFTER_END, Kind.TOLD),
        "check-in",
    ),
    **dict.fromkeys((Kind.LAPSED, Kind.LAST_CHANCE), "come-back"),
    Kind.SIGN_IN: "sign-in",
    Kind.ERASE_CONFIRM: "account/erase",
    Kind.END_UNCLEAR: "end-membership",
    Kind.NEW_ADDRESS: "account/email",
    Kind.OLD_ADDRESS: "account/email",
}
"""Which page each kind links to; the others have no link. services/links.py makes them."""

TOKEN = "WyJhYmMiLDFd.c2lnbmF0dXJl-_x" * 3

FACTS = Facts(
    name="Mia Öztürk",
    customer_number="C-10042",
    plan="Standard",
    price_minor=1299,
    currency="EUR",
    interval="month",
    joined_at=datetime(2025, 3, 3, 9, tzinfo=UTC),
    rule="never_used",
    found_joined_at=datetime(2025, 3, 3, 9, tzinfo=UTC),
    found_sign_of_life_at=datetime(2025, 3, 3, 9, tzinfo=UTC),
    warned_at=datetime(2026, 6, 3, 9, tzinfo=UTC),
    deadline_at=ZONE_DEADLINE,
    month="2026-06",
    dormant_count=38,
    drafted_at=NOW,
)

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "Mia\r\nBcc: all@example.org",
    "Mia\r\n\r\nhttp://evil.example/",
    "https://evil.example/check-in/x",
    "evil.example/x",
    "{{ 7 * 7 }}{% raw %}",
    "%(service)s %s %",
    "x" * 200,
    "👩‍👩‍👧 Mia 😴",
    "\u202emoc.live",
    "&amp; &lt;b&gt;",
    "   ",
    "",
]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """Rendering asks no database, so this application's is never opened."""
    folder = tmp_path_factory.mktemp("words")
    app = create_app(make_settings(f"sqlite:///{folder}/none.db", folder))
    with app.app_context():
        yield app


@pytest.fixture
def settings(app: Flask) -> Settings:
    return installed().settings


def link(kind: Kind) -> str | None:
    return f"http://members.example.org/{LINKS[kind]}/{TOKEN}" if kind in LINKS else None


def rendered(settings: Settings, kind: Kind, language: str = "en", **changes: Any) -> Rendered:
    return render(settings, kind, language, replace(FACTS, **changes), link(kind), NOW)


def on_the_wire(mail: Rendered) -> bytes:
    return Letter(
        Mail("mia@example.org", mail.subject, mail.text, mail.html, "<1@lumio.example>", {}), "membership@lumio.example"
    ).as_bytes()


def parsed(mail: Rendered) -> EmailMessage:
    message = message_from_bytes(on_the_wire(mail), policy=default)
    assert isinstance(message, EmailMessage)
    return message


class Seen(HTMLParser):
    """What a reader sees of an HTML mail, its links, and every tag and attribute."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._unseen = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._unseen += tag in ("style", "title")
        self.links += [value for name, value in attrs if name == "href" and value]

    def handle_endtag(self, tag: str) -> None:
        self._unseen -= tag in ("style", "title")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def absolute_links(text: str) -> set[str]:
    return set(re.findall(r"https?://[^\s\"'<>]+", text))


every_kind = pytest.mark.parametrize("kind", Kind)
every_language = pytest.mark.parametrize("language", LANGUAGES)


@every_kind
@every_language
def test_each_mail_is_parsed_without_a_defect_and_small_enough(settings: Settings, kind: Kind, language: str) -> None:
    mail = rendered(settings, kind, language)
    raw, message = on_the_wire(mail), parsed(mail)
    assert not any(part.defects for part in message.walk())
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert len(raw) < 100_000
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().replace("\r\n", "\n") == mail.text
    assert message["Subject"] == mail.subject
    assert f'<html lang="{language}"' in mail.html
    assert mail.subject
    assert "\n" not in mail.subject


@every_kind
@every_language
def test_text_and_html_say_the_same(settings: Settings, kind: Kind, language: str) -> None:
    mail = rendered(settings, kind, language)
    seen = Seen(mail.html).text
    for paragraph in mail.text.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if not line.startswith("http")]
        for said in [" ".join(lines)] if not any(line.startswith("- ") for line in lines) else lines:
            assert " ".join(said.removeprefix("- ").split()).rstrip(":") in seen, said


@every_kind
@every_language
def test_a_mail_has_the_one_link_of_its_kind_the_same_in_text_and_html(
    settings: Settings, kind: Kind, language: str
) -> None:
    mail = rendered(settings, kind, language)
    expected = {link(kind)} if kind in LINKS else set()
    if kind == Kind.LAST_CHANCE:
        expected.add("http://members.example.org/account/data")
    assert absolute_links(mail.text) == expected
    assert set(Seen(mail.html).links) == expected
    assert absolute_links(mail.html) == expected
    for url in expected:
        assert url in mail.text.splitlines(), "a URL stands on a line of its own"


@every_kind
@every_language
def test_the_named_day_is_the_one_before_the_bound(settings: Settings, kind: Kind, language: str) -> None:
    mail = rendered(settings, kind, language)
    whole = mail.subject + mail.text + Seen(mail.html).text
    assert not re.search(r"\b1\.? (July|Juli|May|Mai)\b", whole)
    if kind in (*NOTICES, Kind.DEADLINE_MOVED, Kind.RECEIPT_LAPSE, Kind.USED_AFTER_END, Kind.LAPSED):
        day = "Tuesday, 30 June 2026" if language == "en" else "Dienstag, 30. Juni 2026"
        # Of what is over only the date: the last day of a membership need not be the last day of its use.
        named = day.partition(", ")[2] if kind == Kind.LAPSED else day
        assert named in mail.text
        assert named in Seen(mail.html).text
        assert day.partition(", ")[2] in mail.subject
        assert ("30 April 2027" if language == "en" else "30. April 2027") in mail.text


@every_kind
@every_language
def test_nothing_is_fetched_nothing_runs_and_nobody_is_counted(settings: Settings, kind: Kind, language: str) -> None:
    html = rendered(settings, kind, language).html
    tags = Seen(html).tags
    assert {tag for tag, _ in tags} <= {
        "html", "head", "meta", "title", "style", "body", "table", "tbody", "tr", "td", "div", "p", "a", "strong",
        "span", "br",
    }  # fmt: skip
    assert not [attributes for _, attributes in tags if any(name.startswith(("on", "src")) for name in attributes)]
    assert "url(" not in html
    assert "@import" not in html
    assert "prefers-color-scheme: dark" in html
    assert all("style" in attributes for tag, attributes in tags if tag in ("p", "td", "a")), "styles are inlined"


@every_kind
@every_language
def test_no_mail_shouts_sells_or_blames(settings: Settings, kind: Kind, language: str) -> None:
    mail = rendered(settings, kind, language)
    whole = f"{mail.subject} {mail.text}".casefold()
    assert "!" not in whole
    for word in (
        "ruhend",
        "mahnung",
        "verfallen",
        "unfortunately",
        "leider",
        "offer",
        "angebot",
        "miss you",
        "dormouse",
    ):
        assert word not in whole
    if language == "de":
        assert not re.search(r"\b(du|dein|deine|dir)\b", whole)


@every_kind
@every_language
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text_and_nothing_else(settings: Settings, kind: Kind, language: str, name: str) -> None:
    ordinary = rendered(settings, kind, language)
    mail = rendered(settings, kind, language, name=name, plan=name, customer_number=name.strip() or "1")
    assert [tag for tag, _ in Seen(mail.html).tags if tag not in ("p", "span")] == [
        tag for tag, _ in Seen(ordinary.html).tags if tag not in ("p", "span")
    ]
    assert Seen(mail.html).links == Seen(ordinary.html).links
    assert sorted(parsed(mail).keys()) == sorted(parsed(ordinary).keys())
    assert not any(part.defects for part in parsed(mail).walk())
    assert "49" not in mail.text.replace("195", "")
    assert max(len(line) for line in on_the_wire(mail).split(b"\r\n")) <= 998


@pytest.mark.parametrize(
    ("name", "greeting"),
    [
        ("Mia", "Mia"),
        ("  Mia\t Öztürk\r\n", "Mia Öztürk"),
        ("J. R. R. Tolkien", "J. R. R. Tolkien"),
        ("<b>Mia</b>", "<b>Mia</b>"),
        ("Mia http://evil.example", None),
        ("www.evil", None),
        ("evil.example", None),
        ("mia@example.org", None),
        ("", None),
        (None, None),
        ("x" * 200, "x" * 59 + "…"),
    ],
)
def test_nobody_is_greeted_by_a_name_that_a_mail_program_would_link(name: str | None, greeting: str | None) -> None:
    assert greeting_name(name) == greeting


@every_language
def test_the_first_lines_of_a_warning_carry_the_message(settings: Settings, language: str) -> None:
    """All of it stands before the link: what was seen, what it costs, which membership, which day, until when saved."""
    text = rendered(settings, Kind.WARNING, language).text
    first = " ".join(text.partition("http")[0].split())
    assert len(first) < 1000
    facts = {
        "en": ("15 months", "12.99 a month", "about €195", "Customer number: C-10042", "Member since: 3 March 2025",
               "ends on Tuesday, 30 June 2026, 24:00 (Central European Summer Time)", "until Friday, 30 April 2027",
               "up to and including 30 June"),
        "de": ("15 Monate", "12,99 € im Monat", "rund 195 €", "Kundennummer: C-10042", "Mitglied seit: 3. März 2025",
               "endet Ihre Mitgliedschaft am Dienstag, 30. Juni 2026, 24:00 Uhr (Mitteleuropäische Sommerzeit)",
               "bis Freitag, 30. April 2027", "bis einschließlich 30. Juni"),
    }[language]  # fmt: skip
    for fact in ("Standard", *facts):
        assert fact in first
    opening = " ".join(text.split("\n\n", 2)[1].split())
    assert ("3 March 2025" if language == "en" else "3. März 2025") in opening
    assert max(len(line) for line in text.splitlines() if "://" not in line) <= 72


@pytest.mark.parametrize("kind", NOTICES)
@every_language
def test_where_silence_keeps_no_notice_says_that_it_ends(tmp_path: Path, kind: Kind, language: str) -> None:
    asking = create_app(make_settings(f"sqlite:///{tmp_path}/none.db", tmp_path, on_silence="keep"))
    with asking.app_context():
        mail = rendered(installed().settings, kind, language)
    said = " ".join(f"{mail.subject} {mail.text}".split())
    assert ("your membership continues as before" if language == "en" else "läuft Ihre Mitgliedschaft weiter") in said
    assert "if we hear nothing" not in mail.subject
    assert "wenn wir nichts" not in mail.subject


def test_what_is_paid_longer_can_be_used_longer_and_is_saved_longer(settings: Settings) -> None:
    paid = datetime(2027, 5, 14, 22, tzinfo=UTC)
    for kind in (Kind.WARNING, Kind.RECEIPT_LAPSE):
        said = " ".join(rendered(settings, kind, paid_through=paid, interval="year").text.split())
        assert "you can use Lumio until Friday, 14 May 2027" in said
        assert "Friday, 31 March 2028" in said


PAID_FOR_A_YEAR = {"paid_through": datetime(2027, 5, 14, 22, tzinfo=UTC), "interval": "year"}


@pytest.mark.parametrize("kind", NOTICES)
@every_language
def test_a_notice_says_by_which_day_use_is_an_answer(settings: Settings, kind: Kind, language: str) -> None:
    """Beside the day it is about: further down, "until then" would mean the day until which is paid or saved."""
    for paid in ({}, PAID_FOR_A_YEAR):
        mail = rendered(settings, kind, language, **paid)
        said = {
            "en": "If you use Lumio at any time up to and including 30 June, your membership continues",
            "de": "Wenn Sie Lumio bis einschließlich 30. Juni nutzen, läuft Ihre Mitgliedschaft",
        }[language]
        text, html = " ".join(mail.text.split()), Seen(mail.html).text
        for whole in (text, html):
            assert said in whole
            assert whole.index(said) < whole.index("2027"), "before any other day is named"


@every_language
def test_an_end_is_no_last_day_where_more_is_paid(settings: Settings, language: str) -> None:
    access = {"lapsed_at": ZONE_DEADLINE, "access_ends_at": datetime(2027, 5, 14, 22, tzinfo=UTC)}
    for kind in (Kind.LAPSED, Kind.LAST_CHANCE):
        said = " ".join(rendered(settings, kind, language, **access).text.split())
        assert {"en": "ended on 30 June 2026.", "de": "ist zum 30. Juni 2026 beendet."}[language] in said
        assert "letzter Tag" not in said


@every_language
def test_the_order_is_promised_as_the_page_has_it(settings: Settings, language: str) -> None:
    """In German the law wants other words on the button than the price."""
    for kind in (Kind.LAPSED, Kind.LAST_CHANCE):
        said = " ".join(rendered(settings, kind, language, lapsed_at=ZONE_DEADLINE).text.split())
        assert {"en": "a button on a page that names the price", "de": "auf einer Seite, die den Preis nennt"}[
            language
        ] in said


def test_the_german_says_what_costs_and_what_can_be_taken_up_again(settings: Settings) -> None:
    said = " ".join(rendered(settings, Kind.WARNING, "de").text.split())
    assert "Ihre Mitgliedschaft kostet 12,99" in said
    assert "So lange können Sie Ihre Mitgliedschaft wieder aufnehmen" in said
    assert "seither" not in said


@pytest.mark.parametrize("undone", [True, False])
def test_only_an_end_that_was_carried_out_is_said_to_be_undone(settings: Settings, undone: bool) -> None:
    said = " ".join(rendered(settings, Kind.RETURNED, undone=undone).text.split())
    assert ("We had ended it already; that is undone." in said) is undone
    assert "Our mails about its end no longer apply" in said


def test_a_lapse_says_what_the_database_says(settings: Settings) -> None:
    ends = datetime(2026, 7, 31, 22, tzinfo=UTC)
    said = rendered(
        settings,
        Kind.LAPSED,
        lapsed_at=ZONE_DEADLINE,
        access_ends_at=ends,
        keep_until=keep_until(ends, 10, settings.zone),
        answered_at=NOW,
    ).text
    assert "You asked us to end it, on Wednesday, 3 June 2026, 12:00" in " ".join(said.split())
    assert "Friday, 31 July 2026" in said
    assert "Monday, 31 May 2027" in said


def test_coming_back_inside_the_paid_period_names_the_next_charge(settings: Settings) -> None:
    within = rendered(settings, Kind.WELCOME_BACK, returned_at=NOW, paid_through=NOW + timedelta(days=20)).text
    assert "The next charge is on Tuesday, 23 June 2026" in " ".join(within.split())
    after = rendered(settings, Kind.WELCOME_BACK, returned_at=NOW, paid_through=NOW - timedelta(days=20)).text
    assert "beginning with the day of your order" in " ".join(after.split())


def test_an_operator_reads_by_when_to_approve_and_what_it_will_be_otherwise(settings: Settings) -> None:
    mail = rendered(settings, Kind.CAMPAIGN_READY)
    said = " ".join(mail.text.split())
    assert mail.subject == "Lumio: the round of June 2026 waits for you, approve by 16 June 2026"
    assert "38 members pay without using Lumio" in said
    assert "ends on Tuesday, 30 June 2026; otherwise it will be Friday, 31 July 2026" in said
    late = render(settings, Kind.APPROVE_BY, "en", FACTS, None, datetime(2026, 6, 20, tzinfo=UTC))
    assert "ends on Friday, 31 July 2026" in " ".join(late.text.split())


def test_an_operator_reads_why_a_round_is_held_or_whose_page_somebody_disowned(settings: Settings) -> None:
    held = rendered(settings, Kind.NEEDS_ATTENTION, hold_reason="feed_silent", hold_facts={"last_event_at": None})
    assert "No use of any member has ever been recorded" in " ".join(held.text.split())
    assert "flask campaign release 2026-06" in held.text
    disowned = rendered(settings, Kind.NEEDS_ATTENTION, not_mine=True)
    assert "flask members show C-10042" in disowned.text


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in TO_OPERATORS])
@every_language
def test_a_member_of_whom_little_is_known_gets_a_whole_mail_too(settings: Settings, kind: Kind, language: str) -> None:
    bare = Facts(deadline_at=next_month_end(NOW, settings.zone), keep_until=NOW + timedelta(days=30))
    mail = render(settings, kind, language, bare, link(kind), NOW)
    assert "None" not in mail.subject + mail.text + Seen(mail.html).text
    assert ("Hello," if language == "en" else "Guten Tag.") in mail.text


def test_one_mail_in_another_language_leaves_the_next_alone(settings: Settings) -> None:
    assert rendered(settings, Kind.WARNING, "de").subject.startswith("Ihre")
    assert rendered(settings, Kind.WARNING, "fr").subject.startswith("Your")


def test_the_services_own_name_is_text_too(tmp_path: Path) -> None:
    named = create_app(make_settings(f"sqlite:///{tmp_path}/none.db", tmp_path, service_name="<b>Lumio & Söhne</b>"))
    with named.app_context():
        for kind in Kind:
            mail = rendered(installed().settings, kind)
            assert "<b>" not in mail.html
            assert "<b>Lumio & Söhne</b>" in Seen(mail.html).text
            assert "<b>Lumio & Söhne</b>" in mail.subject
