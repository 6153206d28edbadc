"""Going for good: the last notice, the erasure after ten months, and the erasure by one's own wish.

A purge happens only when keep-until has passed, no billing order is unfinished, and the member had a last chance: its
mail was accepted fourteen days ago, or the address is dead, or thirty days of attempts failed. It is an UPDATE of the
member's row that asks for all of this, and so is coming back.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import String, and_, cast, delete, exists, func, literal, or_, select, update
from sqlalchemy import case as when
from sqlalchemy.orm import Session

from domain.errors import NotFound, Refused
from domain.lifecycle import (
    Answer,
    CaseState,
    MailState,
    MemberStatus,
    MessageState,
    OrderKind,
    OrderState,
    Through,
)
from domain.notices import (
    LAST_CHANCE_DAYS,
    PURGE_AFTER_NOTICE_DAYS,
    PURGE_ATTEMPT_DAYS,
    Kind,
    priority,
)
from models import (
    BillingNews,
    BillingOrder,
    Case,
    Erasure,
    Event,
    ListItem,
    MagicLink,
    Member,
    Message,
    Profile,
    SavedList,
    SignIn,
    change,
    for_writing,
    insert,
)
from models.base import UTCDateTime
from services import billing, erasure_log, events, magic_links, outbox, sign_ins
from services.cases import live_case, lock, lock_members
from services.decisions import is_billed
from services.erasure import digests
from services.outgoing import writing
from settings import Settings

WINDOW = 1000
UNSENT = (MessageState.QUEUED, MessageState.SENDING, MessageState.FAILED)
ADDRESS_KEPT_FOR = timedelta(days=7)
"""The mail that confirms an erasure needs an address; it is kept until the mail is out, and no longer than this."""


def warn_purge(session: Session, settings: Settings, now: datetime) -> int:
    """Queue the last-chance mail, thirty days before, once for each lapse, to members whose address is not dead."""
    key = literal("last_chance:") + Member.public_id + ":" + cast(func.epoch(Member.lapsed_at), String)
    selected = select(
        key,
        literal(Kind.LAST_CHANCE.value),
        Member.id,
        Member.locale,
        Member.email,
        literal(priority(Kind.LAST_CHANCE)),
        literal(now, UTCDateTime()),
        literal(now, UTCDateTime()),
        Member.keep_until,
    ).where(
        Member.status == MemberStatus.LAPSED,
        Member.keep_until <= now + timedelta(days=LAST_CHANCE_DAYS),
        Member.mail_state == MailState.GOOD,
    )
    columns = [
        "once_key", "kind", "member_id", "locale", "to_address", "priority", "created_at", "due_at", "deadline_at",
    ]  # fmt: skip
    statement = insert(session, Message).from_select(columns, selected, include_defaults=False)
    again = _last_chances_anew(session, now)
    return again + change(session, statement.on_conflict_do_nothing(index_elements=["once_key"]))


def _last_chances_anew(session: Session, now: datetime) -> int:
    """One that came back from an address the member no longer has, or was taken back with a return that is none, has
    told nobody anything: it goes out as if it were new, and its days are counted from then."""
    present = select(Member.email).where(Member.id == Message.member_id).scalar_subquery()
    due = exists(
        select(Member.id).where(
            Member.id == Message.member_id,
            Member.status == MemberStatus.LAPSED,
            Member.lapsed_at <= Message.created_at,
            Member.keep_until <= now + timedelta(days=LAST_CHANCE_DAYS),
            Member.mail_state == MailState.GOOD,
        )
    )
    return change(
        session,
        update(Message)
        .where(
            Message.kind == Kind.LAST_CHANCE,
            Message.state.in_([MessageState.OBSOLETE, MessageState.BOUNCED]),
            due,
        )
        .values(state=MessageState.QUEUED, attempts=0, created_at=now, due_at=now, sent_at=None, to_address=present),
    )


def purge(session: Session, settings: Settings, now: datetime, commit: Callable[[], None]) -> int:
    """Erase everybody who is due, in windows; ``commit`` is called after each. A restore is told of it, too."""
    purged = 0
    while True:
        for_writing(session)
        count = _purge_window(session, settings, or_(_had_ten_months(now), _asked_for_it()), now)
        commit()
        if not count:
            break
        purged += count
    for_writing(session)
    _forget_addresses(session, now)
    sign_ins.forget(session, now)
    magic_links.forget_addresses(session, now)
    committed = erasure_log.missing(session, settings)
    commit()
    erasure_log.write_down(settings, committed)
    return purged


def erase(session: Session, settings: Settings, member_id: int, now: datetime) -> bool:
    """Erase a member by their own wish, or by an operator's: billing is stopped first.

    True: erased. False: as soon as the provider has confirmed the stop; until then nothing but what that needs is kept.
    """
    member = lock(session, member_id)
    if member is None or member.status == MemberStatus.PURGED:
        raise NotFound("There is no such member.")
    if member.erase_requested_at is not None:
        raise Refused("This erasure is under way: the payment provider's confirmation is awaited.")
    if member.status == MemberStatus.ACTIVE and is_billed(member) and not _stop_is_on_its_way(session, member):
        billing.order(session, kind=OrderKind.STOP, key=f"stop:erase:{member.public_id}", member=member, now=now)
    case = live_case(session, member_id)
    if case is not None:
        if case.answer is None:
            case.answer, case.answered_at, case.answered_through = Answer.LAPSE, now, Through.ACCOUNT
            case.wording_version = settings.wording_version
        case.state = CaseState.WITHDRAWN
        case.closed_at = now
        session.flush()
        events.record(
            session, "case_closed", now, detail=case.state, member_id=member_id, case_id=case.id,
            campaign_id=case.campaign_id,
        )  # fmt: skip
    outbox.put(session, kind=Kind.ERASED, once_key=f"erased:{member.public_id}", now=now, member=member)
    _delete_library(session, Member.id == member_id)
    change(
        session,
        update(Message)
        .where(
            Message.member_id == member_id,
            Message.kind != Kind.ERASED,
            Message.state.in_([MessageState.QUEUED, MessageState.FAILED]),
        )
        .values(state=MessageState.OBSOLETE),
    )
    member.status = MemberStatus.ENDED
    member.lapsed_at = member.access_ends_at = member.keep_until = None
    member.erase_requested_at = now
    session.flush()
    sign_ins.end_all(session, member_id)
    events.record(session, "erasure_requested", now, member_id=member_id)
    return bool(_purge_window(session, settings, and_(Member.id == member_id, _asked_for_it()), now))


def purge_these(session: Session, settings: Settings, member_ids: list[int], now: datetime) -> int:
    """Erase members whose erasure has been carried out before: what a restore has brought back (services/restoring.py).

    Nothing else is asked of them; the caller has closed what they had open.
    """
    return _purge_window(session, settings, and_(Member.id.in_(member_ids), Member.status != MemberStatus.PURGED), now)


def _had_ten_months(now: datetime) -> Any:
    last_chance = select(Message.id).where(
        Message.member_id == Member.id, Message.kind == Kind.LAST_CHANCE, Message.created_at >= Member.lapsed_at
    )
    told = exists(
        last_chance.where(
            Message.state == MessageState.SENT, Message.sent_at <= now - timedelta(days=PURGE_AFTER_NOTICE_DAYS)
        )
    )
    tried = exists(
        last_chance.where(
            Message.state.in_([MessageState.QUEUED, MessageState.FAILED]),
            Message.created_at <= now - timedelta(days=PURGE_ATTEMPT_DAYS),
        )
    )
    return and_(
        Member.status == MemberStatus.LAPSED,
        Member.keep_until <= now,
        or_(Member.mail_state != MailState.GOOD, told, tried),
        ~_owed_by_billing(),
    )


def _asked_for_it() -> Any:
    return and_(Member.status == MemberStatus.ENDED, Member.erase_requested_at.is_not(None), ~_owed_by_billing())


def _owed_by_billing() -> Any:
    """An order that is not done: even one that failed, for its reference is what an operator needs to repair it."""
    return exists(
        select(BillingOrder.id).where(
            BillingOrder.member_id == Member.id,
            BillingOrder.state.not_in([OrderState.DONE, OrderState.SUPERSEDED]),
        )
    )


def _stop_is_on_its_way(session: Session, member: Member) -> bool:
    """Whether the latest order is a stop of what is paid now, and not of a membership before a return."""
    latest = session.execute(
        select(BillingOrder.kind, BillingOrder.created_at)
        .where(BillingOrder.member_id == member.id, BillingOrder.state != OrderState.SUPERSEDED)
        .order_by(BillingOrder.id.desc())
        .limit(1)
    ).first()
    if latest is None or latest.kind != OrderKind.STOP:
        return False
    return member.returned_at is None or latest.created_at >= member.returned_at


def _purge_window(session: Session, settings: Settings, due: Any, now: datetime) -> int:
    """Erase up to a window of members who are due, wholly, in the transaction of the caller."""
    chosen = select(Member.id).where(due).order_by(Member.id).limit(WINDOW)
    lock_members(session, chosen)
    # Only here do names pass through Python: the digest that keeps an import from raising them again is keyed.
    doomed = session.execute(
        select(Member.id, Member.external_id, Member.billing_ref).where(Member.id.in_(chosen))
    ).all()
    if not doomed:
        return 0
    ids = [row.id for row in doomed]
    theirs = Member.id.in_(ids)
    refs = {row.billing_ref for row in doomed} | set(
        session.scalars(select(BillingOrder.billing_ref).where(BillingOrder.member_id.in_(ids)))
    )
    writing.put_purged(session, theirs, now)
    erased = change(session, update(Member)
        .where(theirs, due)
        .values(
            status=MemberStatus.PURGED,
            purged_at=now,
            # What a person was is gone; the row stays for the events that tell of it.
            joined_at=now,
            lapsed_at=None,
            access_ends_at=None,
            keep_until=None,
            session_generation=Member.session_generation + 1,
            **{
                name: None
                for name in (
                    "external_id", "email", "email_key", "email_replaced_key", "name", "locale", "locale_chosen_at",
                    "last_used_at", "last_kept_at",
                    "returned_at", "plan", "price_minor", "currency", "billing_interval", "paid_through",
                    "billing_ref", "exempt_reason", "operator_exempt_reason", "erase_requested_at",
                )
            },
        )
    )  # fmt: skip
    assert erased == len(ids), "a locked member cannot change between two statements"
    change(
        session,
        insert(session, Erasure)
        .values([{"digest": digests(settings, row.external_id)[0], "purged_at": now} for row in doomed])
        .on_conflict_do_update(index_elements=["digest"], set_={"purged_at": now}),
    )
    _delete_library(session, theirs)
    change(
        session,
        update(Message)
        .where(Message.member_id.in_(ids))
        .values(
            magic_link_id=None,
            smtp_reply="",
            # Only the mail that confirms the erasure still goes out, and it needs an address until then.
            locale=when((_last_mail(), Message.locale), else_=None),
            to_address=when((_last_mail(), Message.to_address), else_=None),
            state=when((and_(~_last_mail(), Message.state.in_(UNSENT)), MessageState.OBSOLETE), else_=Message.state),
            lease_token=when((_last_mail(), Message.lease_token), else_=None),
            lease_until=when((_last_mail(), Message.lease_until), else_=None),
        ),
    )
    change(session, delete(MagicLink).where(MagicLink.member_id.in_(ids)))
    change(session, delete(SignIn).where(SignIn.member_id.in_(ids)))
    change(session, update(Case)
        .where(Case.member_id.in_(ids))
        .values(
            {
                name: None
                for name in (
                    "found_joined_at", "found_last_used_at", "found_sign_of_life_at", "found_plan",
                    "found_price_minor", "found_currency", "found_billing_interval", "address", "warned_to",
                    "answer_note", "kept_before_at", "paid_minor", "paid_currency", "paid_asked_at",
                )
            }
        )
    )  # fmt: skip
    change(
        session,
        update(BillingOrder)
        .where(BillingOrder.member_id.in_(ids))
        .values(
            {
                name: None
                for name in (
                    "billing_ref", "receipt", "read_back", "error", "price_minor", "currency", "billing_interval",
                    "since", "ended_before", "pay_at", "paid_through", "refunded_minor",
                )
            }
        ),
    )  # fmt: skip
    _forget_news(session, refs)
    change(
        session,
        insert(session, Event).from_select(
            ["at", "code", "member_id"],
            select(literal(now, UTCDateTime()), literal("purged"), Member.id).where(theirs),
            include_defaults=False,
        ),
    )
    session.expire_all()
    return len(ids)


def _last_mail() -> Any:
    return and_(Message.kind == Kind.ERASED, Message.state.in_(UNSENT))


def _forget_news(session: Session, refs: set[str | None]) -> None:
    """What a provider sent word of is named by its reference; that of somebody who has one of these still stays."""
    held = exists(select(Member.id).where(Member.billing_ref == BillingNews.billing_ref))
    known = [ref for ref in refs if ref is not None]
    change(session, delete(BillingNews).where(BillingNews.billing_ref.in_(known), ~held))


def _forget_addresses(session: Session, now: datetime) -> None:
    """A confirmation that could not be sent for a week is given up, and the address with it.

    One that came back is given up at once; and what a server said of it, which may name the address, goes in any case.
    """
    over = Message.state.in_([MessageState.SENT, MessageState.BOUNCED, MessageState.OBSOLETE])
    change(
        session,
        update(Message)
        .where(
            Message.kind == Kind.ERASED,
            or_(over, and_(_last_mail(), Message.created_at < now - ADDRESS_KEPT_FOR)),
            or_(Message.to_address.is_not(None), Message.smtp_reply != ""),
        )
        .values(
            to_address=None,
            locale=None,
            smtp_reply="",
            state=when((over, Message.state), else_=MessageState.OBSOLETE),
            lease_token=None,
            lease_until=None,
        ),
    )


def _delete_library(session: Session, which: Any) -> None:
    owners = select(Member.id).where(which)
    for table in (ListItem, SavedList, Profile):
        change(session, delete(table).where(table.member_id.in_(owners)))
