"""The links members get, and what each may do (design section 3)."""

from datetime import timedelta
from enum import StrEnum


class Purpose(StrEnum):
    SIGN_IN = "sign_in"
    ERASE = "erase"
    COME_BACK = "come_back"
    NEW_ADDRESS = "new_address"
    END = "end"
    """No link is made for it: its rows count the requests of the page that ends without signing in."""


LIFETIME = {
    Purpose.SIGN_IN: timedelta(minutes=15),
    Purpose.ERASE: timedelta(hours=1),
    Purpose.NEW_ADDRESS: timedelta(hours=1),
    Purpose.END: timedelta(hours=1),
}
"""A come-back link lives until the member's keep-until instead."""

CHECK_IN_SALT = "check-in"

SIGN_IN_MAILS_PER_ADDRESS_AN_HOUR = 5
SIGN_IN_MAILS_PER_IP_AN_HOUR = 30


def masked(email: str) -> str:
    """An address that tells its owner which one it is and nobody else what it is: ``a…@example.org``."""
    local, _, host = email.rpartition("@")
    return f"{local[:1]}…@{host}"
