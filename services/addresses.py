"""E-mail addresses: which ones are addresses at all, and when two of them are the same.

``email_key`` is what sign-in and imports compare. It is computed here and not in SQL, since the databases fold letters
differently: the part before the @ in NFC and casefolded, the host as IDNA.
"""

import re
from unicodedata import normalize

from email_validator import EmailNotValidError, validate_email

from domain.errors import BadValue

PLAIN = re.compile(
    r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*"
    r"@(?:[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\.)+(?!(?:test|local|onion|arpa|invalid|localhost)$)[A-Za-z]{2,24}",
    re.IGNORECASE,
)
"""What nearly all addresses look like. The validator accepts each of these too, at thirty times the cost."""

PLAIN_LENGTH = 64
"""Up to here neither the local part nor a label of the host can be too long."""


def email_key(address: str) -> str:
    """The form in which addresses are compared. Raises BadValue for what is no address; asks no DNS."""
    return checked(address)[1]


def checked(address: str) -> tuple[str, str]:
    """The address as it is written to, and its key."""
    address = address.strip()
    if len(address) <= PLAIN_LENGTH and PLAIN.fullmatch(address):
        return address, address.lower()
    try:
        found = validate_email(address, check_deliverability=False)
    except EmailNotValidError as error:
        shown = address if len(address) <= 80 else f"{address[:80]}…"
        raise BadValue(f"{shown!r} is no e-mail address: {error}") from None
    local = normalize("NFC", normalize("NFC", found.local_part).casefold())
    return normalize("NFC", address), f"{local}@{found.ascii_domain.lower()}"
