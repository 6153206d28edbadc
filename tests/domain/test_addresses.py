"""Which spellings are one address: too few, and somebody is not known; too many, and a stranger gets in."""

import pytest

from domain.addresses import address_key, plausible


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Mia@Example.ORG", "mia@example.org"),
        (" mia@example.org ", "mia@example.org"),
        ("mia@BÜCHER.example", "mia@xn--bcher-kva.example"),
        ("mia@straße.example", "mia@xn--strae-oqa.example"),
        ("mia@bu\u0308cher.example", "mia@bücher.example"),
        ("mia@bücher。example", "mia@bücher.example"),
        ("ΝΊΚΟΣ@example.org", "νίκος@example.org"),
    ],
)
def test_one_address_however_it_is_written(one: str, other: str) -> None:
    assert address_key(one) == address_key(other)
    assert address_key(address_key(one)) == address_key(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("mia@straße.example", "mia@strasse.example"),
        ("mia@βόλος.example", "mia@βόλοσ.example"),
        ("mia@نامه\u200cای.example", "mia@نامهای.example"),
        ("groß@example.org", "gross@example.org"),
        ("\ufb01na@example.org", "fina@example.org"),
        ("mia@example.org", "mia@example.com"),
    ],
)
def test_two_owners_two_addresses(one: str, other: str) -> None:
    assert address_key(one) != address_key(other)


@pytest.mark.parametrize("host", ["b..c", "x" * 70 + ".example", "-", ""])
def test_a_host_that_cannot_be_stays_as_it_is_written(host: str) -> None:
    assert address_key(f"Mia@{host}") == f"mia@{host}"


def test_what_somebody_may_have_meant() -> None:
    assert plausible("mia@example.org")
    for wrong in ("mia", "@example.org", "mia@", "mia @example.org", "mia@exa\x00mple.org", "m" * 320 + "@example.org"):
        assert not plausible(wrong)
