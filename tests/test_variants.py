"""The catalogues of MEMBERSHIP_WORD and GERMAN_FORM are complete, current, compiled, and say what they are there for.

If one of these fails: run `make messages`, and write the texts it names in translations/variants/ (docs/wording.md).
"""

import re
from io import BytesIO

import pytest
from babel.messages.mofile import read_mo, write_mo

from tests import catalogues
from tests.catalogues import FORMAL, MEMBERSHIP, VARIANTS, forms
from tests.test_translations import PLACEHOLDER, TAG

INFORMAL = re.compile(r"\b(du|dich|dir|dein\w*)\b", re.I)
every_variant = pytest.mark.parametrize(("variant", "language"), VARIANTS)


@every_variant
def test_whatever_a_variant_has_to_say_differently_it_says(variant: str, language: str) -> None:
    kept, needed = catalogues.kept(variant, language), catalogues.needed(variant, language)
    lacking = [original for original, one in needed.items() if kept.get(one.id) is None]
    assert lacking == []
    assert [message.id for message in kept if message.id and not all(forms(message.string))] == []


@pytest.mark.parametrize("variant", ["du", "abo", "abo-du"])
def test_each_is_written_for_the_german_of_today(variant: str) -> None:
    today = {str(message.id): message for message in catalogues.base() if message.id}
    stale = [
        message.id
        for message in catalogues.kept(variant, "de")
        if message.id
        and (
            str(message.id) not in today or catalogues.written_for(today[str(message.id)]) not in message.user_comments
        )
    ]
    assert stale == []


@every_variant
def test_each_keeps_to_its_words(variant: str, language: str) -> None:
    for message in catalogues.kept(variant, language):
        for text in forms(message.string) if message.id else ():
            if "du" in variant:
                assert not FORMAL.search(text), text
            elif language == "de":
                assert not INFORMAL.search(text), text
            if "abo" in variant:
                assert not MEMBERSHIP.search(text), text
                assert "membership" not in text.lower(), text


@every_variant
def test_names_to_fill_in_and_mark_up_are_those_of_the_original(variant: str, language: str) -> None:
    for message in catalogues.kept(variant, language):
        for original, text in zip(forms(message.id), forms(message.string), strict=True) if message.id else ():
            assert set(PLACEHOLDER.findall(text)) - {"num"} == set(PLACEHOLDER.findall(original)) - {"num"}, text
            assert sorted(TAG.findall(text)) == sorted(TAG.findall(original)), text
            assert text[-1:] == original[-1:] or original[-1:] not in ".?:…", text


@every_variant
def test_the_compiled_catalogue_is_that_of_the_texts(variant: str, language: str) -> None:
    fresh = BytesIO()
    write_mo(fresh, catalogues.kept(variant, language))
    fresh.seek(0)
    with catalogues.path_of(variant, language).with_suffix(".mo").open("rb") as file:
        compiled, expected = (
            {str(one.id): one.string for one in read_mo(opened) if one.id} for opened in (file, fresh)
        )
    assert compiled == expected
