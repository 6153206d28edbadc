"""SIGKILL in the middle of everything: jobs, the scheduler, a server that takes answers. It goes on, and adds up."""

from dataclasses import dataclass

from sqlalchemy import select, update

from domain.lifecycle import Answer, Through
from models import Case, Member
from services import decisions, returning
from tests import factories
from tests.factories import at
from tests.faults.harness import Site, check

ASKED = at("2026-06-03 10:00")
DEAD = "no-such-mailbox@example.org"


@dataclass(frozen=True)
class Strides:
    """Every so many points of a job's work it is killed, beginning with one that differs from job to job."""

    stride: int
    first: int = 0

    def __call__(self, site: Site, job: str) -> None:
        first = self.first or 3 + sum(map(ord, job)) % self.stride
        site.job_killed(job, min(first, self.stride), self.stride)


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
    killed = Strides(1, first=1) if long else Strides(23)
    begin(site)
    killed(site, "draft-campaign")
    killed(site, "deliver")
    site.travel(at("2026-06-10 10:00"))
    answers(site)
    site.run("settle-billing", "deliver")
    site.travel(at("2026-06-23 10:00"))
    killed(site, "remind")
    site.run("deliver")
    site.travel(at("2026-06-28 10:00"))
    site.run("remind", "deliver")
    site.travel(at("2026-07-01 02:00"))
    feed(site)
    killed(site, "close")
    killed(site, "settle-billing")
    killed(site, "deliver")
    site.travel(at("2026-07-03 02:00"))
    for name in ("returns", "undoes"):
        comes_back(site, name)
    killed(site, "settle-billing")
    site.run("deliver")
    check(site, kinds=KINDS, orders=ORDERS)

    site.travel(at("2027-04-02 02:00"))
    killed(site, "warn-purge")
    site.run("deliver")
    kinds = {name: found + ["last_chance"] * (name in LAPSED) for name, found in KINDS.items()}
    check(site, kinds=kinds, orders=ORDERS)
    site.travel(at("2027-05-01 02:00"))
    killed(site, "purge")
    with site.session() as session:
        left = session.scalars(select(Member.external_id).where(Member.status != "purged")).all()
        purged = session.scalars(select(Member.name).where(Member.status == "purged")).all()
    assert sorted(filter(None, left)) == ["dead", "keeps", "returns", "undoes", "uses", "uses it"]
    assert purged == [None] * len(LAPSED)
    print(site.kills)
    assert site.kills >= (200 if long else 8)
