"""The statements that bring a staged batch of members into the table, and the guards they are conditional on.

- A use is never lowered or emptied, unless the import is told to correct uses.
- An operator's exemption is not in any of these statements. A status changes in one way only: who had ended and is
  listed with an active subscription is active again. A lapse is not touched (services/returning.py takes it back).
- An address that the member has changed here yields to a third one only, a language chosen here to none.
- Who has asked to be erased is not updated; who was erased is not raised again.
- Nothing is written where nothing differs.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    String,
    Table,
    and_,
    case,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session

from domain.lifecycle import Answer, MailState, MemberStatus
from domain.policy import SubscriptionStatus
from models import Case, Event, Member, change
from models import insert as insert_or
from models.base import UTCDateTime
from services.cases import lock_members
from services.files import staging

OFFER = ("plan", "price_minor", "currency", "billing_interval")
"""What a member is quoted on coming back: a lapsed member's is kept where the file has none any more."""


def staging_table(names: list[str]) -> Table:
    types = Member.__table__.columns
    return staging.temporary("incoming_member", [("line", BigInteger()), *((name, types[name].type) for name in names)])


def use_table() -> Table:
    columns = [("member_id", BigInteger()), ("used_at", UTCDateTime())]
    return staging.temporary("incoming_use", columns, indexed="member_id")


class Upsert:
    """The statements for one set of columns."""

    def __init__(self, session: Session, names: list[str], now: datetime, *, correct_use: bool) -> None:
        self.table = staging_table(names)
        self.names = names
        new = self.table.c
        self._joined = self.table.outerjoin(Member, Member.external_id == new.external_id)
        status = new.subscription_status if "subscription_status" in names else Member.subscription_status
        self._active_again = and_(
            Member.status == MemberStatus.ENDED,
            Member.erase_requested_at.is_(None),
            status == SubscriptionStatus.ACTIVE,
        )
        self._upsert = self._build(session, now, correct_use=correct_use)

    def _build(self, session: Session, now: datetime, *, correct_use: bool) -> Any:
        columns = [self.table.c[name] for name in self.names]
        names = list(self.names)
        selected = select(*columns).where(true())
        if session.get_bind().dialect.name == "postgresql":
            # Rows are locked in the order of their ids, as the month end does it, so that the two never deadlock.
            selected = select(*columns).select_from(self._joined).order_by(Member.id, self.table.c.line)
        statement = insert_or(session, Member).from_select(names, selected, include_defaults=False)
        new = statement.excluded

        values: dict[str, Any] = {name: new[name] for name in self.names if name != "external_id"}
        same_address = Member.email_key == new.email_key
        late = new.email_key == Member.email_replaced_key
        values["email"] = case((or_(same_address, late), Member.email), else_=new.email)
        values["email_key"] = case((late, Member.email_key), else_=new.email_key)
        values["email_replaced_key"] = case((late, Member.email_replaced_key), else_=None)
        values["mail_state"] = case((or_(same_address, late), Member.mail_state), else_=MailState.GOOD.value)
        if "locale" in values:
            values["locale"] = case((Member.locale_chosen_at.is_not(None), Member.locale), else_=new.locale)
        if "last_used_at" in values and not correct_use:
            later = and_(
                new.last_used_at.is_not(None),
                or_(Member.last_used_at.is_(None), new.last_used_at > Member.last_used_at),
            )
            values["last_used_at"] = case((later, new.last_used_at), else_=Member.last_used_at)
        for name in OFFER:
            if name in values:
                missing = new.price_minor if name == "currency" else new[name]
                kept = and_(Member.status == MemberStatus.LAPSED, missing.is_(None))
                values[name] = case((kept, Member.__table__.c[name]), else_=new[name])
        status = new.subscription_status if "subscription_status" in values else Member.subscription_status
        again = and_(Member.status == MemberStatus.ENDED, status == SubscriptionStatus.ACTIVE)
        values["status"] = case((again, MemberStatus.ACTIVE.value), else_=Member.status)
        # Joining again is a return, and a return is a sign of life.
        values["returned_at"] = case((again, literal(now, UTCDateTime())), else_=Member.returned_at)

        differs = or_(*(Member.__table__.c[name].is_distinct_from(value) for name, value in values.items()))
        return statement.on_conflict_do_update(
            index_elements=["external_id"], set_=values, where=and_(Member.erase_requested_at.is_(None), differs)
        )

    def glance(self, session: Session) -> Any:
        """One row of counts, by which the statements that have nothing to do are left out."""
        new = self.table.c
        live_case = exists(select(Case.id).where(Case.member_id == Member.id, Case.closed_at.is_(None)))

        def count(condition: Any) -> Any:
            return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)

        lapsed = Member.status == MemberStatus.LAPSED
        paid = "paid_through" in self.names
        return session.execute(
            select(
                count(Member.id.is_(None)).label("new"),
                count(Member.erase_requested_at.is_not(None)).label("leaving"),
                count(and_(Member.email_key != new.email_key, live_case)).label("moved"),
                count(and_(lapsed, new.paid_through > Member.access_ends_at) if paid else false()).label("paid_again"),
                count(self._active_again).label("active_again"),
                count(is_news(new.last_used_at) if "last_used_at" in self.names else false()).label("news"),
                (func.max(new.last_used_at) if "last_used_at" in self.names else literal(None, UTCDateTime())).label(
                    "last_used_at"
                ),
            ).select_from(self._joined)
        ).one()

    def unknown(self, session: Session) -> list[Any]:
        """line, external_id, joined_at of those that would be new."""
        new = self.table.c
        rows = select(new.line, new.external_id, new.joined_at).select_from(self._joined).where(Member.id.is_(None))
        return list(session.execute(rows))

    def leaving(self, session: Session) -> list[Any]:
        """line, external_id of those who have asked to be erased."""
        asked, new = Member.erase_requested_at, self.table.c
        rows = select(new.line, new.external_id).select_from(self._joined).where(asked.is_not(None))
        return list(session.execute(rows))

    def drop(self, session: Session, lines: list[int]) -> None:
        for start in range(0, len(lines), 500):
            session.execute(delete(self.table).where(self.table.c.line.in_(lines[start : start + 500])))

    def note_active_again(self, session: Session, now: datetime) -> None:
        selected = (
            select(literal(now, UTCDateTime()), literal("active_again"), Member.id)
            .select_from(self._joined)
            .where(self._active_again)
        )
        session.execute(insert(Event).from_select(["at", "code", "member_id"], selected, include_defaults=False))

    def run(self, session: Session) -> int:
        """Upsert the batch; how many members are new or different."""
        return change(session, self._upsert)


