"""When two e-mail addresses are the same address, and how SMTP names one."""

import re
import unicodedata

import idna

_NOT_IN_AN_ADDRESS = re.compile(r"[\s\x00-\x1f\x7f<>(),;:\\\"]")
_DOTS = re.compile("[.\u3002\uff0e\uff61]")

LONGEST = 320

DEVIATIONS = "ßς\u200c\u200d"
"""Letters that the older IDNA replaces and the present one keeps: with and without, they are hosts of two owners."""


class NoAddress(ValueError):
    """What should be an address is none that SMTP can name."""


def plausible(email: str) -> bool:
    """Whether somebody may have meant this as an address; whether it is one, a mail shows."""
    local, _, host = email.rpartition("@")
    return bool(local and host) and len(email) <= LONGEST and email.isprintable() and " " not in email


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


def envelope_address(address: str) -> str:
    """An address as SMTP names it: the host in its ASCII form (IDNA 2008, which is what the registries use)."""
    local, at, host = address.rpartition("@")
    if not (local and at and host) or _NOT_IN_AN_ADDRESS.search(address):
        raise NoAddress("this is not an address that mail can be sent to")
    if host.isascii():
        return address
    try:
        return f"{local}@{idna.encode(host, uts46=True).decode('ascii')}"
    except idna.IDNAError:
        raise NoAddress("the host of this address cannot exist") from None
