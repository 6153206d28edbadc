"""Two things at the same instant, on both databases: each is decided once, and the page tells what was decided."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from random import Random
from threading import Barrier, Event, get_ident

import pytest
from flask import Flask
from sqlalchemy import func, select, text, update
from sqlalchemy.event import listen, remove
from sqlalchemy.orm import Session

from domain.errors import Refused
from domain.lifecycle import Answer, Through
from domain.ports import Billing, BillingReceipt
from jobs import runner
from models import (
    BillingOrder,
    Campaign,
    Case,
    JobRun,
    ListItem,
    LocalCall,
    LocalCharge,
    LocalSubscription,
    Member,
    Message,
    db,
    for_writing,
)
from models import Event as Happened
from services import (
    activity,
    campaigns,
    cases,
    check_in,
    closing,
    decisions,
    ending,
    importing,
    magic_links,
    purging,
    returning,
    settling,
    warning,
)
from services.mail import bounces
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock
from tests.factories import at
from tests.faults.harness import Deadly, eventually
from tests.services.support import accept_mails, case_of, opened
from tests.web.browser import SITE, Browser

JULY_1 = at("2026-07-01 06:00")
Commit = Callable[[], None]
Act = Callable[[Session, Commit], object]


def at_once(app: Flask, *acts: Act) -> list[object]:
    """Each in a thread with a session of its own, all let go together; what each returned, or raised."""
    start = Barrier(len(acts))

    def run(act: Act) -> object:
        with app.app_context():
            start.wait(300)
            return act(db.session(), db.session.commit)

    with ThreadPoolExecutor(len(acts)) as threads:
        return [outcome(future) for future in [threads.submit(run, act) for act in acts]]


def outcome(future: "Future[object]") -> object:
    error = future.exception()
    return future.result() if error is None else error


def anything(session: Session) -> bool:
    return True


def has_decided(session: Session) -> bool:
    """Close and purge commit steps that decide nothing as well."""
    decided = ("case_closed", "purged")
    return bool(session.scalar(select(func.count()).where(Happened.code.in_(decided), Happened.at >= JULY_1)))


def one_open_as_the_other_begins(
    app: Flask, first: Act, second: Act, decided: Callable[[Session], bool] = anything
) -> list[object]:
    """``first`` has ended or changed something and not committed it when ``second`` begins, which waits for it."""
    at_work, go_on, begun = Event(), Event(), Event()

    def hold() -> object:
        with app.app_context():
            session = db.session()

            def commit() -> None:
                if not at_work.is_set() and decided(session):
                    at_work.set()
                    assert go_on.wait(300)
                session.commit()

            try:
                return first(session, commit)
            finally:
                at_work.set()

    def follow() -> object:
        with app.app_context():
            begun.set()
            return second(db.session(), db.session.commit)

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(hold)
        assert at_work.wait(300)
        other = threads.submit(follow)
        assert begun.wait(300)
        if db.engine.dialect.name == "postgresql":
            eventually(lambda: other.done() or waits_for_a_lock(app))
        go_on.set()
        return [outcome(one), outcome(other)]


def waits_for_a_lock(app: Flask) -> bool:
    with app.app_context(), db.engine.connect() as connection:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(connection.scalar(text(waiting)))


def close(settings: Settings, now: object = JULY_1) -> Act:
    return lambda session, commit: closing.close(session, settings, now, commit)  # type: ignore[arg-type]


def writing(act: Callable[[Session], object]) -> Act:
    """What a page or a command does: one transaction."""

    def run(session: Session, commit: Commit) -> object:
        for_writing(session)
        try:
            found = act(session)
        except Refused:
            session.rollback()
            raise
        commit()
        return found

    return run


def answer(settings: Settings, case_id: int, wish: Answer, now: object = JULY_1) -> Act:
    return writing(lambda session: decisions.answer(session, settings, case_id, wish, Through.LINK, now))  # type: ignore[arg-type]


def heading(app: Flask, session: Session, settings: Settings, case: Case) -> str:
    token = check_in.token(settings, case.public_id, case.address_generation)
    session.rollback()
    browser = Browser(app)
    browser.open(f"{SITE}/check-in/{token}")
    return " ".join(browser.page.h1.split())


@pytest.fixture
def settings(app: Flask) -> Settings:
    found: Settings = app.extensions["dormouse"].settings
    return found


@pytest.fixture
def warned(session: Session, settings: Settings, clock: FrozenClock) -> Member:
    """A silent member on the morning after the last day."""
    member = factories.dormant(session, external_id="K-1", email="mia@example.org", billing_ref="K-1")
    opened(session, settings, NOW)
    factories.live_feed(session, JULY_1)
    session.commit()
    clock.travel(JULY_1)
    return member


def settle(app: Flask, session: Session) -> None:
    session.rollback()
    runner.run_queue(app, "settle-billing")


# A use, an answer, a bounce, and the month end


@pytest.mark.parametrize("first", ["use", "close"])
@pytest.mark.parametrize("what", ["activity", "members"])
def test_scenario_17_a_use_that_is_uncommitted_when_close_begins_wins_or_reverses(
    app: Flask, session: Session, settings: Settings, warned: Member, tmp_path: Path, first: str, what: str
) -> None:
    file = tmp_path / f"{what}.csv"
    used, joined = "2026-06-30T20:00:00Z", "2025-01-15T00:00:00Z"
    if what == "activity":
        file.write_text(f"external_id,used_at\nK-1,{used}\n")
    else:
        file.write_text(f"external_id,email,joined_at,last_used_at\nK-1,mia@example.org,{joined},{used}\n")
    session.rollback()

    def use(session: Session, commit: Commit) -> object:
        if what == "activity":
            return activity.import_activity(session, settings, file, JULY_1, commit=commit)
        return importing.import_members(session, settings, file, JULY_1, commit=commit)

    if first == "use":
        one_open_as_the_other_begins(app, use, close(settings))
    else:
        one_open_as_the_other_begins(app, close(settings), use, has_decided)

    case = case_of(session, warned)
    assert (warned.status, case.state) == ("active", "returned")
    assert heading(app, session, settings, case) == "Your membership continues"
    settle(app, session)
    assert session.scalar(select(LocalSubscription.stopped_at).where(LocalSubscription.billing_ref == "K-1")) is None
    kinds = session.execute(select(Message.kind, Message.state).where(Message.kind.in_(["lapsed", "returned"]))).all()
    assert {tuple(row) for row in kinds} - {("lapsed", "obsolete")} == {("returned", "queued")}


KEEPS, CHANGES, BOUNCES, EXEMPT, MOVES = "keep", "keep after end", "bounce", "exemption", "address"
ENDED = "Your membership ended on 30 June"
CONTINUES = "Your membership continues"
WHO_COMES_FIRST = {
    (KEEPS, "fact"): ("active", "kept", CONTINUES),
    (KEEPS, "close"): ("lapsed", "lapsed", ENDED),
    (CHANGES, "fact"): ("active", "kept", CONTINUES),
    (CHANGES, "close"): ("lapsed", "lapsed", ENDED),
    (BOUNCES, "fact"): ("active", "unreachable", CONTINUES),
    (BOUNCES, "close"): ("active", "unreachable", CONTINUES),
    (EXEMPT, "fact"): ("active", "exempted", CONTINUES),
    (EXEMPT, "close"): ("lapsed", "lapsed", ENDED),
    (MOVES, "fact"): ("active", "open", "Keep your membership, or end it?"),
    (MOVES, "close"): ("lapsed", "lapsed", ENDED),
}


@pytest.mark.parametrize(("fact", "first"), WHO_COMES_FIRST)
def test_scenario_18_a_fact_against_close_has_one_outcome_and_the_page_tells_it(
    app: Flask, session: Session, settings: Settings, warned: Member, fact: str, first: str
) -> None:
    case = case_of(session, warned)
    message_id = session.scalar(select(Message.id).where(Message.kind == "warning")) or 0
    member_id = warned.id

    def moves(session: Session) -> None:
        session.execute(update(Member).values(email="new@example.org", email_key="new@example.org"))
        warning.address_changed(session, settings, JULY_1)

    if fact == CHANGES:
        at_once(app, answer(settings, case.id, Answer.LAPSE, NOW + timedelta(days=2)))
    act = {
        KEEPS: answer(settings, case.id, Answer.KEEP),
        CHANGES: answer(settings, case.id, Answer.KEEP),
        BOUNCES: writing(lambda session: bounces.bounced(session, settings, message_id, JULY_1)),
        EXEMPT: writing(lambda session: decisions.exempt(session, member_id, "a gift", JULY_1)),
        MOVES: writing(moves),
    }[fact]
    session.rollback()
    if first == "fact":
        said = one_open_as_the_other_begins(app, act, close(settings))[0]
    else:
        said = one_open_as_the_other_begins(app, close(settings), act, has_decided)[1]

    case = case_of(session, warned)
    status, state, title = WHO_COMES_FIRST[fact, first]
    assert (warned.status, case.state) == (status, state)
    assert isinstance(said, Refused) == (fact in (KEEPS, CHANGES) and first == "close")
    assert heading(app, session, settings, case).startswith(title)
    settle(app, session)
    stopped = session.scalar(select(LocalSubscription.stopped_at)) is not None
    assert stopped == (status == "lapsed")


def test_scenario_25_a_payment_that_is_uncommitted_when_close_begins_is_waited_for(
    app: Flask, session: Session, settings: Settings, warned: Member
) -> None:
    """What has been paid says until when the data is kept, and both are from the same moment."""
    paid = writing(lambda session: session.execute(update(Member).values(paid_through=at("2027-05-15 10:00"))))
    session.rollback()
    one_open_as_the_other_begins(app, paid, close(settings))
    session.refresh(warned)
    assert (warned.status, warned.access_ends_at) == ("lapsed", at("2027-05-15 10:00"))
    assert warned.keep_until == at("2028-03-31 22:00")
    session.rollback()


@pytest.mark.parametrize("instant", [NOW + timedelta(days=2), JULY_1])
def test_two_tabs_with_two_answers_at_the_same_instant(
    app: Flask, session: Session, settings: Settings, warned: Member, clock: FrozenClock, instant: object
) -> None:
    """Both are answers, one after the other: the later one holds, and whoever looks sees that one."""
    clock.travel(instant)  # type: ignore[arg-type]
    case = case_of(session, warned)
    link = f"{SITE}/check-in/{check_in.token(settings, case.public_id, case.address_generation)}"
    session.rollback()
    start = Barrier(2)

    def press(wish: str) -> int:
        tab = Browser(app)
        tab.open(link)
        start.wait(300)
        return tab.press("answer", wish).status_code

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(press, ("keep", "lapse"))) == [200, 200]

    case = case_of(session, warned)
    answers = session.scalars(select(Happened.code).where(Happened.code.like("answered%")).order_by(Happened.id)).all()
    receipts = session.scalars(select(Message.kind).where(Message.kind.like("receipt%")).order_by(Message.id)).all()
    assert Counter(answers) == {"answered_keep": 1, "answered_lapse": 1}
    assert answers[-1] == f"answered_{case.answer}"
    assert receipts[-1] == f"receipt_{case.answer}"
    keeps = case.answer == "keep"
    assert heading(app, session, settings, case) == (CONTINUES if keeps else "Your membership ends on 30 June 2026")
    settle(app, session)
    stopped = session.scalar(select(LocalSubscription.stopped_at)) is not None
    assert stopped == (not keeps)
    session.rollback()

    closing.close(session, settings, JULY_1, session.commit)
    assert case_of(session, warned).state == ("kept" if keeps else "lapsed")
    # What was struck out and what was sent: one order that holds for each change of mind.
    settle(app, session)
    assert (session.scalar(select(LocalSubscription.stopped_at)) is not None) == (not keeps)


# Coming back


@pytest.fixture
def lapsed(app: Flask, session: Session, settings: Settings, warned: Member) -> Member:
    """Silent to the end; the stop is not out yet."""
    factories.library(session, warned)
    session.commit()
    closing.close(session, settings, JULY_1, session.commit)
    session.refresh(warned)
    assert warned.status == "lapsed"
    session.rollback()
    return warned


def comes_back(settings: Settings, member_id: int, now: object) -> Act:
    def order(session: Session) -> object:
        quoted = returning.quote(session.get_one(Member, member_id), settings, now)  # type: ignore[arg-type]
        return returning.order(session, settings, member_id, quoted, now)  # type: ignore[arg-type]

    return writing(order)


@pytest.mark.parametrize("first", ["return", "purge"])
def test_scenario_33_come_back_and_purge_at_the_same_instant(
    app: Flask, session: Session, settings: Settings, lapsed: Member, clock: FrozenClock, first: str
) -> None:
    settle(app, session)
    last_chance = at("2027-04-02 08:00")
    session.rollback()
    purging.warn_purge(session, settings, last_chance)
    session.commit()
    accept_mails(session, settings, last_chance)
    too_late = at("2027-05-02 08:00")
    clock.travel(too_late)
    member_id = lapsed.id
    session.rollback()

    def purge(session: Session, commit: Commit) -> object:
        return purging.purge(session, settings, too_late, commit)

    if first == "return":
        back, purged = one_open_as_the_other_begins(app, comes_back(settings, member_id, too_late), purge)
        assert purged == 0
    else:
        purged, back = one_open_as_the_other_begins(app, purge, comes_back(settings, member_id, too_late), has_decided)
        assert purged == 1
        assert isinstance(back, Refused)
    session.rollback()
    session.refresh(lapsed)
    items = session.scalar(select(func.count()).select_from(ListItem))
    orders = session.scalars(select(BillingOrder.kind).order_by(BillingOrder.id)).all()
    expected = ("active", 12, ["stop", "refund", "restart"]) if first == "return" else ("purged", 0, ["stop"])
    assert (lapsed.status, items, orders) == expected


class Provider:
    """The books of the local provider, which do not answer a stop before they are told to."""

    def __init__(self, books: Billing) -> None:
        self.books, self.asked, self.go_on = books, Event(), Event()

    def stop(self, *args: object, **more: object) -> BillingReceipt:
        self.asked.set()
        assert self.go_on.wait(300)
        return self.books.stop(*args, **more)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self.books, name)


@pytest.mark.parametrize("paid", [True, False], ids=["still paid", "paid no more"])
@pytest.mark.parametrize("stop", ["unsent", "being sent", "sent"])
def test_scenario_34_a_return_a_minute_after_the_lapse_is_billed_once(
    app: Flask, session: Session, settings: Settings, warned: Member, clock: FrozenClock, stop: str, paid: bool
) -> None:
    paid_through = at("2026-07-20 00:00") if paid else None
    warned.paid_through = paid_through
    session.add(LocalSubscription(billing_ref="K-1", next_charge_at=paid_through))
    session.commit()
    closing.close(session, settings, JULY_1, session.commit)
    session.rollback()
    a_minute_later = JULY_1 + timedelta(minutes=1)
    provider = Provider(app.extensions["dormouse"].billing)
    if stop != "being sent":
        provider.go_on.set()

    def send(session: Session, commit: Commit) -> object:
        return settling.settle(session, provider, clock, commit, lambda: False)  # type: ignore[arg-type]

    with ThreadPoolExecutor(1) as threads:
        if stop != "unsent":
            sending = threads.submit(at_once, app, send)
            assert provider.asked.wait(300)
            if stop == "sent":
                sending.result()
        clock.travel(a_minute_later)
        [back] = at_once(app, comes_back(settings, warned.id, a_minute_later))
        # What the return orders waits for a stop that is under way.
        settle(app, session)
        provider.go_on.set()
    assert not isinstance(back, BaseException)
    assert back.kind == ("undo" if paid else "restart")  # type: ignore[attr-defined]
    settle(app, session)

    session.rollback()
    session.refresh(warned)
    assert warned.status == "active"
    assert session.scalars(select(BillingOrder.state).distinct()).all() in (
        ["done"],
        ["superseded"],
        ["done", "superseded"],
    )
    books = session.get_one(LocalSubscription, "K-1", populate_existing=True)
    assert books.stopped_at is None
    charged = session.execute(select(LocalCharge.period_start, LocalCharge.refunded_at)).all()
    if paid:
        assert (charged, books.next_charge_at) == ([], paid_through)
    else:
        assert [tuple(row) for row in charged] == [(a_minute_later, None)]
        assert books.next_charge_at == at("2026-08-01 06:01")
    calls = Counter(key.partition(":")[0] for key in session.scalars(select(LocalCall.key)))
    assert max(calls.values(), default=1) == 1


# Many of the same


def test_scenario_42_four_schedulers_and_four_senders_do_everything_once(
    make_app: Callable[..., Flask], smtp: Deadly, clock: FrozenClock, long: bool
) -> None:
    machines = [make_app(campaign_approval="auto", max_dormant_percent=100) for _ in range(4)]
    number = 200 if long else 30
    with machines[0].app_context():
        for name in range(number):
            factories.dormant(db.session(), billing_ref=f"b-{name}")
        factories.live_feed(db.session(), NOW)
        db.session.commit()

    def together(*names: str) -> None:
        start = Barrier(4 * len(names))

        def run(app: Flask, name: str) -> None:
            start.wait(300)
            if name == "tick":
                runner.run_due(app)
            else:
                runner.run_queue(app, name)

        with ThreadPoolExecutor(4 * len(names)) as threads:
            for done in [threads.submit(run, app, name) for app in machines for name in names]:
                done.result()

    together("tick")
    together("deliver", "tick")
    clock.travel(JULY_1)
    with machines[0].app_context():
        factories.live_feed(db.session(), JULY_1)
        db.session.commit()
    together("tick")
    together("settle-billing", "deliver", "tick")
    # What a sender found before its stop was confirmed waits for the next.
    together("deliver")

    assert len(smtp.mails) == 2 * number
    assert len({str(mail.message["Message-ID"]) for mail in smtp.mails}) == 2 * number
    with machines[0].app_context():
        session = db.session()
        periods = select(JobRun.attempts).where(JobRun.period != "queue", JobRun.result != "skipped")
        assert set(session.scalars(periods)) == {1}
        assert session.scalars(select(JobRun).where(JobRun.error.is_not(None))).all() == []
        assert Counter(session.scalars(select(Case.state))) == {"lapsed": number}
        assert Counter(session.scalars(select(Member.status))) == {"lapsed": number}
        of_campaigns = select(Happened.campaign_id, Happened.code).where(Happened.code.like("campaign%"))
        assert set(Counter(session.execute(of_campaigns).all()).values()) == {1}
        happened = Counter(session.scalars(select(Happened.code)))
        assert (happened["case_opened"], happened["case_closed"], happened["billing_done"]) == (number,) * 3
        assert Counter(session.scalars(select(BillingOrder.kind))) == {"stop": number}
        assert session.scalar(select(func.count()).select_from(LocalCall)) == number


def test_scenario_42_two_closes_at_once_end_each_membership_once(
    app: Flask, session: Session, settings: Settings, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(60):
        factories.dormant(session)
    opened(session, settings.model_copy(update={"max_dormant_percent": 100}), NOW)
    factories.live_feed(session, JULY_1)
    session.commit()
    monkeypatch.setattr(closing, "WINDOW", 7)
    wide = settings.model_copy(update={"max_dormant_percent": 100})
    closed = at_once(app, close(wide), close(wide))
    assert sum(one.lapsed for one in closed) == 60  # type: ignore[attr-defined]
    events = Counter(session.scalars(select(Happened.code)))
    assert events["case_closed"] == 60
    assert Counter(session.scalars(select(Message.kind))) == {"warning": 60, "lapsed": 60}
    assert Counter(session.scalars(select(BillingOrder.kind))) == {"stop": 60}
    assert session.scalar(select(Campaign.state)) == "closed"


def test_scenario_18_an_answer_half_done_when_close_begins_is_finished_first(
    app: Flask, session: Session, settings: Settings, warned: Member
) -> None:
    """Everybody locks the member before the case, so the two wait for one another in one order and never in a ring."""
    case = case_of(session, warned)
    member_id, case_id = warned.id, case.id
    session.rollback()
    half_done, me = Event(), get_ident()

    def pause(_c: object, _cursor: object, statement: str, *_more: object) -> None:
        if get_ident() == me and statement.startswith("UPDATE member") and not half_done.is_set():
            half_done.set()
            if db.engine.dialect.name == "postgresql":
                eventually(lambda: waits_for_a_lock(app))

    def follow() -> object:
        assert half_done.wait(300)
        with app.app_context():
            return close(settings)(db.session(), db.session.commit)

    listen(db.engine, "before_cursor_execute", pause)
    try:
        with ThreadPoolExecutor(1) as threads:
            other = threads.submit(follow)
            answer(settings, case_id, Answer.KEEP)(session, session.commit)
            closed = other.result(300)
    finally:
        remove(db.engine, "before_cursor_execute", pause)
    session.expire_all()
    assert (session.get_one(Member, member_id).status, session.get_one(Case, case_id).state) == ("active", "kept")
    assert closed.lapsed == 0  # type: ignore[attr-defined]


def half_done(app: Flask, session: Session, first: Act, before: str, second: Act) -> list[object]:
    """``first`` stops before its first statement that begins so, until ``second`` waits for it; what each gave."""
    stopped, me = Event(), get_ident()

    def pause(_c: object, _cursor: object, statement: str, *_more: object) -> None:
        if get_ident() == me and statement.startswith(before) and not stopped.is_set():
            stopped.set()
            if db.engine.dialect.name == "postgresql":
                eventually(lambda: other.done() or waits_for_a_lock(app))

    def follow() -> object:
        assert stopped.wait(300)
        with app.app_context():
            return second(db.session(), db.session.commit)

    listen(db.engine, "before_cursor_execute", pause)
    try:
        with ThreadPoolExecutor(1) as threads:
            other = threads.submit(follow)
            found = first(session, session.commit)
            return [found, outcome(other)]
    finally:
        remove(db.engine, "before_cursor_execute", pause)


@pytest.mark.parametrize("act", ["cancel", "hold"])
def test_an_answer_half_done_when_its_round_is_stopped_is_finished_first(
    app: Flask, session: Session, settings: Settings, warned: Member, act: str
) -> None:
    """An answer's mail refers to the round, whose row is being changed: the two must not wait in a ring."""
    case_id = case_of(session, warned).id
    session.rollback()
    stop = getattr(campaigns, act)
    stopping = writing(lambda other: stop(other, settings, "2026-06", JULY_1))
    _, stopped = half_done(app, session, answer(settings, case_id, Answer.KEEP), "INSERT INTO message", stopping)
    session.expire_all()
    assert isinstance(stopped, Campaign), stopped
    assert (session.get_one(Case, case_id).state, session.get_one(Case, case_id).answer) == ("open", "keep")


