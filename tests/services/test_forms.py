"""What is filled in is what Jinja and the standard library would have made, whatever a member's words are."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import Message
from email.policy import default

import pytest
from flask import Flask, current_app
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.mail.letter import Letter, NoAddress
from app import create_app
from domain.notices import Kind
from domain.ports import Mail, Pieced
from services import wording
from services.installation import installed
from services.mail import forms, rendering, words
from services.mail.forms import Rendered
from services.mail.words import Facts
from tests.conftest import NOW, make_settings
from tests.services.test_rendering import FACTS, HOSTILE, link

ODD = [
    "",
    "   ",
    "\n",
    "a\r\nb",
    "\x0b",
    "\x85",
    "\u2028",
    "\ue000",
    "\ue0000\ue001",
    "{{ x }}",
    "%(name)s",
    "=",
    ".",
    "ö",
]
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=90),
    st.sampled_from([*HOSTILE, *ODD]),
    st.lists(st.sampled_from([*ODD, "word", "Überlänge", "x" * 80]), max_size=12).map(" ".join),
)
INSTANT = st.datetimes(datetime(2019, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))
MAYBE = st.none() | INSTANT


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    folder = tmp_path_factory.mktemp("forms")
    app = create_app(make_settings(f"sqlite:///{folder}/none.db", folder))
    with app.app_context():
        yield app


FOUND = st.builds(
    replace,
    st.just(FACTS),
    name=st.none() | TEXT,
    customer_number=st.none() | TEXT,
    plan=st.none() | TEXT,
    price_minor=st.sampled_from([None, 0, 1, 1299, 999999]),
    currency=st.sampled_from([None, "EUR", "JPY", "CHF"]),
    interval=st.sampled_from([None, "week", "month", "quarter", "year", "fortnight"]),
    joined_at=MAYBE,
    last_used_at=MAYBE,
    paid_through=MAYBE,
    returned_at=MAYBE,
    lapsed_at=MAYBE,
    access_ends_at=MAYBE,
    keep_until=MAYBE,
    rule=st.sampled_from(["never_used", "stopped_using", "own_wish"]),
    found_joined_at=MAYBE,
    found_last_used_at=MAYBE,
    found_sign_of_life_at=MAYBE,
    warned_at=MAYBE,
    answered_at=MAYBE,
    undone=st.booleans(),
    not_mine=st.booleans(),
)


@settings(max_examples=150)
@given(kind=st.sampled_from(Kind), language=st.sampled_from(wording.LANGUAGES), facts=FOUND)
def test_a_form_that_is_filled_in_is_what_jinja_renders(
    app: Flask, kind: Kind, language: wording.Language, facts: Facts
) -> None:
    here = installed().settings
    with wording.speaking(language):
        said = words.in_words(here, kind, facts, link(kind), NOW)
        by_jinja = forms.slowly(rendering.renderer(current_app._get_current_object(), kind, language), said)  # type: ignore[attr-defined]
        [filled] = rendering.render_all(here, [(kind, facts, link(kind))], NOW)
    assert as_read(filled) == rendering.render(here, kind, language, facts, link(kind), NOW) == by_jinja
    assert parts(letter(filled).as_bytes()) == parts(letter(by_jinja).built())


def as_read(mail: Rendered) -> Rendered:
    return Rendered(mail.subject, str(mail.text), str(mail.html))


def letter(mail: Rendered) -> Letter:
    return Letter(Mail("mia@example.org", *mail, "<1@lumio.example>", {}), "a@lumio.example")


@given(
    service=st.sampled_from(["Lumio", "\ue0000\ue001", "Kino <b>", "a  b"]),
    names=st.lists(TEXT.filter(bool), min_size=2, max_size=2),
)
def test_any_word_can_stand_in_a_form(service: str, names: list[str]) -> None:
    """Also words that no fact gives, as one of a new template might be."""

    def render(name: str, said: Mapping[str, object], subject: str) -> str:
        escaped = {key: forms.escape(value) for key, value in said.items()}
        if name == "subject.txt":
            return f"{said['service']}: {said['first']}\n"
        if name == "body.txt":
            first, second = said["first"], said["second"]
            return f"{said['service']}\n\n{first}\n- {second} and {first}, by 3 May 2026\n\n\nEnd\n"
        return f"<title>{forms.escape(subject)}</title>\n<p>{escaped['first']}</p><i>{escaped['second']}</i>"

    said = {"kind": "x", "service": service, "first": names[0], "second": names[1]}
    for _ in range(2):
        filled, by_jinja = forms.fill(render, "a test", said), forms.slowly(render, said)
        assert as_read(filled) == by_jinja
        assert parts(letter(filled).as_bytes()) == parts(letter(by_jinja).built())


def test_a_form_serves_all_whose_words_it_has_asked_for_are_as_they_were() -> None:
    """And nobody else: what a template asks for in one case only is looked at in that case."""
    rendered: list[str] = []

    def render(name: str, said: Mapping[str, object], subject: str) -> str:
        rendered.append(name)
        if name != "body.txt":
            return "subject"
        if not said["first"]:
            return f"nothing {said.get('later', 'yet')}"
        return f"{said['first']} {'loud' if said['loud'] else said['second']}"

    def text_of(**said: object) -> str:
        return str(forms.fill(render, "a test of forms", said).text)

    usual: dict[str, object] = {"first": "one", "loud": False, "second": "two"}
    assert text_of(**usual) == "one two\n"
    count = len(rendered)
    assert text_of(**usual | {"first": "three", "second": "four", "unknown": 5}) == "three four\n"
    assert len(rendered) == count
    # Each of these is another mail.
    assert text_of(**usual | {"loud": True}) == "one loud\n"
    assert text_of(**usual | {"loud": True, "second": None}) == "one loud\n"
    assert text_of(**usual | {"second": 2}) == "one 2\n"
    assert text_of(first=None, loud=False) == "nothing yet\n"
    assert text_of(first="") == "nothing yet\n"
    assert text_of(first=None, later="now") == "nothing now\n"
    assert text_of(**usual | {"deadline": "30 June"}) == "one two\n"
    count = len(rendered)
    assert text_of(**usual | {"first": "three"}) == "three two\n"
    assert text_of(first=None) == "nothing yet\n"
    assert len(rendered) == count


def test_a_mixed_round_has_as_many_forms_as_there_are_kinds_of_mails_in_it() -> None:
    rendered: list[str] = []

    def render(name: str, said: Mapping[str, object], subject: str) -> str:
        rendered.append(name)
        return " ".join(str(said[word]) for word in "abcde" if said[word])

    for number in range(320):
        said = {word: f"{word}{number}" if number >> place & 1 else None for place, word in enumerate("abcde")}
        forms.fill(render, "a test of mixtures", said)
    assert rendered.count("body.html") == 32
    assert sum(map(len, forms._forms.values())) <= forms.MOST_FORMS
    # Many rounds leave no more behind.
    for number in range(2 * forms.MOST_FORMS):
        forms.fill(render, "a test of days", {**said, "deadline": str(number)})
    assert sum(map(len, forms._forms.values())) == forms.MOST_FORMS


def test_what_goes_in_as_it_is_and_looks_like_a_mark_does_not_become_one() -> None:
    def render(name: str, said: Mapping[str, object], subject: str) -> str:
        return f"{said['first']} {said['lines'][0]}"  # type: ignore[index]

    for first in ("one", "two"):
        said: dict[str, object] = {"first": first, "lines": ("\ue000first\ue001",)}
        assert str(forms.fill(render, "a test of marks", said).text) == f"{first} \ue000first\ue001\n"


@pytest.mark.parametrize("odd", ["'", '"', "&", "<", ">", "%", "{", "\u00a0"])
def test_each_letter_that_html_minds_is_escaped_as_jinja_does(app: Flask, odd: str) -> None:
    here, facts = installed().settings, replace(FACTS, name=f"O{odd}Brien", plan=f"a {odd}")
    with wording.speaking("en"):
        said = words.in_words(here, Kind.WARNING, facts, link(Kind.WARNING), NOW)
        by_jinja = forms.slowly(rendering.renderer(current_app._get_current_object(), Kind.WARNING, "en"), said)  # type: ignore[attr-defined]
    assert rendering.render(here, Kind.WARNING, "en", facts, link(Kind.WARNING), NOW) == by_jinja


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=90), min_size=1, max_size=30))
def test_a_paragraph_is_broken_as_textwrap_does(said: list[str]) -> None:
    line = " ".join(" ".join(said).split())
    if line and "\x1f" not in line and not forms._DATE.search(line):
        whole = textwrap.wrap(
            line,
            forms.TEXT_WIDTH,
            subsequent_indent="  " if line.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        assert forms._of_one(line) == whole


def parts(raw: bytes) -> list[tuple[str, object, bytes | None]]:
    """What a mail program makes of a mail, without the lines between its parts."""
    mail = message_from_bytes(raw, policy=default)
    found = []
    for part in mail.walk():
        assert isinstance(part, Message)
        assert not part.defects, part.defects
        headers = [(name, str(value)) for name, value in part.items() if name != "Content-Type"]
        content = None if part.is_multipart() else part.get_payload(decode=True)
        assert content is None or isinstance(content, bytes)
        found.append((part.get_content_type(), sorted(headers), content))
    return found


@given(
    to=st.sampled_from(["mia@example.org", "mia@straße.example", "jürgen@example.org"]),
    subject=TEXT,
    text=TEXT,
    html=TEXT,
    thread=st.none() | TEXT,
    calendar=st.none() | TEXT.filter(bool),
    sender=st.sampled_from(
        ["membership@lumio.example", "Lumio <a@lumio.example>", '"Kino „Ö“, Köln" <a@lumio.example>']
    ),
)
def test_a_mail_put_together_is_the_one_the_standard_library_builds(
    to: str, subject: str, text: str, html: str, thread: str | None, calendar: str | None, sender: str
) -> None:
    headers = {"Date": "Wed, 03 Jun 2026 10:00:00 +0000", **({} if thread is None else {"References": thread})}
    mail = Letter(Mail(to, subject, text, html, "<1@lumio.example>", headers, calendar=calendar), sender)
    quick, built = mail.as_bytes(), mail.built()
    assert parts(quick) == parts(built)
    assert max(len(line) for line in quick.split(b"\r\n")) <= 998
    assert b"\n" not in quick.replace(b"\r\n", b"")
    assert b"\r" not in quick.replace(b"\r\n", b"")


def test_a_body_cannot_end_its_part() -> None:
    """Whoever has had a mail of this process knows the lines between the parts of all."""
    mail = Mail("mia@example.org", "Mia", "hello", "<p>hello</p>", "<1@lumio.example>", {})
    between = [
        line for line in Letter(mail, "a@lumio.example").as_bytes().decode().split("\r\n") if line.startswith("--=")
    ]
    hostile = "\n".join(["x", *between, "Content-Type: text/html", "", "<a href='http://evil.example'>", *between])
    hers = Letter(mail._replace(text=hostile, html=hostile), "a@lumio.example")
    assert parts(hers.as_bytes()) == parts(hers.built())


def test_most_mails_of_a_round_are_put_together_and_not_built(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above would compare a thing with itself."""
    monkeypatch.setattr(Letter, "built", lambda self: pytest.fail("a whole tree for one mail"))
    here = installed().settings
    rendering.render(here, Kind.WARNING, "de", FACTS, link(Kind.WARNING), NOW)
    monkeypatch.setattr(forms, "slowly", lambda *_: pytest.fail("all of Jinja for one mail"))
    other = replace(FACTS, name="Jürgen", customer_number="C-7", joined_at=NOW - timedelta(days=900))
    with wording.speaking("de"):
        [mail] = rendering.render_all(here, [(Kind.WARNING, other, link(Kind.WARNING))], NOW)
    assert isinstance(mail.text, Pieced)
    assert "Jürgen" in str(mail.text)
    assert b"J=C3=BCrgen" in letter(mail).as_bytes()
    with pytest.raises(NoAddress):
        Letter(Mail("nobody", "", "", "", "", {}), "a@b.example")
