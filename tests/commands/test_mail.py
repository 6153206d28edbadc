"""`flask mail` and the list of whom no mail reaches."""

import os
import shutil
from collections.abc import Callable
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from domain.notices import Kind
from models import Member, Message, db
from tests import factories
from tests.conftest import NOW
from tests.doubles import SmtpCatcher
from tests.services.support import opened
from tests.services.test_bounces import MESSAGE_ID, PUBLIC_ID, raw


@pytest.fixture
def warned(session: Session, app: Flask) -> Member:
    member = factories.dormant(
        session, external_id="m-1", name='=HYPERLINK("http://example.org")', email="mia@dead.example"
    )
    session.commit()
    opened(session, app.extensions["dormouse"].settings, NOW)
    session.execute(update(Message).values(public_id=PUBLIC_ID, message_id=MESSAGE_ID))
    session.commit()
    return member


def run(app: Flask, *args: str, **more: Any) -> Result:
    result: Result = app.test_cli_runner().invoke(args=[*args], **more)
    db.session.rollback()
    return result


def test_a_language_that_there_is_not_is_named(app: Flask, tmp_path: Path) -> None:
    for command in (("preview", "warning", "--out", str(tmp_path / "previews")), ("test", "me@example.org")):
        for locale in ("fr", "../../x", ""):
            result = run(app, "mail", *command, "--locale", locale)
            assert (result.exit_code, f"{locale} is no language of this site; there are" in result.output) == (2, True)
    assert not (tmp_path / "previews").exists()


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_kind_can_be_looked_at(
    app: Flask, tmp_path: Path, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "none"))
    for kind in Kind:
        result = run(app, "mail", "preview", str(kind), "--locale", language, "--out", str(tmp_path / "previews"))
        assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2), result.output
        assert result.stderr == f"There is no picture: {tmp_path / 'none'} takes none.\n"
        eml, html = (Path(line) for line in result.stdout.splitlines())
        message = message_from_bytes(eml.read_bytes(), policy=default)
        assert isinstance(message, EmailMessage)
        assert not message.defects
        text = message.get_body(("plain",))
        assert text is not None
        assert "None" not in text.get_content()
        body = message.get_body(("html",))
        assert body is not None
        assert body.get_content().split() == html.read_text().split()
        assert f'lang="{language}"' in html.read_text()


def test_where_chromium_is_there_is_a_picture(app: Flask, tmp_path: Path) -> None:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium is not None, "make test finds one, or installs it"
    result = run(app, "mail", "preview", "warning", "--out", str(tmp_path), "--chromium", chromium)
    assert result.stdout.splitlines()[-1] == str(tmp_path / "warning-en.png")
    assert (tmp_path / "warning-en.png").read_bytes().startswith(b"\x89PNG")


def test_a_kind_that_is_none_and_a_folder_that_cannot_be(app: Flask, tmp_path: Path) -> None:
    assert run(app, "mail", "preview", "newsletter").exit_code == 2
    (tmp_path / "file").write_text("")
    result = run(app, "mail", "preview", "warning", "--out", str(tmp_path / "file" / "below"))
    assert (result.exit_code, "cannot write to" in result.stderr) == (1, True)


def test_a_test_mail_says_what_the_server_answers(app: Flask, smtp: SmtpCatcher) -> None:
    result = run(app, "mail", "test", "me@example.org", "--locale", "de")
    assert (result.exit_code, result.stdout) == (0, "accepted: 250 OK queued\n")
    [mail] = smtp.to("me@example.org")
    assert "30. Juni 2026" in mail.message["Subject"]
    smtp.replies["me@example.org"] = "550 5.7.1 not from there"
    result = run(app, "mail", "test", "me@example.org")
    assert (result.exit_code, result.stderr) == (1, "Error: not accepted: 550 5.7.1 not from there\n")
    assert run(app, "mail", "test", "nobody").exit_code == 1


def test_a_bounce_from_a_pipe_is_taken(app: Flask, session: Session, warned: Member) -> None:
    result = run(app, "mail", "bounce", input=raw("postfix-unknown-user"))
    assert (result.exit_code, result.stdout) == (0, f"The warning message {PUBLIC_ID} bounced.\n")
    session.refresh(warned)
    assert warned.mail_state == "bounced"