def test_mail_that_is_written_down_for_many_does_not_wait_for_who_is_just_answering(
    app: Flask, session: Session, settings: Settings, warned: Member
) -> None:
    """Neither for the member nor for the case, of which a reminder, say, is about to be written down."""
    case = case_of(session, warned)
    case_id, member_id = case.id, warned.id
    session.rollback()

    def write(other: Session) -> None:
        if db.engine.dialect.name == "postgresql":
            other.execute(text("SET LOCAL lock_timeout = '60s'"))
        message = Message(
            once_key="x", kind="reminder", member_id=member_id, case_id=case_id, priority=5, created_at=NOW, due_at=NOW
        )
        other.add(message)

    cases.lock(session, member_id)
    assert cases.live_case(session, member_id) is not None
    with ThreadPoolExecutor(1) as threads:

        def run() -> object:
            with app.app_context():
                return writing(write)(db.session(), db.session.commit)

        assert outcome(threads.submit(run)) is None
    session.rollback()


def test_an_end_of_ones_own_while_the_draft_is_being_made_is_an_answer_to_it(
    app: Flask, session: Session, settings: Settings, clock: FrozenClock
) -> None:
    member = factories.dormant(session)
    factories.live_feed(session, NOW)
    session.commit()
    member_id = member.id
    session.rollback()
    drafting = writing(lambda other: campaigns.draft(other, settings, "2026-06", NOW))
    ending = writing(lambda other: decisions.end_membership(other, settings, member_id, Through.ACCOUNT, NOW))
    drafted, ended = one_open_as_the_other_begins(app, drafting, ending)
    assert isinstance(drafted, Campaign), drafted
    assert isinstance(ended, Case), ended
    [case] = session.scalars(select(Case)).all()
    assert (case.answer, case.campaign_id is not None) == ("lapse", True)


