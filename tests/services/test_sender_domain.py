"""What DNS says of the sender, asked of a real name server: SPF, DKIM, DMARC, and where answers would go."""

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adapters.dns import SystemDns
from domain.errors import DnsAway
from services.mail import sender_domain, spf
from services.mail.sender_domain import Checked
from tests.conftest import make_settings
from tests.names import NameServer, Zone


def key(bits: int) -> str:
    raw = rsa.generate_private_key(65537, bits).public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    return base64.b64encode(raw).decode()


def txt(text: str) -> str:
    """As in a zone's file: strings of 255 at most, side by side."""
    return " ".join(f'"{text[start : start + 255]}"' for start in range(0, len(text), 255))


SHORT, LONG = key(1024), key(2048)
CURVE = base64.b64encode(
    ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
).decode()

GOOD: dict[str, dict[str, list[str]]] = {
    "lumio.example": {
        "MX": ["20 b.lumio.example.", "10 a.lumio.example."],
        "TXT": [txt("verify=1"), txt("v=spf1 include:relay.example -all")],
    },
    "relay.example": {"TXT": [txt("v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 ~all")]},
    "smtp.relay.example": {"A": ["192.0.2.7"]},
    "2026a._domainkey.lumio.example": {"TXT": [txt(f"v=DKIM1; k=rsa; p={LONG}")]},
    "_dmarc.lumio.example": {"TXT": [txt("v=DMARC1; p=quarantine; rua=mailto:dmarc@lumio.example")]},
}  # fmt: skip


def looked_at(zone: Zone, tmp_path: Any, **changes: object) -> dict[str, Checked]:
    """What was found, by name; of a name with several lines the last."""
    options = {
        "mail_default_sender": "Lumio <membership@lumio.example>", "mail_server": "smtp.relay.example",
        "mail_dkim_selector": "2026a", **changes,
    }  # fmt: skip
    settings = make_settings("sqlite:///none.db", tmp_path, **options)
    with NameServer(zone) as dns:
        return {checked.name: checked for checked in sender_domain.checks(settings, dns)}


def said(zone: Zone, tmp_path: Any, name: str, **changes: object) -> str:
    found = looked_at(zone, tmp_path, **changes)[name]
    return f"{'ok' if found.ok else 'BAD'} {found.text}"


def test_a_sender_who_has_published_everything(tmp_path: Any) -> None:
    found = looked_at(GOOD, tmp_path)
    assert [(name, checked.ok) for name, checked in found.items()] == [
        ("sender", True), ("SPF", True), ("DKIM", True), ("DMARC", True),
    ]  # fmt: skip
    assert found["sender"].text == "lumio.example takes mail at a.lumio.example"
    assert found["SPF"].text == "lumio.example: v=spf1 include:relay.example -all; it allows smtp.relay.example"
    assert found["DKIM"].text == "2026a._domainkey.lumio.example: a key of 2048 bits"
    assert found["DMARC"].text == "_dmarc.lumio.example: p=quarantine"


def test_a_sender_who_has_published_nothing(tmp_path: Any) -> None:
    found = looked_at({}, tmp_path)
    assert [checked.ok for checked in found.values()] == [False] * 4
    assert found["sender"].text.endswith("many servers refuse MAIL_DEFAULT_SENDER for that")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (["v=spf1 include:relay.example -all", "v=spf1 -all"], "BAD lumio.example: it has 2 SPF records"),
        (["v=spf10 -all"], "BAD lumio.example: it has no SPF record"),
        (["v=spf1 +all"], "BAD lumio.example: +all allows everybody"),
        (["v=spf1 all"], "BAD lumio.example: +all allows everybody"),
        (["v=spf1 ip4:192.0.2.7"], "refuses nobody; it allows smtp.relay.example"),
        (["v=spf1 ip4:192.0.2.7 ?all"], "refuses nobody; it allows"),
        (["v=spf1 redirect=relay.example"], "redirect=relay.example; it allows smtp.relay.example"),
        (["v=spf1 a:smtp.relay.example/28 -all"], "; it allows smtp.relay.example"),
        (["v=spf1 mx:mail.example -all"], "; it allows smtp.relay.example"),
        (["v=spf1 mx ip4:198.51.100.0/24 -all"], "198.51.100.0/24 -all; it does not name smtp.relay"),
        (["v=spf1 -ip4:192.0.2.7 exists:%{i}.x.example ip4:nonsense -all"], "it does not name"),
        (["v=spf1 include:none.example -all"], "BAD lumio.example: it points to none.example, and it has no SPF"),
        (["v=spf1 " + " ".join(f"a:h{n}.example" for n in range(11)) + " -all"], "more than 10 questions"),
        (["v=spf1 include:lumio.example -all"], "more than 10 questions"),
    ],
)  # fmt: skip
def test_spf(tmp_path: Any, record: list[str], expected: str) -> None:
    zone = {
        **GOOD,
        "lumio.example": {"MX": ["0 mx.lumio.example."], "TXT": [txt(text) for text in record]},
        "mail.example": {"MX": ["0 smtp.relay.example."]},
    }
    assert expected in said(zone, tmp_path, "SPF")


