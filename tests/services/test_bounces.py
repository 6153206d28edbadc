"""Bounces and complaints: what a report says, which message it is about, and what becomes of the member."""

import base64
import email
import quopri
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from models import Case, Event, Member, Message
from services import warning
from services.mail import bounce_mail, bounces, dispatch, letters, unreachable
from services.mail.bounce_mail import Report, Verdict
from services.mail.words import Facts
from settings import Settings
from tests import factories
from tests.conftest import NOW
from tests.factories import at
from tests.services.support import accept_mails, case_of, close, opened

REPORTS = Path(__file__).parents[1] / "data" / "bounces"
PUBLIC_ID = "0123456789abcdef0123456789abcdef"
RETURN_PATH = f"bounces+{PUBLIC_ID}@lumio.example"
MESSAGE_ID = f"<{PUBLIC_ID}@lumio.example>"
LATER = NOW + timedelta(hours=1)
JULY_1 = at("2026-06-30 22:30")


def raw(name: str) -> bytes:
    return (REPORTS / f"{name}.eml").read_bytes()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"bounce_address": "bounces@lumio.example"})


@pytest.fixture
def warned(session: Session, settings: Settings) -> Member:
    """One member whose warning, the one of the reports, was accepted."""
    member = factories.dormant(session, email="mia@dead.example")
    session.commit()
    opened(session, settings, NOW)
    session.execute(update(Message).values(public_id=PUBLIC_ID, message_id=MESSAGE_ID))
    session.commit()
    assert case_of(session, member).warned_at == NOW
    return member


def take(session: Session, settings: Settings, name: str, recipient: str | None = None) -> str:
    said = bounces.take(session, settings, bounce_mail.read(raw(name), recipient), LATER)
    session.commit()
    session.expire_all()
    return said.said


def message(session: Session) -> Message:
    session.expire_all()
    return session.scalars(select(Message).where(Message.public_id == PUBLIC_ID)).one()


# What a report says


@pytest.mark.parametrize(
    ("name", "verdict", "reason"),
    [
        (
            "postfix-unknown-user",
            Verdict.HARD,
            "550 5.1.1 <mia@dead.example>: Recipient address rejected: User unknown in virtual mailbox table",
        ),
        ("postfix-delayed", Verdict.DELAYED, "452 4.2.2 <mia@full.example>: Mailbox full"),
        ("postfix-given-up", Verdict.RETURNED, "452 4.2.2 <mia@full.example>: Mailbox full"),
        ("arf-abuse", Verdict.COMPLAINT, "complaint: abuse"),
    ],
)
def test_a_real_report_says_what_became_of_which_message(name: str, verdict: Verdict, reason: str) -> None:
    report = bounce_mail.read(raw(name))
    assert (report.verdict, report.reason) == (verdict, reason)
    assert report.message_ids == (MESSAGE_ID,)
    assert (RETURN_PATH in report.return_paths) == (verdict != Verdict.COMPLAINT)


def changed(name: str, old: str, new: str) -> bytes:
    text = raw(name).decode()
    assert old in text
    return text.replace(old, new).encode()


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ("Status: 5.1.1\n", "", Verdict.HARD),
        ("Status: 5.1.1", "Status: 4.4.1", Verdict.RETURNED),
        ("Action: failed", "Action: delivered", Verdict.NOTHING),
        ("Action: failed", "Action: relayed", Verdict.NOTHING),
        ("message/delivery-status", "message/global-delivery-status", Verdict.HARD),
        ("message/delivery-status", "text/plain", Verdict.NOTHING),
        # With comments, which RFC 3464 has from RFC 822.
        ("Action: failed", "Action: Failed (no such mailbox)", Verdict.HARD),
        ("Status: 5.1.1", "Status: (see below) 5.1.1 (for good)", Verdict.HARD),
    ],
)
def test_variants_of_a_status(old: str, new: str, verdict: Verdict) -> None:
    assert bounce_mail.read(changed("postfix-unknown-user", old, new)).verdict == verdict


