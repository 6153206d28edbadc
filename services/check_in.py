"""Check-in links: a signed token that opens the page of one case, as long as the case's address is the one it was
sent to. No row is needed and no time is in it: a link never breaks, the page behind it tells the truth of the day.
"""

import hashlib
from functools import cached_property, lru_cache
from json import JSONEncoder

from itsdangerous import BadData, Signer, URLSafeSerializer
from itsdangerous.encoding import base64_encode

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
    serializer, signer = _signer(tuple(settings.secrets), salt)
    signed: bytes = signer.sign(serializer.dump_payload([public_id, address_generation]))
    return signed.decode()


class _Plain(URLSafeSerializer):
    """Without trying whether zlib makes it shorter: of a random id it does not, and trying takes longest. And with one
    encoder for all: to make one takes longer than to use it.
    """

    _compact = JSONEncoder(ensure_ascii=False, separators=(",", ":"))

    def dump_payload(self, obj: object) -> bytes:
        return base64_encode(self._compact.encode(obj))


class _Signer(Signer):
    """Derives its key once, and not for each of the mails of a round.

    Its digest is SHA-1, as usual, but by its own name: of the library's function of the same, hmac takes the slow way.
    """

    default_digest_method = staticmethod(hashlib.sha1)

    @cached_property
    def _derived(self) -> bytes:
        return super().derive_key()

    def derive_key(self, secret_key: str | bytes | None = None) -> bytes:
        return self._derived if secret_key is None else super().derive_key(secret_key)


@lru_cache(maxsize=8)
def _signer(secrets: tuple[str, ...], salt: str) -> tuple[URLSafeSerializer, Signer]:
    serializer = _Plain(list(secrets), salt=salt, signer=_Signer)
    return serializer, serializer.make_signer(salt)


def _verified(settings: Settings, salt: str, signed: str) -> tuple[str, int] | None:
    try:
        content = URLSafeSerializer(settings.secrets, salt=salt).loads(signed)
    except (BadData, ValueError):
        return None
    # The last character of a signature holds bits that decoding drops, so a flipped one could still pass: only the
    # spellings that one of the keys gives are the link: ours, and the one of mails that went out before it was plain.
    kinds = (_Plain, URLSafeSerializer)
    if all(signed != kind(key, salt=salt).dumps(content) for key in settings.secrets for kind in kinds):
        return None
    public_id, generation = content
    return str(public_id), int(generation)
