"""The headers, the return path and the calendar of what goes out, as a real server received it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from domain import return_path
from models import Campaign, Case, Message, db
from services import campaigns, magic_links, warning, wording
from services.installation import installed
from services.mail import calendar, delivery
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.doubles import FrozenClock, Received, SmtpCatcher


def deliver(session: Session) -> None:
    here = installed()
    session.rollback()
    delivery.deliver(session, here.settings, here.mailer, here.clock, session.commit, lambda: False)


def warn(session: Session, settings: Settings, **facts: Any) -> Case:
    factories.live_feed(session, NOW)
    factories.dormant(session, email="mia@example.org", name="Mia", **facts)
    campaigns.draft(session, settings, "2026-06", NOW)
    campaigns.approve(session, settings, "2026-06", NOW)
    session.commit()
    deliver(session)
    return session.scalars(select(Case)).one()


def attachment(mail: Received) -> str:
    [part] = mail.message.iter_attachments()
    assert (part.get_content_type(), part.get_filename()) == ("text/calendar", "deadline.ics")
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode()


def events(text: str) -> dict[str, str]:
    """The properties of an iCalendar with one event, its lines unfolded."""
    assert all(len(line.encode()) <= 75 for line in text.split("\r\n"))
    assert "\n" not in text.replace("\r\n", "")
    return dict(line.split(":", 1) for line in text.replace("\r\n ", "").strip().split("\r\n"))


def test_a_reminder_stands_beneath_its_warning(
    session: Session, settings: Settings, smtp: SmtpCatcher, clock: FrozenClock
) -> None:
    warn(session, settings)
    clock.travel(NOW + timedelta(days=20))
    warning.remind(session, settings, clock.now())
    session.commit()
    deliver(session)
    first, second = smtp.to("mia@example.org")
    assert first.message["References"] is None
    assert second.message["References"] == second.message["In-Reply-To"] == first.message["Message-ID"]


def test_what_follows_no_warning_of_that_address_begins_a_thread_of_its_own(
    session: Session, settings: Settings, smtp: SmtpCatcher, clock: FrozenClock
) -> None:
    case = warn(session, settings)
    case.member.email = case.member.email_key = "new@example.org"
    warning.address_changed(session, settings, NOW)
    session.commit()
    deliver(session)
    campaigns.cancel(session, settings, "2026-06", NOW)
    session.commit()
    deliver(session)
    first, withdrawn = smtp.to("new@example.org")
    assert first.message["References"] is None
    assert withdrawn.message["References"] == first.message["Message-ID"]


def test_a_header_names_round_and_kind_and_none_ends_a_membership(
    session: Session, settings: Settings, smtp: SmtpCatcher
) -> None:
    warn(session, settings)
    [mail] = smtp.mails
    assert mail.message["Feedback-ID"] == "2026-06:warning:notice:dormouse"
    assert mail.message["List-Unsubscribe"] is None


def test_a_bounce_address_makes_a_return_path_of_each_messages_own(
    make_app: Callable[..., Flask], smtp: SmtpCatcher
) -> None:
    with make_app(bounce_address="bounces@lumio.example").app_context():
        session = db.session()
        warn(session, installed().settings)
        message = session.scalars(select(Message)).one()
    [mail] = smtp.mails
    assert mail.sender == f"bounces+{message.public_id}@lumio.example"
    assert mail.message["From"] == "Lumio <membership@lumio.example>"
    assert return_path.public_id_in("bounces@lumio.example", f"<{mail.sender.upper()}>") == message.public_id


def test_without_a_bounce_address_bounces_go_to_the_sender(
    session: Session, settings: Settings, smtp: SmtpCatcher
) -> None:
    warn(session, settings)
    assert smtp.mails[0].sender == "membership@lumio.example"


@pytest.mark.parametrize(
    ("sender", "name", "shown"),
    [
        ("membership@lumio.example", "Lumio", "Lumio <membership@lumio.example>"),
        (
            "membership@lumio.example",
            "Kino \u201eÖ\u201c, Köln",
            '"Kino \u201eÖ\u201c, Köln" <membership@lumio.example>',
        ),
        ("membership@lumio.example", 'The "Box" \\', r'"The \"Box\" \\" <membership@lumio.example>'),
        ("Lumio Club <membership@lumio.example>", "Lumio", "Lumio Club <membership@lumio.example>"),
    ],
)
def test_mail_comes_from_the_service_by_name(
    make_app: Callable[..., Flask], smtp: SmtpCatcher, sender: str, name: str, shown: str
) -> None:
    with make_app(mail_default_sender=sender, service_name=name).app_context():
        warn(db.session(), installed().settings)
    [mail] = smtp.mails
    assert str(mail.message["From"]) == shown
    assert mail.sender == "membership@lumio.example"


@pytest.mark.parametrize("shared", [True, False])
def test_a_mail_to_sign_in_greets_nobody_where_several_share_the_address(
    session: Session, settings: Settings, smtp: SmtpCatcher, shared: bool
) -> None:
    for number, name in ((1, "Mia"), (2, "Ben")):
        address = "family@example.org" if shared or number == 1 else "ben@example.org"
        factories.member(session, email=address, name=name, external_id=f"K-{number}", plan="Family")
    magic_links.request_sign_in(session, settings, "family@example.org", "192.0.2.1", NOW)
    session.commit()
    deliver(session)
    [mail] = smtp.mails
    for part in ("plain", "html"):
        body = mail.message.get_body((part,))
        assert body is not None
        for fact in ("Mia", "K-1", "Family"):
            assert (fact in body.get_content()) is not shared
        assert not any(fact in body.get_content() for fact in ("Ben", "K-2"))
        assert "/sign-in/" in body.get_content()


@pytest.mark.parametrize(
    "address",
    [
        "bounces@lumio.example",
        "bounces+@lumio.example",
        "bounces+1234@lumio.example",
        "other+0123456789abcdef0123456789abcdef@lumio.example",
        "bounces+0123456789abcdef0123456789abcdef@elsewhere.example",
        "bounces+0123456789abcdef0123456789abcdeg@lumio.example",
        "",
    ],
)
def test_an_address_that_is_no_return_path_names_no_message(address: str) -> None:
    assert return_path.public_id_in("bounces@lumio.example", address) is None


def test_a_warning_carries_its_last_day_for_the_calendar_and_no_token(
    session: Session, settings: Settings, smtp: SmtpCatcher
) -> None:
    case = warn(session, settings)
    text = attachment(smtp.mails[0])
    found = events(text)
    assert (found["DTSTART;VALUE=DATE"], found["DTEND;VALUE=DATE"]) == ("20260630", "20260701")
    assert found["UID"] == f"{case.public_id}@lumio.example"
    assert found["URL"] == "http://members.example.org/sign-in"
    assert found["SUMMARY"] == "Last day to answer about your Lumio membership"
    assert "Tuesday\\, 30 June 2026\\, 24:00" in found["DESCRIPTION"]
    assert "check-in" not in text
    body = smtp.mails[0].message.get_body(("plain",))
    assert body is not None
    assert "/check-in/" in body.get_content()


def test_the_calendar_is_in_the_readers_language(session: Session, settings: Settings, smtp: SmtpCatcher) -> None:
    warn(session, settings, locale="de-AT")
    found = events(attachment(smtp.mails[0]))
    assert found["SUMMARY"] == "Letzter Tag für Ihre Antwort zu Ihrer Lumio-Mitgliedschaft"
    assert "Dienstag\\, 30. Juni 2026" in found["DESCRIPTION"]


def test_a_moved_deadline_moves_the_same_event(
    session: Session, settings: Settings, smtp: SmtpCatcher, clock: FrozenClock
) -> None:
    warn(session, settings)
    campaigns.hold(session, settings, "2026-06", NOW)
    clock.travel(NOW + timedelta(days=20))
    campaigns.release(session, settings, "2026-06", clock.now())
    session.commit()
    deliver(session)
    first, moved = (events(attachment(mail)) for mail in smtp.mails)
    assert moved["UID"] == first["UID"]
    assert moved["DTSTART;VALUE=DATE"] == "20260731"
    assert int(moved["SEQUENCE"]) > int(first["SEQUENCE"])
    assert session.scalars(select(Campaign)).one().state == "open"


def test_the_calendar_says_of_silence_what_its_mail_says(
    session: Session, settings: Settings, smtp: SmtpCatcher, clock: FrozenClock
) -> None:
    """Told by the notice that silence keeps it, whatever is set since."""
    warn(session, settings)
    session.execute(update(Case).values(told_it_continues=True))
    campaigns.hold(session, settings, "2026-06", NOW)
    clock.travel(NOW + timedelta(days=20))
    campaigns.release(session, settings, "2026-06", clock.now())
    session.commit()
    deliver(session)
    first, moved = (events(attachment(mail)) for mail in smtp.mails)
    assert "If we hear nothing from you\\, your membership ends" in first["DESCRIPTION"]
    assert "If we hear nothing from you\\, your membership continues as before" in moved["DESCRIPTION"]
    text = smtp.mails[1].message.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert "If we hear nothing from you, your membership continues" in " ".join(text.split())


@given(name=st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=120))
def test_no_name_of_a_service_breaks_a_line_of_the_calendar(app: Flask, name: str) -> None:
    settings = installed().settings.model_copy(update={"service_name": name})
    with wording.speaking("de"):
        day = datetime.fromisoformat("2026-07-01T00:00+02:00")
        text = calendar.deadline(settings, "1@lumio.example", day, NOW, ends_by_silence=True)
    found = events(text)
    assert len(found) == 14
    shown = found["SUMMARY"].replace("\\,", ",").replace("\\;", ";").replace("\\\\", "\\")
    assert f"zu Ihrer {name}-Mitgliedschaft" in shown
