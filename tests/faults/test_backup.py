"""After a restore nothing is done on stale facts (scenario 43), and erasures since the backup are done again."""

import stat
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from domain.lifecycle import Answer, Through
from domain.links import Purpose
from domain.notices import Kind
from models import BillingOrder, Campaign, Erasure, Member, Message, Profile
from services import (
    billing_asking,
    billing_desk,
    campaigns,
    decisions,
    erasure_log,
    magic_links,
    outbox,
    purging,
    restoring,
)
from services.erasure import digests
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import accept_mails, case_of, close, kinds_to, opened

TODAY = NOW + timedelta(days=1)


def erase(session: Session, settings: Settings, external_id: str, now: datetime = TODAY) -> None:
    member = session.scalars(select(Member).where(Member.external_id == external_id)).one()
    purging.erase(session, settings, member.id, now)
    session.execute(update(BillingOrder).values(state="done"))
    session.commit()
    purging.purge(session, settings, now, session.commit)


def settle(session: Session, settings: Settings) -> restoring.Restored:
    session.rollback()
    done = restoring.settle(session, settings, erasure_log.read(erasure_log.path_of(settings)), TODAY)
    session.commit()
    session.expire_all()
    return done


# The log of erasures


def test_an_erasure_is_in_the_log_after_its_commit_and_names_nobody(session: Session, settings: Settings) -> None:
    factories.member(session, external_id="customer-4711", email="erika@example.org")
    session.commit()
    erase(session, settings, "customer-4711")
    path = erasure_log.path_of(settings)
    [digest] = session.scalars(select(Erasure.digest))
    assert erasure_log.read(path) == {digest: TODAY}
    assert "4711" not in path.read_text()
    assert "erika" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_crash_kept_out_of_the_log_the_next_purge_writes(session: Session, settings: Settings) -> None:
    for digest, when in (("a" * 64, NOW), ("b" * 64, TODAY)):
        session.add(Erasure(digest=digest, purged_at=when))
        session.commit()
        if digest.startswith("a"):
            assert erasure_log.keep_up(session, settings)
    path = erasure_log.path_of(settings)
    with path.open("a") as cut_short:
        cut_short.write("c" * 40)
    assert purging.purge(session, settings, TODAY, session.commit) == 0
    assert erasure_log.read(path) == {"a" * 64: NOW, "b" * 64: TODAY}
    assert erasure_log.keep_up(session, settings)
    assert len(path.read_text().splitlines()) == 3


