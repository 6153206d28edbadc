"""smtplib's client for one message to one address: MAIL, RCPT and DATA go out together where a server allows.

RFC 2920 (PIPELINING) saves two of four round trips. Each command still gets its own reply, and what one of them says
counts as it does without: the first refusal is the message's, and the text goes out only where all three were taken.

What is said to a server, and in which order, stands once, in ``Transactions.conversation``. It is held in one of two
ways: by ``hand_over``, which waits for each reply, or by whoever watches many connections at once, says what there is
to say with ``next``, and gives each reply to the conversation when it is here (``reply_that_came``).
"""

import smtplib
import ssl
from collections.abc import Generator
from functools import lru_cache
from io import BytesIO
from smtplib import SMTPDataError, SMTPRecipientsRefused, SMTPSenderRefused, SMTPServerDisconnected

CLOSING = 421
GO_AHEAD = 354
TAKEN = 250
RECIPIENT_TAKEN = (TAKEN, 251)

Reply = tuple[int, bytes]
Conversation = Generator[None, Reply, Reply]
"""Waits at each ``yield`` for a reply; returns the positive one to the final dot, raises what ``sendmail`` raises."""

Speaking = Generator[None, Reply, None]

AT_ONCE = 4096
LONGEST_LINE = 8192
"""What smtplib takes for a reply's line at the most."""


