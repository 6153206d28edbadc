"""Mail over SMTP, by Flask-Mail: with certificates checked, with a time limit, and with the server's reply kept.

A session is one connection, opened by its first message and used for all of them. Whatever a server or a line does
becomes a MailResult:

- accepted: a positive reply to the final dot, with its code and text;
- refused: 4xx for now, 5xx for good, with the reply; the connection goes on to the next message;
- ``server_down``: no connection, no certificate, no sign-in, 421, a line that was cut, no answer in time, or a refusal
  of ourselves (of our sender's address, for one). The session opens a new connection for the next message.

A session sends while its caller waits (``send``), or, on a connection that is open, while its caller watches others
(``begin``).
"""

import smtplib
import ssl
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Self

import flask_mail
from flask import Flask

from adapters.mail.client import CLOSING, Client, Conversation, Reply, SecureClient
from adapters.mail.letter import Letter, NoAddress
from adapters.tls import trusted
from domain.ports import Mail, MailResult

TIMEOUT_SECONDS = 15.0
TOO_LARGE = 552
NOT_SIGNED_IN = (530, 535)


class SmtpMailer:
    """The mailer of an application. ``timeout`` is for each step of the conversation; ``tls`` says whom to trust."""

    def __init__(self, app: Flask, *, timeout: float = TIMEOUT_SECONDS, tls: ssl.SSLContext | None = None) -> None:
        # Flask-Mail sends nothing, in silence, where an application is being tested; here that would count as sent.
        app.config.setdefault("MAIL_SUPPRESS_SEND", False)
        self._mail = CarefulMail(app, timeout, tls or trusted())

    def connect(self) -> "SmtpSession":
        return SmtpSession(self._mail.connect())

    def prepare(self, mails: Sequence[Mail]) -> list[Mail | Letter]:
        sender = str(self._mail.default_sender)
        prepared: list[Mail | Letter] = []
        for mail in mails:
            try:
                prepared.append(Letter.of(mail, sender))
            except NoAddress:
                prepared.append(mail)
        for letter in prepared:
            if isinstance(letter, Letter):
                letter.seal()
        return prepared

    def written(self, mail: Mail) -> bytes:
        return Letter.of(mail, str(self._mail.default_sender)).as_bytes()


class SmtpSession:
    """One connection for many messages; nothing is opened before the first of them."""

    def __init__(self, connection: "CarefulConnection") -> None:
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def send(self, mail: Mail | Letter) -> MailResult:
        try:
            letter = self._letter(mail)
        except NoAddress as error:
            return MailResult(accepted=False, code=0, reply=str(error), permanent=True, recipient_refused=True)
        used_before = self._connection.is_open
        result = self._try(letter)
        if result.server_down and used_before and not self._connection.text_was_sent:
            # The server had closed the idle connection, or closes each after so many messages. Nothing of this message
            # has reached it, so trying once more cannot make two of it.
            result = self._try(letter)
        return result

    def begin(self, mail: Mail | Letter) -> "Exchange | None":
        """Say what one says before the first reply. None where ``send`` has to do it: there is no connection yet."""
        if not self._connection.is_ready:
            return None
        try:
            letter = self._letter(mail)
        except NoAddress:
            return None
        if letter.needs_smtputf8 and not self._connection.takes_smtputf8:
            return None
        return Exchange(self, self._connection, letter)

    def _letter(self, mail: Mail | Letter) -> Letter:
        return mail if isinstance(mail, Letter) else Letter.of(mail, self._connection.sender)

    def _try(self, letter: Letter) -> MailResult:
        connection = self._connection
        try:
            connection.open()
        except (OSError, smtplib.SMTPException, UnicodeError) as error:
            connection.drop()
            return _down(_why_not_open(error, connection))._replace(unconnected=True)
        if letter.needs_smtputf8 and not connection.takes_smtputf8:
            return MailResult(
                accepted=False,
                code=0,
                reply="the mail server takes no addresses with letters beyond ASCII (it does not offer SMTPUTF8)",
                permanent=True,
            )
        result = self.result_of(letter, lambda: connection.send(letter))
        assert result is not None
        return result

    def result_of(self, letter: Letter, talk: Callable[[], Reply | None]) -> MailResult | None:
        """What it means that ``talk`` returns the reply to the final dot, or raises; None where it has no reply yet."""
        connection = self._connection
        try:
            reply = talk()
            return None if reply is None else _accepted(reply)
        except smtplib.SMTPRecipientsRefused as error:
            code, said = next(iter(error.recipients.values()))
            return self._refused(code, said, recipient_refused=True)
        except smtplib.SMTPSenderRefused as error:
            if error.smtp_code >= 500 and error.smtp_code != TOO_LARGE and not letter.needs_smtputf8:
                # It would refuse every message the same way: that is ours to mend and no fault of this one.
                connection.drop()
                return _down(f"the mail server refuses our sender address: {_text(error.smtp_error)}", error.smtp_code)
            return self._refused(error.smtp_code, error.smtp_error)
        except smtplib.SMTPDataError as error:
            return self._refused(error.smtp_code, error.smtp_error)
        except smtplib.SMTPResponseException as error:
            # smtplib itself raises the bare class, for a reply too long to be one.
            connection.drop()
            return _down(f"the mail server does not speak SMTP: {_text(error.smtp_error)}")
        except (smtplib.SMTPException, OSError) as error:
            connection.drop()
            return _down(f"the connection to the mail server was lost: {error}")

    def _refused(self, code: int, reply: bytes | str, *, recipient_refused: bool = False) -> MailResult:
        if code == CLOSING or code in NOT_SIGNED_IN or not 400 <= code < 600:
            self._connection.drop()
            return _down(_text(reply) or f"the mail server answered {code}", max(code, 0))
        return MailResult(
            accepted=False,
            code=code,
            reply=f"{code} {_text(reply)}",
            permanent=code >= 500,
            recipient_refused=recipient_refused,
        )


