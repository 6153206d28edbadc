"""What is kept of an erased member: a keyed digest of the external id, so that a later file cannot raise them again."""

import hmac
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.dates import local_day
from models import Erasure
from settings import Settings

CHUNK = 500


def digests(settings: Settings, external_id: str) -> list[str]:
    """One digest per secret, the present one first: a purge writes that one, an import looks for all of them."""
    text = external_id.encode("utf-8", "surrogatepass")
    return [hmac.digest(secret.encode(), text, "sha256").hex() for secret in reversed(settings.secrets)]


def any_on_record(session: Session) -> bool:
    return session.scalar(select(Erasure.digest).limit(1)) is not None


def was_erased(purged_at: datetime, settings: Settings) -> str:
    return f"external_id was erased on {local_day(purged_at, settings.zone)}; only who joins later is taken again"


def purged(session: Session, settings: Settings, external_ids: list[str]) -> dict[str, datetime]:
    """Which of these were erased, and when."""
    owner = {digest: external_id for external_id in external_ids for digest in digests(settings, external_id)}
    wanted = list(owner)
    found: dict[str, datetime] = {}
    for start in range(0, len(wanted), CHUNK):
        rows = select(Erasure.digest, Erasure.purged_at).where(Erasure.digest.in_(wanted[start : start + CHUNK]))
        for digest, purged_at in session.execute(rows):
            found[owner[digest]] = max(purged_at, found.get(owner[digest], purged_at))
    return found
