"""A mail server that misbehaves on purpose: at each stage of a conversation it answers anything, hangs, or hangs up."""

import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Stage(StrEnum):
    """When a server can do something: before its greeting, at each command, and around the reply to the final dot."""

    GREETING = "greeting"
    EHLO = "ehlo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    RSET = "rset"
    """After a refusal."""
    DOT = "dot"
    """The text is here, nothing is answered yet, nothing kept."""
    KEPT = "kept"
    """The message is accepted and kept, but its sender has not been told."""
    AFTER = "after"
    """It has been told."""


HANG = "hang"
DROP = "drop"


@dataclass(frozen=True)
class Moment:
    """What a server knows when it decides. Counts begin at 1."""

    stage: Stage
    connection: int
    message: int
    """In this connection."""
    recipient: str = ""


@dataclass
class Unkind:
    """``decide`` gives HANG, DROP, a reply such as ``450 4.2.0 later``, or None to go on as a good server does."""

    decide: Callable[[Moment], str | None] = lambda moment: None
    tls: ssl.SSLContext | None = None
    pipelining: bool = True
    """Whether it offers PIPELINING, as nearly every server does."""
    lenient: bool = False
    """Whether it answers DATA with 354 although it has taken no recipient, and refuses at the final dot only."""
    hang_up_after_refusal: bool = False
    kept: list[tuple[str, bytes]] = field(default_factory=list)
    """Recipient and text of each message that was accepted."""
    for_nobody: list[bytes] = field(default_factory=list)
    """Texts that came although no recipient had been taken."""
    connections: int = 0
    tried: list[str] = field(default_factory=list)
    """The recipients that were asked for, in order."""

    def __enter__(self) -> "Unkind":
        self._over = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()

    def to(self, address: str) -> int:
        return sum(recipient == address for recipient, _ in self.kept)

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                line, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._talk, args=(line, self.connections))
            self._threads.append(thread)
            thread.start()

    def _talk(self, line: socket.socket, number: int) -> None:
        try:
            if self.tls is not None:
                line = self.tls.wrap_socket(line, server_side=True)
            with line:
                _Conversation(self, line, number, self._over).hold()
        except OSError:
            # The client has hung up, or did not like our certificate.
            line.close()


class _Conversation:
    def __init__(self, server: Unkind, line: socket.socket, number: int, over: threading.Event) -> None:
        self._server, self._line, self._number, self._over = server, line, number, over
        self._lines = line.makefile("rb")
        self._message = 0
        self._recipient = ""
        self._sender_taken = self._recipient_taken = False
        self._was_kind = True

    def hold(self) -> None:
        if not self._at(Stage.GREETING, "220 unkind ESMTP"):
            return
        while command := self._lines.readline():
            word = command.split()[0].upper() if command.split() else b""
            if not self._answer(word, command):
                return

    def _answer(self, word: bytes, command: bytes) -> bool:
        match word:
            case b"EHLO" | b"HELO":
                return self._at(Stage.EHLO, "250-unkind\r\n250 PIPELINING" if self._server.pipelining else "250 unkind")
            case b"MAIL":
                self._message += 1
                listens = self._at(Stage.MAIL, "250 OK")
                self._sender_taken, self._recipient_taken = self._was_kind, False
                return listens
            case b"RCPT" if not self._sender_taken:
                return self._say("503 5.5.1 nested or missing MAIL")
            case b"RCPT":
                self._recipient = command.decode().partition("<")[2].partition(">")[0]
                self._server.tried.append(self._recipient)
                listens = self._at(Stage.RCPT, "250 OK")
                self._recipient_taken = self._was_kind
                return listens
            case b"DATA":
                return self._data()
            case b"RSET":
                self._sender_taken = self._recipient_taken = False
                return self._at(Stage.RSET, "250 OK")
            case b"NOOP":
                return self._say("250 OK")
            case b"QUIT":
                self._say("221 bye")
                return False
            case _:
                return self._say("502 not here")

    def _data(self) -> bool:
        nobody = not self._recipient_taken
        if nobody and not self._server.lenient:
            return self._say("554 5.5.1 no valid recipients")
        refused = None if nobody else self._decided(Stage.DATA)
        if refused is not None:
            return self._do(refused)
        if not self._say("354 go ahead"):
            return False
        text = b""
        while (more := self._lines.readline()) != b".\r\n":
            if not more:
                return False
            text += more[1:] if more.startswith(b".") else more
        self._sender_taken = self._recipient_taken = False
        if nobody:
            self._server.for_nobody.append(text)
            return self._say("554 5.5.1 no valid recipients")
        refused = self._decided(Stage.DOT)
        if refused is not None:
            return self._do(refused)
        self._server.kept.append((self._recipient, text))
        return self._at(Stage.KEPT, "250 2.0.0 kept") and self._at(Stage.AFTER, None)

    def _at(self, stage: Stage, kind: str | None) -> bool:
        decided = self._decided(stage)
        self._was_kind = decided is None
        if decided is not None:
            return self._do(decided)
        return kind is None or self._say(kind)

    def _decided(self, stage: Stage) -> str | None:
        return self._server.decide(Moment(stage, self._number, self._message, self._recipient))

    def _do(self, what: str) -> bool:
        if what == HANG:
            # Until the client gives up, which closes the line, or the test is over.
            self._lines.read(1)
            return False
        if what == DROP:
            self._line.shutdown(socket.SHUT_RDWR)
            return False
        said = self._say(what)
        if not said or what.startswith("421") or self._server.hang_up_after_refusal:
            self._line.shutdown(socket.SHUT_RDWR)
            return False
        return True

    def _say(self, reply: str) -> bool:
        self._line.sendall(f"{reply}\r\n".encode())
        return True
