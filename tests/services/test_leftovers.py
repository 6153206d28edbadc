"""What nobody looks at any more, and what must not be left of it: of people who were erased, of a clock set wrong."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from domain.links import Purpose
from domain.notices import Kind
from domain.ports import MailResult, Subscription
from models import (
    ApiKey,
    BillingNews,
    BillingOrder,
    BillingPace,
    ClockJump,
    Erasure,
    EventEndpoint,
    MagicLink,
    MailPace,
    Message,
    OutgoingEvent,
    for_writing,
)
from services import erasure_log, magic_links, provider_news, purging, timekeeping
from services.mail import dispatch, recording
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.services.support import accept_mails, close, opened, purge

NO_MAILBOX = MailResult(False, 550, "550 5.1.1 <mia@example.org> unknown", permanent=True, recipient_refused=True)


# Of people who were erased


def test_scenario_38_a_purge_leaves_no_reference_of_the_provider_and_no_place_to_pay(
    session: Session, settings: Settings
) -> None:
    mia = factories.lapsed(session, billing_ref="sub_mia", mail_state="bounced")
    factories.member(session, billing_ref="sub_shared")
    pay_at = "https://pay.example.org/sub_mia"
    for ref in ("sub_mia", "sub_before", "sub_shared"):
        session.add(BillingNews(billing_ref=ref, due_at=NOW, error="refused"))
        order = BillingOrder(key=ref, member_id=mia.id, kind="restart", billing_ref=ref, created_at=NOW, due_at=NOW)
        order.state, order.pay_at, order.ended_before = "superseded", pay_at, {"lapsed_at": NOW.isoformat()}
        session.add(order)
    assert purge(session, settings, at("2027-03-01")) == 1
    assert set(session.execute(select(BillingOrder.pay_at, BillingOrder.ended_before))) == {(None, None)}
    assert session.scalars(select(BillingNews.billing_ref)).all() == ["sub_shared"], "of somebody who is still there"


def erased(session: Session, settings: Settings) -> Message:
    """The confirmation to somebody who has just been erased; nothing was being charged."""
    member = factories.member(session, email="mia@example.org", price_minor=0, billing_ref=None)
    session.commit()
    assert purging.erase(session, settings, member.id, NOW) is True
    session.commit()
    return session.scalars(select(Message)).one()


def test_scenario_36_an_address_to_which_the_confirmation_cannot_be_sent_is_forgotten_too(
    session: Session, settings: Settings
) -> None:
    message = erased(session, settings)
    [claimed] = dispatch.claim(session, settings, NOW, 10)
    recording.record(session, settings, claimed, NO_MAILBOX, NOW)
    session.commit()
    assert (message.state, message.to_address) == ("bounced", "mia@example.org")
    purge(session, settings, NOW + timedelta(days=1))
    session.refresh(message)
    assert (message.state, message.to_address, message.locale, message.smtp_reply) == ("bounced", None, None, "")
    # As a restore leaves it that struck out what waited.
    message.state, message.smtp_reply = "obsolete", "451 mia@example.org is greylisted"
    purge(session, settings, NOW + timedelta(days=2))
    session.refresh(message)
    assert (message.state, message.smtp_reply) == ("obsolete", "")


def test_scenario_38_what_a_server_said_to_the_confirmation_is_forgotten_too(
    session: Session, settings: Settings
) -> None:
    message = erased(session, settings)
    accept_mails(session, settings, NOW)
    session.execute(update(Message).values(smtp_reply="250 queued for mia@example.org"))
    purge(session, settings, NOW + timedelta(days=1))
    session.refresh(message)
    assert (message.state, message.to_address, message.smtp_reply) == ("sent", None, "")


class Provider:
    """Something changes once more while it is first asked."""

    def __init__(self, session: Session) -> None:
        self._session, self.asked = session, 0

    def read(self, billing_ref: str, *, now: datetime) -> Subscription:
        self.asked += 1
        if self.asked == 1:
            for_writing(self._session)
            provider_news.heard(self._session, [billing_ref], now)
            self._session.commit()
        return Subscription(billing_ref, "active")


def test_word_of_the_provider_is_kept_until_it_has_been_looked_into(session: Session, settings: Settings) -> None:
    """Also where nobody has that reference, as nobody has whose member was erased."""
    provider_news.heard(session, ["sub_of_nobody"], NOW)
    session.commit()
    provider = Provider(session)
    looked = provider_news.look(session, settings, provider, FrozenClock(NOW), session.commit, lambda: False)  # type: ignore[arg-type]
    assert (looked, provider.asked) == (2, 2), "what came meanwhile is asked about again"
    assert session.scalars(select(BillingNews)).all() == []


# The last chance


@pytest.mark.parametrize("state", ["bounced", "obsolete"])
def test_scenario_39_a_last_chance_that_told_nobody_goes_out_once_more(
    session: Session, settings: Settings, state: str
) -> None:
    """It came back from an address that has changed since, or was struck out by a return whose payment was declined."""
    member = factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, at("2026-07-01 06:00"))
    session.execute(update(BillingOrder).values(state="done", done_at=NOW))
    accept_mails(session, settings, at("2026-07-01 06:00"))
    assert purging.warn_purge(session, settings, at("2027-04-02")) == 1
    last = Message.kind == Kind.LAST_CHANCE
    session.execute(update(Message).where(last).values(state=state, to_address="old@example.org"))
    assert purging.warn_purge(session, settings, at("2027-05-10")) == 1
    assert purging.warn_purge(session, settings, at("2027-05-10")) == 0
    session.commit()
    assert purge(session, settings, at("2027-05-11")) == 0, "what was tried long ago was another address"
    assert accept_mails(session, settings, at("2027-05-12")) == [Kind.LAST_CHANCE]
    assert session.scalar(select(Message.to_address).where(last)) == member.email
    assert purge(session, settings, at("2027-05-25")) == 0
    assert purge(session, settings, at("2027-05-26")) == 1


# Of a clock set wrong


def test_once_the_time_is_confirmed_mails_orders_events_and_requests_go_again(
    session: Session, settings: Settings
) -> None:
    """Ahead by a month, they took their turns; and those turns are a month away when the clock is right again."""
    member = factories.member(session)
    ahead = NOW + timedelta(days=30)
    session.add_all(
        [
            ClockJump(noticed_at=ahead, expected_at=NOW),
            MailPace(id=1, next_at=ahead),
            BillingPace(id=1, next_at=ahead),
            EventEndpoint(id=1, url_digest="x", since=NOW, paused_until=ahead),
            ApiKey(
                prefix="p", digest="d", name="k", scopes=[], created_at=NOW, expires_at=ahead, window_at=ahead, taken=5
            ),
            BillingNews(billing_ref="sub_1", due_at=ahead, lease_until=ahead),
            OutgoingEvent(
                type="member.kept", at=NOW, member_id=member.id, due_at=ahead, state="sending", lease_token="t",
                lease_until=ahead,
            ),
        ]
    )  # fmt: skip
    session.commit()
    assert timekeeping.confirm(session, NOW) == 1
    session.commit()
    turns = (MailPace.next_at, BillingPace.next_at, EventEndpoint.paused_until, ApiKey.window_at)
    assert [session.scalars(select(turn)).one() for turn in turns] == [None] * 4
    for table in (BillingNews, OutgoingEvent):
        assert session.execute(select(table.due_at, table.lease_until)).one() == (NOW, NOW)


def test_a_link_asked_for_while_the_clock_was_ahead_is_dead_once_the_time_is_confirmed(
    session: Session, settings: Settings
) -> None:
    member = factories.member(session, email="mia@example.org")
    ahead = NOW + timedelta(days=30)
    magic_links.request_sign_in(session, settings, "mia@example.org", "192.0.2.1", ahead)
    back = magic_links.mint(
        session, Purpose.COME_BACK, member.id, "mia@example.org", ahead + timedelta(days=300), ahead
    )
    [claimed] = dispatch.claim(session, settings, ahead, 10)
    assert claimed.link is not None
    token = claimed.link.rpartition("/")[2]
    session.add(ClockJump(noticed_at=ahead, expected_at=NOW))
    assert magic_links.look(session, Purpose.SIGN_IN, token, NOW) is not None
    timekeeping.confirm(session, NOW)
    session.expire_all()
    assert magic_links.look(session, Purpose.SIGN_IN, token, NOW) is None
    assert magic_links.look(session, Purpose.COME_BACK, back, NOW) is not None, "that is good for as long as it says"
    assert session.scalars(select(MagicLink.created_at).where(MagicLink.purpose == Purpose.SIGN_IN)).one() == NOW


def test_scenario_43_erasures_after_one_that_a_wrong_clock_dated_ahead_are_in_the_log(
    session: Session, settings: Settings
) -> None:
    """Else a backup would bring back whoever is erased in the month until then."""
    session.add_all(
        [Erasure(digest="a" * 64, purged_at=NOW + timedelta(days=30)), ClockJump(noticed_at=NOW, expected_at=NOW)]
    )
    session.commit()
    erasure_log.keep_up(session, settings)
    timekeeping.confirm(session, NOW)
    session.add(Erasure(digest="b" * 64, purged_at=NOW + timedelta(hours=1)))
    session.commit()
    erasure_log.keep_up(session, settings)
    assert set(erasure_log.read(erasure_log.path_of(settings))) == {"a" * 64, "b" * 64}
    assert NOW in session.scalars(select(Erasure.purged_at)).all()
