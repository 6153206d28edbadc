"""Every mail there is, as files to read and compare: ``python -m tests.mails`` (``make mail-snapshots``) renews them.

``tests/data/mails/<language>/<name>.txt`` has the headers, the text and what is attached; ``<name>.html`` the HTML.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from app import create_app
from domain.notices import Kind
from domain.ports import Mail
from services.installation import installed
from services.mail.sample import sample
from tests.conftest import make_settings

FOLDER = Path(__file__).parent / "data" / "mails"
LANGUAGES = ("en", "de")
NOW = datetime(2026, 6, 3, 10, 0, tzinfo=UTC)

ASKS_ONLY = {"on_silence": "keep"}
VARIANTS = {f"{kind}-where-silence-keeps": kind for kind in (Kind.WARNING, Kind.REMINDER, Kind.CAMPAIGN_READY)}
NAMES = [*map(str, Kind), *VARIANTS]


@dataclass(frozen=True)
class Written:
    """One mail, as it is composed and as it goes out."""

    name: str
    language: str
    mail: Mail
    raw: bytes

    @cached_property
    def message(self) -> EmailMessage:
        message = message_from_bytes(self.raw, policy=default)
        assert isinstance(message, EmailMessage)
        return message

    @property
    def html(self) -> str:
        body = self.message.get_body(("html",))
        assert body is not None
        return str(body.get_content()).replace("\r\n", "\n")

    @property
    def text(self) -> str:
        """Headers, text and attachments, without what differs from run to run."""
        body = self.message.get_body(("plain",))
        assert body is not None
        headers = [
            f"Return-Path: <{self.mail.return_path}>",
            *(f"{name}: {_steady(value)}" for name, value in self.message.items()),
        ]
        parts = ["\n".join(headers), body.get_content()]
        for part in self.message.iter_attachments():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            parts.append(f"-- {part.get_filename()}: {part['Content-Type']}\n\n{content.decode()}")
        return "\n\n".join(part.replace("\r\n", "\n").strip("\n") for part in parts) + "\n"

    @property
    def files(self) -> dict[Path, str]:
        return {FOLDER / self.language / f"{self.name}.{ext}": getattr(self, kind)
                for ext, kind in (("txt", "text"), ("html", "html"))}  # fmt: skip


def _steady(value: str) -> str:
    return re.sub(r'boundary="[^"]+"', 'boundary="…"', " ".join(str(value).split()))


def written(name: str, language: str) -> Written:
    """Needs the application context of ``context(name)``."""
    here = installed()
    mail = sample(here.settings, VARIANTS.get(name) or Kind(name), language, "mia@example.org", NOW)
    return Written(name, language, mail, here.mailer.written(mail))


@contextmanager
def context(folder: Path, **changes: object) -> Iterator[None]:
    """An application whose database is never opened: composing a mail asks none."""
    options = {"public_url": "https://members.lumio.example", "bounce_address": "bounces@lumio.example", **changes}
    with create_app(make_settings(f"sqlite:///{folder}/none.db", folder, **options)).app_context():
        yield


def every_mail(folder: Path) -> Iterator[Written]:
    for changes, names in (({}, [name for name in NAMES if name not in VARIANTS]), (ASKS_ONLY, list(VARIANTS))):
        with context(folder, **changes):
            for name in names:
                for language in LANGUAGES:
                    yield written(name, language)


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    with TemporaryDirectory() as folder:
        for mail in every_mail(Path(folder)):
            for path, content in mail.files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content, encoding="utf-8")
    sys.stdout.write(
        f"{len(NAMES) * len(LANGUAGES)} mails are in {FOLDER}; read the difference before you commit it.\n"
    )


if __name__ == "__main__":
    main()