def test_scenario_42_two_who_draft_at_once_get_the_same_round(
    app: Flask, session: Session, settings: Settings, clock: FrozenClock
) -> None:
    factories.dormant(session)
    factories.live_feed(session, NOW)
    session.commit()

    def draft(other: Session) -> int:
        return campaigns.draft(other, settings, "2026-06", NOW).id

    first, second = one_open_as_the_other_begins(app, writing(draft), writing(draft))
    assert first == second
    assert session.scalar(select(func.count()).select_from(Case)) == 1


@pytest.mark.parametrize("asked_for", ["to sign in", "to end"])
def test_scenario_38_a_mail_asked_for_while_a_purge_runs_keeps_no_address(
    app: Flask, session: Session, settings: Settings, clock: FrozenClock, asked_for: str
) -> None:
    factories.lapsed(session, email="mia@example.org", mail_state="bounced")
    session.commit()
    now = at("2027-03-01 06:00")

    def ask(other: Session) -> None:
        if asked_for == "to sign in":
            magic_links.request_sign_in(other, settings, "mia@example.org", "192.0.2.1", now)
        else:
            ending.request_end(other, settings, "Somebody", "mia@example.org", "192.0.2.1", now)

    def purge(other: Session, commit: Commit) -> object:
        return purging.purge(other, settings, now, commit)

    purged, mailed = one_open_as_the_other_begins(app, purge, writing(ask), has_decided)
    assert (purged, mailed) == (1, None)
    assert session.scalars(select(Message.to_address)).all() == []


