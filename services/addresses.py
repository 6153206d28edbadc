"""Which texts are e-mail addresses. When two of them are the same one is for domain/addresses.py to say."""

import re
from unicodedata import normalize

from email_validator import EmailNotValidError, validate_email

from domain.addresses import address_key
from domain.errors import BadValue

PLAIN = re.compile(
    r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*"
    r"@(?:[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\.)+(?!(?:test|local|onion|arpa|invalid|localhost)$)[A-Za-z]{2,24}",
    re.IGNORECASE | re.ASCII,
)
"""What nearly all addresses look like. The validator accepts each of these too, at thirty times the cost."""

PLAIN_LENGTH = 64
"""Up to here neither the local part nor a label of the host can be too long."""


def checked(address: str) -> tuple[str, str]:
    """An address as it is written to, and its key. Raises BadValue for what is no address; asks no DNS."""
    if len(address) <= PLAIN_LENGTH and PLAIN.fullmatch(address):
        return address, address.lower()
    try:
        validate_email(address, check_deliverability=False)
    except EmailNotValidError as error:
        shown = address if len(address) <= 80 else f"{address[:80]}…"
        raise BadValue(f"{shown!r} is no e-mail address: {error}") from None
    return normalize("NFC", address), address_key(address)
