"""The domain name system, by dnspython, with the name servers of this machine unless others are given."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from domain.errors import DnsAway

if TYPE_CHECKING:
    from dns.rdata import Rdata
    from dns.resolver import Resolver

LIFETIME_SECONDS = 4.0
"""For one question, over all name servers and tries."""


class SystemDns:
    def __init__(self, nameservers: Sequence[str] = (), port: int = 53, *, lifetime: float = LIFETIME_SECONDS) -> None:
        self._nameservers, self._port, self._lifetime = list(nameservers), port, lifetime

    def knows_the_root(self) -> bool:
        return bool(self._ask("", "NS"))

    def texts(self, name: str) -> list[str]:
        return [b"".join(found.strings).decode("utf-8", "replace") for found in self._ask(name, "TXT")]  # type: ignore[attr-defined]

    def mail_hosts(self, name: str) -> list[str]:
        found = sorted(self._ask(name, "MX"), key=lambda one: one.preference)  # type: ignore[attr-defined]
        return [one.exchange.to_text(omit_final_dot=True).removesuffix(".") for one in found]  # type: ignore[attr-defined]

    def addresses(self, name: str) -> list[str]:
        return [one.to_text() for kind in ("A", "AAAA") for one in self._ask(name, kind)]

    def _ask(self, name: str, kind: str) -> "list[Rdata]":
        # Only the checks of an operator ask: whoever sends mail or shows pages need not hold what asks.
        import dns.exception
        import dns.resolver

        try:
            answer = self._resolver().resolve(f"{name}.", kind, lifetime=self._lifetime)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except dns.exception.SyntaxError:
            # No such name can exist: a label that is empty, or too long.
            return []
        except (dns.exception.DNSException, OSError) as error:
            raise DnsAway(f"no answer about {name or 'the root'}: {' '.join(str(error).split())}") from None
        return list(answer)

    def _resolver(self) -> "Resolver":
        from dns.resolver import Resolver

        resolver = Resolver(configure=not self._nameservers)
        if self._nameservers:
            resolver.nameservers = list(self._nameservers)
            resolver.port = self._port
        return resolver