def test_who_pays_elsewhere_while_others_return_is_left_to_whoever_heard_of_it(
    app: Flask, session: Session, settings: Settings, clock: FrozenClock
) -> None:
    """Found once and locked: nobody becomes active by a statement whose sisters did not see them."""
    first, second = factories.lapsed(session, paid_through=at("2026-06-20")), factories.lapsed(session)
    session.commit()
    second_id, me, paid = second.id, get_ident(), Event()
    session.rollback()

    def pay(_c: object, _cursor: object, statement: str, *_more: object) -> None:
        if get_ident() == me and statement.startswith("INSERT INTO event") and not paid.is_set():
            paid.set()
            if db.engine.dialect.name == "postgresql":
                with db.engine.begin() as connection:
                    connection.execute(
                        update(Member).where(Member.id == second_id).values(paid_through=at("2026-06-20"))
                    )

    listen(db.engine, "before_cursor_execute", pay)
    try:
        for_writing(session)
        returned = returning.returned_elsewhere(session, settings, NOW)
        session.commit()
    finally:
        remove(db.engine, "before_cursor_execute", pay)
    assert (returned, session.scalar(select(func.count()).where(Happened.code == "returned_elsewhere"))) == (1, 1)
    assert (first.status, second.status) == ("active", "lapsed")


