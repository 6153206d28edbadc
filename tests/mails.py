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
from typing import Any, NamedTuple

from app import create_app
from domain.lifecycle import Rule
from domain.money import Money
from domain.notices import Kind
from domain.ports import Mail
from services.installation import installed
from services.mail.sample import sample
from tests.conftest import make_settings

FOLDER = Path(__file__).parent / "data" / "mails"
LANGUAGES = ("en", "de")
NOW = datetime(2026, 6, 3, 10, 0, tzinfo=UTC)

USED = {
    "rule": Rule.STOPPED_USING,
    "last_used_at": datetime(2024, 3, 1, 19, tzinfo=UTC),
    "found_last_used_at": datetime(2024, 3, 1, 19, tzinfo=UTC),
    "found_joined_at": datetime(2022, 5, 2, 9, tzinfo=UTC),
    "joined_at": datetime(2022, 5, 2, 9, tzinfo=UTC),
    "found_sign_of_life_at": datetime(2024, 3, 1, 19, tzinfo=UTC),
}
ANNUAL = {"paid_through": datetime(2027, 5, 14, 22, tzinfo=UTC), "interval": "year", "price_minor": 11900}
BARE = {"name": None, "plan": None, "price_minor": None, "currency": None, "interval": None}
PAYS_A_YEAR = {**ANNUAL, "subscription_status": "active"}
STORE = {"billed_by": "App Store"}
STORES = {"billed_by": ("App Store=https://support.example.com/end",)}
KEEPS = {"on_silence": "keep"}


class Variant(NamedTuple):
    """A mail that differs by its facts or by a setting."""

    kind: Kind
    facts: dict[str, Any] = {}
    settings: dict[str, object] = {}


VARIANTS = {
    "warning-where-silence-keeps": Variant(Kind.WARNING, settings=KEEPS),
    "reminder-where-silence-keeps": Variant(Kind.REMINDER, settings=KEEPS),
    "campaign_ready-where-silence-keeps": Variant(Kind.CAMPAIGN_READY, settings=KEEPS),
    "campaign_ready-with-a-veto": Variant(Kind.CAMPAIGN_READY, settings={"campaign_approval": "veto"}),
    "warning-who-stopped-using": Variant(Kind.WARNING, USED),
    "warning-paid-for-a-year": Variant(Kind.WARNING, ANNUAL),
    "warning-little-is-known": Variant(Kind.WARNING, BARE),
    "warning-after-a-machine": Variant(Kind.WARNING, {"voided": True}),
    "warning-without-reminders": Variant(Kind.WARNING, {"reminded": False}),
    "warning-billed-by-a-store": Variant(Kind.WARNING, STORE, STORES),
    "last_call-billed-by-a-store": Variant(Kind.LAST_CALL, STORE, STORES),
    "receipt_lapse-billed-by-a-store": Variant(Kind.RECEIPT_LAPSE, STORE, STORES),
    "told-where-to-end-it": Variant(Kind.TOLD, STORE, STORES),
    "erased-billed-by-a-store": Variant(Kind.ERASED, STORE, STORES),
    "erase_confirm-billed-by-a-store": Variant(Kind.ERASE_CONFIRM, STORE),
    "warning-where-the-rest-goes-back": Variant(Kind.WARNING, PAYS_A_YEAR, {"refund": "pro_rata"}),
    "lapsed-and-the-rest-went-back": Variant(Kind.LAPSED, {"rest": True, "refunded": Money(1040, "EUR")}),
    "lapsed-paid-for-a-year": Variant(Kind.LAPSED, ANNUAL),
    "lapsed-by-own-wish": Variant(Kind.LAPSED, {"answered_at": datetime(2026, 5, 20, 9, tzinfo=UTC)}),
    "returned-after-the-end": Variant(Kind.RETURNED, {"undone": True}),
    "withdrawn-after-the-end": Variant(Kind.WITHDRAWN, {"undone": True}),
    "needs_attention-unreachable": Variant(Kind.NEEDS_ATTENTION, {"hold_reason": None, "case_state": "unreachable"}),
    "needs_attention-not-mine": Variant(Kind.NEEDS_ATTENTION, {"hold_reason": None, "not_mine": True}),
    "needs_attention-of-another-kind": Variant(Kind.NEEDS_ATTENTION, {"hold_reason": None}),
}
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
    def page(self) -> str:
        """The HTML without its empty lines, which come and go with conditions that nobody sees."""
        return re.sub(r"\n\s*\n", "\n", self.html).strip() + "\n"

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
                for ext, kind in (("txt", "text"), ("html", "page"))}  # fmt: skip


def _steady(value: str) -> str:
    return re.sub(r'boundary="[^"]+"', 'boundary="…"', " ".join(str(value).split()))


def written(name: str, language: str) -> Written:
    """Needs the application context of a mail of this name."""
    here, (kind, facts, _) = installed(), _variant(name)
    mail = sample(here.settings, kind, language, "mia@example.org", NOW, **facts)
    return Written(name, language, mail, here.mailer.written(mail))


def _variant(name: str) -> Variant:
    return VARIANTS.get(name) or Variant(Kind(name))


@contextmanager
def context(folder: Path, **changes: object) -> Iterator[None]:
    """An application whose database is never opened: composing a mail asks none."""
    options = {"public_url": "https://members.lumio.example", "bounce_address": "bounces@lumio.example", **changes}
    with create_app(make_settings(f"sqlite:///{folder}/none.db", folder, **options)).app_context():
        yield


def every_mail(folder: Path) -> Iterator[Written]:
    changed = [dict(variant.settings) for variant in VARIANTS.values() if variant.settings]
    for settings in [{}, *(one for number, one in enumerate(changed) if one not in changed[:number])]:
        with context(folder, **settings):
            for name in (name for name in NAMES if _variant(name).settings == settings):
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
