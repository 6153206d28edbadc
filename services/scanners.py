"""Presses that a machine may have made. Mail scanners open every link, and some press the buttons they find.

None of this keeps a machine out for certain; it costs a person one more press at most. What a machine did get through
with is told by the receipt, which has the way back.
"""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from domain.notices import NOTICES, Kind
from models import Message

JUST_NOW = timedelta(minutes=1)
"""Scanners look within seconds of a mail's acceptance; a person has to be told of the mail, open and read it."""

_CALLS_ITSELF = re.compile(
    r"bot\b|crawl|spider|scan|slurp|preview|prefetch|linkcheck|safelinks|urldefense|proofpoint|mimecast|barracuda"
    r"|facebookexternalhit|whatsapp/",
    re.IGNORECASE,
)


def calls_itself_one(user_agent: str | None) -> bool:
    """Whether a client's User-Agent says that it is a bot, a scanner or a preview."""
    return _CALLS_ITSELF.search(user_agent or "") is not None


def just_mailed(
    session: Session,
    now: datetime,
    *,
    case_id: int | None = None,
    member_id: int | None = None,
    kinds: Iterable[Kind] = NOTICES,
) -> bool:
    """Whether a mail of these kinds, for this case or this member, was accepted within the last minute."""
    of = Message.case_id == case_id if case_id is not None else Message.member_id == member_id
    recent = exists().where(of, Message.kind.in_(list(kinds)), Message.sent_at > now - JUST_NOW)
    return bool(session.scalar(select(recent)))
