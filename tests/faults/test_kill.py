"""SIGKILL in the middle of everything: jobs, the scheduler, a server that takes answers. It goes on, and adds up."""

import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from subprocess import Popen

from sqlalchemy import select, update

from domain.lifecycle import Answer, Through
from models import Case, JobRun, Member, Message, OutgoingEvent
from services import decisions, returning
from services.outgoing import sending
from tests import factories
from tests.doubles import WebhookCatcher
from tests.factories import at
from tests.faults import figures
from tests.faults.harness import KILLED, PATIENCE, Deadly, Site, Visitor, check, eventually
from tests.services.being_told import ACKNOWLEDGED, NEW

ASKED = at("2026-06-03 10:00")
DEAD = "no-such-mailbox@example.org"


SHORT = ("draft-campaign", "deliver", "close", "settle-billing", "purge")


def kill(site: Site, job: str, long: bool) -> None:
    """In the long form at every point of its work; in the short one at some, which differ from job to job."""
    if long:
        site.job_killed(job, 1, 1)
    elif job in SHORT and job not in site.killed:
        site.job_killed(job, 3 + sum(map(ord, job)) % 20, 23)
        site.killed.add(job)
    else:
        site.run(job)


def begin(site: Site) -> None:
    with site.session() as session:
        for name in ("silent-1", "silent-2", "keeps", "ends", "uses", "returns", "undoes"):
            factories.dormant(session, external_id=name, email=f"{name}@example.org", billing_ref=name)
        factories.stopped_using(session, external_id="stopped", email="stopped@example.org", billing_ref="stopped")
        factories.dormant(session, external_id="dead", email=DEAD, billing_ref="dead")
        factories.using(session, external_id="uses it", email="using@example.org")
        session.execute(
            update(Member).where(Member.external_id == "undoes").values(paid_through=at("2026-09-15 00:00"))
        )
        factories.live_feed(session, site.now)
    site.smtp.replies[DEAD] = "550 5.1.1 no such user"


def member(session: object, name: str) -> Member:
    return session.scalars(select(Member).where(Member.external_id == name)).one()  # type: ignore[attr-defined, no-any-return]


def answers(site: Site) -> None:
    with site.session() as session:
        for name, wish in (("keeps", Answer.KEEP), ("ends", Answer.LAPSE)):
            case = session.scalars(select(Case).where(Case.member_id == member(session, name).id)).one()
            decisions.answer(session, site.settings, case.id, wish, Through.LINK, site.now)
        session.execute(update(Member).where(Member.external_id == "uses").values(last_used_at=site.now))


def feed(site: Site) -> None:
    with site.session() as session:
        factories.live_feed(session, site.now)


def comes_back(site: Site, name: str) -> None:
    with site.session() as session:
        one = member(session, name)
        quoted = returning.quote(one, site.settings, site.now)
        returning.order(session, site.settings, one.id, quoted, site.now)


ASKED_IN_SILENCE = ["warning", "reminder", "last_call", "lapsed"]
KINDS = {
    **{name: [*ASKED_IN_SILENCE] for name in ("silent-1", "silent-2", "stopped")},
    "keeps": ["warning", "receipt_keep"],
    "ends": ["warning", "receipt_lapse", "lapsed"],
    "uses": ["warning", "returned"],
    "returns": [*ASKED_IN_SILENCE, "welcome_back"],
    "undoes": [*ASKED_IN_SILENCE, "welcome_back"],
    "dead": ["warning"],
}
ORDERS = {
    **{name: ["stop"] for name in ("silent-1", "silent-2", "stopped", "ends")},
    # The stop went out in July, so whatever was charged for July goes back before the new period begins.
    "returns": ["stop", "refund", "restart"],
    "undoes": ["stop", "undo"],
}
LAPSED = ("silent-1", "silent-2", "stopped", "ends")


