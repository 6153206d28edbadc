"""Rows for tests, each with the facts that matter named and the rest plausible. Times are relative to tests' NOW."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from sqlalchemy.orm import Session

from models import ListItem, Member, Operator, Profile, SavedList, UseFeed

_numbers = count(1)


def at(text: str) -> datetime:
    """``at("2026-06-03")`` or ``at("2026-06-03 12:00")``, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def member(session: Session, **facts: Any) -> Member:
    """An active, paying member who joined in 2025 and never used it: dormant in June 2026, unless facts differ."""
    number = next(_numbers)
    email = facts.pop("email", f"member{number}@example.org")
    row = Member(
        **{
            "external_id": f"m-{number}",
            "email": email,
            "email_key": email.casefold(),
            "name": f"Member {number}",
            "locale": "en",
            "status": "active",
            "joined_at": at("2025-01-15"),
            "plan": "Standard",
            "price_minor": 1299,
            "currency": "EUR",
            "billing_interval": "month",
            "subscription_status": "active",
            "billing_ref": f"m-{number}",
            **facts,
        }
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return row


def dormant(session: Session, **facts: Any) -> Member:
    return member(session, **facts)


def stopped_using(session: Session, **facts: Any) -> Member:
    """Used it, but not for two years."""
    return member(session, **{"joined_at": at("2022-05-02"), "last_used_at": at("2024-03-01 20:15"), **facts})


def using(session: Session, **facts: Any) -> Member:
    """Uses it: last two days ago."""
    return member(session, **{"last_used_at": at("2026-06-02 20:15"), **facts})


def lapsed(session: Session, **facts: Any) -> Member:
    """Ended with April 2026, saved until the end of February 2027."""
    ended = at("2026-04-30 22:00")
    facts = {"lapsed_at": ended, "access_ends_at": ended, "keep_until": at("2027-02-28 23:00"), **facts}
    return member(session, status="lapsed", **facts)


def live_feed(session: Session, at_instant: datetime, **facts: Any) -> UseFeed:
    """Without a feed that has recorded use lately every campaign is held (design promise 8)."""
    row = session.merge(UseFeed(source=facts.pop("source", "plays"), last_event_at=at_instant, **facts))
    session.flush()
    return row


def operator(session: Session, **facts: Any) -> Operator:
    number = next(_numbers)
    email = facts.pop("email", f"operator{number}@lumio.example")
    row = Operator(
        **{
            "email": email,
            "email_key": email.casefold(),
            "role": "manager",
            "locale": "en",
            "password_hash": "scrypt:none",
            "created_at": at("2026-01-01"),
            **facts,
        }
    )
    session.add(row)
    session.flush()
    return row


def library(session: Session, owner: Member, *, items: int = 3) -> None:
    """Two profiles with settings, each with favourites and a watch list of so many items."""
    for position, name in enumerate(("Mia", "Kids")):
        profile = Profile(
            member_id=owner.id, position=position, name=name, settings={"subtitles": "de", "autoplay": False}
        )
        session.add(profile)
        session.flush()
        for order, kind in enumerate(("favourites", "watch_list")):
            saved = SavedList(
                member_id=owner.id, profile_id=profile.id, position=order, kind=kind, name=kind.replace("_", " ")
            )
            session.add(saved)
            session.flush()
            session.add_all(
                ListItem(
                    member_id=owner.id,
                    list_id=saved.id,
                    position=n,
                    ref=f"t-{n}",
                    title=f"Title {n}",
                    added_at=at("2025-02-01") + timedelta(days=n),
                )
                for n in range(items)
            )
    session.flush()
