"""What a domain's SPF record says (RFC 7208), as far as it can be told without a mail: its faults, and who may send."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from domain.ports import Dns

MOST_LOOKUPS = 10
"""Whoever asks gives up beyond this many questions, and takes the record for none."""

ASKING = ("include", "a", "mx", "ptr", "exists", "redirect")
QUALIFIERS = "+-~?"


class Spf(NamedTuple):
    record: str = ""
    fault: str | None = None
    open_end: bool = False
    """It says nothing of whom it does not name."""


class Term(NamedTuple):
    qualifier: str
    name: str
    value: str


class _Fault(Exception):
    """Why a record counts as none; the text is a sentence."""


def look(dns: Dns, domain: str) -> Spf:
    """The record of a domain with what is wrong with it. Raises DnsAway."""
    try:
        record = _record(dns, domain)
        _asked(dns, domain, record, 0)
    except _Fault as fault:
        return Spf(fault=str(fault))
    terms = list(_terms(record))
    last = [term.qualifier for term in terms if term.name == "all"]
    if last == ["+"]:
        return Spf(record, "+all allows everybody to write in its name: end it with -all or ~all")
    redirected = any(term.name == "redirect" for term in terms)
    return Spf(record, open_end=not redirected and last in ([], ["?"]))


def allows(dns: Dns, domain: str, address: str) -> bool:
    """Whether the record names this address; macros are not looked into. Raises DnsAway."""
    try:
        return any(_names(dns, domain, term, address) for term in _terms(_record(dns, domain)))
    except _Fault:
        return False


def is_local(server: str) -> bool:
    """Whether mail is handed to this machine or its private network, which says nothing about where it leaves from."""
    try:
        return not ip_address(server).is_global
    except ValueError:
        return "." not in server


def _names(dns: Dns, domain: str, term: Term, address: str) -> bool:
    host, _, length = term.value.partition("/")
    match term.name:
        case _ if term.qualifier != "+" or "%" in term.value:
            return False
        case "ip4" | "ip6":
            return _within(address, term.value)
        case "a":
            return any(_within(address, one, length) for one in dns.addresses(host or domain))
        case "mx":
            hosts = dns.mail_hosts(host or domain)
            return any(_within(address, one, length) for name in hosts if name for one in dns.addresses(name))
        case "include" | "redirect":
            return allows(dns, term.value, address)
    return False


def _within(address: str, network: str, length: str = "") -> bool:
    try:
        return ip_address(address) in ip_network(f"{network}/{length}" if length else network, strict=False)
    except ValueError:
        return False


def _record(dns: Dns, domain: str) -> str:
    records = [text for text in dns.texts(domain) if text.lower().split(" ", 1)[0] == "v=spf1"]
    if not records:
        raise _Fault(
            "it has no SPF record: publish one that names your relay, such as v=spf1 include:relay.example -all"
        )
    if len(records) > 1:
        raise _Fault(f"it has {len(records)} SPF records: with more than one none counts, make them one")
    return records[0]


def _asked(dns: Dns, domain: str, record: str, before: int) -> int:
    """How many questions somebody has to ask to go through a record to its end."""
    count = before
    for term in _terms(record):
        if term.name not in ASKING:
            continue
        count += 1
        if count > MOST_LOOKUPS:
            raise _Fault(f"it takes more than {MOST_LOOKUPS} questions to answer, so nobody believes it: shorten it")
        if term.name in ("include", "redirect") and "%" not in term.value:
            try:
                count = _asked(dns, term.value, _record(dns, term.value), count)
            except _Fault as fault:
                raise (
                    fault if "questions" in str(fault) else _Fault(f"it points to {term.value}, and {fault}")
                ) from None
    return count


def _terms(record: str) -> Iterator[Term]:
    for word in record.split()[1:]:
        qualifier, rest = (word[0], word[1:]) if word[0] in QUALIFIERS else ("+", word)
        cut = min((rest.find(mark) for mark in ":=/" if mark in rest), default=len(rest))
        name, value = rest[:cut].lower(), rest[cut:]
        yield Term(qualifier, name, value if value.startswith("/") else value[1:])