@pytest.mark.parametrize("kind", bounce_mail.STATUS)
@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_an_encoded_report_says_the_same(kind: str, encoding: str) -> None:
    """RFC 6533 allows it. The standard library takes such parts apart as they come, encoded."""
    text = "Reporting-MTA: dns; mx.example\n\nAction: failed\nDiagnostic-Code: smtp; 550 Empfänger unbekannt\n".encode()
    encoded = {"base64": base64.encodebytes, "quoted-printable": quopri.encodestring}[encoding](text)
    part = f"Content-Type: {kind}\nContent-Transfer-Encoding: {encoding}\n\n".encode() + encoded
    report = bounce_mail.read(
        b"Content-Type: multipart/report; boundary=x\nTo: <"
        + RETURN_PATH.encode()
        + b">\n\n--x\n"
        + part
        + b"\n--x--\n"
    )
    assert report == Report(Verdict.HARD, (RETURN_PATH,), (), "550 Empfänger unbekannt")


@pytest.mark.parametrize("name", ["postfix-unknown-user", "arf-abuse"])
def test_what_a_gateway_has_put_into_another_mail_says_the_same(name: str) -> None:
    alone = bounce_mail.read(raw(name))
    around = b"Content-Type: multipart/mixed; boundary=around\n\n--around\n%s\n--around\n\nNot for you?\n--around--\n"
    wrapped = bounce_mail.read(around % raw(name))
    assert (wrapped.verdict, wrapped.message_ids, wrapped.reason) == (alone.verdict, alone.message_ids, alone.reason)


def test_who_says_it_is_no_spam_does_not_complain() -> None:
    report = bounce_mail.read(changed("arf-abuse", "Feedback-Type: abuse", "Feedback-Type: not-spam"))
    assert report.verdict == Verdict.NOTHING


def test_headers_alone_name_the_message_too() -> None:
    text = raw("postfix-unknown-user").decode()
    report = email.message_from_string(text)
    headers = "\n".join(f"{name}: {value}" for name, value in report.get_payload()[2].get_payload()[0].items())
    start = text.index("Content-Description: Undelivered Message")
    boundary = report.get_boundary()
    short = f"{text[:start]}Content-Type: text/rfc822-headers\n\n{headers}\n\n--{boundary}--\n"
    assert bounce_mail.read(short.encode()).message_ids == (MESSAGE_ID,)


@given(st.binary(max_size=400))
def test_no_bytes_make_reading_fail(junk: bytes) -> None:
    assert bounce_mail.read(junk).verdict == Verdict.NOTHING
    head = b"Content-Type: multipart/report; boundary=x\n\n--x\nContent-Type: message/delivery-status\n\n"
    bounce_mail.read(head + junk)
    bounce_mail.read(head.replace(b"delivery-status", b"feedback-report") + junk)
    bounce_mail.read(head.replace(b"delivery-status", b"global-delivery-status") + junk)
    bounce_mail.read(raw("postfix-unknown-user").replace(b"message/rfc822\nContent-Transfer", junk))


PIECES = [
    b"\n\n", b"--", b";;=", b'"', b"\0", b"\x0b", b"\x1ename:", b"\xff\xfe", "ä".encode(),
    b"=?klingon?b?!!?=", b"charset*=x'y'z",
    b"\nContent-Type: multipart/mixed; boundary=x\n", b"\nContent-Type: message/global-delivery-status\n",
    b"\nContent-Type: message/partial\n", b"\nContent-Type: text/plain; charset=none\n",
    b"\nContent-Transfer-Encoding: base64\n", b"\nContent-Transfer-Encoding: uuencode\n",
]  # fmt: skip


@given(
    name=st.sampled_from(["postfix-unknown-user", "postfix-given-up", "arf-abuse"]),
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 60), st.sampled_from(PIECES)), max_size=6),
)
def test_no_change_of_a_report_makes_reading_fail(name: str, changes: list[tuple[int, int, bytes]]) -> None:
    """Not by what ``read`` catches: here nothing is to be caught."""
    mail = raw(name).replace(b"message/delivery-status", b"message/global-delivery-status")
    for place, less, piece in changes:
        mail = mail[:place] + piece + mail[place + less :]
    bounce_mail._read(email.message_from_bytes(mail, bounce_mail._Part), None)


