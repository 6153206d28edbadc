"""What banner, page and API show of a case: only what holds, while it holds."""

import dataclasses
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from domain.lifecycle import Answer, Rule, Through
from domain.money import Money
from models import Case, Member
from services import campaigns, decisions, notice
from services.notice import Notice, State
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import case_of, close, opened

MONTH_END = at("2026-06-30 22:00")  # 1 July 00:00 in Berlin
LATER = NOW + timedelta(hours=2)


@pytest.fixture
def member(session: Session) -> Member:
    row = factories.dormant(session)
    session.commit()
    return row


@pytest.fixture
def asked(session: Session, settings: Settings, member: Member) -> Case:
    opened(session, settings, NOW)
    return case_of(session, member)


@pytest.fixture
def shown(session: Session, settings: Settings, member: Member) -> Callable[[], Notice | None]:
    return lambda: notice.notice_for(session, settings, member, LATER)


def test_a_notice_says_why_until_when_and_what_it_costs(asked: Case, shown: Callable[[], Notice | None]) -> None:
    found = shown()
    assert found is not None
    assert (found.rule, found.state, found.answer) == (Rule.NEVER_USED, State.OPEN, None)
    assert (found.deadline, found.price, found.interval) == (MONTH_END, Money(1299, "EUR"), "month")
    assert (found.facts.joined_at, found.facts.last_used_at, found.facts.months) == (at("2025-01-15"), None, 16)
    assert found.ends_by_silence
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.state = State.KEPT  # type: ignore[misc]


def test_a_notice_takes_one_query(
    session: Session, settings: Settings, asked: Case, member: Member, shown: Callable[[], Notice | None]
) -> None:
    session.refresh(member)
    statements: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", count)
    try:
        shown()
    finally:
        event.remove(engine, "before_cursor_execute", count)
    assert len(statements) == 1


def test_nobody_else_gets_one(session: Session, settings: Settings, asked: Case) -> None:
    using = factories.using(session)
    assert notice.notice_for(session, settings, using, LATER) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"last_used_at": LATER},
        {"last_kept_at": LATER},
        {"exempt_reason": "a gift"},
        {"operator_exempt_reason": "a friend of the house"},
        {"subscription_status": "paused"},
        {"subscription_status": "past_due"},
        {"price_minor": 0},
        {"mail_state": "bounced"},
        {"status": "ended"},
        {"erase_requested_at": LATER},
    ],
    ids=lambda changed: "-".join(changed),
)
def test_a_silent_case_is_shown_only_while_its_facts_hold(
    session: Session, asked: Case, member: Member, shown: Callable[[], Notice | None], changed: dict[str, object]
) -> None:
    assert shown() is not None
    for name, value in changed.items():
        setattr(member, name, value)
    session.flush()
    assert shown() is None


def test_a_plan_that_became_exempt_gets_none(session: Session, settings: Settings, asked: Case, member: Member) -> None:
    exempting = settings.model_copy(update={"exempt_plans": ("Standard",)})
    assert notice.notice_for(session, exempting, member, LATER) is None


def test_drafts_and_held_rounds_show_nothing_to_the_silent(
    session: Session, settings: Settings, member: Member, shown: Callable[[], Notice | None]
) -> None:
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    assert shown() is None
    campaigns.approve(session, settings, "2026-06", NOW)
    assert shown() is not None
    campaigns.hold(session, settings, "2026-06", NOW)
    assert shown() is None
    campaigns.release(session, settings, "2026-06", LATER)
    assert shown() is not None
    campaigns.cancel(session, settings, "2026-06", LATER)
    assert shown() is None


def test_an_unwarned_case_names_the_first_day_that_leaves_the_notice(
    session: Session, settings: Settings, member: Member
) -> None:
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    late = at("2026-06-18 10:00")
    found = notice.notice_for(session, settings, member, late)
    assert found is not None
    assert found.deadline == at("2026-07-31 22:00")


