"""The mails that the local SMTP server took in, as files: listed, and read as a mail program would read them."""

import re
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mail:
    """One received mail. ``raw_headers`` are as they came; ``links`` the addresses in the text, in order."""

    number: int
    to: str
    sender: str
    subject: str
    date: datetime | None
    text: str
    html: str
    raw_headers: list[tuple[str, str]]

    @property
    def links(self) -> list[str]:
        return list(dict.fromkeys(re.findall(r"https?://[^\s<>\"]+", self.text)))


def received(folder: Path, *, to: str = "") -> list[Mail]:
    """The mails in ``folder``, newest first; with ``to``, those to this address only."""
    wanted = to.strip().casefold()
    numbers = sorted((int(file.stem) for file in folder.glob("*.eml")), reverse=True)
    mails = (read(folder, number) for number in numbers)
    return [mail for mail in mails if mail is not None and (not wanted or wanted in mail.to.casefold())]


def read(folder: Path, number: int) -> Mail | None:
    """One mail by its number, or None."""
    try:
        message = message_from_bytes((folder / f"{number:06}.eml").read_bytes(), policy=policy.default)
    except FileNotFoundError:
        return None
    assert isinstance(message, EmailMessage)
    date = message["Date"]
    return Mail(
        number=number,
        to=str(message["X-Envelope-To"] or message["To"] or ""),
        sender=str(message["From"] or ""),
        subject=str(message["Subject"] or ""),
        date=None if date is None else parsedate_to_datetime(str(date)),
        text=_part(message, "plain"),
        html=_part(message, "html"),
        raw_headers=[(name, str(value)) for name, value in message.items()],
    )


def _part(message: EmailMessage, kind: str) -> str:
    part = message.get_body(preferencelist=(kind,))
    return "" if part is None else str(part.get_content())


def count(folder: Path) -> int:
    return sum(1 for _file in folder.glob("*.eml"))
