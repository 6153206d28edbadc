"""What addresses, lines and other people's servers do to a webhook, and what becomes of it; every server is real."""

import gzip
import socket
import ssl
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from adapters.webhooks.guard import is_public
from adapters.webhooks.http import HttpSender
from domain.ports import Outcome, WebhookReply
from tests.doubles import Answering, WebhookCatcher

HERE = [ip_network("127.0.0.0/8")]
NAME = "hooks.lumio.example"
CERTIFICATE = Path(__file__).with_name("hooks-lumio-example.pem")
BODY = b'{"type":"member.kept"}'


def post(url: str, sender: HttpSender | None = None, **headers: str) -> WebhookReply:
    return (sender or HttpSender(HERE, step=2, total=4)).post(url, BODY, headers)


def knows(*addresses: str) -> Callable[[str, int], list[str]]:
    return lambda host, port: list(addresses)


@pytest.fixture
def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTIFICATE))


@pytest.fixture
def secure() -> Iterator[WebhookCatcher]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    catcher = WebhookCatcher(tls)
    catcher.asked_for = []  # type: ignore[attr-defined]
    tls.sni_callback = lambda line, name, context: catcher.asked_for.append(name)  # type: ignore[attr-defined]
    catcher.start()
    yield catcher
    catcher.stop()


def test_what_is_posted_arrives_as_it_was(hooked: WebhookCatcher) -> None:
    assert post(f"{hooked.url}?a=b", **{"webhook-id": "msg_1"}) == WebhookReply(Outcome.ACCEPTED, 204, "answered 204")
    [call] = hooked.calls
    assert (call.path, call.body, call.headers["webhook-id"]) == ("/hooks?a=b", BODY, "msg_1")
    assert call.headers["content-type"] == "application/json"
    assert call.headers["host"] == f"127.0.0.1:{hooked.port}"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.ACCEPTED),
        (202, Outcome.ACCEPTED),
        (301, Outcome.PERMANENT),
        (307, Outcome.PERMANENT),
        (400, Outcome.PERMANENT),
        (401, Outcome.PERMANENT),
        (404, Outcome.PERMANENT),
        (408, Outcome.TEMPORARY),
        (410, Outcome.GONE),
        (429, Outcome.TEMPORARY),
        (500, Outcome.TEMPORARY),
        (503, Outcome.TEMPORARY),
    ],
)
def test_each_answer_is_one_of_four_outcomes(hooked: WebhookCatcher, status: int, outcome: Outcome) -> None:
    hooked.answers = Answering(status, {"Location": hooked.url, "Retry-After": "17"}, b'{"said": true}')
    reply = post(hooked.url)
    assert (reply.outcome, reply.status, reply.body, reply.retry_after) == (outcome, status, b'{"said": true}', 17)
    assert len(hooked.calls) == 1, "no redirect is followed, and nothing is tried again by itself"


@pytest.mark.parametrize("after", ["", "soon", "-1", "²", "9" * 400, "Wed, 03 Jun 2026 10:00:00 GMT"])
def test_a_wait_that_makes_no_sense_is_none(hooked: WebhookCatcher, after: str) -> None:
    hooked.answers = Answering(429, {"Retry-After": after.encode("latin-1", "ignore").decode("latin-1")})
    assert post(hooked.url).retry_after is None


def test_an_answer_is_cut_where_it_is_too_long_and_never_unpacked(hooked: WebhookCatcher) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    hooked.answers = Answering(200, {"Content-Encoding": "gzip"}, bomb + b"0" * 100_000)
    reply = post(hooked.url)
    assert (reply.outcome, len(reply.body), reply.body[:9]) == (Outcome.ACCEPTED, 65536, bomb[:9])


def test_whoever_drips_is_cut_off_in_time_and_the_status_stands(hooked: WebhookCatcher) -> None:
    hooked.answers = Answering(200, body=b"x" * 1000, drips=True)
    begun = monotonic()
    reply = post(hooked.url, HttpSender(HERE, step=30, total=2))
    assert reply.outcome is Outcome.ACCEPTED
    assert monotonic() - begun < 30, "it drips for fifty seconds"


def test_whoever_says_nothing_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for sender in (HttpSender(HERE, step=0.3, total=90), HttpSender(HERE, step=90, total=0.3)):
            begun = monotonic()
            for scheme in ("http", "https"):
                reply = post(f"{scheme}://127.0.0.1:{port}/", sender)
                assert (reply.outcome, reply.status, reply.nobody_there) == (Outcome.TEMPORARY, 0, True)
                assert reply.text.endswith("in time")
            assert monotonic() - begun < 60


@pytest.mark.parametrize("raw", [b"", b"220 mail.example.org ESMTP\r\n", b"HTTP/1.1 2", b"\x15\x03\x01\x00\x02\x02"])
def test_whoever_speaks_no_http_has_not_answered(hooked: WebhookCatcher, raw: bytes) -> None:
    hooked.answers = Answering(raw=raw)
    reply = post(hooked.url)
    assert (reply.outcome, reply.status) == (Outcome.TEMPORARY, 0)


