"""Every mail in both languages, as it goes out: the one that was read and approved, and without a fault of form."""

import re
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP, strict
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import html5lib
import pytest

from tests.mails import FOLDER, LANGUAGES, NAMES, Written, every_mail

LIMIT = 100_000
"""Mail programs cut off what is longer."""

LONGEST_LINE, LONGEST_FOLDED = 998, 78
"""Octets without the line break: what RFC 5322 allows, and what it recommends."""

ONCE = ("From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "Auto-Submitted", "Feedback-ID")
NEVER = ("List-Unsubscribe", "List-Unsubscribe-Post", "Precedence", "Bcc", "Cc", "Sender", "Return-Path")


@cache
def mails() -> dict[tuple[str, str], Written]:
    with TemporaryDirectory() as folder:
        return {(mail.name, mail.language): mail for mail in every_mail(Path(folder))}


@pytest.fixture(
    params=[(name, language) for name in NAMES for language in LANGUAGES], ids=lambda param: "-".join(param)
)
def mail(request: pytest.FixtureRequest) -> Written:
    return mails()[request.param]


def test_it_is_the_mail_that_was_read_and_approved(mail: Written) -> None:
    for path, content in mail.files.items():
        assert path.is_file(), "make mail-snapshots writes it"
        assert content == path.read_text(encoding="utf-8"), "after make mail-snapshots, read the difference"


def test_no_mail_is_kept_that_is_not_sent() -> None:
    kept = {path for path in FOLDER.rglob("*") if path.is_file()}
    assert kept == {path for mail in mails().values() for path in mail.files}


def test_the_strict_parser_finds_no_defect(mail: Written) -> None:
    message = message_from_bytes(mail.raw, policy=strict)
    for part in message.walk():
        assert part.defects == []
        assert [defect for value in part.values() for defect in value.defects] == []
    # What a relay does that writes it anew leaves it as it was.
    again = message_from_bytes(mail.message.as_bytes(policy=SMTP), policy=strict)
    assert [part.get_content_type() for part in again.walk()] == [part.get_content_type() for part in message.walk()]


def test_headers_are_those_of_rfc_5322_each_once(mail: Written) -> None:
    head, _, _ = mail.raw.partition(b"\r\n\r\n")
    names = [line.partition(b":")[0].decode() for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))]
    assert [name for name in ONCE if names.count(name) != 1] == []
    assert [name for name in NEVER if name in names] == []
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[!-9;-~]+", name) for name in names)
    assert max(map(len, head.split(b"\r\n"))) <= LONGEST_FOLDED
    assert re.fullmatch(r"<[^<>@\s]+@lumio\.example>", mail.message["Message-ID"])
    assert parsedate_to_datetime(mail.message["Date"]).tzinfo is not None
    assert [str(one) for one in mail.message["From"].addresses] == ["Lumio <membership@lumio.example>"]
    assert [str(one) for one in mail.message["To"].addresses] == ["mia@example.org"]


def test_it_is_seven_bit_in_lines_that_every_server_takes(mail: Written) -> None:
    lines = mail.raw.split(b"\r\n")
    assert mail.raw.isascii()
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", mail.raw)
    assert not any(b"\n" in line or b"\r" in line for line in lines)
    assert max(map(len, lines)) <= LONGEST_LINE
    assert mail.raw.endswith(b"\r\n")
    assert len(mail.raw) < LIMIT
    assert len(mail.html.encode()) < LIMIT


def test_the_parts_are_what_mime_wants_and_decode_to_what_was_composed(mail: Written) -> None:
    message: EmailMessage = mail.message
    kinds = [part.get_content_type() for part in message.walk()]
    body = ["multipart/alternative", "text/plain", "text/html"]
    assert kinds in (body, ["multipart/mixed", *body, "text/calendar"])
    assert (mail.mail.calendar is not None) == (kinds[-1] == "text/calendar")
    for part in message.walk():
        if part.is_multipart():
            assert part["Content-Transfer-Encoding"] in (None, "7bit")
        else:
            assert part.get_content_charset() == "utf-8"
            assert part["Content-Transfer-Encoding"] in ("quoted-printable", "base64")
    text = message.get_body(("plain",))
    assert text is not None
    assert text.get_content().replace("\r\n", "\n") == mail.mail.text
    assert mail.html.strip() == mail.mail.html.strip()


def test_the_html_is_html(mail: Written) -> None:
    parser = html5lib.HTMLParser()
    page = parser.parse(mail.html)
    assert parser.errors == []
    assert page.get("lang") == mail.language


def test_it_says_what_it_is_in_a_subject_that_fits(mail: Written) -> None:
    """What is left of a subject on a phone has to be enough: the day, or what is wanted, stands early in it."""
    assert len(mail.mail.subject) <= 110
    assert not mail.mail.subject.endswith((".", ":"))
    assert "Lumio" in mail.mail.subject