def test_every_job_killed_in_the_middle_of_its_work_goes_on_where_it_was(site: Site, long: bool) -> None:
    begin(site)
    kill(site, "draft-campaign", long)
    kill(site, "deliver", long)
    site.travel(at("2026-06-10 10:00"))
    answers(site)
    site.run("settle-billing", "deliver")
    site.travel(at("2026-06-23 10:00"))
    kill(site, "remind", long)
    site.run("deliver")
    site.travel(at("2026-06-28 10:00"))
    site.run("remind", "deliver")
    site.travel(at("2026-07-01 02:00"))
    feed(site)
    kill(site, "close", long)
    kill(site, "settle-billing", long)
    kill(site, "deliver", long)
    site.travel(at("2026-07-03 02:00"))
    for name in ("returns", "undoes"):
        comes_back(site, name)
    kill(site, "settle-billing", long)
    site.run("deliver")
    check(site, kinds=KINDS, orders=ORDERS)

    site.travel(at("2027-04-02 02:00"))
    kill(site, "warn-purge", long)
    site.run("deliver")
    kinds = {name: found + ["last_chance"] * (name in LAPSED) for name, found in KINDS.items()}
    check(site, kinds=kinds, orders=ORDERS)
    site.travel(at("2027-05-01 02:00"))
    kill(site, "purge", long)
    with site.session() as session:
        left = session.scalars(select(Member.external_id).where(Member.status != "purged")).all()
        purged = session.scalars(select(Member.name).where(Member.status == "purged")).all()
    assert sorted(filter(None, left)) == ["dead", "keeps", "returns", "undoes", "uses", "uses it"]
    assert purged == [None] * len(LAPSED)
    assert site.kills >= (80 if long else 5)


def test_telling_the_service_killed_in_the_middle_tells_it_everything_in_order(
    database_url: str, tmp_path: Path, smtp: Deadly, hooked: WebhookCatcher, long: bool
) -> None:
    """What was on its way when the process died comes again, under the id it had; nothing is left out or overtaken."""
    telling = {"events_url": hooked.url, "events_secret": (NEW,), "webhook_networks": ("127.0.0.1/32",)}
    site = Site(database_url, tmp_path, smtp, ASKED, **telling)
    hooked.answers = ACKNOWLEDGED
    site.run("send-events")
    begin(site)
    site.run("draft-campaign", "deliver")
    answers(site)
    site.travel(at("2026-07-01 02:00"))
    feed(site)
    site.run("close", "settle-billing")
    site.job_killed("send-events", *((1, 1) if long else (4, 7)))
    arrived = [call.headers["webhook-id"].removeprefix("evt_") for call in hooked.calls]
    with site.session() as session:
        told = session.execute(
            select(OutgoingEvent.public_id, OutgoingEvent.member_id, OutgoingEvent.state).order_by(OutgoingEvent.id)
        ).all()
    site.close()
    assert len(told) > 15
    assert {state for *_, state in told} == {"done"}
    assert sorted(set(arrived)) == sorted(one for one, *_ in told)
    assert site.kills >= 2
    assert len(arrived) - len(told) <= site.kills * sending.AT_ONCE
    first = list(dict.fromkeys(arrived))
    for member_id in {who for _, who, _ in told}:
        of_one = [one for one, who, _ in told if who == member_id]
        assert [one for one in first if one in of_one] == of_one


