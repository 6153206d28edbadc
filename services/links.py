"""Which link a mail carries. Random ones are minted here, in the claim of their mail: no outbox row ever holds one."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from domain.links import Purpose
from domain.notices import Kind
from services import check_in, magic_links
from settings import Settings

OPEN_BEYOND_KEEP_UNTIL = timedelta(days=60)
"""Until the purge has really happened coming back works, and a purge may wait for its last notice (promise 7)."""

CHECK_IN = frozenset(
    {
        Kind.WARNING,
        Kind.REMINDER,
        Kind.LAST_CALL,
        Kind.DEADLINE_MOVED,
        Kind.RECEIPT_KEEP,
        Kind.RECEIPT_LAPSE,
        Kind.USED_AFTER_END,
        Kind.TOLD,
    }
)
COME_BACK = frozenset({Kind.LAPSED, Kind.LAST_CHANCE})
ON_REQUEST = {
    Kind.SIGN_IN: "sign-in",
    Kind.ERASE_CONFIRM: "account/erase",
    Kind.NEW_ADDRESS: "account/email",
    Kind.OLD_ADDRESS: "account/email",
}


def for_message(
    session: Session, settings: Settings, message: Any, member: Any, case: Any, now: datetime
) -> str | None:
    """The absolute link of this message, or None for a mail that needs none; of rows as dispatch.claim reads them."""
    kind = message.kind
    if kind in CHECK_IN and case is not None:
        return to_check_in(settings, case.public_id, case.address_generation)
    if kind in COME_BACK and member is not None and member.keep_until is not None and member.email is not None:
        # The member's row decides how long one can come back; the link must not be over before that.
        expires_at = max(member.keep_until, now) + OPEN_BEYOND_KEEP_UNTIL
        token = magic_links.mint(session, Purpose.COME_BACK, member.id, member.email, expires_at, now)
        return f"{settings.public_url}/come-back/{token}"
    if kind in ON_REQUEST and message.magic_link_id is not None:
        token = magic_links.mint_into(session, message.magic_link_id, now)
        return f"{settings.public_url}/{ON_REQUEST[kind]}/{token}"
    if kind == Kind.END_UNCLEAR:
        return f"{settings.public_url}/end-membership"
    return None


def to_check_in(settings: Settings, public_id: str, address_generation: int) -> str:
    """Where a case is answered: for its mails, and for whoever shows its notice elsewhere."""
    return f"{settings.public_url}/check-in/{check_in.token(settings, public_id, address_generation)}"
