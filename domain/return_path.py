"""Where bounces of a message go: the bounce address with the message's public_id behind a plus (VERP).

A bounce that comes back to such an address names its message, whatever else the server that made it leaves out.
"""

import re

LONGEST_LOCAL_PART = 31
"""SMTP allows 64 octets before the @: what is left beside the plus and the 32 of a public_id."""

_PUBLIC_ID = re.compile(r"[0-9a-f]{32}")


def of_message(bounce_address: str, public_id: str) -> str:
    """``bounces@example.org`` and a public_id give ``bounces+<public_id>@example.org``."""
    local, _, host = bounce_address.rpartition("@")
    return f"{local}+{public_id}@{host}"


def public_id_in(bounce_address: str, address: str) -> str | None:
    """The public_id that an address was made with by ``of_message``; None if it was not.

    Servers may change the case of an address on the way, so it is not looked at.
    """
    local, _, host = bounce_address.casefold().rpartition("@")
    found, _, found_host = address.strip().strip("<>").casefold().rpartition("@")
    base, plus, tag = found.rpartition("+")
    if found_host != host or base != local or not plus or not _PUBLIC_ID.fullmatch(tag):
        return None
    return tag
