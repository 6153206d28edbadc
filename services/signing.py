"""Signed records: what makes a change of one noticeable to anybody who has the record and knows the key.

A signed record is one JSON object of two parts, ``record`` and ``signature``. Signed is all of it but the member
``value`` of ``signature``, in the one spelling of domain/canonical.py; so the algorithm and the key are signed, too.
Nothing but the file is needed to verify it: docs/evidence.md says how, also without this program.

What signs takes seven megabytes, so it is loaded where a key is: few processes ever see one.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from domain.canonical import canonical, parse
from domain.errors import BadValue
from settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALGORITHM = "Ed25519"
LARGEST_FILE = 16 * 1024 * 1024
# The points of small order of the curve, without their signs: under such a key there is a signature for anything.
_WORTHLESS = {
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}
_PRIME = 2**255 - 19
_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.S)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The half of a key that verifies; 32 bytes."""

    raw: bytes

    @property
    def text(self) -> str:
        """As it stands in a record and in EVIDENCE_KEYS_BEFORE: Base64."""
        return base64.b64encode(self.raw).decode()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the 32 bytes, in sixteen groups of four that people can compare."""
        digits = hashlib.sha256(self.raw).hexdigest()
        return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))

    @property
    def pem(self) -> str:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@dataclass(frozen=True, slots=True)
class Verified:
    """What a file says, and whose key signed it: nothing of it has been changed since."""

    record: dict[str, Any]
    key: PublicKey


def keys(settings: Settings) -> list[PublicKey]:
    """The public keys of this installation: first the one that signs, if there is one, then those of before."""
    before = [PublicKey(base64.b64decode(text)) for text in settings.evidence_keys_before]
    return [*([_public(_private(settings))] if settings.evidence_key else []), *reversed(before)]


def sign(record: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The record with its signature; with null in the place of that where this installation has no key."""
    if not settings.evidence_key:
        return {"record": record, "signature": None}
    private = _private(settings)
    key = _public(private)
    head = {"algorithm": ALGORITHM, "key": key.text, "fingerprint": key.fingerprint}
    value = private.sign(_signed_bytes(record, head))
    return {"record": record, "signature": {**head, "value": base64.b64encode(value).decode()}}


def verify(content: bytes) -> Verified:
    """What a file says, if its signature is that of the key in it. Raises BadValue with the one line that says why not.

    Whose key that is, the file cannot prove: compare the fingerprint with one that you know from elsewhere.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(content) > LARGEST_FILE:
        raise BadValue("it is larger than any signed record")
    signed = _object(parse(content), "record", "signature")
    if not isinstance(signed["record"], dict):
        raise BadValue("its record is no object")
    if signed["signature"] is None:
        raise BadValue("it is not signed: the service that made it has no key for that")
    signature = _object(signed["signature"], "algorithm", "key", "fingerprint", "value")
    if signature["algorithm"] != ALGORITHM:
        raise BadValue(f"its signature is of another kind than {ALGORITHM}")
    key = PublicKey(_bytes(signature["key"], 32, "public key"))
    if _is_worthless(key):
        raise BadValue("its key is one under which anybody could sign anything")
    if signature["fingerprint"] != key.fingerprint:
        raise BadValue("its fingerprint is not that of the key in it")
    value = _bytes(signature.pop("value"), 64, "signature")
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(value, _signed_bytes(signed["record"], signature))
    except (InvalidSignature, ValueError):
        raise BadValue("the signature does not fit: the record is not as it was signed") from None
    return Verified(signed["record"], key)


def keys_in(text: str) -> list[PublicKey]:
    """The public keys of a PEM file, as `flask evidence key` prints and our page offers it. Raises BadValue."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found = []
    for block in _PEM.findall(text):
        try:
            key = load_pem_public_key(block.encode())
        except ValueError as error:
            raise BadValue(f"a key in it cannot be read ({error})") from None
        if isinstance(key, Ed25519PublicKey):
            found.append(PublicKey(key.public_bytes_raw()))
    if not found:
        raise BadValue(f"there is no public key of {ALGORITHM} in it (PEM)")
    return found


def same_fingerprint(one: str, other: str) -> bool:
    """Compared as people write them: with or without spaces or colons, in either case."""
    return _digits(one) == _digits(other)


def _digits(fingerprint: str) -> str:
    return re.sub(r"[\s:]", "", fingerprint).lower().removeprefix("sha256")


def _private(settings: Settings) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(settings.evidence_key))


def _public(private: "Ed25519PrivateKey") -> PublicKey:
    return PublicKey(private.public_key().public_bytes_raw())


def _is_worthless(key: PublicKey) -> bool:
    """A key of small order, or one that is written in another way than the one that it has."""
    y = int.from_bytes(key.raw, "little") & (2**255 - 1)
    return y >= _PRIME or y.to_bytes(32, "little").hex() in _WORTHLESS


def _signed_bytes(record: dict[str, Any], head: dict[str, Any]) -> bytes:
    return canonical({"record": record, "signature": head})


def _object(value: Any, *names: str) -> dict[str, Any]:
    """An object with exactly these members: what is not signed has no place in a signed file."""
    if not isinstance(value, dict):
        raise BadValue("it is no signed record: one is an object of record and signature")
    for name in names:
        if name not in value:
            raise BadValue(f"{name!r} is missing")
    for name in value:
        if name not in names:
            raise BadValue(f"{name[:40]!r} does not belong there")
    return value


def _bytes(text: Any, length: int, what: str) -> bytes:
    """Base64 in its one spelling: another one of the same bytes is a change, too."""
    try:
        found = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:
        found = b""
    if len(found) != length or base64.b64encode(found).decode() != text:
        raise BadValue(f"its {what} is not {length} bytes in Base64")
    return found
