"""The demo's mail server: takes every mail over real SMTP and keeps it as a file."""

import smtplib
from email.message import EmailMessage
from pathlib import Path

from blueprints.demo import mailbox
from commands.demo.catcher import Catcher


def post(catcher: Catcher, to: str, subject: str) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "membership@example.com", to, subject
    mail["Date"] = "Sun, 22 Nov 2026 20:00:00 +0000"
    mail.set_content("Read https://example.org/check-in/abc today.\n")
    head = "<!doctype html><html lang='en'><head><title>Read</title></head>"
    body = "<body><p>Read <a href='https://example.org/check-in/abc'>this</a>.</p></body></html>"
    mail.add_alternative(head + body, subtype="html")
    with smtplib.SMTP(catcher.host, catcher.port) as connection:
        connection.send_message(mail)


def test_a_mail_is_kept_whole_and_read_back(tmp_path: Path) -> None:
    with Catcher(tmp_path) as catcher:
        post(catcher, "anna@example.org", "Grüße")
    (mail,) = mailbox.received(tmp_path)
    assert (mail.to, mail.subject, mail.number) == ("anna@example.org", "Grüße", 1)
    assert mail.links == ["https://example.org/check-in/abc"]
    assert "<p>Read" in mail.html
    assert ("Subject", "Grüße") in mail.raw_headers


def test_the_mailbox_is_newest_first_and_can_be_narrowed_to_an_address(tmp_path: Path) -> None:
    with Catcher(tmp_path) as catcher:
        post(catcher, "anna@example.org", "first")
        post(catcher, "ben@example.org", "second")
        post(catcher, "anna@example.org", "third")
    assert [mail.subject for mail in mailbox.received(tmp_path)] == ["third", "second", "first"]
    assert [mail.subject for mail in mailbox.received(tmp_path, to=" Anna@Example.org ")] == ["third", "first"]
    assert mailbox.count(tmp_path) == 3


def test_counting_goes_on_after_a_restart(tmp_path: Path) -> None:
    for subject in ("before", "after"):
        with Catcher(tmp_path) as catcher:
            post(catcher, "anna@example.org", subject)
    assert [mail.subject for mail in mailbox.received(tmp_path)] == ["after", "before"]


def test_a_mail_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert mailbox.read(tmp_path, 7) is None
