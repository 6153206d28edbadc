"""Which mails there are, which of them are notices of a case, and when each is due."""

from datetime import date, timedelta
from enum import StrEnum


class Kind(StrEnum):
    # The three notices of a case: they ask for an answer, and only they are held back by holds and pace.
    WARNING = "warning"
    REMINDER = "reminder"
    LAST_CALL = "last_call"
    # What follows from a case.
    DEADLINE_MOVED = "deadline_moved"
    WITHDRAWN = "withdrawn"
    RETURNED = "returned"
    RECEIPT_KEEP = "receipt_keep"
    RECEIPT_LAPSE = "receipt_lapse"
    LAPSED = "lapsed"
    TOLD = "told"
    USED_AFTER_END = "used_after_end"
    # Coming back and going for good.
    WELCOME_BACK = "welcome_back"
    LAST_CHANCE = "last_chance"
    ERASED = "erased"
    # On request.
    SIGN_IN = "sign_in"
    ERASE_CONFIRM = "erase_confirm"
    END_UNCLEAR = "end_unclear"
    NEW_ADDRESS = "new_address"
    OLD_ADDRESS = "old_address"
    ADDRESS_CHANGED = "address_changed"
    # To operators.
    CAMPAIGN_READY = "campaign_ready"
    APPROVE_BY = "approve_by"
    NEEDS_ATTENTION = "needs_attention"


NOTICES = (Kind.WARNING, Kind.REMINDER, Kind.LAST_CALL)
TO_ONE_ADDRESS = (
    Kind.SIGN_IN,
    Kind.ERASE_CONFIRM,
    Kind.NEW_ADDRESS,
    Kind.OLD_ADDRESS,
    Kind.ADDRESS_CHANGED,
    Kind.ERASED,
)
"""Mails that mean the address they are made out to, whatever the member's is by the time they go out."""
TO_OPERATORS = (Kind.CAMPAIGN_READY, Kind.APPROVE_BY, Kind.NEEDS_ATTENTION)

REMINDER_DAYS = 7
LAST_CALL_DAYS = 2
QUIET_DAYS = 3
"""No two notices of one case go out within so many days."""

APPROVE_REMINDER_DAYS = (3, 7, 12)
"""So many days after the draft, operators are reminded that it waits."""

VETO_DAYS = 5
"""With CAMPAIGN_APPROVAL=veto a draft opens after so many days unless it is held or cancelled."""

LAST_CHANCE_DAYS = 30
PURGE_AFTER_NOTICE_DAYS = 14
PURGE_ATTEMPT_DAYS = 30

WORDING_VERSION = "2026-12.1"
"""Stored on each answer: which wording the member had before them. Change it with the texts of a notice or page."""

PRIORITY = {
    Kind.SIGN_IN: 0,
    Kind.ERASE_CONFIRM: 0,
    Kind.NEW_ADDRESS: 0,
    Kind.OLD_ADDRESS: 0,
    Kind.WARNING: 5,
    Kind.REMINDER: 5,
    Kind.LAST_CALL: 4,
}
DEFAULT_PRIORITY = 2
"""Lower goes first: a sign-in mail is waited for, a warning has days."""


def priority(kind: Kind) -> int:
    return PRIORITY.get(kind, DEFAULT_PRIORITY)


def notice_due(today: date, deadline_day: date) -> Kind | None:
    """Which further notice a silent, warned case is due for, ``deadline_day`` being the day named to the member."""
    if today > deadline_day:
        return None
    if today >= deadline_day - timedelta(days=LAST_CALL_DAYS):
        return Kind.LAST_CALL
    if today >= deadline_day - timedelta(days=REMINDER_DAYS):
        return Kind.REMINDER
    return None


FIRST_OF_NOTICES = min(priority(kind) for kind in NOTICES)
"""Every other mail has a lower one."""