def test_the_scheduler_killed_while_the_server_has_a_mail_and_has_not_said_so(site: Site, long: bool) -> None:
    """The one window in which a mail may go out twice: at most one for each kill, under the Message-ID it had."""
    names = [f"silent-{number}" for number in range(24 if long else 8)]
    with site.session() as session:
        for name in names:
            factories.dormant(session, external_id=name, email=f"{name}@example.org", billing_ref=name)
        factories.live_feed(session, site.now)
    site.run("draft-campaign")
    kill_after = range(2, 24, 2) if long else (3, 5)
    for accepted in kill_after:
        with site.running("flask", "scheduler") as process:
            site.smtp.on_accepted = partial(kill_after_mail, site, process, accepted)
            assert process.wait(PATIENCE) == KILLED
        site.smtp.on_accepted = None
        site.wait_for_leases()
    with site.running("flask", "scheduler") as process:
        eventually(lambda: site.unsent() == 0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    duplicates = check(site, kinds={name: ["warning"] for name in names}, orders={})
    assert duplicates == len(kill_after)

    # Month end, with the scheduler dying in the middle of it and another coming a quarter of an hour later.
    site.travel(at("2026-07-01 02:00"))
    feed(site)
    die_at = range(8, 60, 6) if long else (25,)
    for points in die_at:
        with site.running("flask", "scheduler", DIE_AT=str(points)) as process:
            assert process.wait(PATIENCE) == KILLED
        site.wait_for_leases()
    with site.running("flask", "scheduler"):
        eventually(lambda: closed(site))
    site.wait_for_leases()
    site.run("settle-billing", "deliver")
    check(site, kinds={name: ["warning", "lapsed"] for name in names}, orders={name: ["stop"] for name in names})


def kill_after_mail(site: Site, process: Popen[str], last: int, accepted: int) -> None:
    if accepted == last:
        site.kill(process)


def closed(site: Site) -> bool:
    with site.session() as session:
        row = session.get(JobRun, ("close", "2026-06"))
        return row is not None and row.finished_at is not None


def test_a_server_killed_while_members_answer_and_come_back(site: Site, long: bool) -> None:
    """Who pressed and saw the line break looks again, and presses again if the page says that nothing was saved."""
    keep, end = ([f"{wish}-{number}" for number in range(8 if long else 3)] for wish in ("keeps", "ends"))
    with site.session() as session:
        for name in (*keep, *end):
            factories.dormant(session, external_id=name, email=f"{name}@example.org", billing_ref=name)
        factories.live_feed(session, site.now)
    site.run("draft-campaign", "deliver")
    site.travel(at("2026-06-04 10:00"))
    die_at = "20-60"
    with site.served(DIE_AT=die_at) as server, ThreadPoolExecutor(4) as visitors:
        for done in [visitors.submit(answered, site, name) for name in (*keep, *end)]:
            done.result()
        site.kill(server)
    site.wait_for_leases()
    site.run("settle-billing", "deliver")
    kinds = {name: ["warning", f"receipt_{'keep' if name in keep else 'lapse'}"] for name in (*keep, *end)}
    orders = {name: ["stop"] for name in end}
    check(site, kinds=kinds, orders=orders)

    site.travel(at("2026-07-01 02:00"))
    feed(site)
    site.run("close", "deliver")
    site.travel(at("2026-07-02 10:00"))
    with site.served(DIE_AT=die_at) as server, ThreadPoolExecutor(4) as visitors:
        for done in [visitors.submit(came_back, site, name) for name in end]:
            done.result()
        site.kill(server)
    site.wait_for_leases()
    site.run("settle-billing", "deliver")
    kinds = {name: found + ["lapsed", "welcome_back"] * (name in end) for name, found in kinds.items()}
    check(site, kinds=kinds, orders={name: ["stop", "restart"] for name in end})
    assert site.kills >= (10 if long else 2)


def answered(site: Site, name: str) -> None:
    visitor, wish = Visitor(), "keep" if name.startswith("keeps") else "lapse"
    link = site.link(f"{name}@example.org", "check-in")

    def saved() -> bool:
        try:
            buttons = visitor.open(link).form.buttons
            if ("answer", wish) in buttons:
                visitor.press("answer", wish)
            return ("answer", wish) not in visitor.page.form.buttons
        except ConnectionError:
            return False

    eventually(saved)


def came_back(site: Site, name: str) -> None:
    visitor, link = Visitor(), site.link(f"{name}@example.org", "come-back")

    def back() -> bool:
        try:
            page = visitor.open(link)
            buttons = [button for form in page.forms for button in form.buttons]
            if ("order", "restart") in buttons:
                visitor.press("order", "restart")
            with site.session() as session:
                return member(session, name).status == "active"
        except ConnectionError:
            return False

    eventually(back)


LINES = 8


def test_a_campaign_killed_in_mid_delivery_reaches_everybody(
    database_url: str, tmp_path: Path, smtp: Deadly, long: bool
) -> None:
    """With several connections a kill can double as many mails as there were connections, and lose none."""
    count, kills = (20_000, 10) if long else (150, 2)
    site = Site(database_url, tmp_path, smtp, ASKED, mail_connections=LINES)
    with site.session() as session:
        for number in range(count):
            factories.dormant(
                session, external_id=f"m{number}", email=f"m{number}@example.org", billing_ref=f"m{number}"
            )
        factories.live_feed(session, site.now)
    site.run("draft-campaign")
    for number in range(1, kills + 1):
        with site.running("flask", "jobs", "run", "deliver") as process:
            site.smtp.on_accepted = partial(kill_after_mail, site, process, len(smtp.mails) + count // (kills + 1))
            assert process.wait(PATIENCE + count / 50) == KILLED
        site.smtp.on_accepted = None
        assert site.kills == number
        site.wait_for_leases()
    processes = ["--workers", "2"]
    with site.running("flask", "jobs", "run", "deliver", *processes) as process:
        assert process.wait(PATIENCE + count / 50) == 0
    with site.session() as session:
        assert session.scalars(select(Message.state).distinct()).all() == ["sent"]
        assert session.scalars(select(Case.warned_at.is_(None)).distinct()).all() == [False]
        message_ids = {row.to_address: row.message_id for row in session.scalars(select(Message))}
    arrived = Counter(mail.recipients[0] for mail in smtp.mails)
    assert set(arrived) == {f"m{number}@example.org" for number in range(count)}
    for mail in smtp.mails:
        assert f"\r\nMessage-ID: {message_ids[mail.recipients[0]]}\r\n".encode() in mail.raw
    duplicates = sum(arrived.values()) - count
    assert duplicates <= kills * LINES
    figures.note(kills, duplicates, LINES)
    site.close()
