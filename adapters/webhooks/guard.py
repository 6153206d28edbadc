"""Which addresses a webhook may reach: those of the public Internet, and those an operator has named.

A name is looked up once, every address it gives is looked at, and the connection is made to the very address that was
found good: a name that answers differently a moment later gains nothing by it. Without TLS only what an operator has
named is reached.
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

Network: TypeAlias = IPv4Network | IPv6Network
Resolve: TypeAlias = Callable[[str, int], Sequence[str]]

PORTS = {"https": 443, "http": 80}
GLOBAL_UNICAST = ip_network("2000::/3")
NOT_FOR_EVERYBODY = [ip_network(one) for one in ("192.0.0.0/24", "192.88.99.0/24", "2002::/16", "3fff::/20")]
"""What the standard library of all Python versions we support takes for public, and is not, or leads elsewhere."""


class Forbidden(Exception):
    """An address that must not be called; the text says why and names no part of it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart, by the same parser for who looks and for who connects."""

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> "Target":
        try:
            parts = parse_url(url)
        except LocationParseError:
            raise Forbidden("the address is no URL") from None
        if parts.scheme not in PORTS or not parts.host or parts.auth or parts.fragment or parts.port == 0:
            raise Forbidden("the address is no plain https:// URL")
        return cls(
            parts.scheme == "https",
            parts.host.strip("[]"),
            parts.port or PORTS[parts.scheme],
            parts.request_uri,
        )

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS["https" if self.secure else "http"] else f"{host}:{self.port}"


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name in the order the system prefers. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def reachable(target: Target, allowed: Sequence[Network], look_up: Resolve = resolve) -> list[str]:
    """The addresses of a target that may be connected to. Raises Forbidden for lack of one, OSError without a name."""
    try:
        found = look_up(target.host, target.port)
    except UnicodeError:
        raise Forbidden("the address has a host name that cannot be") from None
    named = [address for address in found if _is_in(address, allowed)]
    if not target.secure:
        if not named:
            raise Forbidden("the address is not https, and not in one of WEBHOOK_NETWORKS")
        return named
    good = [address for address in found if address in named or is_public(address)]
    if not good:
        raise Forbidden("the address is inside a private network, and not in one of WEBHOOK_NETWORKS")
    return good


def is_public(text: str) -> bool:
    """Whether an address is one host's on the public Internet, and says so itself: none that stands for another."""
    address = ip_address(text)
    if isinstance(address, IPv6Address) and (address.scope_id is not None or address not in GLOBAL_UNICAST):
        # So are ::1, ::ffff:127.0.0.1, 64:ff9b::10.0.0.1, fc00::, fe80:: and ff00::.
        return False
    return (
        address.is_global and not (address.is_multicast or address.is_reserved) and not _is_in(text, NOT_FOR_EVERYBODY)
    )


def _is_in(text: str, networks: Sequence[Network]) -> bool:
    address = ip_address(text)
    return any(address in network for network in networks)