def wait_for_month_end(session: Session, incoming: Table) -> None:
    """Lock those of a batch who are being asked, before it is looked at.

    A month end that is under way on PostgreSQL would otherwise commit between the look, which finds a member active,
    and the update, which records the use of a member who has lapsed; and nobody would reverse that.
    """
    asked = (
        select(Case.member_id)
        .join(Member, Member.id == Case.member_id)
        .join(incoming, incoming.c.external_id == Member.external_id)
        .where(Case.closed_at.is_(None))
    )
    lock_members(session, asked)


def is_news(used_at: Any) -> Any:
    """A use that is not on record yet, of somebody whose end it may have something to do with.

    To be asked before the uses are recorded.
    """
    ended_it = exists(
        select(Case.id).where(Case.member_id == Member.id, Case.closed_at.is_(None), Case.answer == Answer.LAPSE)
    )
    return and_(
        used_at.is_not(None),
        # Of who has lapsed every use is looked at, also one that is on record: what an earlier file did not reverse, a
        # later one does.
        or_(
            Member.status == MemberStatus.LAPSED,
            and_(ended_it, used_at.is_distinct_from(Member.last_used_at)),
        ),
    )


def stage_news(session: Session, incoming: Table, used_at: Any, uses: Table) -> None:
    """Put those uses into ``uses``, for services.returning.reverse_for_use: few rows, quickly found by their member."""
    selected = (
        select(Member.id, used_at)
        .select_from(incoming.join(Member, Member.external_id == incoming.c.external_id))
        .where(is_news(used_at))
    )
    session.execute(insert(uses).from_select(["member_id", "used_at"], selected))


def end_absent(session: Session, absent: Table, now: datetime) -> int:
    """Mark the members in ``absent`` as ended, and write that down; both only of those who are active still."""
    # Whose own end is on its way leaves by that, with everything saved, although the service lists them no more.
    leaving = exists(
        select(Case.id).where(Case.member_id == Member.id, Case.closed_at.is_(None), Case.answer == Answer.LAPSE)
    )
    gone = and_(Member.status == literal_column("'active'"), Member.id.in_(select(absent.c.member_id)), ~leaving)
    session.execute(
        insert(Event).from_select(
            ["at", "code", "detail", "member_id"],
            select(literal(now, UTCDateTime()), literal("ended"), literal("absent", String()), Member.id).where(gone),
            include_defaults=False,
        )
    )
    ended = update(Member).where(gone).values(status=MemberStatus.ENDED)
    return change(session, ended)
