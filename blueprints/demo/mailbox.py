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
    """One received mail, of which only what is asked for is read: a list of hundreds shows few lines of each."""

    number: int
    message: EmailMessage

    @property
    def to(self) -> str:
        return str(self.message["X-Envelope-To"] or self.message["To"] or "")

    @property
    def sender(self) -> str:
        return str(self.message["From"] or "")

    @property
    def subject(self) -> str:
        return str(self.message["Subject"] or "")

    @property
    def date(self) -> datetime | None:
        date = self.message["Date"]
        return None if date is None else parsedate_to_datetime(str(date))

    @property
    def text(self) -> str:
        return self._part("plain")

    @property
    def html(self) -> str:
        return self._part("html")

    @property
    def raw_headers(self) -> list[tuple[str, str]]:
        """As they came."""
        return [(name, str(value)) for name, value in self.message.items()]

    @property
    def links(self) -> list[str]:
        """The addresses in the text, in order."""
        return list(dict.fromkeys(re.findall(r"https?://[^\s<>\"]+", self.text)))

    def _part(self, kind: str) -> str:
        part = self.message.get_body(preferencelist=(kind,))
        return "" if part is None else str(part.get_content())


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
    return Mail(number, message)


def count(folder: Path) -> int:
    return sum(1 for _file in folder.glob("*.eml"))
