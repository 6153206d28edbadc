"""Standard Webhooks (https://www.standardwebhooks.com), version 1: signatures on what goes out and on what comes in.

A secret is written ``whsec_`` and 24 to 64 random bytes in Base64. While one is being replaced there are two: what goes
out is signed with both, and what comes in may be signed with either.
"""

import base64
import hmac
from collections.abc import Iterable
from datetime import datetime, timedelta
from hashlib import sha256

TOLERANCE = timedelta(minutes=5)


def signed(secrets: Iterable[str], message_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """The headers that a call needs beside its Content-Type. ``message_id`` stays the same when it is sent again.

    ``now`` is the instant of this attempt: receivers refuse what is more than five minutes old.
    """
    timestamp = str(int(now.timestamp()))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature(secret, message_id, timestamp, body)}" for secret in secrets),
    }


def is_signed(
    secrets: Iterable[str], message_id: str, timestamp: str, signatures: str, body: bytes, now: datetime
) -> bool:
    """One of the signatures was made with one of the secrets, over this body, and not long ago."""
    if not message_id or not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        return False
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE.total_seconds():
        return False
    given = [value for version, _, value in (one.partition(",") for one in signatures.split()) if version == "v1"]
    made = [signature(secret, message_id, timestamp, body) for secret in secrets]
    return any(hmac.compare_digest(one.encode(), other.encode()) for one in given for other in made)


def signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """What stands behind ``v1,`` in the header."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(key, content, sha256).digest()).decode()