def test_parts_within_parts_are_no_report() -> None:
    part = b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n"
    assert bounce_mail.read(b"".join(part % (depth, depth) for depth in range(3000))).verdict == Verdict.NOTHING


# What becomes of the member


def test_a_bounce_for_good_leaves_nobody_warned(session: Session, settings: Settings, warned: Member) -> None:
    assert take(session, settings, "postfix-unknown-user") == f"The warning message {PUBLIC_ID} bounced."
    assert (message(session).state, warned.mail_state) == ("bounced", "bounced")
    assert case_of(session, warned).state == "unreachable"
    assert close(session, settings, JULY_1).lapsed == 0
    assert take(session, settings, "postfix-unknown-user").endswith("is bounced: nothing to change.")


def test_a_complaint_ends_the_asking_too(session: Session, settings: Settings, warned: Member) -> None:
    assert take(session, settings, "arf-abuse") == f"The warning message {PUBLIC_ID} was complained about."
    assert (message(session).state, warned.mail_state) == ("bounced", "complained")
    assert case_of(session, warned).state == "unreachable"
    codes = session.scalars(select(Event.code).where(Event.code.like("mail_%")).order_by(Event.id)).all()
    assert codes == ["mail_accepted", "mail_complained"]


def test_a_delay_is_noted_and_changes_nothing(session: Session, settings: Settings, warned: Member) -> None:
    for _ in range(2):
        assert take(session, settings, "postfix-delayed").endswith("is delayed; the mail server goes on trying.")
    assert (message(session).state, warned.mail_state) == ("sent", "good")
    assert case_of(session, warned).warned_at == NOW
    codes = session.scalars(select(Event.code).where(Event.code.like("mail_%")).order_by(Event.id)).all()
    assert codes == ["mail_accepted", "mail_delayed"]


def test_a_warning_that_came_back_has_warned_nobody_until_it_arrives(
    session: Session, settings: Settings, warned: Member
) -> None:
    said = take(session, settings, "postfix-given-up")
    assert said == f"The warning message {PUBLIC_ID} came back; it will be sent again."
    assert (message(session).state, warned.mail_state) == ("queued", "good")
    assert case_of(session, warned).warned_at is None
    assert take(session, settings, "postfix-given-up").endswith("it is queued already.")
    # A relay tries for days: sent again on the 20th, it names the end of July.
    accept_mails(session, settings, at("2026-06-20 10:00"))
    assert case_of(session, warned).deadline_at == at("2026-07-31 22:00")
    assert close(session, settings, JULY_1).lapsed == 0
    assert message(session).attempts == 2


def test_of_silence_holds_what_the_warning_said_that_arrived(
    session: Session, settings: Settings, warned: Member
) -> None:
    session.execute(update(Case).values(told_it_continues=True))
    session.commit()
    take(session, settings, "postfix-given-up")
    assert case_of(session, warned).told_it_continues is None, "that mail has told nobody anything"
    accept_mails(session, settings, at("2026-06-05 10:00"))
    assert case_of(session, warned).told_it_continues is False
    # A case that still knows of another word is asked by it, and the record says so.
    take(session, settings, "postfix-given-up")
    session.execute(update(Case).values(told_it_continues=True))
    session.commit()
    accept_mails(session, settings, at("2026-06-06 10:00"))
    assert case_of(session, warned).told_it_continues is True
    assert close(session, settings, JULY_1).lapsed == 0


@pytest.mark.parametrize("declined", [False, True])
def test_a_warning_that_is_sent_again_promises_no_reminder_to_whoever_wants_none(
    session: Session, settings: Settings, warned: Member, declined: bool
) -> None:
    assert warning.decline_reminders(session, case_of(session, warned).id, declined, LATER) == declined
    take(session, settings, "postfix-given-up")
    [again] = dispatch.claim(session, settings, at("2026-06-05 10:00"), 10)
    said = letters.compose(settings, again, Facts.of(again), LATER).text
    assert ("We remind you before it" in " ".join(said.split())) != declined


