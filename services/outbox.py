"""The outbox of mail: what goes in, in the transaction of the change that causes it.

``once_key`` makes a mail that mail: putting it in again is nothing. How messages go out is services/mail/dispatch.py.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, String, cast, literal, select, update
from sqlalchemy.orm import Session

from domain.lifecycle import MessageState
from domain.notices import NOTICES, TO_ONE_ADDRESS, Kind, priority
from models import Campaign, Case, Member, Message, Operator, change, insert
from models.base import UTCDateTime


def put(
    session: Session,
    *,
    kind: Kind,
    once_key: str,
    now: datetime,
    member: Member | None = None,
    case: Case | None = None,
    campaign: Campaign | None = None,
    operator: Operator | None = None,
    magic_link_id: int | None = None,
    deadline_at: datetime | None = None,
    to_address: str | None = None,
) -> bool:
    """Queue one message to a member or an operator. False: a message of this key is there already.

    It goes to the address on record unless ``to_address`` says otherwise.
    """
    recipient = member or operator
    assert recipient is not None
    statement = (
        insert(session, Message)
        .values(
            once_key=once_key,
            kind=kind,
            member_id=member.id if member else None,
            case_id=case.id if case else None,
            campaign_id=campaign.id if campaign else case.campaign_id if case else None,
            operator_id=operator.id if operator else None,
            magic_link_id=magic_link_id,
            locale=recipient.locale,
            to_address=to_address or recipient.email,
            priority=priority(kind),
            created_at=now,
            due_at=now,
            deadline_at=deadline_at,
        )
        .on_conflict_do_nothing(index_elements=["once_key"])
    )
    return bool(change(session, statement))


def put_for_cases(
    session: Session,
    kind: Kind,
    key: ColumnElement[str],
    now: datetime,
    *where: ColumnElement[bool],
    deadline: Any = None,
) -> int:
    """Queue one message for each case of a selection, to the member's present address, in one statement.

    ``key`` is SQL over Case and Member; ``where`` may use Case, Member and Campaign. Returns how many are new.
    """
    selected = (
        select(
            key,
            literal(str(kind)),
            Member.id,
            Case.id,
            Case.campaign_id,
            Member.locale,
            Member.email,
            literal(priority(kind)),
            literal(now, UTCDateTime()),
            literal(now, UTCDateTime()),
            literal(None, UTCDateTime()) if deadline is None else deadline,
        )
        .select_from(Case)
        .join(Member, Member.id == Case.member_id)
        .outerjoin(Campaign, Campaign.id == Case.campaign_id)
        .where(*where)
    )
    columns = [
        "once_key", "kind", "member_id", "case_id", "campaign_id", "locale", "to_address", "priority",
        "created_at", "due_at", "deadline_at",
    ]  # fmt: skip
    statement = insert(session, Message).from_select(columns, selected, include_defaults=False)
    return change(session, statement.on_conflict_do_nothing(index_elements=["once_key"]))


def take_up_again(session: Session, now: datetime, *which: ColumnElement[bool]) -> int:
    """Queue messages again that had been given up: refused too often, or held to be obsolete by a fact that passed."""
    return change(
        session,
        update(Message).where(*which).values(state=MessageState.QUEUED, attempts=0, due_at=now),
    )


def follow_address(session: Session) -> int:
    """Queued mails to a member go to the present address; notices and what was asked for from the old one do not."""
    present = select(Member.email).where(Member.id == Message.member_id).scalar_subquery()
    return change(
        session,
        update(Message)
        .where(
            Message.state == MessageState.QUEUED,
            Message.member_id.is_not(None),
            Message.kind.not_in([*NOTICES, *TO_ONE_ADDRESS]),
            present.is_not(None),
            Message.to_address != present,
        )
        .values(to_address=present),
    )


def case_key(kind: Kind, *parts: Any) -> ColumnElement[str]:
    """``<kind>:<case>:<part>…`` in SQL."""
    key: ColumnElement[str] = literal(f"{kind}:") + Case.public_id
    for part in parts:
        key = key + ":" + cast(part, String)
    return key


def put_to_operators(
    session: Session, kind: Kind, key: str, now: datetime, *, campaign: Campaign | None = None, case: Case | None = None
) -> None:
    """One message to each operator; ``key`` names the occasion."""
    for operator in session.scalars(select(Operator).order_by(Operator.id)):
        put(
            session,
            kind=kind,
            once_key=f"{key}:{operator.id}",
            now=now,
            operator=operator,
            campaign=campaign,
            case=case,
        )
