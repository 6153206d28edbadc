"""Check-in links: a signed token that opens the page of one case, as long as the case's address is the one it was
sent to. No row is needed and no time is in it: a link never breaks, the page behind it tells the truth of the day.
"""

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
    signed = URLSafeSerializer(settings.secrets, salt=salt).dumps([public_id, address_generation])
    return signed.decode() if isinstance(signed, bytes) else signed


def _verified(settings: Settings, salt: str, signed: str) -> tuple[str, int] | None:
    try:
        content = URLSafeSerializer(settings.secrets, salt=salt).loads(signed)
    except (BadData, ValueError):
        return None
    # The last character of a signature holds bits that decoding drops, so a flipped one could still pass: only the
    # spelling that one of the keys gives is the link.
    if all(signed != URLSafeSerializer(key, salt=salt).dumps(content) for key in settings.secrets):
        return None
    public_id, generation = content
    return str(public_id), int(generation)
