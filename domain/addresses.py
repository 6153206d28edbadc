"""What may be an e-mail address, and when two are the same."""

import re
import unicodedata

_NOT_IN_AN_ADDRESS = re.compile(r"[\s\x00-\x1f\x7f<>(),;:\\\"]")
_DOTS = re.compile("[.\u3002\uff0e\uff61]")

LONGEST = 320

DEVIATIONS = "ßς\u200c\u200d"
"""Letters that the older IDNA replaces and the present one keeps: with and without, they are hosts of two owners."""


def plausible(email: str) -> bool:
    """Whether somebody may have meant this as an address; whether it is one, a mail shows."""
    local, _, host = email.rpartition("@")
    return bool(local and host) and len(email) <= LONGEST and email.isprintable() and " " not in email


def nameable(email: str) -> bool:
    """Whether SMTP can name it, as far as its letters go."""
    local, _, host = email.rpartition("@")
    return bool(local and host) and not _NOT_IN_AN_ADDRESS.search(email)


def address_key(email: str) -> str:
    """What addresses are compared by: NFC, in small letters, the host in its ASCII form (IDNA), no space around it.

    Computed here because databases fold differently. A host that has no ASCII form stays as it is written. Not
    casefolded, for that makes one of ``ß`` and ``ss``: who has one of two such mailboxes must not get in for the other.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", email.strip()).lower())
    local, at, host = folded.rpartition("@")
    try:
        return f"{local}{at}{'.'.join(_in_ascii(label) for label in _DOTS.split(host))}"
    except UnicodeError:
        return folded


def _in_ascii(label: str) -> str:
    if any(letter in label for letter in DEVIATIONS):
        return f"xn--{label.encode('punycode').decode('ascii')}"
    return label.encode("idna").decode("ascii")
