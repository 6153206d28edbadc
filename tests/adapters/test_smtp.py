"""What SMTP servers, lines and addresses do, and what becomes of it; every server here is a real one."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.smtp import AuthResult
from flask import Flask

from adapters.mail.smtp import SmtpMailer
from domain.ports import Mail, MailResult
from tests.doubles import SmtpCatcher

MAIL = Mail(
    to="mia@example.org",
    subject="Do you want to keep your Lumio membership?",
    text="Guten Tag,\n\nwir haben bemerkt …\n",
    html="<p>Guten Tag</p>",
    message_id="<0123456789abcdef0123456789abcdef@lumio.example>",
    headers={"Date": "Wed, 03 Jun 2026 10:00:00 +0000"},
)


def mailer(port: int, *, timeout: float = 60, tls: ssl.SSLContext | None = None, **config: object) -> SmtpMailer:
    app = Flask("mail")
    app.testing = True
    app.config.update(
        {
            "MAIL_SERVER": "127.0.0.1",
            "MAIL_PORT": port,
            "MAIL_DEFAULT_SENDER": "Lumio <membership@lumio.example>",
            **config,
        }
    )
    with app.app_context():
        return SmtpMailer(app, timeout=timeout, tls=tls)


def send(server: SmtpCatcher, *mails: Mail, **options: object) -> list[MailResult]:
    with mailer(server.port, **options).connect() as connection:  # type: ignore[arg-type]
        return [connection.send(mail) for mail in mails]


def to(address: str) -> Mail:
    return MAIL._replace(to=address)


def test_an_accepted_mail_gives_the_reply_to_its_final_dot(smtp: SmtpCatcher) -> None:
    [result] = send(smtp, MAIL)
    assert result == MailResult(accepted=True, code=250, reply="250 OK queued")


def test_a_reply_is_one_line_of_printed_characters(smtp: SmtpCatcher) -> None:
    """PostgreSQL stores no NUL: what cannot be recorded would be sent again and again."""
    smtp.replies["gone@example.org"] = "550 5.1.1 no\x00such\x1b[31m user"
    assert [result.reply for result in send(smtp, to("gone@example.org"))] == ["550 5.1.1 no such [31m user"]


def test_the_headers_a_notice_needs_are_there_and_the_text_arrives_whole(smtp: SmtpCatcher) -> None:
    send(smtp, MAIL._replace(headers={**MAIL.headers, "X-Dormouse": "warning"}))
    message = smtp.mails[0].message
    assert message["Message-ID"] == MAIL.message_id
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Dormouse"] == "warning"
    assert message["Date"].datetime.isoformat() == "2026-06-03T10:00:00+00:00"
    assert message["From"] == "Lumio <membership@lumio.example>"
    assert message["To"] == "mia@example.org"
    assert smtp.mails[0].sender == "membership@lumio.example"
    text, html = message.iter_parts()
    assert text.get_content().replace("\r\n", "\n") == MAIL.text
    assert html.get_content().strip() == MAIL.html
    assert not any(part.defects for part in message.walk())


def test_no_line_is_too_long_for_a_server(smtp: SmtpCatcher) -> None:
    long = "Größe " * 2000
    send(smtp, MAIL._replace(text=long, html=f"<p>{long}</p>", subject="Mitgliedschaft für Äpfel und Öl " * 20))
    lines = smtp.mails[0].raw.splitlines()
    assert max(len(line) for line in lines) <= 78
    text, html = smtp.mails[0].message.iter_parts()
    assert text.get_content().strip() == long.strip()
    assert long.strip() in html.get_content()
    assert smtp.mails[0].message["Subject"] == ("Mitgliedschaft für Äpfel und Öl " * 20).strip()


@pytest.mark.parametrize(
    "hostile",
    [
        "Mia\r\nBcc: all@example.org",
        "Mia\nX-Injected: yes",
        "Mia\r\n\r\n<script>alert(1)</script>",
        "Mia\u2028Bcc: all@example.org",
        "Mia\x00Bcc: all@example.org",
        "Mia\x0bBcc: all@example.org",
        "😴" * 200,
        '"<>,;:\\"' * 20,
    ],
)
def test_a_hostile_name_never_becomes_a_header(smtp: SmtpCatcher, hostile: str) -> None:
    ordinary = MAIL._replace(subject="Mia")
    send(smtp, ordinary, MAIL._replace(subject=hostile, headers={**MAIL.headers, "X-Name": hostile}))
    before, after = (mail.message for mail in smtp.mails)
    assert sorted({*before.keys(), "X-Name"}) == sorted(after.keys())
    assert smtp.mails[1].recipients == ["mia@example.org"]
    assert len(after["Subject"].splitlines()) == 1
    assert not after.defects


def test_one_connection_carries_all_messages_and_a_refusal_stops_none(smtp: SmtpCatcher) -> None:
    smtp.replies["gone@example.org"] = "550 5.1.1 no such user"
    smtp.replies["full@example.org"] = "451 4.2.2 mailbox full"
    results = send(smtp, to("a@example.org"), to("gone@example.org"), to("full@example.org"), to("b@example.org"))
    assert [(r.accepted, r.code, r.permanent, r.server_down) for r in results] == [
        (True, 250, False, False),
        (False, 550, True, False),
        (False, 451, False, False),
        (True, 250, False, False),
    ]
    assert results[1].reply == "550 5.1.1 no such user"
    assert results[1].recipient_refused
    assert smtp.connections == 1


def test_a_refusal_of_the_text_is_not_one_of_the_address(smtp: SmtpCatcher) -> None:
    smtp.replies["*"] = "554 5.7.1 looks like spam"
    [result] = send(smtp, MAIL)
    assert (result.code, result.permanent, result.recipient_refused) == (554, True, False)
    smtp.replies["*"] = "452 4.3.1 no space"
    [result] = send(smtp, MAIL)
    assert (result.code, result.permanent, result.server_down) == (452, False, False)


def test_421_means_the_server_is_away_and_the_next_message_gets_a_new_connection(smtp: SmtpCatcher) -> None:
    smtp.replies["busy@example.org"] = "421 4.3.2 shutting down"
    refused, accepted = send(smtp, to("busy@example.org"), MAIL)
    assert (refused.server_down, refused.code, refused.reply) == (True, 421, "4.3.2 shutting down")
    assert accepted.accepted
    assert smtp.connections == 2


def test_a_line_that_is_cut_in_the_text_is_not_sent_again_at_once(smtp: SmtpCatcher) -> None:
    smtp.drops.add("cut@example.org")
    first, cut, last = send(smtp, MAIL, to("cut@example.org"), MAIL)
    assert first.accepted
    assert last.accepted
    assert cut.server_down
    assert "lost" in cut.reply
    # The server may have had it: a second try within the session could make two of it.
    assert smtp.connections == 2


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again_unseen(smtp: SmtpCatcher) -> None:
    session = mailer(smtp.port).connect()
    with session as connection:
        assert connection.send(MAIL).accepted
        session._connection.host.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        assert connection.send(MAIL).accepted
    assert len(smtp.mails) == 2


def test_a_server_that_hangs_is_given_up_after_the_time_limit(smtp: SmtpCatcher) -> None:
    smtp.hangs.add("slow@example.org")
    slow, accepted = send(smtp, to("slow@example.org"), MAIL, timeout=1)
    assert slow.server_down
    assert "timed out" in slow.reply
    assert accepted.accepted


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_server_that_never_greets_is_given_up_after_the_time_limit(encrypted: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        waiting = mailer(mute.getsockname()[1], timeout=0.3, MAIL_USE_SSL=encrypted)
        with waiting.connect() as connection:
            result = connection.send(MAIL)
    assert result.server_down
    assert "mail server 127.0.0.1:" in result.reply


def test_where_nobody_listens_the_server_is_away() -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        port = nobody_listens.getsockname()[1]
        with mailer(port).connect() as connection:
            results = [connection.send(MAIL), connection.send(MAIL)]
    assert all(result.server_down and f"127.0.0.1:{port}" in result.reply for result in results)


def test_a_refused_sender_is_ours_to_mend_and_no_fault_of_the_message(smtp: SmtpCatcher) -> None:
    smtp.sender_reply = "550 5.7.1 not your domain"
    [result] = send(smtp, MAIL)
    assert (result.server_down, result.permanent) == (True, False)
    assert "our sender address: 5.7.1 not your domain" in result.reply
    smtp.sender_reply = "451 4.7.1 slow down"
    [result] = send(smtp, MAIL)
    assert (result.server_down, result.permanent, result.code) == (False, False, 451)
    smtp.sender_reply = "552 5.3.4 message too large"
    [result] = send(smtp, MAIL)
    assert (result.server_down, result.permanent) == (False, True)


def test_a_host_with_letters_beyond_ascii_is_written_as_the_registries_do(smtp: SmtpCatcher) -> None:
    send(smtp, to("mia@straße.example"))
    assert smtp.mails[0].recipients == ["mia@xn--strae-oqa.example"]
    assert smtp.mails[0].message["To"] == "mia@xn--strae-oqa.example"


def test_an_address_beyond_ascii_goes_to_a_server_that_takes_it() -> None:
    server = SmtpCatcher(enable_SMTPUTF8=True)
    server.start()
    try:
        [result] = send(server, to("jürgen@straße.example")._replace(subject="Ihre Mitgliedschaft für Öl"))
    finally:
        server.stop()
    assert result.accepted
    [mail] = server.mails
    assert mail.recipients == ["jürgen@xn--strae-oqa.example"]
    assert "To: jürgen@xn--strae-oqa.example".encode() in mail.raw
    assert mail.message["Subject"] == "Ihre Mitgliedschaft für Öl"
    assert not mail.message.defects


def test_a_server_without_smtputf8_cannot_take_such_an_address_and_the_next_mail_goes_out() -> None:
    server = SmtpCatcher(enable_SMTPUTF8=False)
    server.start()
    try:
        refused, accepted = send(server, to("jürgen@example.org"), MAIL)
    finally:
        server.stop()
    assert (refused.permanent, refused.server_down) == (True, False)
    assert "SMTPUTF8" in refused.reply
    assert accepted.accepted


@pytest.mark.parametrize(
    "address",
    [
        "",
        "mia",
        "@example.org",
        "mia@",
        "a@example.org, b@example.org",
        "mia@example.org\r\nRCPT TO:<x@y.z>",
        "a b@c.d",
    ],
)
def test_what_is_no_address_is_refused_here_and_stops_nothing(smtp: SmtpCatcher, address: str) -> None:
    refused, accepted = send(smtp, to(address), MAIL)
    assert (refused.accepted, refused.permanent, refused.recipient_refused) == (False, True, True)
    assert accepted.accepted
    assert [mail.recipients for mail in smtp.mails] == [["mia@example.org"]]


# Encryption and sign-in

CERTIFICATE = Path(__file__).with_name("self-signed.pem")
"""A certificate for 127.0.0.1 that nobody but itself vouches for, with its key: worth nothing outside these tests."""


@pytest.fixture
def starttls() -> Iterator[SmtpCatcher]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    server = SmtpCatcher(
        tls_context=context,
        require_starttls=True,
        authenticator=lambda server, session, envelope, mechanism, data: AuthResult(
            success=data.password == b"right", handled=False
        ),
    )
    server.start()
    yield server
    server.stop()


def test_a_certificate_nobody_vouches_for_is_refused_before_anything_is_said(starttls: SmtpCatcher) -> None:
    [result] = send(starttls, MAIL, MAIL_USE_TLS=True, MAIL_USERNAME="lumio", MAIL_PASSWORD="right")
    assert result.server_down
    assert "certificate" in result.reply
    assert "self-signed" in result.reply
    assert starttls.mails == []


def test_a_certificate_that_is_trusted_carries_mail_and_sign_in(starttls: SmtpCatcher) -> None:
    options = {"MAIL_USE_TLS": True, "MAIL_USERNAME": "lumio", "tls": ssl.create_default_context(cafile=CERTIFICATE)}
    [result] = send(starttls, MAIL, MAIL_PASSWORD="right", **options)
    assert result.accepted
    [result] = send(starttls, MAIL, MAIL_PASSWORD="wrong", **options)
    assert result.server_down
    assert "MAIL_USERNAME or MAIL_PASSWORD" in result.reply
    [result] = send(starttls, MAIL, MAIL_PASSWORD="pässword", **options)
    assert result.server_down
    assert "ASCII" in result.reply


def test_a_server_without_the_encryption_that_is_asked_for_gets_nothing(smtp: SmtpCatcher) -> None:
    [result] = send(smtp, MAIL, MAIL_USE_TLS=True)
    assert result.server_down
    assert "STARTTLS" in result.reply
    [result] = send(smtp, MAIL, MAIL_USE_SSL=True, timeout=0.5)
    assert result.server_down
    assert smtp.mails == []


def test_a_server_that_wants_encryption_first_is_not_a_bounce_of_the_member(starttls: SmtpCatcher) -> None:
    [result] = send(starttls, MAIL)
    assert (result.server_down, result.permanent) == (True, False)
