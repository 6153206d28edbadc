"""A process that sends mail in one of four ways, so many messages whenever it is told to. For benchmarks.mail.

Reads a count a line and answers each with the seconds it took, the messages it sent, and the most memory it has held
so far, in MB.
"""

import smtplib
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from itertools import cycle, islice
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import flask_mail
from flask import current_app

from adapters.mail.smtp import SmtpMailer
from benchmarks.databases import NOW, Database
from benchmarks.memory import peak_mb
from domain.ports import Mail
from models import db, for_writing
from services.installation import installed
from services.mail import delivery, dispatch, letters
from services.mail.words import Facts

SAMPLE = 500
"""So many different mails are prepared for those who send what is prepared, over and over."""
FIRST = 50
"""So many are worded, and thrown away, where nothing is prepared: as many as a run claims at first."""


class Clock:
    """The hour of the round, and as many seconds later as have passed."""

    def __init__(self) -> None:
        self._began = monotonic()

    def now(self) -> datetime:
        return datetime.fromtimestamp(NOW.timestamp() + monotonic() - self._began, NOW.tzinfo)

    def booted_at(self) -> datetime:
        return NOW


def main(way: str, folder: str, url: str, port: str, connections: str) -> None:
    database = Database(url, Path(folder))
    app = database.app(
        mail_server="127.0.0.1", mail_port=int(port), mail_connections=int(connections), max_dormant_percent=100
    )
    with app.app_context():
        send = {"ours": ours, "one by one": one_by_one, "stdlib": stdlib, "prebuilt": prebuilt}[way]()
        print("ready", flush=True)
        for line in sys.stdin:
            began = perf_counter()
            sent = send(int(line))
            print(perf_counter() - began, sent, peak_mb(), flush=True)


def ours() -> Callable[[int], int]:
    """What is due, from the outbox, as ``flask jobs run deliver`` does it; how many that are is not said here."""
    here, clock = installed(), Clock()
    # As the other ways have: what a process does once, to compile the templates above all, is in nobody's first turn.
    sample(FIRST)

    def send(_: int) -> int:
        session = db.session()
        return delivery.deliver(session, here.settings, here.mailer, clock, session.commit, lambda: False).sent

    return send


def one_by_one() -> Callable[[int], int]:
    """(a) Flask-Mail's own ``send``: a connection for each message."""
    mails, mail = cycle(sample()), flask_mail.Mail(current_app)

    def send(count: int) -> int:
        for one in islice(mails, count):
            mail.send(_flask_mail(one))
        return count

    return send


def stdlib() -> Callable[[int], int]:
    """(b) One connection, and a message of the standard library for each mail."""
    mails, settings = cycle(sample()), installed().settings
    sender = settings.mail_default_sender

    def send(count: int) -> int:
        with smtplib.SMTP(settings.mail_server, settings.mail_port) as connection:
            for one in islice(mails, count):
                connection.sendmail(sender, [one.to], _stdlib(one, f"Lumio <{sender}>").as_bytes(policy=SMTP))
        return count

    return send


def prebuilt() -> Callable[[int], int]:
    """(c) The limit: the same bytes, made before, through our client on as many connections."""
    here = installed()
    assert isinstance(here.mailer, SmtpMailer)
    mail, prepared = here.mailer._mail, here.mailer.prepare(sample())

    def work(letters: Any) -> None:
        connection = mail.connect()
        for letter in letters:
            connection.open()
            connection.send(letter)
        connection.close()

    def send(count: int) -> int:
        lines = here.settings.mail_connections
        shares = [islice(cycle(prepared), count // lines) for _ in range(lines)]
        threads = [threading.Thread(target=work, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return count // lines * lines

    return send


def sample(most: int = SAMPLE) -> list[Mail]:
    """Mails as they would go out next; nothing of it is kept."""
    session, here = db.session(), installed()
    for_writing(session)
    claimed = dispatch.claim(session, here.settings, NOW, most)
    mails = [letters.compose(here.settings, one, Facts.of(one), NOW) for one in claimed]
    session.rollback()
    return mails


def _flask_mail(mail: Mail) -> flask_mail.Message:
    message = flask_mail.Message(
        subject=mail.subject,
        recipients=[mail.to],
        body=str(mail.text),
        html=str(mail.html),
        extra_headers=dict(mail.headers),
    )
    message.msgId = mail.message_id
    if mail.calendar is not None:
        message.attach("deadline.ics", "text/calendar", mail.calendar.encode())
    return message


def _stdlib(mail: Mail, sender: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in {
        "Subject": mail.subject,
        "From": sender,
        "To": mail.to,
        "Message-ID": mail.message_id,
        **mail.headers,
    }.items():
        message[name] = value
    message.set_content(str(mail.text))
    message.add_alternative(str(mail.html), subtype="html")
    if mail.calendar is not None:
        message.add_attachment(mail.calendar.encode(), "text", "calendar", filename="deadline.ics")
    return message


if __name__ == "__main__":
    main(*sys.argv[1:])