class Exchange:
    """One message under way on an open connection, whose caller waits for many at once."""

    def __init__(self, session: SmtpSession, connection: "CarefulConnection", letter: Letter) -> None:
        self._session, self._connection, self._letter = session, connection, letter
        self._conversation, self._line = connection.converse(letter)
        self._fileno = self._line.sock.fileno()
        self._began = False
        self._until = monotonic() + connection.mail.timeout

    def fileno(self) -> int:
        return self._fileno

    @property
    def untold(self) -> bool:
        """Of a message that was lost: nothing of its text has gone out, so that ``send`` may try it once more."""
        return not self._connection.text_was_sent

    def go_on(self) -> MailResult | None:
        return self._session.result_of(self._letter, self._talk)

    def _talk(self) -> Reply | None:
        try:
            if not self._began:
                self._began = True
                next(self._conversation)
                return None
            there = self._line.hear()
            reply = self._line.reply_that_came()
            if reply is not None:
                self._until = monotonic() + self._connection.mail.timeout
            while reply is not None:
                self._conversation.send(reply)
                reply = self._line.reply_that_came()
            lost = None if there else "Connection unexpectedly closed"
            if lost is None and monotonic() > self._until:
                lost = "timed out"
            if lost is not None:
                self._line.close()
                self._conversation.throw(smtplib.SMTPServerDisconnected(lost))
        except StopIteration as over:
            return over.value  # type: ignore[no-any-return]
        return None


class CarefulMail(flask_mail.Mail):
    """Flask-Mail with connections that check certificates and do not wait for ever."""

    def __init__(self, app: Flask, timeout: float, tls: ssl.SSLContext) -> None:
        super().__init__(app)
        self.timeout = timeout
        self.tls = tls

    def connect(self) -> "CarefulConnection":
        return CarefulConnection(self)


