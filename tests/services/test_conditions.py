"""Each fact in the condition of a statement that ends or erases, alone.

On their way through the use cases several of them guard the same thing, so that a story still comes out right when one
is gone. Here the rows are set as a race or a restore could leave them, and that one fact has to decide.
"""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from domain.lifecycle import Answer, Through
from models import BillingOrder, Campaign, Case, Member, Message
from services import decisions, purging
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import accept_mails, case_of, close, opened, purge

JULY_1 = at("2026-07-01 06:00")
ELSEWHERE = "elsewhere@example.org"

Facts = tuple[tuple[type, dict[str, Any]], ...]

SPARED: dict[str, Facts] = {
    "warned too late": ((Case, {"warned_at": at("2026-06-18")}),),
    "the mail went to another address": ((Case, {"warned_to": ELSEWHERE}),),
    "another address was warned": ((Case, {"warned_to": ELSEWHERE}), (Message, {"to_address": ELSEWHERE})),
    "the warning has bounced": ((Message, {"state": "bounced"}),),
    "the warning was given up": ((Message, {"state": "failed"}),),
    "the case is about another address": ((Case, {"address": ELSEWHERE}),),
    "another sign of life than was found": ((Case, {"found_sign_of_life_at": at("2020-01-01")}),),
    "used": ((Member, {"last_used_at": at("2026-06-30 12:00")}),),
    "kept": ((Member, {"last_kept_at": at("2026-06-30 12:00")}),),
    "exempted by an operator": ((Member, {"operator_exempt_reason": "in hospital"}),),
    "exempt by import": ((Member, {"exempt_reason": "staff"}),),
    "of a plan that is exempt by now": ((Member, {"plan": "Family"}),),
    "on trial": ((Member, {"subscription_status": "trial"}),),
    "of no price": ((Member, {"price_minor": 0}),),
    "mail does not arrive": ((Member, {"mail_state": "bounced"}),),
    "the round is held": ((Campaign, {"state": "held", "hold_reason": "operator"}),),
    "the round is cancelled": ((Campaign, {"state": "cancelled"}),),
}


@pytest.mark.parametrize("fact", SPARED)
def test_silence_ends_nothing_where_one_fact_speaks_against_it(session: Session, settings: Settings, fact: str) -> None:
    member, other = factories.dormant(session), factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    for table, values in SPARED[fact]:
        row = {Case: Case.member_id, Message: Message.member_id, Member: Member.id}.get(table)
        session.execute(update(table).where(*(() if row is None else (row == member.id,))).values(values))
    session.commit()

    close(session, settings.model_copy(update={"exempt_plans": ("Family",)}), JULY_1)
    session.expire_all()
    assert member.status == "active"
    assert other.status == ("active" if fact.startswith("the round") else "lapsed"), "the fact, and not something else"


def test_a_keep_on_the_members_row_outweighs_an_end_that_the_case_still_shows(
    session: Session, settings: Settings
) -> None:
    """What a month end on PostgreSQL sees that waited for a keep: the member's row anew, the case as it was."""
    kept, ended = factories.dormant(session), factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    for member in (kept, ended):
        decisions.answer(session, settings, case_of(session, member).id, Answer.LAPSE, Through.LINK, NOW)
    session.execute(update(Member).where(Member.id == kept.id).values(last_kept_at=NOW + timedelta(days=1)))
    session.commit()

    close(session, settings, JULY_1)
    session.expire_all()
    assert (kept.status, ended.status) == ("active", "lapsed")


UNPURGED: dict[str, tuple[type, dict[str, Any]]] = {
    "still saved": (Member, {"keep_until": at("2027-06-01 22:00")}),
    "told a day too late": (Message, {"sent_at": at("2027-04-18")}),
    "the last notice is on its way": (Message, {"state": "sending", "lease_token": "t", "lease_until": JULY_1}),
    "an order that waits": (BillingOrder, {"state": "queued"}),
    "an order being carried out": (BillingOrder, {"state": "working"}),
    "an order that failed": (BillingOrder, {"state": "failed"}),
    "come back": (Member, {"status": "active", "lapsed_at": None, "access_ends_at": None, "keep_until": None}),
}


@pytest.mark.parametrize("fact", UNPURGED)
def test_nobody_is_purged_where_one_fact_speaks_against_it(session: Session, settings: Settings, fact: str) -> None:
    member, other = factories.dormant(session), factories.dormant(session)
    session.commit()
    opened(session, settings, NOW)
    close(session, settings, JULY_1)
    accept_mails(session, settings, JULY_1)
    session.execute(update(BillingOrder).values(state="done", done_at=JULY_1))
    purging.warn_purge(session, settings, at("2027-04-02"))
    session.commit()
    accept_mails(session, settings, at("2027-04-02"))
    table, values = UNPURGED[fact]
    theirs = (Member.id if table is Member else table.member_id) == member.id  # type: ignore[attr-defined]
    about = (Message.kind == "last_chance",) if table is Message else ()
    session.execute(update(table).where(theirs, *about).values(values))

    assert purge(session, settings, at("2027-05-01 06:00")) == 1
    session.expire_all()
    assert (member.status != "purged", other.status) == (True, "purged")
