"""Whether a call is from whom it says: Standard Webhooks (https://www.standardwebhooks.com), version 1 signatures."""

import base64
import hmac
from collections.abc import Iterable
from datetime import datetime, timedelta
from hashlib import sha256

TOLERANCE = timedelta(minutes=5)


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
    signed = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(key, signed, sha256).digest()).decode()
