"""The words of the states, held to the design, and the small rules about links."""

from datetime import timedelta

import pytest

from domain import lifecycle
from domain.links import LIFETIME, Purpose, masked
from domain.policy import NOT_PAYING, Code, SubscriptionStatus

WORDS = {
    "MemberStatus": "active ended lapsed purged",
    "CampaignState": "draft held open closed cancelled",
    "Answer": "keep lapse",
    "MessageState": "queued sending sent failed bounced obsolete",
    "OrderKind": "stop undo restart refund",
}
"""As design sections 1 and 3 list them: contracts, imports and operators' files use these very words."""


@pytest.mark.parametrize("name", WORDS)
def test_the_words_are_those_of_the_design(name: str) -> None:
    assert " ".join(getattr(lifecycle, name)) == WORDS[name]


def test_a_case_is_open_or_ended_in_one_of_the_ways_of_the_design() -> None:
    ends = {"kept", "lapsed", "returned", "exempted", "withdrawn", "unreachable", "told"}
    assert set(lifecycle.CaseState) == {"open"} | ends


def test_an_order_is_unfinished_until_the_provider_answered_or_it_was_given_up() -> None:
    assert set(lifecycle.UNFINISHED_ORDERS) == {"queued", "working"}


def test_every_subscription_that_is_not_active_has_its_own_reason() -> None:
    assert set(NOT_PAYING) == set(SubscriptionStatus) - {SubscriptionStatus.ACTIVE}
    assert len(set(NOT_PAYING.values())) == len(NOT_PAYING)
    assert set(NOT_PAYING.values()) < set(Code)


def test_links_live_as_long_as_the_design_says() -> None:
    assert LIFETIME[Purpose.SIGN_IN] == timedelta(minutes=15)
    assert LIFETIME[Purpose.ERASE] == timedelta(hours=1)
    assert Purpose.COME_BACK not in LIFETIME, "it lives until the member's keep-until"


@pytest.mark.parametrize(
    ("address", "shown"), [("anna@example.org", "a…@example.org"), ("ä.b@münchen.example", "ä…@münchen.example")]
)
def test_a_masked_address_is_known_to_its_owner_only(address: str, shown: str) -> None:
    assert masked(address) == shown
