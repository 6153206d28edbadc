"""One way to write a JSON value down, byte for byte, so that a signature over it means the value and not its spelling.

This is RFC 8785 (JSON Canonicalization Scheme) for values without fractions: no white space, names in the order of
their UTF-16 code units, only what must be escaped is escaped, UTF-8. A fraction is refused rather than rounded, and so
is an integer that not every reader of JSON would read as the same number.
"""

import json
from typing import Any, NoReturn

from domain.errors import BadValue

LARGEST = 2**53 - 1


def canonical(value: Any) -> bytes:
    """The bytes that stand for ``value``: objects, arrays, strings, integers, true, false and null. Raises BadValue."""
    try:
        return json.dumps(_ordered(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        raise BadValue("a text holds half a character (a lone surrogate)") from None
    except RecursionError:
        raise BadValue("it is nested too deeply") from None


def parse(content: bytes) -> Any:
    """The value of a JSON text that can be read in one way only. Raises BadValue.

    A name that an object has twice is refused: which of the two counts, readers of JSON do not agree on.
    """
    try:
        return json.loads(
            content.decode(), object_pairs_hook=_no_name_twice, parse_float=_no_fraction, parse_constant=_no_fraction
        )
    except UnicodeDecodeError:
        raise BadValue("it is not UTF-8") from None
    except RecursionError:
        raise BadValue("it is nested too deeply") from None
    except ValueError as error:
        raise BadValue(f"it is not JSON ({error})") from None


def _ordered(value: Any) -> Any:
    match value:
        case dict():
            if not all(isinstance(name, str) for name in value):
                raise BadValue("a name is not a text")
            names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
            return {name: _ordered(value[name]) for name in names}
        case list() | tuple():
            return [_ordered(one) for one in value]
        case None | bool() | str():
            return value
        case int() if -LARGEST <= value <= LARGEST:
            return value
    raise BadValue(f"{str(value)[:40]} is no text, and no whole number of at most 53 bits")


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadValue(f"{name[:40]!r} is there twice")
        found[name] = value
    return found


def _no_fraction(text: str) -> NoReturn:
    raise BadValue(f"{text[:40]} is no whole number")
