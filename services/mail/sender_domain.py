"""Whether the world is told that this sender may write in its name: what DNS says of SPF, DKIM and DMARC.

The large mailbox providers ask all three of who sends much. SPF is asked of the domain of the return path (RFC 7208),
DKIM of the one that signs (RFC 6376), DMARC of the one in From, with which one of the two has to agree (RFC 7489).
"""

import base64
import binascii
from collections.abc import Iterator
from email.utils import parseaddr
from typing import NamedTuple

from domain.errors import DnsAway
from domain.ports import Dns
from services.mail import spf
from settings import Settings

WEAK_KEY, SHORT_KEY, ED25519_BYTES = 1024, 2048, 32


class Checked(NamedTuple):
    name: str
    ok: bool
    text: str


def checks(settings: Settings, dns: Dns) -> Iterator[Checked]:
    """One line for each thing looked at; one that says so where no name server answers."""
    sender = domain_of(parseaddr(settings.mail_default_sender)[1])
    envelope = domain_of(settings.bounce_address) if settings.bounce_address else sender
    if "." not in sender:
        yield Checked(
            "sender", True, f"{sender} is no domain on the internet: set MAIL_DEFAULT_SENDER before you begin"
        )
        return
    try:
        if not dns.knows_the_root():
            raise DnsAway("the name server here does not know the internet's names")
        yield from _domains(dns, sender, envelope)
        yield _spf(dns, envelope, settings.mail_server)
        yield _dkim(dns, sender, settings.mail_dkim_selector)
        yield _dmarc(dns, sender, envelope)
    except DnsAway as error:
        yield Checked("DNS", True, f"{error}; what it says of the sender, SPF, DKIM and DMARC was not looked at")


def domain_of(address: str) -> str:
    return address.rpartition("@")[2].strip(" >").casefold()


def _domains(dns: Dns, sender: str, envelope: str) -> Iterator[Checked]:
    for name, what in {envelope: "BOUNCE_ADDRESS", sender: "MAIL_DEFAULT_SENDER"}.items():
        hosts = dns.mail_hosts(name)
        if hosts == [""]:
            yield Checked("sender", False, f"{name} says that it takes no mail (a null MX): {what} gets no answers")
        elif hosts:
            yield Checked("sender", True, f"{name} takes mail at {hosts[0]}")
        elif dns.addresses(name):
            yield Checked("sender", True, f"{name} takes mail at its own address: it has no MX")
        else:
            yield Checked(
                "sender", False, f"{name} has neither MX nor address in DNS: many servers refuse {what} for that"
            )


def _spf(dns: Dns, domain: str, server: str) -> Checked:
    found = spf.look(dns, domain)
    if found.fault is not None:
        return Checked("SPF", False, f"{domain}: {found.fault}")
    text = f"{domain}: {found.record}"
    if found.open_end:
        text += "; it ends without -all or ~all, so that it refuses nobody"
    if not spf.is_local(server):
        allowed = [address for address in dns.addresses(server) if spf.allows(dns, domain, address)]
        text += (
            f"; it allows {server}"
            if allowed
            else f"; it does not name {server}: right only if that relay sends from other addresses"
        )
    return Checked("SPF", True, text)


def _dkim(dns: Dns, domain: str, selector: str) -> Checked:
    if not selector:
        return Checked(
            "DKIM", True, "set MAIL_DKIM_SELECTOR to the selector your relay signs with to have it looked at"
        )
    name = f"{selector}._domainkey.{domain}"
    records = dns.texts(name)
    if not records:
        return Checked("DKIM", False, f"{name} has no TXT record: publish the key your relay signs with")
    if len(records) > 1:
        return Checked("DKIM", False, f"{name} has {len(records)} TXT records: only one may be there")
    tags = _tags(records[0])
    if tags.get("v", "DKIM1") != "DKIM1" or "p" not in tags:
        return Checked("DKIM", False, f"{name} is no key: it must be v=DKIM1; p=…")
    if not tags["p"]:
        return Checked("DKIM", False, f"{name}: this key was taken back (p= is empty)")
    bits = _bits(tags)
    if bits is None:
        return Checked("DKIM", False, f"{name}: p= cannot be read as a key of the type {tags.get('k', 'rsa')}")
    if bits < WEAK_KEY:
        return Checked("DKIM", False, f"{name}: the key has {bits} bits, and {WEAK_KEY} are the least that is believed")
    text = f"{name}: a key of {bits} bits"
    if tags.get("k", "rsa") == "rsa" and bits < SHORT_KEY:
        text += f"; make the next one {SHORT_KEY} bits long"
    if "y" in tags.get("t", "").split(":"):
        text += "; t=y calls it a test: take that out"
    return Checked("DKIM", True, text)


def _bits(tags: dict[str, str]) -> int | None:
    """How long a key is; None for what is none. One of the kind that is not counted in bits is long enough."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        raw = base64.b64decode("".join(tags["p"].split()), validate=True)
        if tags.get("k", "rsa") == "ed25519":
            return SHORT_KEY if len(raw) == ED25519_BYTES else None
        key = load_der_public_key(raw)
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        return None
    return key.key_size if isinstance(key, RSAPublicKey) else None


def _dmarc(dns: Dns, sender: str, envelope: str) -> Checked:
    labels = sender.split(".")
    for start in range(len(labels) - 1):
        above = ".".join(labels[start:])
        records = [text for text in dns.texts(f"_dmarc.{above}") if _tags(text).get("v") == "DMARC1"]
        if len(records) > 1:
            return Checked("DMARC", False, f"_dmarc.{above} has {len(records)} records: with more than one none counts")
        if records:
            return _of_policy(above, _tags(records[0]), sender, envelope)
    return Checked(
        "DMARC", False, f"_dmarc.{sender} has no record: publish one, at first v=DMARC1; p=none; rua=mailto:…"
    )


def _of_policy(above: str, tags: dict[str, str], sender: str, envelope: str) -> Checked:
    policy = (tags.get("sp") if above != sender else None) or tags.get("p", "")
    if policy not in ("none", "quarantine", "reject"):
        return Checked("DMARC", False, f"_dmarc.{above}: p={policy} is no policy: none, quarantine or reject")
    text = f"_dmarc.{above}: p={policy}"
    if policy == "none":
        text += ", which refuses nothing yet"
    strict = tags.get("aspf") == "s"
    agrees = envelope == sender if strict else envelope == above or envelope.endswith(f".{above}")
    if not agrees:
        text += f"; the return path at {envelope} does not agree with it, so that all rests on DKIM"
    return Checked("DMARC", True, text)


def _tags(text: str) -> dict[str, str]:
    """``v=DKIM1; k=rsa; p=…`` as a mapping; the first of a name counts."""
    pairs = [part.partition("=") for part in text.split(";") if "=" in part]
    return {name.strip().lower(): value.strip() for name, _, value in reversed(pairs)}
