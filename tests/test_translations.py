"""The German catalogue is complete, current, compiled, and in the words that were chosen for members."""

import re
from collections.abc import Iterator
from functools import cache
from io import BytesIO

from babel.messages import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po

from settings import ROOT

PO = ROOT / "translations" / "de" / "LC_MESSAGES" / "messages.po"
ROOMS = ("adapters", "blueprints", "commands", "domain", "jobs", "services", "templates")
PLACEHOLDER = re.compile(r"%\((\w+)\)[a-z]")
TAG = re.compile(r"</?\w+[^>]*>")

INFORMAL = re.compile(r"\b(du|dich|dir|dein\w*|euch|euer|eure\w*)\b", re.I)
FORBIDDEN = re.compile(r"mahnung|verfallen|verfällt|ruhend|schlafend|inaktiv|karteileiche", re.I)
"""Design section 1: what is not used is "nicht genutzt", a notice is no dunning letter, a membership ends."""


@cache
def german() -> Catalog:
    with PO.open("rb") as file:
        return read_po(file, locale="de", abort_invalid=True)


def messages() -> Iterator[Message]:
    yield from (message for message in german() if message.id)


def ids(message: Message) -> tuple[str, ...]:
    return tuple(message.id) if isinstance(message.id, list | tuple) else (message.id,)


def pairs() -> Iterator[tuple[str, str]]:
    """Each original beside its German, form by form; what is still without German has a test of its own."""
    for message in messages():
        yield from ((original, text) for original, text in zip(ids(message), strings(message), strict=True) if text)


def strings(message: Message) -> tuple[str, ...]:
    found = message.string
    return tuple(found) if isinstance(found, list | tuple) else (found,)


@cache
def in_the_code() -> frozenset[str]:
    """The first form of every text for people, as `make messages` collects them."""
    with (ROOT / "babel.cfg").open() as file:
        methods, options = parse_mapping_cfg(file)
    keywords = {**DEFAULT_KEYWORDS, "lazy_gettext": None}
    found = {
        text[0] if isinstance(text, tuple) else text
        for room in ROOMS
        for _, _, text, _, _ in extract_from_dir(str(ROOT / room), methods, options, keywords)
    }
    return frozenset(found - {""})


def test_every_text_is_in_the_catalogue_and_nothing_else() -> None:
    """If this fails: run `make messages`, and write the German texts it counts."""
    assert {ids(message)[0] for message in messages()} == in_the_code()


def test_every_text_has_its_german() -> None:
    assert [message.id for message in messages() if not all(strings(message))] == []


def test_every_plural_has_both_forms() -> None:
    assert [message.id for message in messages() if len(strings(message)) != len(ids(message))] == []


def test_nothing_is_guessed() -> None:
    assert [message.id for message in german() if message.fuzzy and message.id] == []
    assert german().obsolete == {}


ORDER_BUTTON = "Zahlungspflichtig bestellen"
"""The law's own words, which the price stands beside and not in."""


def test_the_names_to_fill_in_are_the_same_on_both_sides() -> None:
    """But that of one thing a language may say "one" or "%(num)d"."""
    for message in messages():
        for original, text in zip(ids(message), strings(message), strict=True):
            may = {"num"} if original != ids(message)[-1] else set()
            if text and text != ORDER_BUTTON:
                assert set(PLACEHOLDER.findall(text)) - may == set(PLACEHOLDER.findall(original)) - may, text


def test_a_per_cent_sign_is_part_of_a_name_or_doubled() -> None:
    for message in messages():
        if message.python_format:
            for text in strings(message):
                assert "%" not in PLACEHOLDER.sub("", text).replace("%%", ""), text


def test_mark_up_is_the_same_on_both_sides() -> None:
    for original, text in pairs():
        assert sorted(TAG.findall(text)) == sorted(TAG.findall(original)), text


def test_no_text_begins_or_ends_with_white_space() -> None:
    found = [text for message in messages() for text in (*ids(message), *strings(message)) if text != text.strip()]
    assert found == []


def test_the_compiled_catalogue_is_that_of_the_texts() -> None:
    """`make messages` compiles it; it is kept with the code, so that a checkout needs no build."""
    fresh = BytesIO()
    write_mo(fresh, german())
    fresh.seek(0)
    with PO.with_suffix(".mo").open("rb") as file:
        compiled, expected = ({ids(each): strings(each) for each in read_mo(opened)} for opened in (file, fresh))
    assert {key: text for key, text in compiled.items() if any(key)} == {
        key: text for key, text in expected.items() if any(key)
    }


def test_members_are_addressed_as_sie() -> None:
    assert [text for message in messages() for text in strings(message) if INFORMAL.search(text)] == []


def test_the_words_that_were_ruled_out_are_not_used() -> None:
    assert [text for message in messages() for text in strings(message) if FORBIDDEN.search(text)] == []


def test_german_quotation_marks_are_german() -> None:
    found = [text for message in messages() for text in strings(message) if '"' in TAG.sub("", text)]
    assert found == []


def test_a_title_or_sentence_ends_as_its_original_does() -> None:
    """A missing full stop or question mark is what a translation in a hurry looks like."""
    for original, text in pairs():
        for end in (".", "?", ":", "…"):
            if original.endswith(end):
                assert text.endswith((end, f"{end}“")), text
