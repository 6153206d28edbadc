"""What the doctor says of mail: encryption, sign-in and sender at a real server, a real mailbox, a real name server."""

import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult
from flask import Flask

from commands.doctor_mail import checks
from services.installation import Installation
from tests.conftest import make_settings
from tests.doubles import FrozenClock, NoDns, SmtpCatcher
from tests.factories import at
from tests.imap import CERTIFICATE, ImapServer
from tests.names import NameServer


@pytest.fixture
def encrypted() -> Iterator[SmtpCatcher]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    server = SmtpCatcher(
        tls_context=context,
        authenticator=lambda server, session, envelope, mechanism, data: AuthResult(
            success=data.password == b"right", handled=False
        ),
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))


def found(tmp_path: Any, server: SmtpCatcher, now: str = "2026-06-03", **changes: object) -> dict[str, str]:
    options = {"mail_server": server.host, "mail_port": server.port, **changes}
    settings = make_settings("sqlite:///none.db", tmp_path, **options)
    return {one.name: f"{'ok' if one.ok else 'BAD'} {one.text}" for one in checks(settings, NoDns(), None, at(now))}


SIGNING_IN = {"mail_use_tls": True, "mail_username": "lumio", "mail_password": "right"}


@pytest.mark.usefixtures("trusted")
def test_encryption_and_sign_in_are_tried(tmp_path: Any, encrypted: SmtpCatcher) -> None:
    said = found(tmp_path, encrypted, **SIGNING_IN)
    where = f"127.0.0.1:{encrypted.port}"
    assert said["mail server"] == f"ok {where} answers by TLSv1.3, with a certificate that is good until 2126-10-29"
    assert said["mail sign-in"] == "ok as lumio"
    assert said["mail sender"] == "ok membership@lumio.example is taken"
    assert encrypted.mails == []


@pytest.mark.usefixtures("trusted")
def test_a_certificate_that_runs_out_is_bad_before_it_has(tmp_path: Any, encrypted: SmtpCatcher) -> None:
    assert found(tmp_path, encrypted, "2126-10-10", mail_use_tls=True)["mail server"].startswith("ok ")
    assert found(tmp_path, encrypted, "2126-10-20", mail_use_tls=True)["mail server"].startswith("BAD ")


def test_a_certificate_nobody_vouches_for(tmp_path: Any, encrypted: SmtpCatcher) -> None:
    said = found(tmp_path, encrypted, **SIGNING_IN)
    assert list(said) == ["mail server", "DNS"]
    assert "self-signed certificate" in said["mail server"]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mail_password": "wrong"}, "BAD 5.7.8 Authentication credentials invalid: check MAIL_USERNAME"),
        ({"mail_password": "pässword"}, "BAD MAIL_USERNAME and MAIL_PASSWORD must be ASCII"),
        ({"mail_password": None}, "BAD MAIL_USERNAME is set and MAIL_PASSWORD is not"),
    ],
)
def test_who_cannot_sign_in_is_told_why(
    tmp_path: Any, encrypted: SmtpCatcher, changes: dict[str, Any], expected: str
) -> None:
    said = found(tmp_path, encrypted, **{**SIGNING_IN, **changes})
    assert said["mail sign-in"].startswith(expected)
    assert "wrong" not in str(said)


def test_a_server_that_knows_no_sign_in(tmp_path: Any, smtp: SmtpCatcher) -> None:
    said = found(tmp_path, smtp, mail_username="lumio", mail_password="right")
    assert said["mail sign-in"].startswith("BAD SMTP AUTH extension not supported by server")


def test_a_password_is_not_sent_in_the_clear_to_find_out(tmp_path: Any, smtp: SmtpCatcher) -> None:
    said = found(tmp_path, smtp, mail_server="smtp.example.org", mail_username="lumio", mail_password="right")
    assert said["mail sign-in"].startswith("BAD the password would be read on the way")
    assert smtp.connections == 0


def test_a_sender_that_is_refused(tmp_path: Any, smtp: SmtpCatcher) -> None:
    smtp.sender_reply = "553 5.7.1 not owned by you"
    said = found(tmp_path, smtp, bounce_address="bounces@lumio.example")
    assert said["mail sender"] == f"BAD bounces+{'0' * 32}@lumio.example is refused: 553 5.7.1 not owned by you"


def test_the_mailbox_of_bounces_is_opened(tmp_path: Any, smtp: SmtpCatcher) -> None:
    settings = make_settings("sqlite:///none.db", tmp_path, mail_server=smtp.host, mail_port=smtp.port)
    server = ImapServer()
    server.start()
    try:
        for mailbox, expected in (
            (server.mailbox(), "can be opened"),
            (server.mailbox(password="x"), "AUTHENTICATION"),
        ):
            [line] = [one for one in checks(settings, NoDns(), mailbox, at("2026-06-03")) if "mailbox" in one.name]
            assert line.ok is (expected == "can be opened")
            assert expected in line.text
    finally:
        server.stop()


def test_the_doctor_asks_the_name_servers(make_app: Callable[..., Flask], clock: FrozenClock) -> None:
    app = make_app(public_url="https://members.example.org")
    with NameServer({"lumio.example": {"A": ["192.0.2.1"]}}) as dns:
        installation: Installation = app.extensions["dormouse"]
        app.extensions["dormouse"] = replace(installation, dns=dns)
        with app.app_context():
            result = app.test_cli_runner().invoke(args=["doctor"])
    assert result.exit_code == 1
    assert "ok   sender: lumio.example takes mail at its own address" in result.stdout
    assert "BAD  SPF: lumio.example: it has no SPF record" in result.stdout
    assert "BAD  DMARC: _dmarc.lumio.example has no record" in result.stdout
