"""When two e-mail addresses are the same address."""

import unicodedata

LONGEST = 320


def plausible(email: str) -> bool:
    """Whether somebody may have meant this as an address; whether it is one, a mail shows."""
    local, _, host = email.rpartition("@")
    return bool(local and host) and len(email) <= LONGEST and email.isprintable() and " " not in email


def address_key(email: str) -> str:
    """What addresses are compared by: NFC, casefolded, the host in its ASCII form (IDNA), no space around it.

    Computed here because databases fold differently. A host that has no ASCII form stays as it is written.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", email.strip()).casefold())
    local, at, host = folded.rpartition("@")
    try:
        return f"{local}{at}{host.encode('idna').decode('ascii')}"
    except UnicodeError:
        return folded
