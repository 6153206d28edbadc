"""A message whose caller watches many lines ends as one whose caller waits for it, whatever a server does."""

import select
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domain.ports import MailResult
from tests.adapters.test_smtp import mailer, to
from tests.faults.unkind import DROP, HANG, Moment, Stage, Unkind

HERE = Path(__file__).parent
FIRST, MIA, OTHER = to("first@example.org"), to("mia@example.org"), to("other@example.org")
A_REPLY_OF_LINES = "250-2.0.0 first\r\n250 2.0.0 second"
TOO_LONG = "250 " + 9000 * "x"

AT = (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT, Stage.KEPT)

Way = Callable[[Any, Any], MailResult]


def waiting(connection: Any, mail: Any) -> MailResult:
    result: MailResult = connection.send(mail)
    return result


def watching(connection: Any, mail: Any) -> MailResult:
    """As services/mail/lines.py does it: ``send`` where there is no connection, or nothing of the message has gone."""
    exchange = connection.begin(mail)
    if exchange is None:
        return waiting(connection, mail)
    system = select.poll()
    system.register(exchange.fileno(), select.POLLIN)
    while (result := exchange.go_on()) is None:
        system.poll(20)
    return waiting(connection, mail) if result.server_down and exchange.untold else result


def story(way: Way, what: str | None, stage: Stage, **server: Any) -> tuple[object, ...]:
    """What a message meets that is the second of its line, what becomes of the next, and what the server saw."""
    left = [what]

    def decide(moment: Moment) -> str | None:
        # The first message opens the line.
        second = (moment.connection, moment.message) == (1, 2)
        return left.pop() if left and second and moment.stage == stage else None

    with (
        Unkind(decide, **server) as unkind,
        mailer(unkind.port, timeout=0.3).connect() as connection,
    ):
        assert waiting(connection, FIRST).accepted
        results = [way(connection, mail) for mail in (MIA, OTHER)]
    # How the system words it that a line is gone depends on who was quicker.
    results = [result._replace(reply=result.reply.partition(" was lost")[0]) for result in results]
    return results, [address for address, _ in unkind.kept], unkind.connections, unkind.for_nobody


@pytest.mark.parametrize(
    ("stage", "server"),
    [
        *((stage, server) for stage in AT for server in ({}, {"pipelining": False})),
        *((stage, {"lenient": True}) for stage in (Stage.MAIL, Stage.RCPT)),
        *((stage, {"hang_up_after_refusal": True}) for stage in (Stage.MAIL, Stage.RCPT)),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "what",
    [
        *(None, "451 4.3.0 not now", "554 5.7.1 no", "552 5.3.4 full", "421 4.3.2 bye", "what?", "not-a reply"),
        *(A_REPLY_OF_LINES, TOO_LONG, DROP, HANG),
    ],
    ids=lambda what: str(what)[:12],
)
def test_who_watches_is_told_what_who_waits_is_told(what: str | None, stage: Stage, server: dict[str, Any]) -> None:
    assert story(watching, what, stage, **server) == story(waiting, what, stage, **server)


@pytest.mark.parametrize("what", [DROP, HANG, "421 4.3.2 bye", "500 what?"])
def test_a_refusal_stays_one_where_its_line_is_lost_and_the_next_message_hears_its_own_replies(what: str) -> None:
    """The line is lost after the refusal, while it is made ready for the next message."""

    def ends(way: Way) -> tuple[object, ...]:
        left = {Stage.RCPT: "550 5.1.1 nobody here", Stage.RSET: what}

        def decide(moment: Moment) -> str | None:
            return left.pop(moment.stage, None) if (moment.connection, moment.message) == (1, 2) else None

        with Unkind(decide) as server, mailer(server.port, timeout=0.3).connect() as connection:
            assert waiting(connection, FIRST).accepted
            results = [way(connection, mail) for mail in (MIA, OTHER)]
        assert [result.reply for result in results] == ["550 5.1.1 nobody here", "250 2.0.0 kept"]
        return results, server.connections

    assert ends(watching) == ends(waiting)


def test_a_reply_that_comes_in_pieces_is_put_together_and_nobody_waits_for_the_rest() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        heard: list[bytes] = []
        go_on = threading.Semaphore(0)

        def serve() -> None:
            line, _ = listening.accept()
            with line, line.makefile("rb") as lines:
                line.sendall(b"220 hello\r\n")
                lines.readline()
                line.sendall(b"250-hello\r\n250 PIPELINING\r\n")
                for piece in (b"250 OK\r\n250 OK\r\n354 go\r\n", b"250 kept\r\n"):
                    if piece.startswith(b"250 k"):
                        while lines.readline() != b".\r\n":
                            pass
                    else:
                        heard.extend(lines.readline() for _ in range(3))
                    line.sendall(piece)
                heard.extend(lines.readline() for _ in range(3))
                for piece in (b"2", b"50", b"-first\r\n25", b"0 OK\r", b"\n250 OK\r\n354 g", b"o\r\n"):
                    line.sendall(piece)
                    go_on.acquire()
                while lines.readline() != b".\r\n":
                    pass
                line.sendall(b"250 kept\r\n")
                lines.readline()
                line.sendall(b"221 bye\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with mailer(listening.getsockname()[1], timeout=60).connect() as connection:
            assert waiting(connection, FIRST).accepted
            exchange = connection.begin(MIA)
            assert exchange is not None
            assert exchange.go_on() is None
            system = select.poll()
            system.register(exchange.fileno(), select.POLLIN)
            for _ in range(6):
                assert system.poll(60_000)
                assert exchange.go_on() is None
                go_on.release()
            assert system.poll(60_000)
            assert exchange.go_on() == MailResult(accepted=True, code=250, reply="250 kept")
        thread.join()


def test_an_encrypted_line_is_watched_as_well() -> None:
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(HERE / "self-signed.pem")
    trusting = ssl.create_default_context(cafile=HERE / "self-signed.pem")
    trusting.check_hostname = False
    with (
        Unkind(tls=theirs) as server,
        mailer(server.port, timeout=5, tls=trusting, MAIL_USE_SSL=True).connect() as connection,
    ):
        assert waiting(connection, FIRST).accepted
        begun = [connection.begin(MIA) is not None]
        # What was begun and is not waited for is over: the next message needs a line of its own.
        connection._connection.drop()
        assert waiting(connection, FIRST).accepted
        assert begun == [True]
        assert [watching(connection, mail).accepted for mail in (MIA, OTHER)] == [True, True]
        assert [address for address, _ in server.kept][-2:] == ["mia@example.org", "other@example.org"]


def test_a_text_that_the_line_does_not_take_at_once_is_waited_for() -> None:
    """More than the system holds for a line, to a server that begins to read it late."""
    large = 3_000_000
    text = ("x" * 70 + "\n") * (large // 71)
    with Unkind() as server, mailer(server.port, timeout=30).connect() as connection:
        assert waiting(connection, FIRST).accepted
        assert watching(connection, MIA._replace(text=text)).accepted
        assert len(server.kept[-1][1]) > large


def test_after_so_many_messages_there_is_nothing_to_watch_and_another_line_is_opened() -> None:
    with Unkind() as server:
        with mailer(server.port, MAIL_MAX_EMAILS=3).connect() as connection:
            assert all(watching(connection, MIA).accepted for _ in range(7))
        assert (server.connections, len(server.kept)) == (3, 7)
