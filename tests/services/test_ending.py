"""Ending without signing in: exactly the membership that was named, and the same for everybody who looks on."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session

from domain.errors import TooMany
from domain.lifecycle import Answer, Through
from models import BillingOrder, Case, MagicLink, Member, Message, db
from services import campaigns, decisions, ending
from settings import Settings
from tests import factories
from tests.doubles import FrozenClock
from tests.services import support

IP = "192.0.2.1"
END_OF_JUNE = datetime(2026, 6, 30, 22, tzinfo=UTC)


def end(session: Session, settings: Settings, who: str, email: str, now: datetime, ip: str = IP) -> None:
    ending.request_end(session, settings, who, email, ip, now)
    session.commit()


def mia(session: Session, **facts: object) -> Member:
    return factories.member(
        session, **{"email": "mia@example.org", "external_id": "C-7", "name": "Mia Öztürk", "locale": "de", **facts}
    )


@pytest.mark.parametrize("who", ["C-7", " c-7 ", "Mia Öztürk", "mia  öztürk", "Mia O\u0308ztu\u0308rk"])
def test_scenario_21_an_end_without_a_case_is_honoured_at_this_months_end(
    session: Session, settings: Settings, clock: FrozenClock, who: str
) -> None:
    member = mia(session, last_used_at=clock.now() - timedelta(days=2))
    session.commit()
    end(session, settings, who, "MIA@example.org", clock.now())
    case = support.case_of(session, member)
    assert (case.rule, case.answer, case.answered_through) == ("own_wish", "lapse", "public")
    assert case.deadline_at == END_OF_JUNE
    assert support.orders_of(session, member) == [("stop", "queued")], "no further charge from this moment"
    assert support.kinds_to(session, member) == ["receipt_lapse"]

    clock.travel(END_OF_JUNE + timedelta(minutes=1))
    support.close(session, settings, clock.now())
    session.refresh(member)
    assert member.status == "lapsed"


@pytest.mark.parametrize("state", ["draft", "bounced", "held", "cancelled"])
def test_scenario_21_an_end_is_honoured_whatever_the_round_does(
    session: Session, settings: Settings, clock: FrozenClock, state: str
) -> None:
    member = mia(session)
    session.commit()
    if state == "draft":
        factories.live_feed(session, clock.now())
        campaigns.draft(session, settings, "2026-06", clock.now())
    else:
        support.opened(session, settings, clock.now())
    if state == "bounced":
        member.mail_state = "bounced"
    if state == "held":
        campaigns.hold(session, settings, "2026-06", clock.now())
    if state == "cancelled":
        campaigns.cancel(session, settings, "2026-06", clock.now())
    session.commit()
    end(session, settings, "C-7", "mia@example.org", clock.now())
    assert support.case_of(session, member).answer == "lapse"
    clock.travel(END_OF_JUNE + timedelta(minutes=1))
    support.close(session, settings, clock.now())
    session.refresh(member)
    assert member.status == "lapsed"


@pytest.mark.parametrize(
    ("who", "email"), [("Mia Ozturk", "mia@example.org"), ("C-8", "mia@example.org"), ("", "mia@example.org")]
)
def test_what_names_nobody_at_a_known_address_ends_nothing_and_tells_the_mailbox(
    session: Session, settings: Settings, clock: FrozenClock, who: str, email: str
) -> None:
    member = mia(session)
    other = factories.member(session, external_id="C-8", email="other@example.org")
    session.commit()
    end(session, settings, who, email, clock.now())
    assert session.scalar(select(func.count()).select_from(Case)) == 0
    assert support.kinds_to(session, member) == ["end_unclear"]
    assert support.kinds_to(session, other) == []


def test_scenario_07_several_at_one_address_need_the_customer_number(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    first, second = mia(session), mia(session, external_id="C-8")
    gone = mia(session, external_id="C-9", status="ended")
    session.commit()
    end(session, settings, "Mia Öztürk", "mia@example.org", clock.now())
    assert session.scalar(select(func.count()).select_from(Case)) == 0
    end(session, settings, "C-9", "mia@example.org", clock.now())
    assert session.scalar(select(func.count()).select_from(Case)) == 0, "that one has ended"
    end(session, settings, "C-8", "mia@example.org", clock.now())
    assert support.case_of(session, second).answer == "lapse"
    assert support.kinds_to(session, first) == ["end_unclear", "end_unclear"]
    assert support.kinds_to(session, gone) == []


def test_a_member_without_a_name_is_not_ended_by_an_empty_one(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    mia(session, name=None)
    session.commit()
    end(session, settings, " ", "mia@example.org", clock.now())
    assert session.scalar(select(func.count()).select_from(Case)) == 0


def test_a_stranger_leaves_nothing_but_a_count(session: Session, settings: Settings, clock: FrozenClock) -> None:
    end(session, settings, "Mia Öztürk", "nobody@example.org", clock.now())
    for table in (Member, Case, Message, BillingOrder):
        assert session.scalar(select(func.count()).select_from(table)) == 0
    [row] = session.scalars(select(MagicLink))
    assert (row.purpose, row.member_id, row.token_hash) == ("end", None, None)


def test_asking_twice_gets_one_receipt_and_asking_again_later_another(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    member = mia(session)
    session.commit()
    for _ in range(2):
        end(session, settings, "C-7", "mia@example.org", clock.now())
    assert support.kinds_to(session, member) == ["receipt_lapse"]
    clock.tick(hours=2)
    for _ in range(2):
        end(session, settings, "C-7", "mia@example.org", clock.now())
    assert support.kinds_to(session, member) == ["receipt_lapse", "receipt_lapse"]
    assert support.orders_of(session, member) == [("stop", "queued")]


def test_whoever_matches_costs_the_same_statements_as_whoever_does_not(
    session: Session, settings: Settings, clock: FrozenClock
) -> None:
    mia(session)
    session.commit()
    seen: dict[str, list[str]] = {}
    for who, email in (("C-7", "mia@example.org"), ("C-8", "mia@example.org"), ("C-7", "nobody@example.org")):
        with counted(seen.setdefault(f"{who} {email}", [])):
            end(session, settings, who, email, clock.now())
    known, unclear, unknown = seen.values()
    assert known == unclear == unknown


@contextmanager
def counted(seen: list[str]) -> Iterator[None]:
    """The statements that run inside, by their first words, in the order of the alphabet."""

    def count(connection, cursor, statement, *rest):  # type: ignore[no-untyped-def]
        seen.append(" ".join(statement.split()[:3]))

    event.listen(db.engine, "before_cursor_execute", count)
    yield
    event.remove(db.engine, "before_cursor_execute", count)
    seen.sort()


@pytest.mark.parametrize("email", ["mia@example.org", "nobody@example.org"])
def test_an_address_has_five_requests_an_hour_known_or_not(
    session: Session, settings: Settings, clock: FrozenClock, email: str
) -> None:
    mia(session)
    session.commit()
    for n in range(5):
        end(session, settings, "who", email, clock.now(), ip=f"192.0.2.{n}")
    with pytest.raises(TooMany):
        end(session, settings, "who", email, clock.now(), ip="192.0.2.99")
    session.rollback()
    clock.tick(minutes=61)
    end(session, settings, "C-7", email, clock.now())


def test_one_origin_has_thirty_requests_an_hour(session: Session, settings: Settings, clock: FrozenClock) -> None:
    for n in range(30):
        end(session, settings, "who", f"{n}@example.org", clock.now())
    with pytest.raises(TooMany):
        end(session, settings, "who", "31@example.org", clock.now())


def test_keep_takes_such_an_end_back(session: Session, settings: Settings, clock: FrozenClock) -> None:
    member = mia(session)
    session.commit()
    end(session, settings, "C-7", "mia@example.org", clock.now())
    case = support.case_of(session, member)
    decisions.answer(session, settings, case.id, Answer.KEEP, Through.LINK, clock.now())
    assert support.orders_of(session, member) == [("stop", "superseded")]
