"""Keys of the API: made once, known by their digest, limited in how often they may be used.

A key is ``dormouse_<prefix>_<secret>``. The prefix finds its row by one indexed look; the digest is keyed with this
installation's SECRET_KEY, so that a key, or a copied row, of another installation is nothing here.
"""

import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, case, func, literal, or_, select, update
from sqlalchemy.orm import Session

from domain.errors import BadValue, NotFound
from domain.scopes import Scope
from models import ApiKey, change
from models.base import UTCDateTime
from settings import Settings

FORM = re.compile(r"dormouse_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
WINDOW = timedelta(minutes=1)

_KEYS = ApiKey.__table__.c
FOUND = select(_KEYS.id, _KEYS.digest, _KEYS.scopes, _KEYS.expires_at, _KEYS.revoked_at).where(
    _KEYS.prefix == bindparam("prefix")
)
"""Every request asks this, so it is put together once, and for the table alone."""


@dataclass(frozen=True, slots=True)
class Known:
    """A key that may be used now; ``row`` has what was looked up beside it."""

    id: int
    scopes: frozenset[str]
    row: Row[Any]


@dataclass(frozen=True, slots=True)
class Unusable:
    """A key that was made here and is over; the reason is a sentence for its holder."""

    reason: str


def create(
    session: Session, settings: Settings, name: str, scopes: Iterable[Scope], expires_at: datetime, now: datetime
) -> str:
    """A new key, which is nowhere but in this answer."""
    wanted = sorted({scope.value for scope in scopes})
    if not wanted:
        raise BadValue("a key without a scope opens nothing; give it at least one")
    if not 0 < len(name) <= 100 or not name.isprintable():
        raise BadValue(f"{name!r} is no name of 1 to 100 characters")
    prefix = secrets.token_hex(6)
    key = f"dormouse_{prefix}_{secrets.token_urlsafe(32)}"
    session.add(
        ApiKey(
            prefix=prefix,
            digest=_digest(settings.secret_key, key),
            name=name,
            scopes=wanted,
            created_at=now,
            expires_at=expires_at,
        )
    )
    session.flush()
    return key


def revoke(session: Session, prefix: str, now: datetime) -> None:
    """Make a key useless from now on; one that is revoked already stays so. Raises NotFound."""
    if not change(
        session,
        update(ApiKey)
        .where(ApiKey.prefix == prefix)
        .values(revoked_at=func.coalesce(ApiKey.revoked_at, literal(now, UTCDateTime()))),
    ):
        raise NotFound(f"There is no key {prefix!r}; `flask api-key list` names them.")


def verify(
    connection: Connection,
    settings: Settings,
    given: str,
    now: datetime,
    look: Select[Any] = FOUND,
    **values: str,
) -> Known | Unusable | None:
    """Whose key this is; None for what was not made here. Without a session, for every request pays for this.

    ``look`` may ask more than FOUND does, of these values: what costs little is then asked together with the key.
    """
    form = FORM.fullmatch(given)
    if form is None:
        return None
    row = connection.execute(look, {"prefix": form[1], **values}).one_or_none()
    if row is None or not any(hmac.compare_digest(_digest(key, given), row.digest) for key in settings.secrets):
        return None
    if row.revoked_at is not None:
        return Unusable("This key has been revoked.")
    if row.expires_at <= now:
        return Unusable(f"This key has expired on {row.expires_at.astimezone(settings.zone).date()}.")
    return Known(row.id, frozenset(row.scopes), row)


def window(now: datetime) -> datetime:
    """The minute that a request counts for."""
    return now.replace(second=0, microsecond=0)


def grant(session: Session, key_id: int, count: int, limit: int, now: datetime) -> bool:
    """Count so many requests of a key at once, if they still fit into this minute; False: they do not.

    All processes together never get more than ``limit``. Where clocks differ, the latest minute any has seen counts.
    """
    this = window(now)
    new = or_(ApiKey.window_at.is_(None), ApiKey.window_at < this)
    granted = change(
        session,
        update(ApiKey)
        .where(ApiKey.id == key_id, or_(and_(new, literal(count) <= limit), and_(~new, ApiKey.taken + count <= limit)))
        .values(
            window_at=case((new, literal(this, UTCDateTime())), else_=ApiKey.window_at),
            taken=case((new, count), else_=ApiKey.taken + count),
        ),
    )
    return granted == 1


def _digest(secret: str, key: str) -> str:
    return hmac.digest(secret.encode(), b"api-key:" + key.encode(), "sha256").hex()