def test_the_same_report_of_a_try_before_changes_nothing(session: Session, settings: Settings, warned: Member) -> None:
    report = bounce_mail.read(changed("postfix-given-up", "Sun, 22 Nov 2026 23:52:37", "Wed, 3 Jun 2026 10:00:00"))
    assert report.arrived_at == NOW
    assert bounces.take(session, settings, report, LATER).said.endswith("it will be sent again.")
    accept_mails(session, settings, at("2026-06-05 10:00"))
    again = bounces.take(session, settings, report, at("2026-06-05 11:00"))
    assert again.said.endswith("it has been sent again since.")
    assert case_of(session, warned).warned_at is not None
    assert "will be sent again" in take(session, settings, "postfix-given-up"), "what came later is about this try"


@pytest.mark.parametrize("behind", [timedelta(days=300), timedelta(hours=14)])
def test_no_clock_of_a_server_makes_warned_whom_no_mail_has_reached(
    session: Session, settings: Settings, warned: Member, behind: timedelta
) -> None:
    """A first report is about the first try, however wrong its date; and of no later one a wrong time zone decides."""
    for tried in (NOW, at("2026-06-05 10:00")):
        report = replace(bounce_mail.read(raw("postfix-given-up")), arrived_at=tried - behind)
        if behind < timedelta(days=1) or tried == NOW:
            said = bounces.take(session, settings, report, tried + timedelta(hours=1)).said
            assert said.endswith("it will be sent again.")
            assert case_of(session, warned).warned_at is None
        accept_mails(session, settings, at("2026-06-05 10:00"))


def test_what_nothing_names_where_no_return_path_can_is_said_to_be_so(session: Session, settings: Settings) -> None:
    unset = settings.model_copy(update={"bounce_address": None})
    by_path, by_id = Report(Verdict.HARD, (RETURN_PATH,)), Report(Verdict.HARD, (RETURN_PATH,), (MESSAGE_ID,))
    assert [
        "BOUNCE_ADDRESS, by which addresses would tell, is not set" in bounces.take(session, those, report, NOW).said
        for those, report in ((unset, by_path), (unset, by_id), (settings, by_path))
    ] == [True, False, False]


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("Wed, 3 Jun 2026 12:00:00 +0200 (CEST)", NOW),
        ("2026-06-03T10:00:00.000Z", NOW),
        ("Wed, 3 Jun 2026 10:00:00 -0000", None),
        ("2026-06-03", None),
        ("Wed, 3 Jun 99999 10:00:00 +0000", None),
        ("0001-01-01T00:00:00+05:00", None),
        ("soon", None),
        ("", None),
    ],
)
def test_an_instant_is_read_however_it_is_written(said: str, read: datetime | None) -> None:
    assert bounce_mail.instant(said) == read


def test_what_came_back_three_times_counts_as_bounced(session: Session, settings: Settings, warned: Member) -> None:
    # A server that asked to come later five times, before it took the mail, has brought nothing back.
    session.execute(update(Message).values(attempts=6))
    session.commit()
    for _ in range(2):
        assert take(session, settings, "postfix-given-up").endswith("it will be sent again.")
        accept_mails(session, settings, at("2026-06-05 10:00"))
    assert case_of(session, warned).warned_at is not None
    assert take(session, settings, "postfix-given-up").endswith("it counts as bounced.")
    assert case_of(session, warned).state == "unreachable"


@pytest.mark.parametrize("name", ["postfix-unknown-user", "postfix-given-up", "arf-abuse"])
def test_a_report_about_somebody_who_is_erased_brings_nothing_back(
    session: Session, settings: Settings, warned: Member, name: str
) -> None:
    session.execute(update(Message).values(to_address=None, smtp_reply=""))
    session.commit()
    take(session, settings, name)
    found = message(session)
    assert (found.state, found.to_address, found.smtp_reply) == ("sent", None, "")


def test_why_it_came_back_is_one_printed_line(session: Session, settings: Settings, warned: Member) -> None:
    reason = "550 no\r\n\x00such \udcff user " + "x" * 900
    bounces.take(session, settings, Report(Verdict.HARD, message_ids=(MESSAGE_ID,), reason=reason), LATER)
    session.commit()
    said = message(session).smtp_reply or ""
    assert said.startswith("250 2.0.0 queued; came back: 550 no such user xxx")
    assert len(said) == 500