def test_a_log_that_cannot_be_written_stops_no_purge(
    session: Session, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    erasure_log.path_of(settings).mkdir()
    factories.member(session, external_id="m", status="ended")
    session.commit()
    erase(session, settings, "m")
    assert session.scalars(select(Member.status)).all() == ["purged"]
    assert "erasures.log cannot be written" in caplog.text


# After a restore


def test_scenario_43_rounds_are_held_silent_cases_withdrawn_and_the_warned_told(
    session: Session, settings: Settings
) -> None:
    silent, keeps, ends = (factories.dormant(session) for _ in range(3))
    session.commit()
    opened(session, settings, NOW)
    for member, wish in ((keeps, Answer.KEEP), (ends, Answer.LAPSE)):
        decisions.answer(session, settings, case_of(session, member).id, wish, Through.LINK, NOW)
    session.commit()
    done = settle(session, settings)
    assert (done.held, done.withdrawn, done.ending) == (["2026-06"], 1, 1)
    campaign = session.scalars(select(Campaign)).one()
    assert (campaign.state, campaign.hold_reason) == ("held", "restored")
    assert [case_of(session, member).state for member in (silent, keeps, ends)] == ["withdrawn", "open", "open"]
    assert kinds_to(session, silent) == ["warning", "withdrawn"]
    accept_mails(session, settings, TODAY)
    session.execute(update(BillingOrder).values(state="done"))
    close(session, settings, at("2026-07-01 06:00"))
    session.expire_all()
    assert [member.status for member in (silent, keeps, ends)] == ["active", "active", "lapsed"]


def test_scenario_43_a_round_drafted_after_the_restore_is_held_too_and_can_be_released(
    session: Session, settings: Settings
) -> None:
    factories.live_feed(session, TODAY)
    member = factories.dormant(session)
    session.commit()
    settle(session, settings)
    campaign = campaigns.draft(session, settings, "2026-06", TODAY)
    assert (campaign.state, campaign.hold_reason) == ("held", "restored")
    assert campaigns.release(session, settings, "2026-06", TODAY).state == "open"
    session.commit()
    accept_mails(session, settings, TODAY)
    assert kinds_to(session, member) == ["warning"]
    close(session, settings, at("2026-07-01 06:00"))
    session.expire_all()
    assert member.status == "lapsed"


def test_scenario_43_a_second_restore_holds_what_was_released_after_the_first(
    session: Session, settings: Settings
) -> None:
    factories.live_feed(session, TODAY)
    factories.dormant(session)
    session.commit()
    settle(session, settings)
    campaigns.draft(session, settings, "2026-06", TODAY)
    campaigns.release(session, settings, "2026-06", TODAY)
    session.commit()
    assert settle(session, settings).held == ["2026-06"]
    assert session.scalars(select(Campaign.state)).all() == ["held"]


def test_scenario_43_mail_that_waited_is_not_sent_but_for_last_chances(session: Session, settings: Settings) -> None:
    member = factories.member(session)
    for kind in (Kind.RECEIPT_KEEP, Kind.LAST_CHANCE, Kind.ERASED):
        outbox.put(session, kind=kind, once_key=kind, now=NOW, member=member)
    session.commit()
    done = settle(session, settings)
    assert done.unsent == {Kind.RECEIPT_KEEP: 1, Kind.ERASED: 1}
    found = {row.kind: row for row in session.scalars(select(Message))}
    assert {kind: row.state for kind, row in found.items()} == {
        "receipt_keep": "obsolete",
        "last_chance": "queued",
        "erased": "obsolete",
    }
    # It was kept for that mail alone.
    assert found["erased"].to_address is None


def test_scenario_43_billing_orders_wait_for_an_operator_and_keep_their_key(
    session: Session, settings: Settings
) -> None:
    member = factories.member(session, external_id="m-ordered")
    for kind, state in (("stop", "done"), ("stop", "working"), ("undo", "queued")):
        session.add(
            BillingOrder(
                key=f"{kind}:{state}", member_id=member.id, kind=kind, created_at=NOW, due_at=NOW, state=state,
                billing_ref="m", lease_token="x" if state == "working" else None,
            )
        )  # fmt: skip
        session.flush()
    session.commit()
    done = settle(session, settings)
    assert [(kind, who) for _, kind, who in done.orders] == [("stop", "m-ordered"), ("undo", "m-ordered")]
    assert billing_asking.claim(session, TODAY + timedelta(days=1), 10) == []
    session.rollback()
    undo = session.scalars(select(BillingOrder).where(BillingOrder.kind == "undo")).one()
    assert (undo.state, undo.error) == ("failed", billing_desk.RESTORED)
    session.execute(
        update(BillingOrder).where(BillingOrder.key == "stop:done").values(member_id=member.id, state="failed")
    )
    session.rollback()
    session.execute(update(BillingOrder).where(BillingOrder.key == "stop:done").values(state="superseded"))
    billing_desk.retry(session, undo.id, TODAY)
    session.commit()
    [claimed] = billing_asking.claim(session, TODAY, 10)
    assert claimed.key == "undo:queued"


def test_scenario_43_sign_in_links_and_sessions_are_dead_also_those_begun_since(
    session: Session, settings: Settings
) -> None:
    member = factories.member(session)
    session.commit()
    tokens = {
        purpose: magic_links.mint(session, purpose, member.id, member.email or "", TODAY + timedelta(days=9), NOW)
        for purpose in Purpose
    }
    session.commit()
    before = member.session_generation
    settle(session, settings)
    assert member.session_generation > before + 100
    alive = [purpose for purpose, token in tokens.items() if magic_links.look(session, purpose, token, TODAY)]
    assert alive == [Purpose.COME_BACK]


def test_scenario_43_erasures_since_are_replayed_with_all_that_belongs_to_them(
    session: Session, settings: Settings
) -> None:
    factories.live_feed(session, NOW)
    gone = factories.dormant(session, external_id="gone", email="gone@example.org")
    stays = factories.dormant(session, external_id="stays")
    factories.library(session, gone)
    session.commit()
    opened(session, settings, NOW)
    decisions.answer(session, settings, case_of(session, gone).id, Answer.LAPSE, Through.LINK, NOW)
    session.commit()
    [digest] = digests(settings, "gone")
    later = TODAY - timedelta(hours=3)
    erasure_log.append(erasure_log.path_of(settings), {digest: later, "f" * 64: later})
    done = settle(session, settings)
    assert (done.replayed, done.erasures_of_nobody, done.ending, done.orders) == (1, 1, 0, [])
    assert (gone.status, gone.email, stays.status) == ("purged", None, "active")
    assert session.scalars(select(Profile)).all() == []
    assert case_of(session, gone).state == "withdrawn"
    assert session.scalars(select(BillingOrder.state)).all() == ["superseded"]
    # As of the erasure, not of the restore: whoever has joined in between is taken again.
    assert dict(session.execute(select(Erasure.digest, Erasure.purged_at)).all()) == {digest: later, "f" * 64: later}


def test_scenario_43_who_joined_again_after_an_erasure_the_backup_knows_of_stays(
    session: Session, settings: Settings
) -> None:
    again = factories.member(session, external_id="again", joined_at=NOW)
    [digest] = digests(settings, "again")
    session.add(Erasure(digest=digest, purged_at=NOW - timedelta(days=9)))
    session.commit()
    erasure_log.keep_up(session, settings)
    assert settle(session, settings).replayed == 0
    assert again.status == "active"


def test_an_erasure_is_found_under_an_earlier_secret(session: Session, settings: Settings) -> None:
    member = factories.member(session, external_id="rotated")
    session.commit()
    [before] = digests(settings.model_copy(update={"secret_key": "the key before"}), "rotated")
    erasure_log.append(erasure_log.path_of(settings), {before: NOW})
    rotated = settings.model_copy(update={"secret_key_fallbacks": ("the key before",)})
    assert settle(session, rotated).replayed == 1
    assert member.status == "purged"
