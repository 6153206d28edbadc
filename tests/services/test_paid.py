"""What was paid since the last use: from the provider's charges where it has all of them, else an estimate."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from domain.errors import BillingTemporary
from domain.money import Money
from domain.ports import Charge
from models import Member
from services import campaigns, paid
from services.mail import dispatch
from services.mail.words import Facts, in_words
from services.notice import notice_for
from services.wording import in_language
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import accept_mails, case_of

JOINED = at("2025-01-15")


class Charging:
    """A provider that has charged this, and remembers whom it was asked about."""

    def __init__(self, charges: Sequence[Charge] | BillingTemporary | None) -> None:
        self.told = charges
        self.asked: list[tuple[str, datetime]] = []

    def charges(self, billing_ref: str, *, since: datetime) -> Sequence[Charge] | None:
        self.asked.append((billing_ref, since))
        if isinstance(self.told, BillingTemporary):
            raise self.told
        return self.told


def charge(at_instant: datetime, minor: int = 1299, refunded: int = 0, currency: str = "EUR") -> Charge:
    return Charge(at_instant, None, at_instant, minor, refunded, currency)


def look(session: Session, settings: Settings, provider: Any, now: datetime = NOW) -> int:
    session.commit()
    looked = paid.look(session, settings, provider, FrozenClock(now), session.commit, lambda: False)
    session.expire_all()
    return looked


@pytest.fixture
def member(session: Session, settings: Settings) -> Member:
    """Has joined on 15 January 2025, never used it, and is asked."""
    row = factories.dormant(session)
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    return row


def said(session: Session, settings: Settings) -> tuple[str, str]:
    """What the mail says, in both languages."""
    [claimed] = dispatch.claim(session, settings, NOW, 1)
    facts = Facts.of(claimed)
    session.rollback()
    found = []
    for language in ("en", "de"):
        with in_language(language):
            found.append(in_words(settings, claimed.kind, facts, None, NOW)["paid"])
    return found[0], found[1]


def test_what_the_provider_has_charged_is_said_with_its_day(
    session: Session, settings: Settings, member: Member
) -> None:
    # The price has risen, and a charge went back.
    provider = Charging([charge(JOINED, 999), charge(at("2025-02-15"), 999, 999), charge(at("2026-05-15"))])
    ref = member.billing_ref
    assert look(session, settings, provider) == 1
    assert provider.asked == [(ref, JOINED)]
    assert said(session, settings) == ("€22.98 (as of 3 June 2026)", "22,98\xa0€ (Stand: 3. Juni 2026)")
    accept_mails(session, settings, NOW)
    notice = notice_for(session, settings, member, NOW)
    assert notice is not None
    assert (notice.paid, notice.paid_as_of) == (Money(2298, "EUR"), NOW)


@pytest.mark.parametrize(
    "told",
    [
        None,
        BillingTemporary("away"),
        [],
        [charge(at("2026-03-15")), charge(at("2026-04-15"))],
        [charge(JOINED), charge(at("2025-02-15"), currency="USD")],
    ],
    ids=["tells nobody's", "does not answer", "knows of none", "knows the last ones", "two currencies"],
)
def test_else_it_is_called_an_estimate(session: Session, settings: Settings, member: Member, told: Any) -> None:
    look(session, settings, Charging(told))
    assert said(session, settings) == ("about €208 (an estimate)", "rund 208\xa0€ (geschätzt)")


def test_it_is_asked_once_a_week_while_the_case_is_live(session: Session, settings: Settings, member: Member) -> None:
    provider = Charging([charge(JOINED)])
    assert look(session, settings, provider) == 1
    assert look(session, settings, provider, NOW + timedelta(days=6)) == 0
    assert look(session, settings, provider, NOW + timedelta(days=8)) == 1
    case = case_of(session, member)
    case.state, case.closed_at = "withdrawn", NOW
    assert look(session, settings, provider, NOW + timedelta(days=30)) == 0
    assert len(provider.asked) == 2
