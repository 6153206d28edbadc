"""Rate, daily cap and window hold back notices and nothing else; refusals in numbers stop a round."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from domain.notices import Kind
from models import Campaign, Case, MailPace, Member, Message, db
from services import campaigns, outbox, reports
from services.installation import installed
from services.mail import delivery, pace
from services.mail.delivery import Delivered
from tests import factories
from tests.conftest import NOW, make_settings
from tests.doubles import FrozenClock, SmtpCatcher
from tests.factories import at


class Runs:
    """Delivery with a clock that moves when a run waits, and remembers when each mail went out."""

    def __init__(self, clock: FrozenClock) -> None:
        self.clock = clock
        self.waited = 0.0

    def wait(self, seconds: float) -> None:
        assert 0 < seconds <= 1
        self.waited += seconds
        self.clock.tick(seconds=seconds)

    def deliver(self, enough: Callable[[], bool] = lambda: False) -> Delivered:
        here, session = installed(), db.session()
        session.rollback()
        return delivery.deliver(session, here.settings, here.mailer, here.clock, session.commit, enough, self.wait)


@pytest.fixture
def runs(clock: FrozenClock) -> Runs:
    return Runs(clock)


def opened(session: Session, members: int) -> Campaign:
    """An approved round with so many warnings queued."""
    factories.live_feed(session, NOW)
    for number in range(members):
        factories.dormant(session, email=f"m{number}@example.org")
    session.commit()
    settings = installed().settings
    campaigns.draft(session, settings, "2026-06", NOW)
    campaign = campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    return campaign


def sent(session: Session) -> list[datetime]:
    session.rollback()
    found = session.scalars(select(Message.sent_at).where(Message.state == "sent").order_by(Message.sent_at))
    return [instant for instant in found if instant is not None]


@pytest.fixture
def paced(make_app: Callable[..., Flask]) -> Any:
    """``paced(mail_rate=2)``: a session in the context of an application with these settings."""
    contexts = []

    def make(**changes: object) -> Session:
        context = make_app(hold_min_members=100, **changes).app_context()
        context.push()
        contexts.append(context)
        return db.session()

    yield make
    for context in reversed(contexts):
        context.pop()


# Rate


def test_no_second_sends_more_than_the_rate(paced: Any, smtp: SmtpCatcher, runs: Runs) -> None:
    session = paced(mail_rate=3)
    opened(session, 10)
    assert runs.deliver() == Delivered(sent=10)
    seconds = [int((instant - NOW).total_seconds() + 1e-6) for instant in sent(session)]
    assert [seconds.count(second) for second in range(4)] == [3, 3, 3, 1]


def test_a_slow_rate_is_waited_for_in_small_steps(paced: Any, runs: Runs) -> None:
    session = paced(mail_rate=0.25)
    opened(session, 2)
    assert runs.deliver() == Delivered(sent=2)
    first, second = sent(session)
    assert second - first == timedelta(seconds=4)


def test_a_clock_that_was_ahead_holds_nothing_up(paced: Any, runs: Runs) -> None:
    session = paced(mail_rate=3)
    opened(session, 4)
    session.merge(MailPace(id=1, next_at=NOW + timedelta(days=1)))
    session.commit()
    assert runs.deliver() == Delivered(sent=4)
    assert [instant - NOW for instant in sent(session)] == [timedelta(0)] * 3 + [timedelta(seconds=1)], "the rate holds"


def test_a_run_that_is_over_does_not_wait_on(paced: Any, runs: Runs) -> None:
    session = paced(mail_rate=1)
    opened(session, 5)
    assert runs.deliver(lambda: runs.waited >= 2) == Delivered(sent=2)
    assert {row.attempts for row in session.scalars(select(Message).where(Message.state == "queued"))} == {0}


def test_two_processes_share_one_rate(paced: Any) -> None:
    session = paced(mail_rate=2)
    settings = installed().settings
    assert pace.allowance(session, settings, NOW, 50).notices == 2
    pace.spend(session, settings, NOW, 2)
    session.commit()
    other = paced(mail_rate=2)
    assert pace.allowance(other, settings, NOW, 50) == pace.Allowance(0, timedelta(seconds=1))
    assert pace.allowance(other, settings, NOW + timedelta(seconds=1), 50).notices == 2


def test_a_sign_in_mail_waits_for_no_rate(paced: Any, smtp: SmtpCatcher, runs: Runs) -> None:
    session = paced(mail_rate=0.001)
    opened(session, 2)
    runs.deliver(lambda: len(smtp.mails) >= 1)
    someone = factories.using(session, email="now@example.org")
    outbox.put(session, kind=Kind.WELCOME_BACK, once_key="w", now=NOW, member=someone)
    session.commit()
    runs.deliver(lambda: len(smtp.mails) >= 2)
    assert runs.waited == 0
    assert len(smtp.to("now@example.org")) == 1


# Daily cap and window


def test_a_day_ends_with_its_cap_and_the_next_goes_on(paced: Any, runs: Runs) -> None:
    session = paced(mail_daily=3)
    opened(session, 5)
    assert runs.deliver() == Delivered(sent=3)
    assert runs.deliver() == Delivered()
    # In Berlin the day is over at 22:00 UTC.
    runs.clock.travel(at("2026-06-03 21:59"))
    assert runs.deliver() == Delivered()
    runs.clock.travel(at("2026-06-03 22:00"))
    assert runs.deliver() == Delivered(sent=2)
    assert runs.waited == 0


def test_a_cap_counts_what_went_out_before_it_was_set(make_app: Callable[..., Flask], runs: Runs) -> None:
    capped, uncapped = (make_app(hold_min_members=100, mail_daily=cap) for cap in (4, 0))
    with uncapped.app_context():
        opened(db.session(), 12)
        assert runs.deliver(lambda: False).sent == 12
        db.session.execute(update(Message).where(Message.id > 3).values(state="queued", sent_at=None))
        db.session.commit()
    with capped.app_context():
        assert reports.status(db.session(), installed().settings, "2026-06", NOW).delivery.done_at == at(
            "2026-06-04 22:00"
        )
        assert runs.deliver() == Delivered(sent=1, notices_wait=True)
    with uncapped.app_context():
        assert runs.deliver(lambda: False).sent == 8
        db.session.execute(update(Message).where(Message.id > 4).values(state="queued", sent_at=None))
        db.session.commit()
    with capped.app_context():
        done = runs.deliver()
        assert (done.sent, done.notices_wait) == (0, True), "what a run without a cap has sent meanwhile counts, too"


def test_what_was_not_tried_does_not_count_for_the_day(paced: Any, smtp: SmtpCatcher, runs: Runs) -> None:
    session = paced(mail_daily=3)
    opened(session, 5)
    smtp.sender_reply = "421 4.3.2 back soon"
    for _ in range(3):
        assert runs.deliver().sent == 0
        runs.clock.tick(minutes=2)
    smtp.sender_reply = None
    assert runs.deliver() == Delivered(sent=3)
    assert session.scalars(select(MailPace.spent)).one() == 3


@pytest.mark.parametrize(
    ("window", "local", "goes"),
    [
        ("08:00-20:00", "07:59", False),
        ("08:00-20:00", "08:00", True),
        ("08:00-20:00", "19:59", True),
        ("08:00-20:00", "20:00", False),
        ("20:00-06:00", "05:59", True),
        ("20:00-06:00", "12:00", False),
        ("20:00-06:00", "23:00", True),
    ],
)
def test_notices_go_out_in_the_window_and_other_mail_always(
    paced: Any, smtp: SmtpCatcher, runs: Runs, window: str, local: str, goes: bool
) -> None:
    session = paced(mail_window=window)
    opened(session, 1)
    someone = factories.using(session, email="now@example.org")
    outbox.put(session, kind=Kind.WELCOME_BACK, once_key="w", now=NOW, member=someone)
    session.commit()
    runs.clock.travel(datetime.fromisoformat(f"2026-06-04T{local}+02:00"))
    factories.live_feed(session, runs.clock.now())
    session.commit()
    assert runs.deliver() == Delivered(sent=1 + goes)
    assert len(smtp.to("now@example.org")) == 1


def test_a_queue_that_waits_for_the_window_is_looked_through_when_it_opens(paced: Any, runs: Runs) -> None:
    """By night a tick every ten seconds would look through all of a round, and on SQLite nobody else could write."""
    session = paced(mail_window="08:00-20:00")
    opened(session, 1)
    session.execute(update(Member).values(last_used_at=NOW))
    session.commit()
    for local, state in (("23:00", "queued"), ("07:59", "queued"), ("08:00", "obsolete")):
        day = "03" if local == "23:00" else "04"
        runs.clock.travel(datetime.fromisoformat(f"2026-06-{day}T{local}+02:00"))
        assert runs.deliver() == Delivered()
        assert session.scalars(select(Message.state)).one() == state


# Stopping by itself


def refuse(smtp: SmtpCatcher, numbers: range) -> None:
    smtp.replies |= {f"m{number}@example.org": "550 5.1.1 no such user" for number in numbers}


@pytest.fixture
def few(make_app: Callable[..., Flask]) -> Any:
    with make_app(hold_min_members=4, max_dormant_percent=100, max_bounce_percent=5).app_context():
        yield db.session()


def test_too_many_refusals_hold_the_round_and_tell_operators(few: Session, smtp: SmtpCatcher, runs: Runs) -> None:
    operator = factories.operator(few)
    opened(few, 60)
    refuse(smtp, range(5))
    runs.deliver()
    few.rollback()
    campaign = few.scalars(select(Campaign)).one()
    assert (campaign.state, campaign.hold_reason) == ("held", "bounces")
    assert "5 of 49 notices were refused or came back (10.2 %), more than the 5 %" in str(
        reports.hold_sentence(campaign.hold_reason, campaign.hold_facts or {})
    )
    # The batch under way goes out; what is not claimed waits.
    states = few.scalars(select(Message.state).where(Message.member_id.is_not(None))).all()
    assert (states.count("sent"), states.count("bounced"), states.count("queued")) == (44, 5, 11)
    [_ready, held] = smtp.to(operator.email)
    body = held.message.get_body(("plain",))
    assert body is not None
    assert "5 of 49 notices" in " ".join(body.get_content().split())


def test_a_released_round_goes_on_until_it_is_half_as_bad_again(few: Session, smtp: SmtpCatcher, runs: Runs) -> None:
    opened(few, 60)
    refuse(smtp, range(5))
    runs.deliver()
    campaigns.release(few, installed().settings, "2026-06", runs.clock.now())
    few.commit()
    assert runs.deliver().sent == 10
    few.rollback()
    assert few.scalars(select(Campaign.state)).one() == "open"


def test_a_few_refusals_hold_nothing(few: Session, smtp: SmtpCatcher, runs: Runs) -> None:
    opened(few, 20)
    refuse(smtp, range(4))
    assert runs.deliver() == Delivered(sent=16, failed=4)
    few.rollback()
    assert few.scalars(select(Campaign.state)).one() == "open"


def test_a_small_share_holds_nothing(few: Session, smtp: SmtpCatcher, runs: Runs) -> None:
    opened(few, 120)
    refuse(smtp, range(100, 106))
    assert runs.deliver() == Delivered(sent=114, failed=6)
    few.rollback()
    assert few.scalars(select(Campaign.state)).one() == "open"


def gone_wrong(session: Session, **values: object) -> None:
    """As if five of the warnings that went out had come to this."""
    session.rollback()
    some = select(Message.id).order_by(Message.id).limit(5)
    session.execute(update(Message).where(Message.id.in_(some)).values(values))
    session.commit()


@pytest.mark.parametrize("state", ["bounced", "failed"])
def test_bounces_that_come_later_stop_the_next_run(few: Session, smtp: SmtpCatcher, runs: Runs, state: str) -> None:
    opened(few, 30)
    runs.deliver()
    gone_wrong(few, state=state)
    runs.deliver()
    few.rollback()
    assert few.scalars(select(Campaign.hold_reason)).one() == "bounces"


def test_what_the_server_refused_is_tried_again_once_the_round_is_released(
    few: Session, smtp: SmtpCatcher, runs: Runs
) -> None:
    """A filter that takes all mail for spam says nothing of an address; an operator has it mended, and releases."""
    opened(few, 20)
    smtp.replies["*"] = "554 5.7.1 looks like spam"
    assert runs.deliver().failed == 20
    few.rollback()
    del smtp.replies["*"]
    held = few.scalars(select(Campaign)).one()
    assert (held.state, held.hold_reason) == ("held", "bounces")
    campaigns.release(few, installed().settings, "2026-06", runs.clock.now())
    few.commit()
    assert runs.deliver() == Delivered(sent=20)
    few.rollback()
    assert {one.warned_at is not None for one in few.scalars(select(Case))} == {True}


def test_an_address_that_was_refused_is_not_tried_again(few: Session, smtp: SmtpCatcher, runs: Runs) -> None:
    opened(few, 20)
    refuse(smtp, range(5))
    runs.deliver()
    few.rollback()
    campaigns.release(few, installed().settings, "2026-06", runs.clock.now())
    few.commit()
    assert runs.deliver() == Delivered()


@pytest.mark.parametrize("end", [campaigns.release, campaigns.cancel])
def test_operators_are_told_of_no_hold_that_is_over(
    few: Session, smtp: SmtpCatcher, runs: Runs, end: Callable[..., object]
) -> None:
    operator = factories.operator(few)
    opened(few, 20)
    refuse(smtp, range(5))
    runs.deliver()
    few.rollback()
    few.execute(update(Message).where(Message.kind == "needs_attention").values(state="queued", sent_at=None))
    few.commit()
    smtp.mails.clear()
    end(few, installed().settings, "2026-06", runs.clock.now())
    few.commit()
    runs.deliver()
    assert smtp.to(operator.email) == []


def test_a_run_that_goes_on_for_long_looks_for_bounces_meanwhile(
    make_app: Callable[..., Flask], smtp: SmtpCatcher, runs: Runs
) -> None:
    with make_app(hold_min_members=4, max_dormant_percent=100, mail_rate=1).app_context():
        session = db.session()
        opened(session, 100)

        def half_a_minute_later() -> bool:
            if runs.waited == 30:
                gone_wrong(session, state="bounced")
            return False

        assert runs.deliver(half_a_minute_later) == Delivered(sent=60)
        assert session.scalars(select(Campaign.hold_reason)).one() == "bounces"


def test_a_round_answers_for_its_own_refusals_alone(few: Session, smtp: SmtpCatcher, runs: Runs) -> None:
    """So many were refused in the last one, which is over, that they would hold this one."""
    before = Campaign(month="2026-05", state="closed", policy={}, drafted_at=NOW, opened_at=NOW, dormant_count=5)
    few.add(before)
    few.flush()
    opened(few, 30)
    runs.deliver()
    gone_wrong(few, state="bounced", campaign_id=before.id)
    runs.deliver()
    few.rollback()
    assert few.execute(select(Campaign.month, Campaign.state).order_by(Campaign.month)).all() == [
        ("2026-05", "closed"),
        ("2026-06", "open"),
    ]


# When it will be done


def ahead(now: str, notices: int, spent: int = 0, observed: float = 0, **settings: Any) -> datetime | None:
    made = make_settings("sqlite:///none.db", Path(), **settings)
    return pace.done_at(made, at(now), notices, spent, observed)


def test_an_estimate_counts_rate_cap_and_window() -> None:
    assert ahead("2026-06-03 10:00", 3600, mail_rate=1) == at("2026-06-03 11:00")
    assert ahead("2026-06-03 10:00", 3600, mail_rate=10, observed=1) == at("2026-06-03 11:00")
    assert ahead("2026-06-03 10:00", 100, observed=0.5) == at("2026-06-03 10:03:20")
    # Berlin is two hours ahead: the window is 06:00 to 18:00 UTC.
    assert ahead("2026-06-03 17:00", 7200, mail_rate=1, mail_window="08:00-20:00") == at("2026-06-04 07:00")
    assert ahead("2026-06-03 19:00", 60, mail_rate=1, mail_window="08:00-20:00") == at("2026-06-04 06:01")
    assert ahead("2026-06-03 10:00", 250, spent=60, mail_daily=100) == at("2026-06-05 22:00")
    assert ahead("2026-06-03 10:00", 0) == at("2026-06-03 10:00")


def test_where_nothing_tells_there_is_no_estimate() -> None:
    assert ahead("2026-06-03 10:00", 100) is None
    assert ahead("2026-06-03 10:00", 100, mail_window="08:00-20:00") is None
    assert ahead("2026-06-03 10:00", 1_000_000, mail_daily=1) is None


@given(notices=st.integers(1, 5000), rate=st.floats(0.01, 50), daily=st.integers(0, 2000))
def test_more_notices_are_never_done_earlier(notices: int, rate: float, daily: int) -> None:
    fewer = ahead("2026-06-03 10:00", notices, mail_rate=rate, mail_daily=daily, mail_window="22:00-06:30")
    more = ahead("2026-06-03 10:00", notices + 1, mail_rate=rate, mail_daily=daily, mail_window="22:00-06:30")
    assert more is None or (fewer is not None and fewer <= more)


def test_before_approval_it_is_said_whether_all_can_be_told_in_time(paced: Any) -> None:
    session = paced(mail_daily=1, max_dormant_percent=100)
    factories.live_feed(session, NOW)
    for _ in range(15):
        factories.dormant(session)
    campaigns.draft(session, installed().settings, "2026-06", NOW)
    session.commit()
    # Of 3 to 16 June there are fourteen days.
    went = reports.status(session, installed().settings, "2026-06", NOW).delivery
    assert (went.sent, went.queued, went.in_time) == (0, 15, False)
    case = session.scalars(select(Case)).first()
    session.delete(case)
    session.commit()
    assert reports.status(session, installed().settings, "2026-06", NOW).delivery.in_time is True


def test_the_speed_of_the_last_hour_is_shown(paced: Any, smtp: SmtpCatcher, runs: Runs) -> None:
    session = paced(mail_rate=1)
    opened(session, 5)
    smtp.replies["m4@example.org"] = "550 5.1.1 no such user"
    runs.deliver(lambda: len(smtp.mails) >= 3)
    went = reports.status(session, installed().settings, "2026-06", runs.clock.now()).delivery
    assert (went.sent, went.queued, went.failed, went.per_hour) == (3, 2, 0, 3600)
    assert went.done_at == runs.clock.now() + timedelta(seconds=2)
    assert session.scalars(select(Member.mail_state)).first() == "good"


def test_what_a_server_has_put_off_tells_of_no_speed(paced: Any) -> None:
    """Five went out within two seconds, and a sixth half an hour later; then the next round is drafted."""
    session = paced(max_dormant_percent=100)
    opened(session, 6)
    settings = installed().settings
    for seconds, row in zip(
        (0, 0.5, 1, 1.5, 2, 1860), session.scalars(select(Message).order_by(Message.id)), strict=True
    ):
        row.state, row.smtp_reply, row.sent_at = "sent", "250 OK", NOW + timedelta(seconds=seconds)
    session.execute(update(Campaign).values(month="2026-05"))
    session.execute(update(Case).values(closed_at=NOW, state="kept"))
    later = NOW + timedelta(days=2)
    factories.live_feed(session, later)
    factories.dormant(session)
    session.commit()
    campaigns.draft(session, settings, "2026-06", later)
    session.commit()
    went = reports.status(session, settings, "2026-06", later).delivery
    assert went.done_at is not None
    assert went.done_at - later == timedelta(seconds=went.queued / 2)
    assert reports.status(session, settings, "2026-05", NOW + timedelta(minutes=40)).delivery.per_hour == 7200


def test_of_a_round_that_is_held_nobody_says_when_it_will_be_out(paced: Any, smtp: SmtpCatcher, runs: Runs) -> None:
    session = paced(mail_rate=1)
    opened(session, 5)
    settings = installed().settings
    assert reports.status(session, settings, "2026-06", NOW).delivery.done_at is not None
    campaigns.hold(session, settings, "2026-06", NOW)
    session.commit()
    went = reports.status(session, settings, "2026-06", NOW).delivery
    assert (went.queued, went.done_at, went.in_time) == (5, None, None)


def test_what_waits_for_its_time_or_for_a_lease_is_not_expected_earlier(paced: Any) -> None:
    session = paced(mail_rate=1)
    opened(session, 3)
    later, lease = NOW + timedelta(hours=12), NOW + timedelta(minutes=10)
    ids = session.scalars(select(Message.id).order_by(Message.id)).all()

    def out_by() -> datetime | None:
        session.commit()
        return reports.status(session, installed().settings, "2026-06", NOW).delivery.done_at

    assert out_by() == NOW + timedelta(seconds=3)
    leased = {"state": "sending", "lease_token": "killed", "lease_until": lease}
    session.execute(update(Message).where(Message.id == ids[0]).values(leased))
    assert out_by() == lease
    session.execute(update(Message).where(Message.id == ids[1]).values(due_at=later))
    assert out_by() == later


def test_a_round_that_has_not_begun_is_expected_to_go_as_fast_as_the_last(
    paced: Any, smtp: SmtpCatcher, runs: Runs
) -> None:
    session = paced(max_dormant_percent=100)
    opened(session, 3)
    settings = installed().settings
    assert reports.status(session, settings, "2026-06", NOW).delivery.done_at is None
    runs.deliver()
    for number, row in enumerate(session.scalars(select(Message).order_by(Message.id))):
        row.sent_at = NOW + timedelta(minutes=number)
    session.execute(update(Campaign).values(month="2026-05"))
    session.commit()
    later = NOW + timedelta(days=2)
    factories.live_feed(session, later)
    for _ in range(3):
        factories.dormant(session)
    campaigns.draft(session, settings, "2026-06", later)
    session.commit()
    went = reports.status(session, settings, "2026-06", later).delivery
    assert (went.queued, went.per_hour, went.in_time) == (3, None, True)
    assert went.done_at == later + timedelta(minutes=3)