@pytest.mark.parametrize(("wish", "state"), [(Answer.KEEP, State.KEPT), (Answer.LAPSE, State.LAPSING)])
def test_an_answer_is_shown_until_the_case_closes(
    session: Session,
    settings: Settings,
    asked: Case,
    member: Member,
    shown: Callable[[], Notice | None],
    wish: Answer,
    state: State,
) -> None:
    decisions.answer(session, settings, asked.id, wish, Through.ACCOUNT, LATER)
    found = shown()
    assert found is not None
    assert (found.answer, found.state, found.deadline) == (wish, state, MONTH_END)
    close(session, settings, at("2026-07-01 06:00"))
    session.refresh(member)
    assert shown() is None


def test_an_end_of_ones_own_stays_in_sight_when_the_round_is_held(
    session: Session, settings: Settings, asked: Case, shown: Callable[[], Notice | None]
) -> None:
    decisions.answer(session, settings, asked.id, Answer.LAPSE, Through.ACCOUNT, LATER)
    campaigns.hold(session, settings, "2026-06", LATER)
    found = shown()
    assert found is not None
    assert found.state is State.LAPSING


def test_a_keep_has_nothing_to_say_while_the_round_is_held(
    session: Session, settings: Settings, asked: Case, shown: Callable[[], Notice | None]
) -> None:
    decisions.answer(session, settings, asked.id, Answer.KEEP, Through.ACCOUNT, LATER)
    campaigns.hold(session, settings, "2026-06", LATER)
    assert shown() is None


def test_an_end_without_having_been_asked_is_shown(
    session: Session, settings: Settings, shown: Callable[[], Notice | None], member: Member
) -> None:
    decisions.end_membership(session, settings, member.id, Through.ACCOUNT, LATER)
    found = shown()
    assert found is not None
    assert (found.rule, found.state, found.deadline) == (Rule.OWN_WISH, State.LAPSING, MONTH_END)


def standing(session: Session, settings: Settings, case: Case) -> notice.Standing:
    found = notice.standing(session, settings, Case.id == case.id, LATER)
    assert found is not None
    return found


def test_an_unwarned_end_is_named_for_this_month_whatever_silence_would_mean(
    session: Session, settings: Settings, member: Member
) -> None:
    factories.live_feed(session, NOW)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    late = at("2026-06-18 10:00")
    case = case_of(session, member)
    found = notice.standing(session, settings, Case.id == case.id, late)
    assert found is not None
    assert (found.deadline, found.outlook.ends_at) == (at("2026-07-31 22:00"), MONTH_END)
    ended = decisions.answer(session, settings, case.id, Answer.LAPSE, Through.ACCOUNT, late)
    assert ended.deadline_at == found.outlook.ends_at


def test_the_outlook_is_what_close_then_writes(
    session: Session, settings: Settings, asked: Case, member: Member
) -> None:
    member.paid_through = at("2027-02-09 23:00")
    session.flush()
    before = standing(session, settings, asked).outlook
    close(session, settings, at("2026-07-01 06:00"))
    session.refresh(member)
    assert (member.lapsed_at, member.access_ends_at, member.keep_until) == (
        before.ends_at,
        before.access_ends_at,
        before.keep_until,
    )
    assert standing(session, settings, asked).outlook == before


def test_a_keep_is_not_asked_about_again_for_the_rules_months(
    session: Session, settings: Settings, member: Member
) -> None:
    used = factories.stopped_using(session)
    opened(session, settings, NOW)
    never, stopped = (standing(session, settings, case_of(session, one)) for one in (member, used))
    assert never.outlook.asked_again_on.isoformat() == "2027-06-03"
    assert stopped.outlook.asked_again_on.isoformat() == "2028-06-03"


def test_a_closed_case_offers_an_end_only_where_decisions_take_one(
    session: Session, settings: Settings, asked: Case, member: Member
) -> None:
    campaigns.cancel(session, settings, "2026-06", LATER)
    assert standing(session, settings, asked).answers == (Answer.LAPSE,)
    late = notice.standing(session, settings, Case.id == asked.id, at("2026-07-01 06:00"))
    assert late is not None
    assert late.answers == ()