def test_scenario_18_hundreds_answer_and_use_it_while_close_runs(
    app: Flask,
    session: Session,
    settings: Settings,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    long: bool,
) -> None:
    """Whoever was told "kept" is kept, whoever was told "too late" has lapsed, and whoever used it has not."""
    number = 600 if long else 120
    wide = settings.model_copy(update={"max_dormant_percent": 100})
    members = [factories.dormant(session) for _ in range(number)]
    opened(session, wide, NOW)
    factories.live_feed(session, JULY_1)
    session.commit()
    clock.travel(JULY_1)
    cases = dict(session.execute(select(Case.member_id, Case.id)).all())
    ids = {member.id: member.external_id for member in members}
    session.rollback()
    monkeypatch.setattr(closing, "WINDOW", 10)
    random = Random(7)
    order = random.sample(sorted(ids), number)
    keep, end, use = order[: number // 3], order[number // 3 : number // 2], order[number // 2 : number * 3 // 4]
    told: dict[int, object] = {}

    def answers(wish: Answer, who: list[int]) -> Act:
        def run(session: Session, commit: Commit) -> None:
            for member_id in who:
                try:
                    answer(wide, cases[member_id], wish)(session, commit)
                    told[member_id] = wish
                except Refused:
                    told[member_id] = Refused

        return run

    def uses(who: list[int]) -> Act:
        def run(session: Session, commit: Commit) -> None:
            for part in range(0, len(who), 6):
                file = tmp_path / f"activity-{part}.csv"
                lines = [f"{ids[member_id]},2026-06-30T20:00:00Z" for member_id in who[part : part + 6]]
                file.write_text("\n".join(["external_id,used_at", *lines]))
                activity.import_activity(session, wide, file, JULY_1, commit=commit)

        return run

    outcomes = at_once(app, close(wide), close(wide), answers(Answer.KEEP, keep), answers(Answer.LAPSE, end), uses(use))
    assert [one for one in outcomes if isinstance(one, BaseException)] == []
    at_once(app, close(wide))

    session.rollback()
    found = {
        member_id: (status, state, answered)
        for member_id, status, state, answered in session.execute(
            select(Member.id, Member.status, Case.state, Case.answer).join(Case, Case.member_id == Member.id)
        )
    }
    for member_id in keep:
        kept = ("active", "kept", "keep") if told[member_id] is Answer.KEEP else ("lapsed", "lapsed", None)
        assert found[member_id] == kept
    for member_id in end:
        by_whom = "lapse" if told[member_id] is Answer.LAPSE else None
        assert found[member_id] == ("lapsed", "lapsed", by_whom)
    for member_id in use:
        assert found[member_id] == ("active", "returned", None)
    silent = set(ids) - {*keep, *end, *use}
    assert {found[member_id] for member_id in silent} == {("lapsed", "lapsed", None)}
    settle(app, session)
    stopped = set(
        session.scalars(select(LocalSubscription.billing_ref).where(LocalSubscription.stopped_at.is_not(None)))
    )
    assert stopped == {ids[member_id] for member_id, (status, *_) in found.items() if status == "lapsed"}


def test_scenario_15_a_sender_slower_than_its_lease_and_the_one_who_took_the_row(
    make_app: Callable[..., Flask], smtp: Deadly, clock: FrozenClock
) -> None:
    slow, other = (make_app(campaign_approval="auto") for _ in range(2))
    with slow.app_context():
        factories.dormant(db.session())
        factories.live_feed(db.session(), NOW)
        db.session.commit()
    runner.run(slow, "draft-campaign", NOW)

    def meanwhile(count: int) -> None:
        if count == 1:
            clock.tick(minutes=11)
            runner.run_queue(other, "deliver")

    smtp.on_accepted = meanwhile
    runner.run_queue(slow, "deliver")
    assert len(smtp.mails) == 2
    assert len({str(mail.message["Message-ID"]) for mail in smtp.mails}) == 1
    with slow.app_context():
        session = db.session()
        message = session.scalars(select(Message)).one()
        assert (message.state, message.attempts, message.sent_at) == ("sent", 2, clock.now())
        accepted = select(func.count()).select_from(Happened).where(Happened.code == "mail_accepted")
        assert session.scalar(accepted) == 1
        assert session.scalars(select(Case.warned_at)).one() == clock.now()
