"""What the service vouches for: a signed JWT that names one of its members, for one purpose, for a short while.

The service's server makes it with the one key that SERVICE_KEYS knows; the purpose is the audience, an address of this
site. To sign in it is good once and for a minute, to read the notice for a quarter of an hour.
"""

from base64 import b64decode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from domain.errors import Refused
from domain.lifecycle import MemberStatus
from models import Member, UsedAssertion, change, insert
from settings import Settings

SKEW = timedelta(seconds=10)
"""So far the service's clock may be ahead of ours."""

REMEMBERED_FOR = timedelta(days=1)
"""After its end: a clock that is set back by less brings no used assertion to life."""

LONGEST_ID = 200


class Purpose(StrEnum):
    """The audience is PUBLIC_URL and this."""

    SIGN_IN = "/sign-in/service"
    NOTICE = "/api/notice"


LIFETIME = {Purpose.SIGN_IN: timedelta(seconds=60), Purpose.NOTICE: timedelta(minutes=15)}


@dataclass(frozen=True, slots=True)
class Assertion:
    external_id: str
    digest: str
    """SHA-256 of its issuer and its own id; empty where it needs none."""
    expires_at: datetime


def read(settings: Settings, token: str, purpose: Purpose, now: datetime) -> Assertion:
    """What a token says, if the service has made it for this purpose and lately. Raises Refused, saying why not."""
    # Eight megabytes with what it stands on, which whoever has no such service need not hold.
    import jwt

    needs = ["iss", "aud", "sub", "iat", "exp", *(["jti"] if purpose is Purpose.SIGN_IN else [])]
    claims = None
    for key in _keys(settings):
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[settings.service_key_algorithm],
                audience=settings.public_url + purpose,
                issuer=settings.service_issuer,
                # The time is judged below, by the clock of this installation.
                options={"require": needs, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
            break
        except jwt.InvalidSignatureError:
            continue
        except jwt.PyJWTError as error:
            raise Refused(f"This is no assertion of the service for this address: {error}") from None
    if claims is None:
        raise Refused("This assertion is not signed with a key of the service.")
    issued_at, expires_at = _instant(claims, "iat"), _instant(claims, "exp")
    begins_at = _instant(claims, "nbf") if "nbf" in claims else issued_at
    if max(issued_at, begins_at) > now + SKEW or expires_at <= now:
        raise Refused("This assertion is too late, or a clock is wrong.")
    if expires_at - issued_at > LIFETIME[purpose]:
        seconds = int(LIFETIME[purpose].total_seconds())
        raise Refused(f"This assertion is good for longer than is allowed: {seconds} seconds.")
    own_id = claims.get("jti", "")
    if not isinstance(own_id, str) or len(own_id) > LONGEST_ID or ("jti" in needs and not own_id):
        raise Refused("This assertion has no id of its own, or a very long one.")
    digest = sha256(f"{settings.service_issuer}\0{own_id}".encode("utf-8", "surrogatepass")).hexdigest()
    external_id = str(claims["sub"])
    if not external_id.isprintable():
        # No database would take all of these, and no import has brought one.
        raise Refused("This assertion names nobody.")
    return Assertion(external_id, digest, expires_at)


def look(session: Session, settings: Settings, token: str, now: datetime) -> Member:
    """Whom a sign-in assertion names; it stays good. Raises Refused."""
    said = read(settings, token, Purpose.SIGN_IN, now)
    if session.get(UsedAssertion, said.digest) is not None:
        raise Refused("This assertion was used.")
    return member_of(session, said)


def consume(session: Session, settings: Settings, token: str, now: datetime) -> Member:
    """Whom a sign-in assertion names, once. Raises Refused; then nothing is used up."""
    said = read(settings, token, Purpose.SIGN_IN, now)
    member = member_of(session, said)
    change(session, delete(UsedAssertion).where(UsedAssertion.expires_at <= now - REMEMBERED_FOR))
    first = change(
        session,
        insert(session, UsedAssertion)
        .values(digest=said.digest, expires_at=said.expires_at)
        .on_conflict_do_nothing(index_elements=["digest"]),
    )
    if not first:
        raise Refused("This assertion was used.")
    return member


def member_of(session: Session, said: Assertion) -> Member:
    member = session.scalar(
        select(Member).where(Member.external_id == said.external_id, Member.status != MemberStatus.PURGED)
    )
    if member is None:
        raise Refused("The service has named a member who is not known here.")
    return member


def _keys(settings: Settings) -> list[Any]:
    if settings.service_key_algorithm == "HS256":
        return list(settings.service_keys)
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    return [load_der_public_key(b64decode(key)) for key in settings.service_keys]


def _instant(claims: dict[str, Any], name: str) -> datetime:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"The claim {name} of this assertion is no instant.")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise Refused(f"The claim {name} of this assertion is no instant.") from None
