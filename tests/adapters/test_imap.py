"""The mailbox of bounces over IMAP: what leaves it, what stays, and what a person gets to read; on a real server."""

import socket
import ssl
from collections.abc import Iterator

import pytest

from domain.errors import MailboxAway
from tests.imap import ImapServer

ONE, TWO = b"Subject: one\n\nBounced.\n", b"Subject: two\n\nDear all\n"


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, ImapServer]]:
    """One for each way in which servers differ."""
    found = {
        "tls": ImapServer(),
        "starttls": ImapServer(starttls=True),
        "old": ImapServer(lacking=(b"MOVE", b"UIDPLUS")),
    }
    for server in found.values():
        server.start()
    yield found
    for server in found.values():
        server.stop()


@pytest.fixture
def server(servers: dict[str, ImapServer], request: pytest.FixtureRequest) -> Iterator[ImapServer]:
    found = servers[getattr(request, "param", "tls")]
    yield found
    for folder in ("INBOX", "Aside"):
        found.empty(folder)


@pytest.mark.parametrize("server", ["tls", "starttls", "old"], indirect=True)
def test_what_is_taken_is_gone_and_what_is_put_aside_is_found_elsewhere(server: ImapServer) -> None:
    server.put(ONE, TWO, TWO)
    with server.mailbox().visit() as visit:
        first, *others = visit.waiting()
        assert first.raw == ONE.replace(b"\n", b"\r\n")
        visit.take_out(first)
        for other in others:
            visit.put_aside(other)
        assert list(visit.waiting()) == []
    assert (server.subjects(), server.subjects("Aside")) == ([], ["two", "two"])


def test_reading_changes_nothing(server: ImapServer) -> None:
    server.put(ONE)
    for _ in range(2):
        with server.mailbox().visit() as visit:
            assert len(list(visit.waiting())) == 1
    assert server.subjects(criterion="UNSEEN") == ["one"]


def test_what_somebody_has_marked_as_deleted_is_left_alone(server: ImapServer) -> None:
    server.put(ONE, TWO)
    with server.program() as program:
        program.select("INBOX")
        program.store("1", "+FLAGS", r"(\Deleted)")
    with server.mailbox().visit() as visit:
        [mail] = visit.waiting()
        visit.take_out(mail)
    assert server.subjects(criterion="ALL") == ["one"]


def test_what_another_has_taken_out_meanwhile_is_passed_over(server: ImapServer) -> None:
    server.put(ONE, TWO)
    with server.mailbox().visit() as visit:
        waiting = visit.waiting()
        first = next(waiting)
        server.empty("INBOX")
        visit.take_out(first)
        visit.put_aside(first)
        assert list(waiting) == []
    assert server.subjects("Aside") == []


def test_of_a_mail_that_is_too_long_the_beginning_is_read(server: ImapServer) -> None:
    server.put(ONE + b"x" * 76 + b"\n" + (b"x" * 76 + b"\n") * 20_000)
    with server.mailbox().visit() as visit:
        [mail] = visit.waiting()
    assert len(mail.raw) == 1_000_000


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"password": "wrong"}, "[AUTHENTICATIONFAILED] Invalid authentication credentials."),
        ({"folder": "Bounces"}, "the folder Bounces: [NONEXISTENT] Mailbox does not exist."),
        ({"tls": ssl.create_default_context()}, "the certificate is not to be trusted: self-signed certificate"),
        ({"starttls": True, "timeout": 0.3}, "timed out"),
        ({"port": 1}, "Connection refused"),
        # "Name or service not known", "nodename nor servname provided, or not known"; or that no name server was there.
        ({"host": "nowhere.invalid"}, "nown|name resolution"),
    ],
)
def test_a_mailbox_that_cannot_be_opened_says_why_in_one_line(
    server: ImapServer, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(MailboxAway) as refused, server.mailbox(**changes).visit():
        pass
    assert any(words in str(refused.value) for words in said.split("|"))
    assert "\n" not in str(refused.value)
    assert "wrong" not in str(refused.value)


@pytest.mark.parametrize("server", ["starttls"], indirect=True)
def test_a_certificate_nobody_vouches_for_gets_no_password(server: ImapServer) -> None:
    with pytest.raises(MailboxAway, match="not to be trusted"):
        server.mailbox(tls=ssl.create_default_context()).signed_in()


def test_a_server_that_never_answers_is_not_waited_for(server: ImapServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mailbox = server.mailbox(port=silent.getsockname()[1], timeout=0.2)
        with pytest.raises(MailboxAway, match="timed out"):
            mailbox.signed_in()


def test_a_line_that_is_cut_is_said_to_be(server: ImapServer) -> None:
    server.put(ONE, TWO)
    with server.mailbox().visit() as visit:
        mail = next(visit.waiting())
        server.hang_up()
        with pytest.raises(MailboxAway):
            visit.take_out(mail)
    assert server.subjects() == ["one", "two"]
