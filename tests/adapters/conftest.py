"""Stripe for the tests of a module: localstripe behind its proxy, as new for each test."""

from collections.abc import Iterator

import pytest

from tests.adapters.stripe_world import StripeProxy, StripeWorld, running_stripe


@pytest.fixture(scope="module")
def stripe_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeProxy]:
    with running_stripe(tmp_path_factory.mktemp("stripe")) as running:
        yield running


@pytest.fixture
def stripe_world(stripe_proxy: StripeProxy) -> StripeWorld:
    stripe_proxy.begin()
    return StripeWorld(stripe_proxy)