def test_scenario_14_a_warning_that_came_back_after_the_end_reverses_the_lapse(
    session: Session, settings: Settings, warned: Member
) -> None:
    assert close(session, settings, JULY_1).lapsed == 1
    report = bounce_mail.read(raw("postfix-given-up"))
    bounces.take(session, settings, report, at("2026-07-02 12:00"))
    session.commit()
    session.refresh(warned)
    assert (warned.status, case_of(session, warned).state) == ("active", "unreachable")


def test_scenario_13_a_bounce_of_an_earlier_address_says_nothing_of_the_present_one(
    session: Session, settings: Settings, warned: Member
) -> None:
    warned.email = warned.email_key = "new@example.org"
    session.commit()
    take(session, settings, "postfix-unknown-user")
    assert (message(session).state, warned.mail_state) == ("bounced", "good")
    assert case_of(session, warned).state == "open"


def test_a_report_that_overtakes_our_own_record_is_to_come_again(
    session: Session, settings: Settings, warned: Member
) -> None:
    session.execute(update(Message).values(state="sending", lease_token="x", lease_until=LATER))
    session.commit()
    with pytest.raises(bounces.TooEarly):
        take(session, settings, "postfix-unknown-user")


# Which message


def test_without_a_bounce_address_the_message_id_tells(app: Flask, session: Session, warned: Member) -> None:
    plain = app.extensions["dormouse"].settings
    assert take(session, plain, "postfix-unknown-user").endswith("bounced.")


def test_the_address_a_server_names_is_enough(session: Session, settings: Settings, warned: Member) -> None:
    bare = changed("postfix-unknown-user", PUBLIC_ID, "f" * 32)
    assert bounces.find(session, settings, bounce_mail.read(bare)) is None
    found = bounces.find(session, settings, bounce_mail.read(bare, recipient=RETURN_PATH.upper()))
    assert found is not None
    assert found.public_id == PUBLIC_ID


@pytest.mark.parametrize(
    "report",
    [
        Report(Verdict.HARD, message_ids=(f"<{PUBLIC_ID}@elsewhere.example>",)),
        Report(Verdict.HARD, message_ids=("<1@lumio.example>", "")),
        Report(Verdict.HARD, return_paths=("mia@dead.example", "@", f"bounces+{'f' * 32}@lumio.example")),
    ],
)
def test_what_names_no_message_of_ours_changes_nothing(
    session: Session, settings: Settings, warned: Member, report: Report
) -> None:
    assert "no message that is known here" in bounces.take(session, settings, report, LATER).said
    assert session.scalars(select(Case)).one().state == "open"


# What operators hear


def test_operators_hear_of_it_the_morning_after_once_a_day(
    session: Session, settings: Settings, warned: Member
) -> None:
    operator = factories.operator(session)
    other = factories.dormant(session, email="ben@dead.example")

    def told() -> int:
        unreachable.tell_operators(session, settings, morning)
        session.commit()
        about = Message.once_key.like("needs_attention:unreachable:%")
        return len(session.scalars(select(Message.id).where(about, Message.operator_id == operator.id)).all())

    take(session, settings, "postfix-unknown-user")
    morning = LATER
    assert told() == 0
    morning = at("2026-06-04 06:00")
    assert (told(), told()) == (1, 1)
    # Another one two days later, in the same round.
    case = case_of(session, warned)
    session.add(
        Case(
            campaign_id=case.campaign_id, member_id=other.id, rule=case.rule, state="unreachable", address=other.email,
            found_joined_at=other.joined_at, found_sign_of_life_at=other.joined_at, opened_at=NOW,
            closed_at=at("2026-06-05 12:00"),
        )
    )  # fmt: skip
    other.mail_state = "bounced"
    session.commit()
    morning = at("2026-06-05 20:00")
    assert told() == 1
    morning = at("2026-06-06 06:00")
    assert (told(), told()) == (2, 2)


def test_nobody_hears_of_who_has_another_address_by_now(session: Session, settings: Settings, warned: Member) -> None:
    factories.operator(session)
    take(session, settings, "postfix-unknown-user")
    warned.mail_state = "good"
    session.commit()
    assert unreachable.tell_operators(session, settings, at("2026-06-04 06:00")) == 0
