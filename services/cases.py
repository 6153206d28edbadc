"""What makes a silent case still right, as one condition, and what every change of a case starts with.

Claim, reminder, banner, page and month end all use ``facts_hold``: there is no second place that says when a case may
still be acted on.
"""

import secrets
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, literal_column, or_, select
from sqlalchemy.orm import Session

from domain import dates
from domain.lifecycle import Answer, CampaignState, CaseState, MailState
from models import Case, Member
from models.member import paying_and_not_exempt
from services.selection import not_exempt_plan
from settings import Settings


def facts_hold(settings: Settings) -> ColumnElement[bool]:
    """The case is live and silent, and its member is as found: no sign of life since, paying, not exempt, reachable.

    Both Member and Case have to be in the statement, joined.
    """
    return facts_hold_but(settings.exempt_plans)


def facts_hold_but(exempt_plans: tuple[str, ...]) -> ColumnElement[bool]:
    """The same for whoever keeps the condition: of the settings it needs these plans, and nothing else."""
    return and_(
        Case.closed_at.is_(None),
        Case.answer.is_(None),
        paying_and_not_exempt(),
        not_exempt_plan(exempt_plans),
        Member.last_sign_of_life_at == Case.found_sign_of_life_at,
        Member.mail_state == literal_column("'good'"),
        Member.email == Case.address,
    )


def why_not(settings: Settings) -> ColumnElement[str | None]:
    """How a live, silent case ends whose facts no longer hold; null where they do, or where only the address is new."""
    return case(
        # A day of joining that is corrected is no sign of life.
        (
            or_(
                Member.last_used_at > Case.found_sign_of_life_at,
                Member.last_kept_at > Case.found_sign_of_life_at,
                Member.returned_at > Case.found_sign_of_life_at,
            ),
            CaseState.RETURNED,
        ),
        (Member.operator_exempt_reason.is_not(None), CaseState.EXEMPTED),
        (Member.exempt_reason.is_not(None), CaseState.EXEMPTED),
        (~not_exempt_plan(settings.exempt_plans), CaseState.EXEMPTED),
        (~paying_and_not_exempt(), CaseState.WITHDRAWN),
        (Member.price_minor.is_(None), CaseState.WITHDRAWN),
        (Member.last_sign_of_life_at != Case.found_sign_of_life_at, CaseState.WITHDRAWN),
        (Member.mail_state != MailState.GOOD, CaseState.UNREACHABLE),
        else_=None,
    )


CAN_STILL_END = (CaseState.WITHDRAWN, CaseState.UNREACHABLE, CaseState.EXEMPTED, CaseState.RETURNED)
"""Ends after which the membership runs on: a member may still end it by this case's page until its deadline."""


def honoured_at(case: Case, campaign_state: str | None, settings: Settings, now: datetime) -> datetime:
    """When an end of one's own that is asked for now comes: on the day that a notice has named, if that still counts,
    else at this month's end. The day of a round that is held is acted on no more once it is past."""
    named = case.warned_at is not None and case.state not in CAN_STILL_END
    held = campaign_state == CampaignState.HELD
    past = case.deadline_at is not None and case.deadline_at <= now
    if case.deadline_at is None or not named or (held and past):
        return dates.next_month_end(now, settings.zone)
    return case.deadline_at


def ends_by_silence(settings: Settings, billed_by: str | None, told_it_continues: bool | None = None) -> bool:
    """Whether no answer ends the membership. It does not where only a store can, and not for whoever was told, by the
    notice that counts, that it does not: see closing._keep_the_silent."""
    return settings.on_silence == "lapse" and billed_by is None and not told_it_continues


ANSWERED = {Answer.KEEP: CaseState.KEPT.value, Answer.LAPSE: "lapsing"}
"""How a live case stands once it is answered; nobody has closed it yet."""


def word_of(found: Any) -> str:
    """How a case stands: ``open``, ``kept`` or ``lapsing`` once answered, or how it ended. For one row of Case."""
    if found.closed_at is None and found.answer is not None:
        return ANSWERED[Answer(found.answer)]
    return str(found.state)


def word() -> ColumnElement[str]:
    """The same in SQL, of every row of Case."""
    answered = [(and_(Case.closed_at.is_(None), Case.answer == answer), said) for answer, said in ANSWERED.items()]
    return case(*answered, else_=Case.state)


def lock(session: Session, member_id: int) -> Member | None:
    """The member's row, locked where the database locks rows, and read anew. Always before the case's.

    Locked are rows here so that others may go on referring to them (FOR NO KEY UPDATE): a mail to a member, a case of a
    round are inserted by whoever has no other business with the row, and who waited for it there with a lock of their
    own would wait in a circle.
    """
    return session.scalar(
        select(Member)
        .where(Member.id == member_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


def live_case(session: Session, member_id: int) -> Case | None:
    return session.scalar(
        select(Case)
        .where(Case.member_id == member_id, Case.closed_at.is_(None))
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


def lock_members(session: Session, members: Any) -> None:
    """Lock the rows of a selectable or list of member ids in the order of ids, so that two who do it never deadlock.

    Only PostgreSQL needs it: on SQLite a writing transaction is alone. Nothing is fetched.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(locking(members))


def locking(members: Any) -> Select[int]:
    """The statement of it, for whoever keeps it."""
    rows = select(Member.id).where(Member.id.in_(members)).order_by(Member.id).with_for_update(key_share=True)
    return select(func.count()).select_from(rows.subquery())


def new_batch() -> str:
    """The name of one window's work, by which the following statements know its rows."""
    return secrets.token_hex(16)
