"""The outbox meets a real SMTP server: claims, replies, crashes of the line, and what is on record afterwards."""

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Event as Signal
from threading import current_thread
from time import monotonic
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from adapters.mail.smtp import SmtpMailer
from domain.notices import Kind
from domain.ports import MailResult
from models import Campaign, Case, Event, Member, Message, db
from services import campaigns, outbox
from services.installation import installed
from services.mail import delivery, desk, dispatch, recording
from services.mail.delivery import Delivered
from services.mail.desk import Desk
from services.mail.lines import Lines
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock, SmtpCatcher
from tests.services.support import written


def deliver(session: Session, enough: Callable[[], bool] = lambda: False, mailer: Any = None) -> Delivered:
    here = installed()
    session.rollback()
    return delivery.deliver(session, here.settings, mailer or here.mailer, here.clock, session.commit, enough)


def queue(session: Session, *members: Member, kind: Kind = Kind.WELCOME_BACK) -> None:
    for member in members:
        outbox.put(session, kind=kind, once_key=f"{kind}:{member.id}", now=NOW, member=member)
    session.commit()


def messages(session: Session) -> dict[str, Message]:
    session.rollback()
    rows = session.scalars(select(Message).order_by(Message.id).execution_options(populate_existing=True))
    return {row.to_address or "": row for row in rows}


