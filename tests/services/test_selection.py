"""The rule and its SQL form are the same rule; and the SQL form is answered by the indexes made for it."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from domain import dates
from domain.policy import Policy, SubscriptionStatus, assess
from models import Member
from services.selection import dormant, reason
from tests import factories
from tests.conftest import NOW

ZONES = ["UTC", "Europe/Berlin", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Africa/Cairo"]
NOWS = [
    datetime(2024, 2, 29, 0, 30, tzinfo=UTC),
    datetime(2025, 2, 28, 11, 0, tzinfo=UTC),
    datetime(2025, 2, 28, 23, 30, tzinfo=UTC),
    datetime(2026, 3, 31, 22, 0, tzinfo=UTC),
    datetime(2026, 4, 24, 0, 0, tzinfo=UTC),
    datetime(2027, 10, 31, 1, 30, tzinfo=UTC),
]


@st.composite
def instants(draw: st.DrawFn, now: datetime) -> datetime:
    """Instants at and around the days on which a rule begins to hold, and anywhere else in the last three years."""
    if draw(st.booleans()):
        anchor = dates.add_months(now.date(), -draw(st.sampled_from([12, 24])))
        near = datetime.combine(anchor, datetime.min.time(), tzinfo=UTC)
        return near + timedelta(hours=draw(st.integers(-60, 60)))
    return now - timedelta(hours=draw(st.integers(0, 24 * 1100)))


@st.composite
def memberships(draw: st.DrawFn) -> tuple[datetime, Policy, list[dict[str, object]]]:
    now = draw(st.sampled_from(NOWS))
    maybe = st.one_of(st.none(), instants(now))
    policy = Policy(
        zone=ZoneInfo(draw(st.sampled_from(ZONES))),
        exempt_plans=frozenset(draw(st.sets(st.sampled_from(["Standard", "Family"]), max_size=1))),
        use_known_since=draw(st.one_of(st.none(), st.none(), instants(now))),
    )
    rows = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "joined_at": instants(now),
                    "last_used_at": maybe,
                    "last_kept_at": maybe,
                    "returned_at": maybe,
                    "status": st.sampled_from(["active", "active", "active", "ended"]),
                    "subscription_status": st.sampled_from(["active"] * 4 + [str(s) for s in SubscriptionStatus]),
                    "price_minor": st.sampled_from([1299, 1299, 1, 0, None]),
                    "plan": st.sampled_from(["Standard", "Family", None]),
                    "exempt_reason": st.sampled_from([None, None, None, "staff"]),
                    "operator_exempt_reason": st.sampled_from([None, None, None, "asked by phone"]),
                }
            ),
            min_size=1,
            max_size=25,
        )
    )
    return now, policy, rows


@given(case=memberships())
@settings(max_examples=60)
def test_the_sql_form_decides_as_the_rule_does(
    session: Session, case: tuple[datetime, Policy, list[dict[str, object]]]
) -> None:
    now, policy, rows = case
    members = [factories.member(session, **row) for row in rows]
    expected = {member.id: assess(member.facts, policy, now).code for member in members}
    by_reason = dict(session.execute(select(Member.id, reason(policy, now))).all())
    selected = dict(session.execute(dormant(policy, now, [Member.id])).all())
    session.rollback()
    assert by_reason == expected
    assert selected == {id_: code for id_, code in expected.items() if code in ("never_used", "stopped_using")}


def test_scenario_05_a_leap_day_is_due_on_the_28th_in_rule_and_sql(session: Session) -> None:
    policy = Policy(zone=ZoneInfo("Europe/Berlin"))
    joined = dates.start_of_day(date(2024, 2, 29), policy.zone)
    member = factories.member(session, joined_at=joined)
    for day, code in ((date(2025, 2, 27), "recent"), (date(2025, 2, 28), "never_used")):
        now = dates.start_of_day(day, policy.zone)
        assert assess(member.facts, policy, now).code == code
        assert session.scalar(select(reason(policy, now))) == code
        assert bool(session.execute(dormant(policy, now, [Member.id])).all()) == (code == "never_used")


@pytest.mark.parametrize("plans", [(), ("Staff",)])
def test_each_half_of_the_selection_uses_its_partial_index(session: Session, plans: tuple[str, ...]) -> None:
    """The trap of partial indexes: a condition that is worded otherwise than the index's is answered by a full scan."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SET enable_seqscan = off"))
    policy = Policy(zone=ZoneInfo("Europe/Berlin"), exempt_plans=frozenset(plans))
    statement = dormant(policy, NOW, [Member.id]).compile(session.get_bind(), compile_kwargs={"literal_binds": True})
    explain = "EXPLAIN QUERY PLAN" if session.get_bind().dialect.name == "sqlite" else "EXPLAIN"
    plan = "\n".join(str(row) for row in session.connection().exec_driver_sql(f"{explain} {statement}"))
    assert "ix_member_never_used" in plan
    assert "ix_member_stopped_using" in plan
    assert "SCAN member" not in plan
    assert "Seq Scan" not in plan