def test_spf_is_asked_of_the_domain_of_the_return_path(tmp_path: Any) -> None:
    zone = {**GOOD, "bounces.lumio.example": {"MX": ["0 mx.lumio.example."], "TXT": [txt("v=spf1 -all")]}}
    found = looked_at(zone, tmp_path, bounce_address="b@bounces.lumio.example")
    assert found["SPF"].text.startswith("bounces.lumio.example: v=spf1 -all; it does not name")
    assert found["DMARC"].text == "_dmarc.lumio.example: p=quarantine"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (f"v=DKIM1; k=rsa; t=s:y; p={SHORT}", "1024 bits; make the next one 2048 bits long; t=y calls it a test"),
        (f"k=ed25519; p={CURVE}", "ok "),
        (f"v=DKIM1; k=ed25519; p={LONG}", "p= cannot be read as a key of the type ed25519"),
        ("v=DKIM1; p=", "BAD 2026a._domainkey.lumio.example: this key was taken back"),
        ("v=DKIM1; p=MIIB!", "BAD 2026a._domainkey.lumio.example: p= cannot be read as a key of the type rsa"),
        ("v=DKIM2; p=x", "is no key"),
        ("hello", "is no key"),
    ],
    ids=["short", "curve", "another-type", "taken-back", "unreadable", "another-version", "no-key"],
)  # fmt: skip
def test_dkim(tmp_path: Any, record: str, expected: str) -> None:
    assert expected in said({**GOOD, "2026a._domainkey.lumio.example": {"TXT": [txt(record)]}}, tmp_path, "DKIM")


def test_dkim_is_found_by_its_selector_only(tmp_path: Any) -> None:
    assert said(GOOD, tmp_path, "DKIM", mail_dkim_selector="").startswith("ok set MAIL_DKIM_SELECTOR")
    assert "has no TXT record" in said(GOOD, tmp_path, "DKIM", mail_dkim_selector="2025")


@pytest.mark.parametrize(
    ("name", "record", "expected"),
    [
        ("_dmarc.lumio.example", ["v=DMARC1; p=none"], "ok _dmarc.lumio.example: p=none, which refuses nothing yet"),
        ("_dmarc.lumio.example", ["v=DMARC1; p=maybe"], "BAD _dmarc.lumio.example: p=maybe is no policy"),
        ("_dmarc.lumio.example", ["v=DMARC1; p=none", "v=DMARC1; p=reject"], "BAD _dmarc.lumio.example has 2 records"),
        ("_dmarc.lumio.example", ["hello"], "BAD _dmarc.lumio.example has no record"),
    ],
)
def test_dmarc(tmp_path: Any, name: str, record: list[str], expected: str) -> None:
    assert expected in said({**GOOD, name: {"TXT": [txt(text) for text in record]}}, tmp_path, "DMARC")


def test_dmarc_of_the_domain_above_counts_for_those_below(tmp_path: Any) -> None:
    zone = {**GOOD, "_dmarc.lumio.example": {"TXT": [txt("v=DMARC1; p=reject; sp=none; aspf=r")]}}
    below = {"mail_default_sender": "m@mail.lumio.example"}
    assert said(zone, tmp_path, "DMARC", **below) == "ok _dmarc.lumio.example: p=none, which refuses nothing yet"


@pytest.mark.parametrize(
    ("aspf", "envelope", "agrees"),
    [("r", "b@bounces.lumio.example", True), ("s", "b@bounces.lumio.example", False), ("r", "b@relay.example", False)],
)
def test_the_return_path_has_to_agree_with_the_sender(tmp_path: Any, aspf: str, envelope: str, agrees: bool) -> None:
    zone = {**GOOD, "_dmarc.lumio.example": {"TXT": [txt(f"v=DMARC1; p=reject; aspf={aspf}")]}}
    assert ("all rests on DKIM" in said(zone, tmp_path, "DMARC", bounce_address=envelope)) is not agrees


def test_a_domain_that_takes_no_mail(tmp_path: Any) -> None:
    zone = {**GOOD, "lumio.example": {**GOOD["lumio.example"], "MX": ["0 ."]}}
    assert said(zone, tmp_path, "sender").startswith("BAD lumio.example says that it takes no mail")
    zone["lumio.example"] = {"A": ["192.0.2.1"], "TXT": GOOD["lumio.example"]["TXT"]}
    assert said(zone, tmp_path, "sender") == "ok lumio.example takes mail at its own address: it has no MX"


def test_where_no_name_server_answers_that_is_said_and_is_no_fault(tmp_path: Any) -> None:
    settings = make_settings("sqlite:///none.db", tmp_path)
    with NameServer({}, broken=True) as broken:
        [found] = sender_domain.checks(settings, broken)
    assert found.ok
    assert found.text.startswith("no answer about ")
    with NameServer({}, shut_in=True) as denies_every_name:
        [found] = sender_domain.checks(settings, denies_every_name)
    assert found == Checked(
        "DNS",
        True,
        "the name server here does not know the internet's names; what it says of the sender, SPF, DKIM and DMARC was"
        " not looked at",
    )
    silent = SystemDns(["127.0.0.1"], 1, lifetime=0.2)
    with pytest.raises(DnsAway):
        silent.texts("lumio.example")


def test_a_sender_without_a_domain_is_not_looked_up(tmp_path: Any) -> None:
    settings = make_settings("sqlite:///none.db", tmp_path, mail_default_sender="membership@localhost")
    [found] = sender_domain.checks(settings, SystemDns(["127.0.0.1"], 1, lifetime=0.2))
    assert (found.ok, "set MAIL_DEFAULT_SENDER" in found.text) == (True, True)


@pytest.mark.parametrize(
    ("server", "local"),
    [
        *((server, True) for server in ("localhost", "127.0.0.1", "::1", "10.0.0.5", "relay")),
        *((server, False) for server in ("smtp.example.org", "8.8.8.8")),
    ],
)
def test_which_servers_are_in_house(server: str, local: bool) -> None:
    assert spf.is_local(server) is local


def test_a_name_that_cannot_be_has_no_records() -> None:
    with NameServer({}) as dns:
        assert dns.texts("a..b") == dns.texts("x" * 64 + ".example") == []
