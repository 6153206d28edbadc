"""A signed record: a change of any field is noticed, and nothing but the file is needed for that."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from domain.canonical import canonical
from domain.errors import BadValue
from services import signing
from settings import Settings
from tests.conftest import make_settings
from tests.services.test_evidence import ended, record_of

SEED = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def signing_settings(tmp_path: Path) -> Settings:
    return make_settings("sqlite:///unused.db", tmp_path, evidence_key=SEED)


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every leaf."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inside = [path for name, one in steps for path in paths(one, (*here, name))]
    return inside or [here]


def changed(value: Any, path: tuple[Any, ...], how: Any) -> Any:
    copy = json.loads(json.dumps(value))
    at_ = copy
    for name in path[:-1]:
        at_ = at_[name]
    at_[path[-1]] = how(at_[path[-1]])
    return copy


def other(leaf: Any) -> Any:
    match leaf:
        case bool():
            return not leaf
        case int():
            return leaf + 1
        case str():
            return leaf[:-1] + ("A" if leaf[-1:] != "A" else "B")
    return "something"


def more(value: Any) -> Any:
    return {**value, "more": 1} if isinstance(value, dict) else [*value, 1]


def test_a_change_of_any_field_is_noticed(session: Session, settings: Settings, signing_settings: Settings) -> None:
    """Every leaf of the record and of the signature changed or made empty; and something added anywhere."""
    record = record_of(session, settings, ended(session, settings))
    signed = signing.sign(record, signing_settings)
    good = signing.verify(json.dumps(signed).encode())
    assert (good.record, good.key) == (record, signing.keys(signing_settings)[0])
    leaves = paths(signed)
    assert len(leaves) > 80
    for path in leaves:
        for how in (other, lambda leaf: None if leaf is not None else "", lambda leaf: [leaf]):
            with pytest.raises(BadValue) as refused:
                signing.verify(json.dumps(changed(signed, path, how)).encode())
            assert "\n" not in str(refused.value)
            assert len(str(refused.value)) > 20, "it says what is wrong"
    for path in {leaf[:depth] for leaf in leaves for depth in range(len(leaf))}:
        grown = more(signed) if path == () else changed(signed, path, more)
        with pytest.raises(BadValue):
            signing.verify(json.dumps(grown).encode())


def test_another_spelling_of_the_same_record_is_no_change(signing_settings: Settings) -> None:
    signed = signing.sign({"b": "ä\u2028", "a": [1, None, True]}, signing_settings)
    for spelling in (json.dumps(signed, indent=7), json.dumps(signed, sort_keys=True), canonical(signed).decode()):
        assert signing.verify(spelling.encode()).record == {"a": [1, None, True], "b": "ä\u2028"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not JSON"),
        (b"[]", "no signed record"),
        (b"null", "no signed record"),
        (b"{}", "'record' is missing"),
        (b'{"record": {}, "signature": null}', "not signed"),
        (b'{"record": {}, "record": {}, "signature": null}', "twice"),
        (b'{"record": [], "signature": {}}', "record is no object"),
        (b'{"record": {}, "signature": {}}', "'algorithm' is missing"),
        (b'{"record": {}, "signature": []}', "no signed record"),
        (b" " * (signing.LARGEST_FILE + 1), "larger"),
    ],
)
def test_what_is_no_signed_record_gets_one_line(content: bytes, why: str) -> None:
    with pytest.raises(BadValue, match=why):
        signing.verify(content)


def test_a_key_that_everybody_could_sign_for_signs_nothing(signing_settings: Settings) -> None:
    """Points of small order, and a second spelling of a signature: what weak verifiers let through."""
    signed = signing.sign({"a": 1}, signing_settings)
    for raw in (bytes(32), bytes([1]) + bytes(31), bytes([0xEC]) + b"\xff" * 30 + b"\x7f"):
        key = signing.PublicKey(raw)
        head = {"algorithm": "Ed25519", "key": key.text, "fingerprint": key.fingerprint}
        for value in (bytes(64), raw + bytes(32), bytes([1]) + bytes(63)):
            forged = {"record": {"a": 1}, "signature": {**head, "value": base64.b64encode(value).decode()}}
            with pytest.raises(BadValue, match="anybody could sign"):
                signing.verify(json.dumps(forged).encode())
    value = base64.b64decode(signed["signature"]["value"])
    order = 2**252 + 27742317777372353535851937790883648493
    second = value[:32] + (int.from_bytes(value[32:], "little") + order).to_bytes(32, "little")
    signed["signature"]["value"] = base64.b64encode(second).decode()
    with pytest.raises(BadValue, match="does not fit"):
        signing.verify(json.dumps(signed).encode())


def test_a_record_from_before_the_key_was_changed_still_verifies(signing_settings: Settings) -> None:
    old = signing.sign({"a": 1}, signing_settings)
    (before,) = signing.keys(signing_settings)
    rotated = make_settings(
        "sqlite:///unused.db", signing_settings.instance_path,
        evidence_key=base64.b64encode(bytes(32)).decode(), evidence_keys_before=before.text,
    )  # fmt: skip
    new, known = signing.sign({"a": 1}, rotated), signing.keys(rotated)
    assert signing.verify(json.dumps(old).encode()).key == known[1] == before
    assert signing.verify(json.dumps(new).encode()).key == known[0] != before
    pem = "".join(key.pem for key in known)
    assert signing.keys_in(f"# two of them\n{pem}") == known
    with pytest.raises(BadValue, match="no public key"):
        signing.keys_in("nothing")
    with pytest.raises(BadValue, match="cannot be read"):
        signing.keys_in("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")


def test_without_a_key_a_record_says_that_it_is_not_signed(tmp_path: Path) -> None:
    """PostgreSQL without EVIDENCE_KEY: the facts are shown all the same, and nothing pretends to be a signature."""
    settings = make_settings("sqlite:///unused.db", tmp_path)
    assert signing.sign({"a": 1}, settings) == {"record": {"a": 1}, "signature": None}
    assert signing.keys(settings) == []
