"""smtplib's client for one message to one address: MAIL, RCPT and DATA go out together where a server allows.

RFC 2920 (PIPELINING) saves two of four round trips. Each command still gets its own reply, and what one of them says
counts as it does without: the first refusal is the message's, and the text goes out only where all three were taken.
"""

import smtplib
from smtplib import SMTPDataError, SMTPRecipientsRefused, SMTPSenderRefused, SMTPServerDisconnected

CLOSING = 421
GO_AHEAD = 354
TAKEN = 250
RECIPIENT_TAKEN = (TAKEN, 251)

Reply = tuple[int, bytes]


class Transactions:
    """Mixed into smtplib's classes."""

    text_was_sent = False
    """Whether the last message got as far as its text, so that the server may have it."""

    def hand_over(self, sender: str, recipient: str, text: bytes, *, smtputf8: bool = False) -> Reply:
        """Send one message; returns the positive reply to its final dot, and raises what ``sendmail`` raises.

        Addresses are as ``letter.envelope_address`` gives them, ``text`` has CRLF at the end of each line. After a
        refusal the connection is ready for the next message, unless the server closed it.
        """
        self.text_was_sent = False
        commands = (
            f"MAIL FROM:<{sender}>{self._size(text)}{' SMTPUTF8' if smtputf8 else ''}\r\n".encode(),
            f"RCPT TO:<{recipient}>\r\n".encode(),
            b"DATA\r\n",
        )
        if self.has_extn("pipelining"):  # type: ignore[attr-defined]
            self._together(commands, sender, recipient)
        else:
            self._one_by_one(commands, sender, recipient)
        self.text_was_sent = True
        self._say(_ended(text))
        reply = self._heard()
        if reply[0] != TAKEN:
            self._over(reply)
            raise SMTPDataError(*reply)
        return reply

    def _one_by_one(self, commands: tuple[bytes, bytes, bytes], sender: str, recipient: str) -> None:
        self._say(commands[0])
        mail = self._heard()
        if mail[0] != TAKEN:
            self._over(mail)
            raise SMTPSenderRefused(*mail, sender)
        self._say(commands[1])
        rcpt = self._heard()
        if rcpt[0] not in RECIPIENT_TAKEN:
            self._over(rcpt)
            raise SMTPRecipientsRefused({recipient: rcpt})
        self._say(commands[2])
        data = self._heard()
        if data[0] != GO_AHEAD:
            self._over(data)
            raise SMTPDataError(*data)

    def _together(self, commands: tuple[bytes, bytes, bytes], sender: str, recipient: str) -> None:
        self._say(b"".join(commands))
        mail = self._heard()
        if mail[0] != TAKEN:
            self._unsaid(mail, further=2)
            raise SMTPSenderRefused(*mail, sender)
        rcpt = self._heard()
        if rcpt[0] not in RECIPIENT_TAKEN:
            self._unsaid(rcpt, further=1)
            raise SMTPRecipientsRefused({recipient: rcpt})
        data = self._heard()
        if data[0] != GO_AHEAD:
            self._over(data)
            raise SMTPDataError(*data)

    def _unsaid(self, refusal: Reply, further: int) -> None:
        """Hear the replies to what was said after the refused command, so that the next message hears its own.

        A server that lets the text come although it has nobody to give it to, gets none: a single dot.
        """
        if not _goes_on(refusal):
            self.close()  # type: ignore[attr-defined]
            return
        try:
            for _ in range(further):
                reply = self._heard()
                if not _goes_on(reply) and reply[0] not in (*RECIPIENT_TAKEN, GO_AHEAD):
                    self.close()  # type: ignore[attr-defined]
                    return
            if reply[0] == GO_AHEAD:
                self._say(b".\r\n")
                self._heard()
        except SMTPServerDisconnected:
            # It has said what it had to say of this message, and closed the line.
            return
        self._over(refusal)

    def _over(self, refusal: Reply) -> None:
        """End a refused transaction: the connection begins anew, or is closed where the server closes it."""
        if not _goes_on(refusal):
            self.close()  # type: ignore[attr-defined]
            return
        try:
            self._say(b"RSET\r\n")
            self._heard()
        except SMTPServerDisconnected:
            pass

    def _size(self, text: bytes) -> str:
        return f" SIZE={len(text)}" if self.has_extn("size") else ""  # type: ignore[attr-defined]

    def _say(self, said: bytes) -> None:
        self.send(said)  # type: ignore[attr-defined]

    def _heard(self) -> Reply:
        reply: Reply = self.getreply()  # type: ignore[attr-defined]
        return reply


class Client(Transactions, smtplib.SMTP):
    pass


class SecureClient(Transactions, smtplib.SMTP_SSL):
    pass


def _goes_on(refusal: Reply) -> bool:
    """Whether a server that gave this reply listens on. What is no refusal at all is not to be trusted any further."""
    return 400 <= refusal[0] < 600 and refusal[0] != CLOSING


def _ended(text: bytes) -> bytes:
    """The text with its dots doubled where a line begins with one, and the final dot."""
    if text.startswith(b"."):
        text = b"." + text
    return text.replace(b"\r\n.", b"\r\n..") + (b".\r\n" if text.endswith(b"\r\n") else b"\r\n.\r\n")
