"""One spelling for one value: RFC 8785 for values without fractions, and nothing that can be read in two ways."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.canonical import LARGEST, canonical, parse
from domain.errors import BadValue

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-LARGEST, LARGEST) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def test_the_example_of_the_standard() -> None:
    """RFC 8785, 3.2.2 and 3.2.3, without its fractions: what is escaped, and the order of names."""
    told = (
        r'{"string": "\u20ac$\u000F\u000aA'
        "'"
        r'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}'
    )
    expected = '{"literals":[null,true,false],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    assert canonical(parse(told.encode())).decode() == expected
    names = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(canonical(names))) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@given(VALUES)
def test_whatever_is_written_reads_as_the_same_value_and_is_written_the_same_again(value: object) -> None:
    written = canonical(value)
    assert parse(written) == value
    assert canonical(json.loads(json.dumps(value, indent=3))) == written


@pytest.mark.parametrize(
    "value", [1.5, 1.0, float("nan"), LARGEST + 1, {1: "a"}, b"bytes", "\ud800", {"\udfff": 1}, [object()]]
)
def test_what_has_no_one_spelling_is_refused(value: object) -> None:
    with pytest.raises(BadValue):
        canonical(value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"a": 1, "a": 2}', "'a' is there twice"),
        (b'{"a": {"b": 1, "b": 1}}', "'b' is there twice"),
        (b"[1.0]", "no whole number"),
        (b"[1e3]", "no whole number"),
        (b"[NaN]", "no whole number"),
        (b"[Infinity]", "no whole number"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1} {}', "not JSON"),
        (b"", "not JSON"),
        (b"[" + b"9" * 5000 + b"]", "not JSON"),
        (b'"\xff"', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[" * 100_000, "too deeply"),
    ],
)
def test_what_can_be_read_in_two_ways_or_none_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(BadValue, match=why):
        parse(text)