class CarefulConnection(flask_mail.Connection):
    """A connection that can be opened again after it was lost, and says how the server answered."""

    host: "Client | SecureClient | None"

    @property
    def is_open(self) -> bool:
        return self.host is not None and self.host.sock is not None

    @property
    def sender(self) -> str:
        return str(self.mail.default_sender)

    @property
    def takes_smtputf8(self) -> bool:
        return self.host is not None and self.host.has_extn("smtputf8")

    @property
    def text_was_sent(self) -> bool:
        """Whether the last message got as far as its text, so that the server may have it."""
        return self._last is not None and self._last.text_was_sent

    _last: "Client | SecureClient | None" = None
    _carried = 0

    @property
    def is_ready(self) -> bool:
        """Whether it is open and has not carried MAIL_MAX_EMAILS messages yet."""
        return self.is_open and not (self.mail.max_emails and self._carried >= self.mail.max_emails)

    def open(self) -> None:
        """Be ready for a message: on this connection, or on a new one."""
        self._last = None
        if not self.is_ready:
            self.close()
        if self.host is None:
            self.host = self.configure_host()
            self._carried = 0

    def configure_host(self) -> "Client | SecureClient":
        mail = self.mail
        host: Client | SecureClient
        if mail.use_ssl:
            host = SecureClient(mail.server, mail.port, timeout=mail.timeout, context=mail.tls)
        else:
            host = Client(mail.server, mail.port, timeout=mail.timeout)
        try:
            host.set_debuglevel(int(mail.debug))
            if mail.use_tls:
                host.starttls(context=mail.tls)
            host.ehlo_or_helo_if_needed()
            if mail.username and mail.password:
                host.login(mail.username, mail.password)
        except (OSError, smtplib.SMTPException, UnicodeError):
            host.close()
            raise
        return host

    def send(self, message: Letter, envelope_from: str | tuple[str, str] | None = None) -> tuple[int, bytes]:  # type: ignore[override]
        """Send to the message's one recipient; returns the reply to the final dot. Raises what smtplib raises."""
        assert self.host is not None
        self._carried += 1
        self._last = self.host
        return self.host.hand_over(
            message.envelope_sender, message.recipient, message.as_bytes(), smtputf8=message.needs_smtputf8
        )

    def converse(self, message: Letter) -> tuple[Conversation, "Client | SecureClient"]:
        """The same, for a caller who waits by itself: what there is to say, and the line it is said on."""
        assert self.host is not None
        self._carried += 1
        self._last = self.host
        self.host.wait_not()
        conversation = self.host.conversation(
            message.envelope_sender, message.recipient, message.as_bytes(), smtputf8=message.needs_smtputf8
        )
        return conversation, self.host

    def drop(self) -> None:
        """Forget a connection that is no longer any good."""
        if self.host is not None:
            self.host.close()
            self.host = None

    def close(self) -> None:
        """Say goodbye, if there is still somebody to hear it."""
        if self.host is not None and self.is_open:
            try:
                self.host.wait_for_it()
                self.host.quit()
            except (OSError, smtplib.SMTPException):
                pass
        self.drop()


def _accepted(reply: tuple[int, bytes]) -> MailResult:
    code, text = reply
    return MailResult(accepted=True, code=code, reply=f"{code} {_text(text)}")


def _down(reply: str, code: int = 0) -> MailResult:
    return MailResult(accepted=False, code=code, reply=reply, server_down=True)


def _why_not_open(error: Exception, connection: CarefulConnection) -> str:
    where = f"{connection.mail.server}:{connection.mail.port}"
    match error:
        case ssl.SSLCertVerificationError():
            return f"the certificate of the mail server {where} is not to be trusted: {error.verify_message}"
        case ssl.SSLError():
            return f"no encrypted connection to the mail server {where}: {error.reason or error}"
        case smtplib.SMTPAuthenticationError():
            return f"the mail server {where} refuses MAIL_USERNAME or MAIL_PASSWORD: {_text(error.smtp_error)}"
        case smtplib.SMTPNotSupportedError():
            return f"the mail server {where} does not offer what the settings ask for: {error}"
        case smtplib.SMTPResponseException():
            return f"the mail server {where} does not take mail now: {error.smtp_code} {_text(error.smtp_error)}"
        case UnicodeError():
            # smtplib writes both in ASCII; so does the look-up of a host's name.
            return f"MAIL_SERVER, MAIL_USERNAME or MAIL_PASSWORD cannot be written in ASCII, which SMTP needs ({where})"
        case TimeoutError():
            return f"the mail server {where} does not answer"
    return f"the mail server {where} cannot be reached: {error}"


def _text(reply: bytes | str) -> str:
    """A reply as one line of printed characters; servers write what they like, and not all of it can be stored."""
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
    if text.isprintable() and "  " not in text:
        return text.strip()
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
