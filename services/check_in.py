"""Check-in links: a signed token that opens the page of one case, as long as the case's address is the one it was
sent to. No row is needed and no time is in it: a link never breaks, the page behind it tells the truth of the day.
"""

import hmac
import json
from base64 import urlsafe_b64encode
from functools import lru_cache

from itsdangerous import BadData, URLSafeSerializer

from domain.links import CHECK_IN_SALT
from settings import Settings

_STEP_SALT = f"{CHECK_IN_SALT}.second-step"


def token(settings: Settings, public_id: str, address_generation: int) -> str:
    """The token of a case's link for its present address."""
    return _signed(settings, CHECK_IN_SALT, public_id, address_generation)


def read(settings: Settings, token: str) -> tuple[str, int] | None:
    """The case's public_id and the generation of the address a link was made for.

    None for whatever was not made here for this purpose, with the present key or one of the fallbacks.
    """
    return _verified(settings, CHECK_IN_SALT, token)


def second_step(settings: Settings, public_id: str, address_generation: int) -> str:
    """What the form carries after a press that a mail scanner may have made: with it, the next press counts."""
    return _signed(settings, _STEP_SALT, public_id, address_generation)


def is_second_step(settings: Settings, marker: str, public_id: str, address_generation: int) -> bool:
    return _verified(settings, _STEP_SALT, marker) == (public_id, address_generation)


def _signed(settings: Settings, salt: str, public_id: str, address_generation: int) -> str:
    return _sign(settings.secrets[-1], salt, [public_id, address_generation])


def _sign(secret: str, salt: str, content: object) -> str:
    """What URLSafeSerializer makes of it (a test holds it to that), in a quarter of the time: a round needs many.

    But for one thing: it is not tried whether zlib makes it shorter. Of a random id it does not.
    """
    payload = _base64(_json(content).encode())
    signature = _begun(secret, salt).copy()
    signature.update(payload)
    return f"{payload.decode()}.{_base64(signature.digest()).decode()}"


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _base64(content: bytes) -> bytes:
    return urlsafe_b64encode(content).rstrip(b"=")


@lru_cache(maxsize=16)
def _begun(secret: str, salt: str) -> hmac.HMAC:
    key: bytes = URLSafeSerializer(secret, salt=salt).make_signer(salt).derive_key()
    return hmac.new(key, digestmod="sha1")


def _verified(settings: Settings, salt: str, signed: str) -> tuple[str, int] | None:
    try:
        content = URLSafeSerializer(settings.secrets, salt=salt).loads(signed)
    except (BadData, ValueError):
        return None
    # The last character of a signature holds bits that decoding drops, so a flipped one could still pass: only the
    # spellings that one of the keys gives are the link: ours, and the one of mails that went out before it was plain.
    spellings = [
        spelled
        for key in settings.secrets
        for spelled in (_sign(key, salt, content), URLSafeSerializer(key, salt=salt).dumps(content))
    ]
    if signed not in spellings:
        return None
    public_id, generation = content
    return str(public_id), int(generation)