def test_a_bounce_from_a_file_is_taken(app: Flask, warned: Member, tmp_path: Path) -> None:
    file = tmp_path / "bounce.eml"
    file.write_bytes(raw("arf-abuse"))
    assert "complained about" in run(app, "mail", "bounce", str(file)).stdout


@pytest.mark.parametrize("junk", [b"", b"\xff\x00\n", b"Subject: Out of office\n\nI am away.\n"])
def test_what_is_no_bounce_is_taken_and_changes_nothing(app: Flask, warned: Member, junk: bytes) -> None:
    result = run(app, "mail", "bounce", input=junk)
    assert result.exit_code == 0
    assert "no report" in result.stdout


def test_a_bounce_of_nobodys_message_is_taken_with_a_clear_line(app: Flask) -> None:
    result = run(app, "mail", "bounce", input=raw("postfix-unknown-user"))
    assert (result.exit_code, "no message that is known here" in result.stdout) == (0, True)


def test_a_bounce_that_is_too_early_or_meets_no_database_is_to_come_again(
    app: Flask, session: Session, warned: Member
) -> None:
    session.execute(update(Message).values(state="sending", lease_token="x", lease_until=NOW))
    session.commit()
    result = run(app, "mail", "bounce", input=raw("postfix-unknown-user"))
    assert (result.exit_code, "in a minute" in result.stderr) == (75, True)
    session.execute(text("ALTER TABLE message RENAME TO message_elsewhere"))
    session.commit()
    result = run(app, "mail", "bounce", input=raw("postfix-unknown-user"))
    assert (result.exit_code, "flask db upgrade" in result.stderr) == (75, True)


def test_whom_no_mail_reaches_is_listed_for_letters(app: Flask, warned: Member, tmp_path: Path) -> None:
    assert run(app, "campaign", "unreachable", "2026-06").stdout == "0 unreachable\n"
    run(app, "mail", "bounce", input=raw("postfix-unknown-user"))
    shown = run(app, "campaign", "unreachable", "2026-06").stdout
    assert "m-1" in shown
    assert shown.endswith("1 unreachable\n")
    file = tmp_path / "letters.csv"
    assert run(app, "campaign", "unreachable", "2026-06", "--csv", str(file)).stdout == "1 unreachable\n"
    assert file.stat().st_mode & 0o077 == 0, "it is full of names and addresses"
    assert run(app, "campaign", "unreachable", "2026-06", "--csv", "-").stdout == f"{file.read_text()}1 unreachable\n"
    head, row = file.read_text().splitlines()
    assert head == "external_id,name,email,locale,plan,why,since"
    # A spreadsheet must not run it.
    assert row.startswith('m-1,"\'=HYPERLINK(""http://example.org"")",mia@dead.example,en,Standard,bounced,2026-06-03T')


def test_the_status_says_what_becomes_of_whom_the_first_notice_did_not_reach(app: Flask, warned: Member) -> None:
    assert "silence ends nothing" not in run(app, "campaign", "status", "2026-06").stdout
    run(app, "mail", "bounce", input=raw("postfix-unknown-user"))
    said = run(app, "campaign", "status", "2026-06").stdout
    assert "1 failed (silence ends nothing where the first notice failed)" in said


@pytest.mark.parametrize(
    ("window", "said"), [("", ""), ("18:00-20:00", "; no notice may go out now (MAIL_WINDOW, MAIL_DAILY)")]
)
def test_a_run_says_when_no_notice_may_go_out(make_app: Callable[..., Flask], window: str, said: str) -> None:
    app = make_app(mail_window=window)
    with app.app_context():
        result = run(app, "jobs", "run", "deliver")
    assert result.stdout == f"deliver: 0 sent, 0 to try again, 0 failed{said}\n"


def test_a_month_without_a_campaign_has_no_list(app: Flask) -> None:
    result = run(app, "campaign", "unreachable", "2026-05")
    assert (result.exit_code, "There is no campaign of 2026-05." in result.stderr) == (1, True)