class Transactions:
    """Mixed into smtplib's classes."""

    text_was_sent = False
    """Whether the last message got as far as its text, so that the server may have it."""
    _came = b""

    def hand_over(self, sender: str, recipient: str, text: bytes, *, smtputf8: bool = False) -> Reply:
        """Send one message, and wait for each reply; returns and raises what its conversation does."""
        self.wait_for_it()
        conversation = self.conversation(sender, recipient, text, smtputf8=smtputf8)
        try:
            next(conversation)
            while True:
                try:
                    reply = self.getreply()  # type: ignore[attr-defined]
                except SMTPServerDisconnected as lost:
                    conversation.throw(lost)
                else:
                    conversation.send(reply)
        except StopIteration as over:
            return over.value  # type: ignore[no-any-return]

    def conversation(self, sender: str, recipient: str, text: bytes, *, smtputf8: bool = False) -> Conversation:
        """One message. Addresses are as ``letter.envelope_address`` gives them, ``text`` has CRLF at each line's end.

        After a refusal the connection is ready for the next message, unless the server closed it.
        """
        self.text_was_sent = False
        commands = (
            f"MAIL FROM:<{sender}>{self._size(text)}{' SMTPUTF8' if smtputf8 else ''}\r\n".encode(),
            f"RCPT TO:<{recipient}>\r\n".encode(),
            b"DATA\r\n",
        )
        if self.has_extn("pipelining"):  # type: ignore[attr-defined]
            yield from self._together(commands, sender, recipient)
        else:
            yield from self._one_by_one(commands, sender, recipient)
        self.text_was_sent = True
        self._say(_ended(text))
        reply = yield
        if reply[0] != TAKEN:
            yield from self._over(reply)
            raise SMTPDataError(*reply)
        return reply

    def wait_for_it(self) -> None:
        """From now on whoever speaks or listens waits, for so long as the time limit allows."""
        if self.sock is not None and self._waits_not:  # type: ignore[attr-defined]
            self.sock.settimeout(self.timeout)  # type: ignore[attr-defined]

    def wait_not(self) -> None:
        """From now on ``reply_that_came`` says what is here, and nobody waits; what came unasked is forgotten."""
        if not self._waits_not:
            self.sock.settimeout(0)  # type: ignore[attr-defined]
        if self.file is not None:  # type: ignore[has-type]
            self.file.close()  # type: ignore[has-type]
            self.file = None
        self._came = b""

    def hear(self) -> bool:
        """Take in what the server has said so far. False: it has hung up, and says no more."""
        try:
            while came := self.sock.recv(AT_ONCE):  # type: ignore[attr-defined]
                self._came += came
                if len(came) < AT_ONCE:
                    return True
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except OSError:
            return False
        return False

    def reply_that_came(self) -> Reply | None:
        """The next reply, as smtplib reads it, if all of it is here."""
        if not self._came:
            return None
        line, ended, rest = self._came.partition(b"\n")
        if ended and not self.debuglevel:  # type: ignore[attr-defined]
            plain = _plain(line)
            if plain is not None:
                self._came = rest
                return plain
        end = 0
        while True:
            begin, end = end, self._came.find(b"\n", end) + 1
            if not end:
                if len(self._came) - begin <= LONGEST_LINE:
                    return None
                # No reply at all: smtplib is to say so.
                end = len(self._came)
            line = self._came[begin:end]
            if line[3:4] != b"-" or not line[:3].isdigit() or len(line) > LONGEST_LINE:
                break
        self.file, self._came = BytesIO(self._came[:end]), self._came[end:]
        try:
            return self.getreply()  # type: ignore[attr-defined, no-any-return]
        finally:
            self.file = None

    @property
    def _waits_not(self) -> bool:
        return self.sock.gettimeout() == 0  # type: ignore[attr-defined, no-any-return]

    def _one_by_one(self, commands: tuple[bytes, bytes, bytes], sender: str, recipient: str) -> Speaking:
        self._say(commands[0])
        mail = yield
        if mail[0] != TAKEN:
            yield from self._over(mail)
            raise SMTPSenderRefused(*mail, sender)
        self._say(commands[1])
        rcpt = yield
        if rcpt[0] not in RECIPIENT_TAKEN:
            yield from self._over(rcpt)
            raise SMTPRecipientsRefused({recipient: rcpt})
        self._say(commands[2])
        data = yield
        if data[0] != GO_AHEAD:
            yield from self._over(data)
            raise SMTPDataError(*data)

    def _together(self, commands: tuple[bytes, bytes, bytes], sender: str, recipient: str) -> Speaking:
        self._say(b"".join(commands))
        mail = yield
        if mail[0] != TAKEN:
            yield from self._unsaid(mail, further=2)
            raise SMTPSenderRefused(*mail, sender)
        rcpt = yield
        if rcpt[0] not in RECIPIENT_TAKEN:
            yield from self._unsaid(rcpt, further=1)
            raise SMTPRecipientsRefused({recipient: rcpt})
        data = yield
        if data[0] != GO_AHEAD:
            yield from self._over(data)
            raise SMTPDataError(*data)

    def _unsaid(self, refusal: Reply, further: int) -> Speaking:
        """Hear the replies to what was said after the refused command, so that the next message hears its own.

        A server that lets the text come although it has nobody to give it to, gets none: a single dot.
        """
        if not _goes_on(refusal):
            self.close()  # type: ignore[attr-defined]
            return
        try:
            for _ in range(further):
                reply = yield
                if not _goes_on(reply) and reply[0] not in (*RECIPIENT_TAKEN, GO_AHEAD):
                    self.close()  # type: ignore[attr-defined]
                    return
            if reply[0] == GO_AHEAD:
                self._say(b".\r\n")
                yield
        except SMTPServerDisconnected:
            # It has said what it had to say of this message, and closed the line.
            return
        yield from self._over(refusal)

    def _over(self, refusal: Reply) -> Speaking:
        """End a refused transaction: the connection begins anew, or is closed where the server closes it."""
        if not _goes_on(refusal):
            self.close()  # type: ignore[attr-defined]
            return
        try:
            self._say(b"RSET\r\n")
            yield
        except SMTPServerDisconnected:
            pass

    def _size(self, text: bytes) -> str:
        return f" SIZE={len(text)}" if self.has_extn("size") else ""  # type: ignore[attr-defined]

    def _say(self, said: bytes) -> None:
        """All of it; what a line does not take at once, as nearly every line does, is waited for."""
        if self.sock is not None and self._waits_not:  # type: ignore[attr-defined]
            try:
                said = said[self.sock.send(said) :]  # type: ignore[attr-defined]
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            except OSError as error:
                self.close()  # type: ignore[attr-defined]
                raise SMTPServerDisconnected(f"Server not connected: {error}") from None
            if not said:
                return
            self.wait_for_it()
            self.send(said)  # type: ignore[attr-defined]
            # What has come meanwhile is the answer: it is not forgotten.
            self.sock.settimeout(0)  # type: ignore[attr-defined]
        else:
            self.send(said)  # type: ignore[attr-defined]


class Client(Transactions, smtplib.SMTP):
    pass


class SecureClient(Transactions, smtplib.SMTP_SSL):
    pass


@lru_cache(maxsize=64)
def _plain(line: bytes) -> Reply | None:
    """A reply of one line, as nearly all are, as smtplib reads it; None of any other line."""
    if line[3:4] == b"-" or not line[:3].isdigit() or len(line) >= LONGEST_LINE:
        return None
    return int(line[:3]), line[4:].strip(b" \t\r\n")


def _goes_on(refusal: Reply) -> bool:
    """Whether a server that gave this reply listens on. What is no refusal at all is not to be trusted any further."""
    return 400 <= refusal[0] < 600 and refusal[0] != CLOSING


def _ended(text: bytes) -> bytes:
    """The text with its dots doubled where a line begins with one, and the final dot."""
    if text.startswith(b"."):
        text = b"." + text
    return text.replace(b"\r\n.", b"\r\n..") + (b".\r\n" if text.endswith(b"\r\n") else b"\r\n.\r\n")