def test_what_a_reply_puts_into_the_outbox_goes_out_in_the_same_run_whenever_one_had_looked_for_more(
    session: Session, smtp: SmtpCatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim that saw nothing before the reply was recorded, and comes back after it, does not end the run."""
    queue(session, factories.member(session, email="first@example.org"))
    second = factories.member(session, email="second@example.org")
    session.commit()
    monkeypatch.setattr(delivery, "BATCH", 1)
    claim, record_all, free_again = dispatch.claim, recording.record_all, Lines.free_again
    freed = Signal()

    def finds_nothing_and_is_slow(*args: Any, **options: Any) -> Any:
        found = claim(*args, **options)
        if not found and "claims" in current_thread().name:
            assert freed.wait(30)
        return found

    def with_a_consequence(recording_session: Session, *args: Any) -> Any:
        outbox.put(
            recording_session, kind=Kind.WELCOME_BACK, once_key="second", now=NOW,
            member=recording_session.get_one(Member, second.id),
        )  # fmt: skip
        return record_all(recording_session, *args)

    def frees(lines: Lines, line: Any) -> None:
        free_again(lines, line)
        freed.set()

    monkeypatch.setattr(dispatch, "claim", finds_nothing_and_is_slow)
    monkeypatch.setattr(recording, "record_all", with_a_consequence)
    monkeypatch.setattr(Lines, "free_again", frees)
    assert deliver(session) == Delivered(sent=2)


@pytest.mark.parametrize(
    "odd", [("lost",), ("over",), ("lost", "over"), ("late",), ("gone",), ("refused",), ()], ids="-".join
)
def test_of_replies_that_came_together_each_is_written_down_as_it_is(session: Session, odd: tuple[str, ...]) -> None:
    """One may have lost its lease, of one the case may be over, one is no warning: the others are warned all the same.

    One comes too late for the day it names, one goes to an address that is not kept. Each is warned of the day and of
    what silence comes to as its own mail has said it.
    """
    here = installed()
    factories.live_feed(session, NOW)
    for name in {*odd, "mia", "noor"} - {"gone"}:
        factories.dormant(session, email=f"{name}@example.org", billed_by="a store" if name == "noor" else None)
    campaigns.draft(session, here.settings, "2026-06", NOW)
    campaigns.approve(session, here.settings, "2026-06", NOW)
    back = factories.member(session, email="back@example.org")
    outbox.put(session, kind=Kind.WELCOME_BACK, once_key="back", now=NOW, member=back)
    if "gone" in odd:
        gone = factories.member(session, email="gone@example.org")
        outbox.put(session, kind=Kind.ERASED, once_key="gone", now=NOW, member=gone)
    claimed = {one.to_address.partition("@")[0]: one for one in dispatch.claim(session, here.settings, NOW, 10)}
    session.commit()
    if "late" in odd:
        claimed["late"] = replace(claimed["late"], deadline_at=NOW + timedelta(days=1))
    other_day = factories.at("2026-08-31 22:00")
    claimed["noor"] = replace(claimed["noor"], deadline_at=other_day)
    if "lost" in odd:
        session.execute(update(Message).where(Message.id == claimed["lost"].id).values(lease_token="another's"))
    if "over" in odd:
        over = session.get_one(Case, claimed["over"].case.id)
        over.state, over.closed_at = "withdrawn", NOW
    session.commit()
    accepted = MailResult(accepted=True, code=250, reply='250 "OK" \\ grün')
    refused = MailResult(accepted=False, code=450, reply="450 later")
    with Desk(session, here.settings, here.clock, session.commit) as desk:
        answered = [(one, refused if name == "refused" else accepted) for name, one in claimed.items()]
        assert written(desk, answered) == {claimed["mia"].campaign.id}
    session.rollback()
    rows = {name: session.get_one(Message, one.id) for name, one in claimed.items()}
    states = dict.fromkeys({"lost"} & {*odd}, "sending") | dict.fromkeys({"refused"} & {*odd}, "queued")
    assert {name: row.state for name, row in rows.items()} == dict.fromkeys(claimed, "sent") | states
    assert {name: row.smtp_reply for name, row in rows.items() if row.state == "sent"} == dict.fromkeys(
        [name for name in claimed if name not in states], accepted.reply
    )
    if "gone" in odd:
        assert rows["gone"].to_address is None
    warned = select(Case.warned_to, Case.deadline_at, Case.told_it_continues).where(Case.warned_at.is_not(None))
    days = {"mia": (claimed["mia"].deadline_at, False), "noor": (other_day, True)}
    days |= {"late": (claimed["mia"].deadline_at, False)} if "late" in odd else {}
    assert {tuple(row) for row in session.execute(warned)} == {
        (f"{name}@example.org", *said) for name, said in days.items()
    }
    told = session.execute(
        select(Message.kind, Message.to_address).where(Message.kind.in_([Kind.WITHDRAWN, Kind.DEADLINE_MOVED]))
    ).all()
    # One was on its way when the case ended, one when it was too late for its day.
    consequences = {"over": (Kind.WITHDRAWN, "over@example.org"), "late": (Kind.DEADLINE_MOVED, "late@example.org")}
    assert [tuple(row) for row in told] == [consequences[name] for name in odd if name in consequences]
    events = sorted(session.scalars(select(Event.detail).where(Event.code == "mail_accepted")))
    warnings = 2 + ("over" in odd) + ("late" in odd)
    assert events == ["erased"] * ("gone" in odd) + ["warning"] * warnings + ["welcome_back"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_who_waits_to_write_down_hears_what_was_held_meanwhile_and_keeps_nobody_waiting(
    make_app: Callable[..., Flask],
) -> None:
    """On PostgreSQL: an import has the member. The members come before the messages, in whatever is locked."""
    app = make_app()
    with app.app_context():
        session, here = db.session(), installed()
        factories.live_feed(session, NOW)
        for name in ("mia", "noor"):
            factories.dormant(session, email=f"{name}@example.org")
        campaigns.draft(session, here.settings, "2026-06", NOW)
        campaigns.approve(session, here.settings, "2026-06", NOW)
        session.commit()
        claimed = dispatch.claim(session, here.settings, NOW, 10)
        session.commit()
        accepted = MailResult(accepted=True, code=250, reply="250 OK")
        with ThreadPoolExecutor(1) as sender, db.engine.connect() as another, db.engine.connect() as third:
            another.execute(select(Member.id).where(Member.id == claimed[1].member.id).with_for_update())

            def record() -> frozenset[int]:
                with app.app_context():
                    own = db.session()
                    with Desk(own, here.settings, here.clock, own.commit) as desk:
                        return written(desk, [(one, accepted) for one in claimed])

            recording_it = sender.submit(record)
            waiting = text(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            until = monotonic() + 60
            while not third.scalar(waiting):
                # PostgreSQL shows the same all through a transaction.
                third.rollback()
                assert monotonic() < until
            third.execute(select(Message.id).with_for_update(nowait=True)).all()
            third.rollback()
            another.execute(update(Campaign).values(state="held", hold_reason="operator"))
            another.commit()
            assert recording_it.result() == frozenset()
        assert session.scalars(select(Message.state)).all() == ["sent", "sent"]


def test_of_a_handful_only_what_cannot_be_rendered_or_addressed_is_failed(
    make_app: Callable[..., Flask], smtp: SmtpCatcher
) -> None:
    with make_app(mail_connections=6).app_context():
        session = db.session()
        operator = factories.operator(session, email="operator@example.org")
        broken = Campaign(month="2026-13", state="draft", policy={}, drafted_at=NOW, dormant_count=1)
        session.add(broken)
        session.flush()
        names = [f"m{number}@example.org" for number in range(9)]
        for name in (*names, "nobody"):
            member = factories.member(session, email=name)
            outbox.put(session, kind=Kind.WELCOME_BACK, once_key=name, now=NOW, member=member)
        outbox.put(session, kind=Kind.CAMPAIGN_READY, once_key="c", now=NOW, operator=operator, campaign=broken)
        # All in the one handful.
        session.execute(update(Message).values(priority=1))
        session.commit()
        assert deliver(session) == Delivered(sent=9, failed=2)
        found = messages(session)
        assert {name: found[name].state for name in names} == dict.fromkeys(names, "sent")
        assert "cannot be rendered: ValueError" in (found["operator@example.org"].smtp_reply or "")
        assert found["nobody"].smtp_reply == "this is not an address that mail can be sent to"


@pytest.fixture
def warned_campaign(session: Session, settings: Any) -> Case:
    """One dormant member in an approved campaign, whose warning waits."""
    factories.live_feed(session, NOW)
    factories.dormant(session, email="mia@example.org", name="Mia")
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    return session.scalars(select(Case)).one()


def test_a_warning_goes_out_and_only_then_is_the_member_warned(
    session: Session, smtp: SmtpCatcher, warned_campaign: Case
) -> None:
    assert warned_campaign.warned_at is None
    assert deliver(session) == Delivered(sent=1)
    [mail] = smtp.to("mia@example.org")
    message = messages(session)["mia@example.org"]
    assert (message.state, message.smtp_reply, message.attempts) == ("sent", "250 OK queued", 1)
    assert mail.message["Message-ID"] == message.message_id
    assert mail.message["Date"].datetime == NOW
    case = session.scalars(select(Case)).one()
    assert (case.warned_at, case.warned_to) == (NOW, "mia@example.org")
    body = mail.message.get_body(("plain",))
    assert body is not None
    assert "Tuesday, 30 June 2026, 24:00" in body.get_content()


def test_a_thread_that_claims_steps_back_after_every_few_and_takes_the_same(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the sender claims by itself, it has nobody to step back for."""
    queue(session, *(factories.member(session, email=f"m{number}@example.org") for number in range(25)))
    settings = installed().settings
    at_once = [one.to_address for one in dispatch.claim(session, settings, NOW, 25)]
    session.rollback()
    in_thread: list[bool] = []
    monkeypatch.setattr(desk, "sleep", lambda _: in_thread.append("claims" in current_thread().name))
    with Desk(session, settings, FrozenClock(NOW), session.commit) as taking:
        batch = taking.begin_claim(25, False, lambda: None).result()
        assert [one.claimed.to_address for one in batch.ready] == at_once
        assert in_thread == ([True] * 3 if taking.works_apart else [])


@pytest.mark.parametrize(("usual", "meanwhile"), [(700, delivery.SELDOM), (50_000, 50_000), (0, 0)])
def test_while_mail_goes_out_python_seldom_looks_for_garbage_and_then_as_before(
    session: Session, smtp: SmtpCatcher, usual: int, meanwhile: int
) -> None:
    before, seen = gc.get_threshold(), []
    queue(session, factories.member(session, email="mia@example.org"))

    def breaks() -> bool:
        seen.append(gc.get_threshold())
        raise ZeroDivisionError

    try:
        gc.set_threshold(usual, 12, 13)
        with pytest.raises(ZeroDivisionError):
            deliver(session, breaks)
        assert (seen, gc.get_threshold()) == ([(meanwhile, 12, 13)], (usual, 12, 13))
    finally:
        gc.set_threshold(*before)


def test_running_again_sends_nothing_twice(session: Session, smtp: SmtpCatcher, warned_campaign: Case) -> None:
    deliver(session)
    assert deliver(session) == Delivered()
    assert len(smtp.mails) == 1


def test_nothing_due_opens_no_connection(session: Session, smtp: SmtpCatcher) -> None:
    assert deliver(session) == Delivered()
    assert smtp.connections == 0


def test_one_members_failure_stops_no_other_and_each_reply_is_on_record(session: Session, smtp: SmtpCatcher) -> None:
    names = ("a", "full", "gone", "spam", "z")
    queue(session, *(factories.member(session, email=f"{name}@example.org") for name in names))
    smtp.replies |= {
        "full@example.org": "451 4.2.2 mailbox full",
        "gone@example.org": "550 5.1.1 no such user",
        "spam@example.org": "554 5.7.1 not wanted",
    }
    assert deliver(session) == Delivered(sent=2, again=1, failed=2)
    found = messages(session)
    assert {name: found[f"{name}@example.org"].state for name in names} == {
        "a": "sent",
        "full": "queued",
        "gone": "bounced",
        "spam": "failed",
        "z": "sent",
    }
    assert found["full@example.org"].smtp_reply == "451 4.2.2 mailbox full"
    assert found["full@example.org"].due_at > NOW
    assert found["gone@example.org"].smtp_reply == "550 5.1.1 no such user"
    assert smtp.connections == 1


def test_a_temporary_refusal_is_tried_again_later_with_the_same_message_id(
    session: Session, smtp: SmtpCatcher, clock: FrozenClock
) -> None:
    queue(session, factories.member(session, email="full@example.org"))
    smtp.replies["full@example.org"] = "451 4.2.2 mailbox full"
    deliver(session)
    before = messages(session)["full@example.org"].message_id
    assert deliver(session) == Delivered()
    smtp.replies.clear()
    clock.tick(minutes=10)
    assert deliver(session) == Delivered(sent=1)
    assert smtp.mails[0].message["Message-ID"] == before


def test_what_cannot_be_rendered_is_failed_with_the_reason_and_stops_nothing(
    session: Session, smtp: SmtpCatcher
) -> None:
    operator = factories.operator(session, email="operator@example.org")
    # No program writes such a month; a hand in the database might.
    broken = Campaign(month="2026-13", state="draft", policy={}, drafted_at=NOW, dormant_count=1)
    session.add(broken)
    session.flush()
    outbox.put(session, kind=Kind.CAMPAIGN_READY, once_key="a", now=NOW, operator=operator, campaign=broken)
    queue(session, factories.member(session, email="good@example.org"))
    assert deliver(session) == Delivered(sent=1, failed=1)
    found = messages(session)
    assert found["operator@example.org"].state == "failed"
    assert "cannot be rendered: ValueError: month must be in 1..12" in (found["operator@example.org"].smtp_reply or "")
    assert found["good@example.org"].state == "sent"


def test_a_server_that_is_away_counts_against_nobody_and_ends_the_run(session: Session, smtp: SmtpCatcher) -> None:
    members = [factories.member(session, email=f"m{number}@example.org") for number in range(5)]
    queue(session, *members)
    smtp.sender_reply = "421 4.3.2 back in an hour"
    done = deliver(session)
    assert (done.sent, done.failed, done.server_down) == (0, 0, "4.3.2 back in an hour")
    assert {(row.state, row.attempts, row.lease_token) for row in messages(session).values()} == {("queued", 0, None)}
    smtp.sender_reply = None
    installed().clock.tick(minutes=2)  # type: ignore[attr-defined]
    assert deliver(session) == Delivered(sent=5)


def test_where_nobody_listens_everything_waits(make_app: Callable[..., Flask], smtp: SmtpCatcher) -> None:
    with make_app(mail_port=1).app_context():
        from models import db

        session = db.session()
        queue(session, factories.member(session), factories.member(session))
        done = deliver(session)
        assert done.server_down is not None
        assert {(row.state, row.attempts) for row in messages(session).values()} == {("queued", 0)}


def test_a_message_that_cuts_every_line_is_backed_off_and_the_others_go_out(
    session: Session, smtp: SmtpCatcher
) -> None:
    queue(session, *(factories.member(session, email=f"{name}@example.org") for name in ("poison", "b", "c")))
    smtp.drops.add("poison@example.org")
    assert deliver(session) == Delivered(sent=2, again=1)
    poison = messages(session)["poison@example.org"]
    assert (poison.state, poison.attempts) == ("queued", 1)
    assert poison.due_at > NOW
    assert "lost" in (poison.smtp_reply or "")


def test_a_server_that_hangs_is_left_after_two_time_limits(app: Flask, session: Session, smtp: SmtpCatcher) -> None:
    queue(session, *(factories.member(session, email=f"h{number}@example.org") for number in range(4)))
    smtp.hangs |= {f"h{number}@example.org" for number in range(4)}
    done = deliver(session, mailer=SmtpMailer(app, timeout=1))
    assert done.server_down is not None
    assert smtp.connections == 2
    assert {(row.state, row.attempts) for row in messages(session).values()} == {("queued", 0)}


def test_when_the_budget_is_over_the_rest_is_given_back_untried(session: Session, smtp: SmtpCatcher) -> None:
    queue(session, *(factories.member(session) for _ in range(4)))
    done = deliver(session, enough=lambda: len(smtp.mails) >= 2)
    assert done == Delivered(sent=2)
    assert sorted((row.state, row.attempts) for row in messages(session).values()) == [
        ("queued", 0),
        ("queued", 0),
        ("sent", 1),
        ("sent", 1),
    ]


def test_a_result_is_on_record_before_the_next_message_is_sent(
    session: Session, smtp: SmtpCatcher, make_app: Callable[..., Flask]
) -> None:
    queue(session, *(factories.member(session) for _ in range(3)))
    on_record: list[int] = []
    other = make_app()

    def count() -> bool:
        from models import db

        with other.app_context():
            on_record.append(len(db.session.scalars(select(Message.id).where(Message.state == "sent")).all()))
        assert on_record[-1] == len(smtp.mails)
        return False

    deliver(session, enough=count)
    assert on_record[-1] == 3


def test_a_slow_batch_goes_back_before_its_lease_runs_out(
    session: Session, smtp: SmtpCatcher, clock: FrozenClock
) -> None:
    queue(session, *(factories.member(session) for _ in range(3)))

    def slow() -> bool:
        clock.tick(minutes=4)
        return False

    assert deliver(session, enough=slow) == Delivered(sent=3)
    assert all(row.attempts == 1 for row in messages(session).values())


def test_a_bounce_of_a_warning_ends_the_case_and_nobody_lapses_for_it(
    session: Session, smtp: SmtpCatcher, warned_campaign: Case
) -> None:
    smtp.replies["mia@example.org"] = "550 5.1.1 no such user"
    assert deliver(session) == Delivered(failed=1)
    session.rollback()
    case = session.scalars(select(Case).execution_options(populate_existing=True)).one()
    assert (case.state, case.warned_at) == ("unreachable", None)


def test_a_notice_of_a_held_campaign_waits(
    session: Session, smtp: SmtpCatcher, settings: Any, warned_campaign: Case
) -> None:
    campaigns.hold(session, settings, "2026-06", NOW)
    session.commit()
    assert deliver(session) == Delivered()
    assert messages(session)["mia@example.org"].state == "queued"
    campaigns.release(session, settings, "2026-06", NOW)
    session.commit()
    assert deliver(session) == Delivered(sent=1)


def test_a_notice_whose_facts_are_gone_is_not_sent_and_becomes_obsolete(
    session: Session, smtp: SmtpCatcher, warned_campaign: Case
) -> None:
    session.scalars(select(Member)).one().last_used_at = NOW - timedelta(hours=1)
    session.commit()
    assert deliver(session) == Delivered()
    assert messages(session)["mia@example.org"].state == "obsolete"
    assert smtp.mails == []


def test_a_notice_to_a_plan_that_is_exempt_by_now_is_neither_claimed_nor_kept(
    session: Session, settings: Any, warned_campaign: Case
) -> None:
    exempting = settings.model_copy(update={"exempt_plans": ("Standard",)})
    assert [len(dispatch.claim(session, those, NOW, 9)) for those in (exempting, settings)] == [0, 1]
    session.rollback()
    assert [dispatch.retire(session, those) for those in (settings, exempting)] == [0, 1]
    session.commit()
    assert messages(session)["mia@example.org"].state == "obsolete"


def test_what_was_sent_is_an_event_without_an_address(
    session: Session, smtp: SmtpCatcher, warned_campaign: Case
) -> None:
    deliver(session)
    events = session.scalars(select(Event).where(Event.code == "mail_accepted")).all()
    assert [event.detail for event in events] == ["warning"]