def test_nobody_at_the_port_is_no_answer() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        reply = post(f"http://127.0.0.1:{bound.getsockname()[1]}/")
    assert reply == WebhookReply(Outcome.TEMPORARY, 0, "no connection")


# The address that is called is the one that was looked at


def test_the_certificate_is_that_of_the_name_and_the_line_goes_to_the_address(
    secure: WebhookCatcher, trusting: ssl.SSLContext
) -> None:
    asked = []

    def look_up(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    reply = post(f"https://{NAME}:{secure.port}/hooks", HttpSender(HERE, step=2, tls=trusting, look_up=look_up))
    assert reply.outcome is Outcome.ACCEPTED
    assert asked == [NAME], "looked up once, so that a second answer has no chance"
    assert secure.asked_for == [NAME]  # type: ignore[attr-defined]
    assert secure.calls[0].headers["host"] == f"{NAME}:{secure.port}"


def test_a_certificate_of_another_name_gets_nothing(secure: WebhookCatcher, trusting: ssl.SSLContext) -> None:
    sender = HttpSender(HERE, step=2, tls=trusting, look_up=knows("127.0.0.1"))
    reply = post(f"https://members.lumio.example:{secure.port}/", sender)
    assert (reply.outcome, reply.text[:30]) == (Outcome.TEMPORARY, "the certificate is not trusted")
    assert secure.calls == []


def test_a_certificate_nobody_vouches_for_gets_nothing(secure: WebhookCatcher) -> None:
    reply = post(f"https://{NAME}:{secure.port}/", HttpSender(HERE, step=2, look_up=knows("127.0.0.1")))
    assert reply.text.startswith("the certificate is not trusted")
    assert secure.calls == []


def test_the_next_address_of_a_name_is_tried_where_one_cannot_be_reached(hooked: WebhookCatcher) -> None:
    sender = HttpSender([*HERE, ip_network("::1/128")], step=2, look_up=knows("127.0.0.2", "::1", "127.0.0.1"))
    assert post(f"http://{NAME}:{hooked.port}/", sender).outcome is Outcome.ACCEPTED


# Addresses that must not be called

PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_not_called(address: str) -> None:
    reply = post(f"https://{NAME}/", HttpSender(look_up=knows(address)))
    assert (reply.outcome, reply.status) == (Outcome.PERMANENT, 0)
    assert "private network" in reply.text


@pytest.mark.parametrize("address", ["8.8.8.8", "193.99.144.80", "2606:4700::1111", "2a00:1450:4001:800::200e"])
def test_a_public_address_may_be_called(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f000001", "2130706433", "127.1", "localhost", "[::1]", "[::]"])
def test_another_way_to_write_this_machine_is_this_machine(host: str) -> None:
    assert post(f"https://{host}/", HttpSender()).outcome is Outcome.PERMANENT


def test_only_the_good_addresses_of_a_name_are_used(hooked: WebhookCatcher) -> None:
    sender = HttpSender([ip_network("127.0.0.1/32")], step=60, look_up=knows("127.0.0.2", "10.0.0.1", "127.0.0.1"))
    begun = monotonic()
    assert post(f"http://{NAME}:{hooked.port}/", sender).outcome is Outcome.ACCEPTED
    assert monotonic() - begun < 30, "nobody waited for the others"


def test_without_tls_only_what_an_operator_named_is_called(hooked: WebhookCatcher) -> None:
    reply = post(f"http://{NAME}:{hooked.port}/", HttpSender(look_up=knows("8.8.8.8")))
    assert (reply.outcome, "not https" in reply.text) == (Outcome.PERMANENT, True)
    assert post(hooked.url, HttpSender()).outcome is Outcome.PERMANENT
    assert hooked.calls == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks",
        "//example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "https://",
        "https://name:word@example.org/",
        "https://example.org/#here",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://[::1/",
        "https://exa mple.org/",
        "https://" + "a" * 70 + ".example/",
        "https://a..example/",
    ],
)
def test_what_is_no_address_is_refused_without_a_call(url: str) -> None:
    def nobody(*args: Any) -> list[str]:
        socket.getaddrinfo("127.0.0.1", 1)
        return ["127.0.0.1"]

    assert post(url, HttpSender(look_up=nobody)).outcome is Outcome.PERMANENT


def test_a_name_that_is_not_found_may_be_found_later() -> None:
    def nothing(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    reply = post(f"https://{NAME}/", HttpSender(look_up=nothing))
    assert reply == WebhookReply(Outcome.TEMPORARY, 0, "the host name cannot be found")


def test_a_path_cannot_add_a_header(hooked: WebhookCatcher) -> None:
    post(f"{hooked.url}/\r\nX-Evil: 1")
    assert all("x-evil" not in call.headers for call in hooked.calls)
