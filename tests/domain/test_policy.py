"""Who is dormant: one test for each clause of the prose in domain/policy.py and design section 1."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import dates
from domain.policy import DORMANT, Code, Decision, Facts, Policy, SubscriptionStatus, assess, cutoffs, sign_of_life

BERLIN = ZoneInfo("Europe/Berlin")
POLICY = Policy(zone=BERLIN)
NOW = datetime(2026, 6, 3, 10, 0, tzinfo=UTC)


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


def facts(joined: str = "2025-01-15", used: str | None = None, **others: object) -> Facts:
    """An active member who pays 12.99 a month; dormant in June 2026 unless told otherwise."""
    return Facts(
        **{
            "status": "active",
            "joined_at": berlin(joined),
            "last_used_at": None if used is None else berlin(used),
            "plan": "Standard",
            "price_minor": 1299,
            **others,
        }
    )


def code(member: Facts, now: datetime = NOW, **policy: object) -> Code:
    return assess(member, replace(POLICY, **policy), now).code


# The two rules and their boundary days


def test_never_used_for_twelve_months_since_joining_is_dormant() -> None:
    assert code(facts(joined="2025-06-03")) is Code.NEVER_USED


def test_never_used_for_a_day_less_is_not() -> None:
    assert code(facts(joined="2025-06-04")) is Code.RECENT


def test_not_used_for_twenty_four_months_is_dormant() -> None:
    assert code(facts(joined="2020-01-01", used="2024-06-03")) is Code.STOPPED_USING


def test_not_used_for_a_day_less_is_not() -> None:
    assert code(facts(joined="2020-01-01", used="2024-06-04")) is Code.RECENT


def test_twelve_months_without_use_are_not_enough_once_there_was_use() -> None:
    assert code(facts(joined="2020-01-01", used="2025-01-01")) is Code.RECENT


def test_a_single_use_long_ago_is_use_on_record() -> None:
    assert code(facts(joined="2025-01-15", used="2025-01-15 00:00")) is Code.RECENT


def test_the_boundary_day_is_in_from_its_first_minute_whatever_the_hour_of_joining() -> None:
    member = facts(joined="2025-03-03 23:59")
    assert code(member, berlin("2026-03-02 23:59:59")) is Code.RECENT
    assert code(member, berlin("2026-03-03 00:00")) is Code.NEVER_USED


def test_the_day_is_the_local_one_not_that_of_utc() -> None:
    member = facts(joined="2025-03-03 00:30")  # 2 March in UTC
    assert code(member, datetime(2026, 3, 2, 22, 59, tzinfo=UTC)) is Code.RECENT
    assert code(member, datetime(2026, 3, 2, 23, 0, tzinfo=UTC)) is Code.NEVER_USED


def test_the_months_are_the_operators() -> None:
    assert code(facts(joined="2026-02-01"), never_used_months=4) is Code.NEVER_USED
    assert code(facts(joined="2020-01-01", used="2025-06-01"), stopped_using_months=12) is Code.STOPPED_USING
    assert code(facts(joined="2025-01-15"), never_used_months=18) is Code.RECENT


def test_scenario_05_joined_on_29_february_is_due_on_28_february() -> None:
    member = facts(joined="2024-02-29 12:00")
    assert code(member, berlin("2025-02-27 23:59")) is Code.RECENT
    assert code(member, berlin("2025-02-28 00:00")) is Code.NEVER_USED


def test_scenario_05_last_used_on_the_31st_is_due_on_the_last_day_of_a_shorter_month() -> None:
    member = facts(joined="2020-01-01", used="2025-08-31 20:00")
    assert code(member, berlin("2027-02-27 23:59"), stopped_using_months=18) is Code.RECENT
    assert code(member, berlin("2027-02-28 00:00"), stopped_using_months=18) is Code.STOPPED_USING


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Beirut", "America/Sao_Paulo"])
def test_scenario_05_the_boundary_day_in_zones_far_off_and_with_skipped_midnights(zone: str) -> None:
    policy = Policy(zone=ZoneInfo(zone))
    joined = date(2025, 3, 30)
    for at in (dates.start_of_day(joined, policy.zone), dates.start_of_day(joined + timedelta(days=1), policy.zone)):
        last_minute = at - timedelta(microseconds=1) if at > dates.start_of_day(joined, policy.zone) else at
        member = replace(facts(), joined_at=last_minute)
        due = dates.start_of_day(date(2026, 3, 30), policy.zone)
        assert assess(member, policy, due - timedelta(microseconds=1)).code is Code.RECENT
        assert assess(member, policy, due).code is Code.NEVER_USED


# The sign of life


def test_the_sign_of_life_is_the_latest_of_joined_used_kept_and_returned() -> None:
    early, late = berlin("2025-01-01"), berlin("2026-01-01")
    base = replace(facts(), joined_at=early)
    assert sign_of_life(base) == early
    for field in ("last_used_at", "last_kept_at", "returned_at"):
        assert sign_of_life(replace(base, **{field: late})) == late
    everything = {"last_used_at": late, "last_kept_at": early, "returned_at": early}
    assert sign_of_life(replace(base, **everything)) == late
    assert sign_of_life(replace(base, joined_at=late, last_used_at=early)) == late


def test_scenario_01_a_keep_or_a_return_takes_a_member_out_for_months() -> None:
    june = berlin("2026-06-20")
    for field in ("last_kept_at", "returned_at"):
        never_used = facts(joined="2020-01-01", **{field: june})
        assert code(never_used, berlin("2026-07-01")) is Code.RECENT
        assert code(never_used, berlin("2027-06-19")) is Code.RECENT
        assert code(never_used, berlin("2027-06-20")) is Code.NEVER_USED
        used_once = facts(joined="2020-01-01", used="2021-01-01", **{field: june})
        assert code(used_once, berlin("2027-06-20")) is Code.RECENT
        assert code(used_once, berlin("2028-06-19")) is Code.RECENT
        assert code(used_once, berlin("2028-06-20")) is Code.STOPPED_USING


def test_scenario_01_a_keep_that_is_taken_back_counts_no_longer() -> None:
    kept = facts(last_kept_at=berlin("2026-06-02"))
    assert code(kept) is Code.RECENT
    assert code(replace(kept, last_kept_at=None)) is Code.NEVER_USED


def test_a_decision_holds_the_sign_of_life_and_whole_months_since() -> None:
    decision = assess(facts(joined="2024-10-03 12:00"), POLICY, NOW)
    assert decision == Decision(Code.NEVER_USED, berlin("2024-10-03 12:00"), 20)
    assert decision.dormant


def test_a_joining_in_the_future_counts_no_months() -> None:
    decision = assess(facts(joined="2026-09-01"), POLICY, NOW)
    assert (decision.code, decision.months, decision.dormant) == (Code.RECENT, 0, False)


# Use that is known only since a certain day


def test_scenario_04_nobody_is_dormant_before_the_record_of_use_is_old_enough() -> None:
    since = berlin("2025-12-01")
    never, stopped = facts(joined="2019-01-01"), facts(joined="2019-01-01", used="2020-01-01")
    assert code(never, use_known_since=since) is Code.USE_UNKNOWN
    assert code(stopped, use_known_since=since) is Code.USE_UNKNOWN
    assert code(never, berlin("2026-11-30 23:59"), use_known_since=since) is Code.USE_UNKNOWN
    assert code(never, berlin("2026-12-01"), use_known_since=since) is Code.NEVER_USED
    assert code(stopped, berlin("2026-12-01"), use_known_since=since) is Code.USE_UNKNOWN
    assert code(stopped, berlin("2027-11-30 23:59"), use_known_since=since) is Code.USE_UNKNOWN
    assert code(stopped, berlin("2027-12-01"), use_known_since=since) is Code.STOPPED_USING


def test_scenario_04_a_record_that_is_old_enough_changes_nothing() -> None:
    assert code(facts(), use_known_since=berlin("2019-01-01")) is Code.NEVER_USED


def test_scenario_04_a_member_with_a_recent_sign_of_life_is_out_by_that_first() -> None:
    assert code(facts(joined="2026-01-01"), use_known_since=berlin("2025-12-01")) is Code.RECENT


# Active, paying, not exempt: scenario 6

OUT_BY: list[tuple[Code, dict[str, object]]] = [
    (Code.NOT_ACTIVE, {"status": "ended"}),
    (Code.NOT_ACTIVE, {"status": "lapsed"}),
    (Code.NOT_ACTIVE, {"status": "purged"}),
    (Code.EXEMPT_BY_OPERATOR, {"operator_exempt_reason": "asked to be left alone"}),
    (Code.EXEMPT_BY_IMPORT, {"exempt_reason": "staff"}),
    (Code.EXEMPT_PLAN, {"plan": "Patron"}),
    (Code.FREE, {"price_minor": 0}),
    (Code.FREE, {"price_minor": None}),
    (Code.TRIAL, {"subscription_status": "trial"}),
    (Code.PAUSED, {"subscription_status": "paused"}),
    (Code.PAST_DUE, {"subscription_status": "past_due"}),
    (Code.SUBSCRIPTION_ENDED, {"subscription_status": "ended"}),
    (Code.USE_UNKNOWN, {}),
]


@pytest.mark.parametrize(("reason", "change"), OUT_BY, ids=lambda value: str(value))
def test_scenario_06_each_is_out_for_a_reason_of_its_own(reason: Code, change: dict[str, object]) -> None:
    since = berlin("2026-01-01") if reason is Code.USE_UNKNOWN else None
    decision = assess(facts(**change), replace(POLICY, exempt_plans=frozenset({"Patron"}), use_known_since=since), NOW)
    assert (decision.code, decision.dormant) == (reason, False)


def test_of_several_reasons_the_first_in_the_order_of_the_codes_is_given() -> None:
    policy = replace(POLICY, exempt_plans=frozenset({"Patron"}), use_known_since=berlin("2026-01-01"))
    reasons = [code for code, _ in OUT_BY]
    together = dict(entry for _, change in reversed(OUT_BY) for entry in change.items())
    for reason in dict.fromkeys(reasons):
        assert assess(facts(**together), policy, NOW).code is reason
        for key in next(change for each, change in OUT_BY if each is reason):
            del together[key]
        if reason is Code.TRIAL:
            break  # of the words for a subscription only one can hold


def test_an_exemption_without_words_is_one() -> None:
    """As the partial indexes see it: only NULL is no exemption."""
    assert code(facts(operator_exempt_reason="")) is Code.EXEMPT_BY_OPERATOR
    assert code(facts(exempt_reason="")) is Code.EXEMPT_BY_IMPORT


def test_a_plan_is_exempt_by_its_exact_name_and_no_plan_by_none() -> None:
    for plan in ("patron", "Patron ", None):
        assert code(facts(plan=plan), exempt_plans=frozenset({"Patron"})) is Code.NEVER_USED


def test_every_code_is_reached_by_some_member() -> None:
    reached = {Code.NEVER_USED, Code.STOPPED_USING, Code.RECENT} | {reason for reason, _ in OUT_BY}
    assert reached == set(Code)
    assert {Code.NEVER_USED, Code.STOPPED_USING} == DORMANT


def test_an_unknown_subscription_status_is_no_reason_but_an_error() -> None:
    with pytest.raises(ValueError, match="gold"):
        assess(facts(subscription_status="gold"), POLICY, NOW)


# What holds for any member

moments = st.datetimes(datetime(2018, 1, 1), datetime(2030, 12, 31), timezones=st.just(UTC))
members = st.builds(
    Facts,
    status=st.sampled_from(["active", "active", "active", "ended", "lapsed", "purged"]),
    joined_at=moments,
    last_used_at=st.none() | moments,
    last_kept_at=st.none() | moments,
    returned_at=st.none() | moments,
    plan=st.sampled_from([None, "Standard", "Patron"]),
    price_minor=st.sampled_from([None, 0, 1299]),
    subscription_status=st.sampled_from(SubscriptionStatus),
    exempt_reason=st.none() | st.just("staff"),
    operator_exempt_reason=st.none() | st.just("asked"),
)
zones = st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Beirut"]).map(
    ZoneInfo
)
policies = st.builds(
    Policy,
    zone=zones,
    never_used_months=st.integers(1, 36),
    stopped_using_months=st.integers(1, 48),
    use_known_since=st.none() | moments,
    exempt_plans=st.sampled_from([frozenset(), frozenset({"Patron"})]),
)


@given(members, policies, moments)
def test_dormant_means_active_paying_not_exempt_and_silent_for_the_months(
    member: Facts, policy: Policy, now: datetime
) -> None:
    """The definition of design section 1, said another way than in the code."""
    months = policy.never_used_months if member.last_used_at is None else policy.stopped_using_months
    signs = [member.joined_at, member.last_used_at, member.last_kept_at, member.returned_at, policy.use_known_since]
    latest = max(dates.local_day(sign, policy.zone) for sign in signs if sign is not None)
    expected = (
        member.status == "active"
        and member.operator_exempt_reason is None
        and member.exempt_reason is None
        and member.plan not in policy.exempt_plans
        and (member.price_minor or 0) > 0
        and member.subscription_status == "active"
        and dates.add_months(latest, months) <= dates.local_day(now, policy.zone)
    )
    decision = assess(member, policy, now)
    assert decision.dormant == expected
    if decision.dormant:
        assert (decision.code is Code.NEVER_USED) == (member.last_used_at is None)
        assert decision.months >= months


@given(members, policies, moments, st.integers(0, 2000))
def test_time_alone_never_takes_a_dormant_member_out(member: Facts, policy: Policy, now: datetime, days: int) -> None:
    if assess(member, policy, now).dormant:
        assert assess(member, policy, now + timedelta(days=days)).dormant


@given(members, policies, moments, st.sampled_from(["last_used_at", "last_kept_at", "returned_at"]))
def test_a_sign_of_life_today_always_takes_a_member_out(
    member: Facts, policy: Policy, now: datetime, field: str
) -> None:
    assert not assess(replace(member, **{field: now}), policy, now).dormant


@given(policies, moments)
def test_cutoffs_are_starts_of_local_days(policy: Policy, now: datetime) -> None:
    for bound in (cutoffs(policy, now).never_used, cutoffs(policy, now).stopped_using):
        assert bound == dates.start_of_day(dates.local_day(bound, policy.zone), policy.zone)
