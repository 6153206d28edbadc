"""MAIL, RCPT and DATA in one go (RFC 2920): all the ways to refuse, what becomes of this message and of the next."""

import socket
import threading
from collections.abc import Callable
from email import message_from_bytes
from email.policy import default

import pytest

from domain.ports import MailResult
from tests.adapters.test_smtp import mailer, to
from tests.faults.unkind import DROP, HANG, Moment, Stage, Unkind

MIA = to("mia@example.org")
OTHER = to("other@example.org")


def at(stage: Stage, what: str) -> Callable[[Moment], str | None]:
    """At a stage of the first message that reaches it, and then never again."""
    left = [what]

    def decide(moment: Moment) -> str | None:
        return left.pop() if left and moment.stage == stage else None

    return decide


def talk(server: Unkind, *, timeout: float = 60, **config: object) -> tuple[MailResult, MailResult]:
    """The results of a message that meets the server's mood, and of the next one in the same session."""
    with mailer(server.port, timeout=timeout, **config).connect() as connection:  # type: ignore[arg-type]
        return connection.send(MIA), connection.send(OTHER)


def test_the_three_commands_go_out_before_the_first_is_answered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        groups: list[bytes] = []

        def serve() -> None:
            line, _ = listening.accept()
            with line, line.makefile("rb") as lines:
                line.sendall(b"220 hello\r\n")
                lines.readline()
                line.sendall(b"250-hello\r\n250-SIZE 1000000\r\n250 PIPELINING\r\n")
                groups.append(b"".join(lines.readline() for _ in range(3)))
                line.sendall(b"250 OK\r\n250 OK\r\n354 go ahead\r\n")
                while lines.readline() != b".\r\n":
                    pass
                line.sendall(b"250 kept\r\n")
                lines.readline()
                line.sendall(b"221 bye\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with mailer(listening.getsockname()[1], timeout=60).connect() as connection:
            assert connection.send(MIA) == MailResult(accepted=True, code=250, reply="250 kept")
        thread.join()
    mail, rcpt, data = groups[0].splitlines()
    assert mail.startswith(b"MAIL FROM:<membership@lumio.example> SIZE=")
    assert (rcpt, data) == (b"RCPT TO:<mia@example.org>", b"DATA")


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT])
@pytest.mark.parametrize("reply", ["451 4.3.0 not now", "554 5.7.1 no"])
def test_a_refusal_is_this_messages_alone_and_the_line_goes_on(stage: Stage, reply: str, pipelining: bool) -> None:
    if (stage, reply[0]) == (Stage.MAIL, "5"):
        reply = "552 5.3.4 too large"
    with Unkind(at(stage, reply), pipelining=pipelining) as server:
        refused, taken = talk(server)
        assert (refused.accepted, refused.reply, refused.permanent) == (False, reply, reply[0] == "5")
        assert refused.recipient_refused == (stage == Stage.RCPT)
        assert not refused.server_down
        assert taken.accepted
        assert [address for address, _ in server.kept] == ["other@example.org"]
        assert (server.connections, server.for_nobody) == (1, [])


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT])
def test_a_server_that_asks_for_the_text_all_the_same_gets_a_single_dot(stage: Stage) -> None:
    with Unkind(at(stage, "452 4.5.3 not now"), lenient=True) as server:
        refused, taken = talk(server)
        assert refused.reply == "452 4.5.3 not now"
        assert taken.accepted
        # Not a byte of the mail went to a server that had taken nobody to give it to.
        assert (server.for_nobody, server.connections) == ([b""], 1)
        assert [address for address, _ in server.kept] == ["other@example.org"]


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT])
def test_421_at_any_command_means_the_server_is_away(stage: Stage, pipelining: bool) -> None:
    with Unkind(at(stage, "421 4.3.2 shutting down"), pipelining=pipelining) as server:
        away, taken = talk(server)
        assert (away.server_down, away.code, away.reply) == (True, 421, "4.3.2 shutting down")
        assert taken.accepted
        assert server.connections == 2


@pytest.mark.parametrize("what", [DROP, HANG])
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT, Stage.KEPT])
def test_a_line_that_is_lost_at_any_command_costs_one_message_one_try(stage: Stage, what: str) -> None:
    with Unkind(at(stage, what)) as server:
        lost, taken = talk(server, timeout=1 if what == HANG else 60)
        assert (lost.server_down, lost.accepted) == (True, False)
        assert "lost" in lost.reply
        assert taken.accepted
        assert [address for address, _ in server.kept].count("mia@example.org") == (stage == Stage.KEPT)


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA])
def test_a_line_that_is_lost_before_any_text_is_opened_again_unseen(stage: Stage) -> None:
    """Only on a line that had carried mail before: the server may have been about to close it."""
    with Unkind() as server, mailer(server.port, timeout=60).connect() as connection:
        assert connection.send(MIA).accepted
        server.decide = at(stage, DROP)
        assert connection.send(OTHER).accepted
        assert [address for address, _ in server.kept] == ["mia@example.org", "other@example.org"]
        assert server.connections == 2


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT])
def test_a_server_that_refuses_and_hangs_up_has_refused(stage: Stage) -> None:
    decide = at(stage, "452 4.7.0 enough of you")
    with Unkind(decide) as server:
        server.hang_up_after_refusal = True
        refused, taken = talk(server)
        assert (refused.reply, refused.server_down) == ("452 4.7.0 enough of you", False)
        assert taken.accepted
        assert server.connections == 2


def test_what_is_no_reply_ends_the_conversation() -> None:
    with Unkind(at(Stage.MAIL, "what?")) as server:
        strange, taken = talk(server)
        assert strange.server_down
        assert taken.accepted
        assert server.connections == 2


def test_a_line_that_begins_with_a_dot_arrives_as_it_was() -> None:
    text = ".\n..\n.begins with a dot\nends with one.\n.\n"
    with Unkind() as server:
        with mailer(server.port).connect() as connection:
            assert connection.send(MIA._replace(text=text)).accepted
        [(_, raw)] = server.kept
    assert b"\r\n.begins with a dot\r\n" in raw
    part = message_from_bytes(raw, policy=default).get_body(("plain",))  # type: ignore[attr-defined]
    assert part.get_content().replace("\r\n", "\n") == text


def test_after_so_many_messages_a_connection_is_closed_and_another_opened() -> None:
    with Unkind() as server:
        with mailer(server.port, MAIL_MAX_EMAILS=3).connect() as connection:
            assert all(connection.send(MIA).accepted for _ in range(7))
        assert (server.connections, len(server.kept)) == (3, 7)
