"""The doctor's look at mail: the server it goes out by, the mailbox of bounces, and what DNS says of the sender."""

import smtplib
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parseaddr

from commands.failures import flat
from domain import return_path
from domain.errors import MailboxAway
from domain.ports import Dns, Mailbox
from services.mail import sender_domain, spf
from services.mail.sample import NOBODY
from services.mail.sender_domain import Checked
from settings import Settings

SMTP_TIMEOUT = 10
RUNS_OUT = timedelta(days=14)
"""A certificate that ends sooner should have been renewed by now."""


def checks(settings: Settings, dns: Dns, mailbox: Mailbox | None, now: datetime) -> Iterator[Checked]:
    yield from _server(settings, now)
    if mailbox is not None:
        yield _mailbox(settings, mailbox)
    yield from sender_domain.checks(settings, dns)


def _server(settings: Settings, now: datetime) -> Iterator[Checked]:
    """Greet the mail server as delivery does, and send nothing."""
    where = f"{settings.mail_server}:{settings.mail_port}"
    encrypted = settings.mail_use_tls or settings.mail_use_ssl
    if settings.mail_username and not settings.mail_password:
        yield Checked("mail sign-in", False, "MAIL_USERNAME is set and MAIL_PASSWORD is not: nobody signs in")
    if settings.mail_username and settings.mail_password and not encrypted and not spf.is_local(settings.mail_server):
        # It is not tried either.
        yield Checked("mail sign-in", False, "the password would be read on the way: set MAIL_USE_TLS or MAIL_USE_SSL")
        return
    context = ssl.create_default_context()
    try:
        with _connected(settings, context) as server:
            server.ehlo_or_helo_if_needed()
            offers_tls = server.has_extn("starttls")
            if settings.mail_use_tls:
                server.starttls(context=context)
                server.ehlo()
            yield _encryption(where, server, encrypted, offers_tls, now)
            yield from _sign_in(settings, server)
            yield _takes_sender(settings, server)
    except (OSError, smtplib.SMTPException) as error:
        said = flat(str(error)) or type(error).__name__
        yield Checked("mail server", False, f"{where}: {said}: check MAIL_SERVER …")


def _connected(settings: Settings, context: ssl.SSLContext) -> smtplib.SMTP:
    host, port = settings.mail_server, settings.mail_port
    if settings.mail_use_ssl:
        return smtplib.SMTP_SSL(host, port, timeout=SMTP_TIMEOUT, context=context)
    return smtplib.SMTP(host, port, timeout=SMTP_TIMEOUT)


def _encryption(where: str, server: smtplib.SMTP, encrypted: bool, offers_tls: bool, now: datetime) -> Checked:
    if not encrypted:
        if offers_tls and not spf.is_local(where.rpartition(":")[0]):
            return Checked("mail server", False, f"{where} offers STARTTLS: set MAIL_USE_TLS, or all mail can be read")
        return Checked("mail server", True, f"{where} answers, without encryption")
    assert isinstance(server.sock, ssl.SSLSocket)
    certificate = server.sock.getpeercert() or {}
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    text = f"{where} answers by {server.sock.version()}, with a certificate that is good until {ends:%Y-%m-%d}"
    return Checked("mail server", ends - now > RUNS_OUT, text)


def _sign_in(settings: Settings, server: smtplib.SMTP) -> Iterator[Checked]:
    if not (settings.mail_username and settings.mail_password):
        return
    try:
        server.login(settings.mail_username, settings.mail_password)
    except (smtplib.SMTPAuthenticationError, smtplib.SMTPNotSupportedError) as error:
        reply = error.smtp_error if isinstance(error, smtplib.SMTPAuthenticationError) else str(error)
        said = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
        yield Checked("mail sign-in", False, f"{flat(said)}: check MAIL_USERNAME and MAIL_PASSWORD")
    except UnicodeEncodeError:
        yield Checked(
            "mail sign-in", False, "MAIL_USERNAME and MAIL_PASSWORD must be ASCII: SMTP knows no other letters"
        )
    else:
        yield Checked("mail sign-in", True, f"as {settings.mail_username}")


def _takes_sender(settings: Settings, server: smtplib.SMTP) -> Checked:
    """Whether it would take a mail from us: some want the sender to be the one who has signed in."""
    sender = parseaddr(settings.mail_default_sender)[1]
    if settings.bounce_address:
        sender = return_path.of_message(settings.bounce_address, NOBODY)
    code, reply = server.mail(sender)
    server.rset()
    if code >= 400:
        said = flat(reply.decode("utf-8", "replace"))
        return Checked("mail sender", False, f"{sender} is refused: {code} {said}")
    return Checked("mail sender", True, f"{sender} is taken")


def _mailbox(settings: Settings, mailbox: Mailbox) -> Checked:
    where = f"{settings.bounce_imap_folder} at {settings.bounce_imap_server}:{settings.bounce_imap_port}"
    try:
        with mailbox.visit():
            return Checked("bounce mailbox", True, f"{where} can be opened")
    except MailboxAway as error:
        return Checked("bounce mailbox", False, f"{error}: check BOUNCE_IMAP_SERVER …")
