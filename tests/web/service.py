"""The service beside, as tests have it: it signs assertions and notice tokens, as docs/integration.md tells."""

import base64
import uuid
from datetime import datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.web.browser import SITE

ISSUER = "https://www.lumio.example"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))
SHARED = "a shared key of thirty-two bytes or more"


def public(key: Ed25519PrivateKey) -> str:
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


SETTINGS: dict[str, Any] = {
    "service_keys": (public(PRIVATE),),
    "service_issuer": ISSUER,
    "service_origins": (ISSUER,),
}


def signed(
    external_id: object,
    now: datetime,
    *,
    purpose: str = "/sign-in/service",
    key: Any = PRIVATE,
    algorithm: str = "EdDSA",
    seconds: float = 60,
    **changes: Any,
) -> str:
    """``changes`` replace claims; None leaves one out."""
    claims = {
        "iss": ISSUER,
        "aud": SITE + purpose,
        "sub": external_id,
        "iat": now.timestamp(),
        "exp": (now + timedelta(seconds=seconds)).timestamp(),
        "jti": uuid.uuid4().hex,
        **changes,
    }
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm)
