"""Every setting of Dormouse: its name in the environment in upper case, its type, its default, what it does.

This is the only module that reads the environment. ``load`` gives one frozen object or raises SettingsError with one
line that names the setting and what would be right. docs/settings.md lists them all; a test holds the two together.
"""

import base64
import os
import re
import secrets
from collections.abc import Iterator
from datetime import date, time, timedelta
from email.utils import getaddresses, parseaddr
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from domain import colours
from domain.addresses import address_key, nameable
from domain.dates import start_of_day
from domain.notices import WORDING_VERSION
from domain.policy import Policy, SubscriptionStatus
from domain.return_path import LONGEST_LOCAL_PART

ROOT = Path(__file__).resolve().parent
LARGEST_LOGO = 20_000
"""Bytes: a page with all it loads stays under 60 kB."""


class SettingsError(Exception):
    """A setting that cannot be used; the text is one line that names it.

    ``keyless`` are the settings where they lack nothing but SECRET_KEY.
    """

    def __init__(self, text: str, *, keyless: "Settings | None" = None) -> None:
        super().__init__(text)
        self.keyless = keyless


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("there is no such time zone; write it like Europe/Berlin") from None
    return name


def _absolute_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets or a port that cannot be
        usable = False
    if not usable or parts.query or parts.fragment:
        raise ValueError("write it like https://members.example.org or https://example.org/membership")
    return url.rstrip("/")


def _database_url(url: str) -> str:
    if not url:
        return url
    # SQLAlchemy's default driver for PostgreSQL is not the one that is installed here.
    for scheme in ("postgres://", "postgresql://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    if not url.startswith(("sqlite:///", "postgresql+psycopg://")):
        raise ValueError("write it like sqlite:////srv/dormouse.db or postgresql://user@host/dormouse")
    return url


def _list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _no_line_break(value: str) -> str:
    if "\r" in value or "\n" in value:
        raise ValueError("it must not hold a line break")
    return value


def _bounce_address(value: str) -> str:
    local, _, host = value.rpartition("@")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", local) or not re.fullmatch(r"[A-Za-z0-9.-]+", host):
        raise ValueError("write it like bounces@example.org; a plus and what names the message are put in by itself")
    if len(local) > LONGEST_LOCAL_PART:
        raise ValueError(f"at most {LONGEST_LOCAL_PART} characters may stand before the @: 33 more are put in")
    return value


def _selector(value: str) -> str:
    if value and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", value):
        raise ValueError("write it as it stands before ._domainkey, like 2026a")
    return value


def _folder(value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise ValueError(
            "the name of a folder is written in ASCII; what is beyond that, as the server writes it (&AOk-)"
        )
    return value


def _window(value: str) -> str:
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", value)
    if value and (found is None or found.group(1, 2) == found.group(3, 4)):
        raise ValueError("write it like 08:00-20:00, in the service's time zone; leave it empty for any time")
    return value


def _webhook_keys(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            key = base64.b64decode(value.removeprefix("whsec_"), validate=True)
        except ValueError:
            key = b""
        if not 24 <= len(key) <= 64:
            raise ValueError("write it as Standard Webhooks does: whsec_ and 24 to 64 random bytes in Base64")
    return values


def _origins(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            parts = urlsplit(value)
            usable = (
                parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and "@" not in parts.netloc
            )
        except ValueError:
            usable = False
        if not usable or value != f"{parts.scheme}://{parts.netloc}" or value != value.lower():
            raise ValueError("write origins like https://www.example.org, without a path or a slash at the end")
    return values


def _hook_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.fragment or "@" in parts.netloc or not url.isprintable() or " " in url:
        raise ValueError("write it like https://service.example.org/hooks/membership, without a name or password")
    return url


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ip_network(value)
        except ValueError:
            raise ValueError("write networks like 10.0.0.0/8 or fd00::/8, and one address like 10.1.2.3/32") from None
    return values


def _stores(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        name, _, address = value.partition("=")
        try:
            usable = bool(name.strip()) and bool(_absolute_page(address.strip()))
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("write it like App Store=https://support.example.com/end, Google Play=https://…")
    return values


def _absolute_page(url: str) -> str:
    parts = urlsplit(url)
    return url if parts.scheme == "https" and parts.hostname and url.isprintable() and " " not in url else ""


def _key_of_32_bytes(value: str) -> str:
    try:
        key = base64.b64decode(value, validate=True)
    except ValueError:
        key = b""
    if value and len(key) != 32:
        raise ValueError("write it as 32 bytes in Base64, such as `openssl rand -base64 32` prints")
    return value


def _keys_of_32_bytes(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            _key_of_32_bytes(value)
        except ValueError:
            raise ValueError("write them as `flask evidence key` prints them, separated by commas") from None
    return values


def _right_stripe_key(key: str, *, live: bool) -> None:
    """A test key charges nobody and a live one charges people: which of them is meant is said twice."""
    found = re.fullmatch(r"(?:sk|rk)_(test|live)_\w+", key)
    if found is None:
        raise ValueError("STRIPE_KEY is needed with BILLING=stripe: a secret or restricted key, sk_… or rk_…")
    if (found.group(1) == "live") != live:
        said = "a live key, which charges people: set STRIPE_LIVE=on" if not live else "a test key: unset STRIPE_LIVE"
        raise ValueError(f"STRIPE_KEY is {said}, or use the other key")


def _one_sender(sender: str) -> None:
    addresses = [address for _, address in getaddresses([sender])]
    host = address_key(addresses[0]).rpartition("@")[2] if addresses else ""
    if len(addresses) != 1 or not nameable(addresses[0]) or not host.isascii():
        raise ValueError(
            "MAIL_DEFAULT_SENDER is no address; write it like membership@example.org, or with a name before it like"
            ' "Example, Inc." <membership@example.org>'
        )


def _named(sender: str, name: str) -> str:
    """An address with the service's name before it, unless the setting names its sender itself."""
    own, address = parseaddr(sender)
    if own or not address:
        return sender
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}" <{address}>'


class Notice(NamedTuple):
    """A text of the service's own, and the language it is in."""

    language: str
    paragraphs: tuple[str, ...]


SHORTEST_SHARED_KEY = 32
ED25519_DER = bytes.fromhex("302a300506032b6570032100")
"""How a public Ed25519 key begins that is written as PEM; 32 bytes follow."""


def _is_ed25519(key: str) -> bool:
    try:
        written = base64.b64decode(key, validate=True)
    except ValueError:
        return False
    return written.startswith(ED25519_DER) and len(written) == len(ED25519_DER) + 32


def _colour(value: str) -> str:
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        raise ValueError("write it like #7a4416")
    return value.lower()


Colour = Annotated[str, AfterValidator(_colour)]
CommaSeparated = Annotated[tuple[str, ...], NoDecode]
COMMA_SEPARATED = (
    "exempt_plans",
    "billed_by",
    "use_types",
    "secret_key_fallbacks",
    "bounce_webhook_secret",
    "events_secret",
    "service_keys",
    "service_origins",
    "webhook_networks",
    "evidence_keys_before",
    "stripe_webhook_secret",
    "billing_secret",
)
SECRET = frozenset(
    {
        "database_url",
        "secret_key",
        "secret_key_fallbacks",
        "evidence_key",
        "evidence_keys_before",
        "mail_password",
        "bounce_imap_password",
        "bounce_webhook_secret",
        "billing_secret",
        "stripe_key",
        "stripe_webhook_secret",
        "service_keys",
        "events_secret",
    }
)
"""Settings that a printed one, in a log or a traceback, does not show."""

Line = Annotated[str, AfterValidator(_no_line_break)]
Folder = Annotated[str, AfterValidator(_folder)]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    instance_path: Path = ROOT / "instance"

    database_url: Annotated[str, AfterValidator(_database_url)] = ""
    secret_key: str = ""
    secret_key_fallbacks: CommaSeparated = ()
    evidence_key: Annotated[str, AfterValidator(_key_of_32_bytes)] = ""
    evidence_keys_before: Annotated[CommaSeparated, AfterValidator(_keys_of_32_bytes)] = ()
    public_url: Annotated[str, AfterValidator(_absolute_url)] = "http://localhost:5000"
    trusted_proxies: int = Field(default=0, ge=0)

    service_name: Line = "Dormouse"
    service_timezone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    service_logo: Path | None = None
    service_colour: Colour | None = None
    service_colour_dark: Colour | None = None
    service_highlight: Colour | None = None
    service_highlight_dark: Colour | None = None
    service_url: Annotated[str, AfterValidator(_absolute_url)] | None = None
    default_locale: Literal["en", "de"] = "en"
    membership_word: Literal["Mitgliedschaft", "Abo"] = "Mitgliedschaft"
    german_form: Literal["sie", "du"] = "sie"
    withdrawal_notice_en: str = ""
    withdrawal_notice_de: str = ""

    use_known_since: date | None = None
    never_used_months: int = Field(default=12, ge=1, le=120)
    stopped_using_months: int = Field(default=24, ge=1, le=240)
    keep_months: int = Field(default=10, ge=1, le=120)
    min_notice_days: int = Field(default=14, ge=1, le=60)
    campaign_day: int = Field(default=1, ge=1, le=28)
    campaign_approval: Literal["manual", "veto", "auto"] = "manual"
    on_silence: Literal["lapse", "keep"] = "lapse"
    exempt_plans: CommaSeparated = ()
    max_dormant_percent: float = Field(default=2, ge=0, le=100)
    hold_min_members: int = Field(default=25, ge=0)
    use_feed_max_days: int = Field(default=3, ge=1)

    use_types: CommaSeparated = ()
    api_rate: int = Field(default=6000, ge=0)

    scheduler: bool = True
    demo: bool = False

    mail_server: str = "localhost"
    mail_port: int = Field(default=25, ge=1, le=65535)
    mail_username: str | None = None
    mail_password: str | None = None
    mail_use_tls: bool = False
    mail_use_ssl: bool = False
    mail_default_sender: Line = "membership@localhost"
    mail_dkim_selector: Annotated[str, AfterValidator(_selector)] = ""
    bounce_address: Annotated[str, AfterValidator(_bounce_address)] | None = None
    bounce_imap_server: str = ""
    bounce_imap_port: int = Field(default=993, ge=1, le=65535)
    bounce_imap_starttls: bool = False
    bounce_imap_username: str = ""
    bounce_imap_password: str = ""
    bounce_imap_folder: Folder = "INBOX"
    bounce_imap_aside: Folder = "Aside"
    bounce_webhook_secret: Annotated[CommaSeparated, AfterValidator(_webhook_keys)] = ()
    mail_connections: int = Field(default=10, ge=1, le=200)
    mail_max_emails: int = Field(default=100, ge=0)
    mail_rate: float = Field(default=0, ge=0, le=10_000, allow_inf_nan=False)
    mail_daily: int = Field(default=0, ge=0)
    mail_window: Annotated[str, AfterValidator(_window)] = ""
    max_bounce_percent: float = Field(default=5, ge=0, le=100)

    billing: Literal["local", "stripe", "webhook"] = "local"
    refund: Literal["none", "pro_rata"] = "none"
    billed_by: Annotated[CommaSeparated, AfterValidator(_stores)] = ()
    billing_url: Annotated[str, AfterValidator(_hook_url)] | None = None
    billing_secret: Annotated[CommaSeparated, AfterValidator(_webhook_keys)] = ()
    billing_rate: float = Field(default=20, gt=0, le=1_000, allow_inf_nan=False)
    billing_connections: int = Field(default=8, ge=1, le=100)
    stripe_key: str = ""
    stripe_live: bool = False
    stripe_webhook_secret: CommaSeparated = ()
    stripe_api: Annotated[str, AfterValidator(_absolute_url)] | None = None

    service_keys: CommaSeparated = ()
    service_key_algorithm: Literal["EdDSA", "HS256"] = "EdDSA"
    service_issuer: Line = ""
    service_origins: Annotated[CommaSeparated, AfterValidator(_origins)] = ()
    events_url: Annotated[str, AfterValidator(_hook_url)] | None = None
    events_secret: Annotated[CommaSeparated, AfterValidator(_webhook_keys)] = ()
    webhook_networks: Annotated[CommaSeparated, AfterValidator(_networks)] = ()

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, object]) -> dict[str, object]:
        return {key: _list(value) if key.lower() in COMMA_SEPARATED else value for key, value in values.items()}

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.mail_use_tls and self.mail_use_ssl:
            raise ValueError("MAIL_USE_TLS and MAIL_USE_SSL exclude each other: the first is STARTTLS on a plain port")
        if self.bounce_imap_folder == self.bounce_imap_aside:
            raise ValueError("BOUNCE_IMAP_ASIDE must be another folder than BOUNCE_IMAP_FOLDER")
        _one_sender(self.mail_default_sender)
        _usable_logo(self.logo)
        _readable(self)
        if self.events_url and not self.events_secret:
            raise ValueError("EVENTS_SECRET is not set: without it nobody could tell our events from made-up ones")
        if self.billing == "webhook" and not (self.billing_url and self.billing_secret):
            raise ValueError("BILLING_URL and BILLING_SECRET are needed with BILLING=webhook: where orders go, signed")
        if self.billing == "stripe":
            _right_stripe_key(self.stripe_key, live=self.stripe_live)
        for key in self.service_keys:
            if self.service_key_algorithm == "HS256" and len(key.encode()) < SHORTEST_SHARED_KEY:
                raise ValueError(f"SERVICE_KEYS: a key for HS256 has {SHORTEST_SHARED_KEY} bytes or more")
            if self.service_key_algorithm == "EdDSA" and not _is_ed25519(key):
                raise ValueError("SERVICE_KEYS: write the public Ed25519 key as the line between those of its PEM file")
        if self.service_keys and not self.service_issuer:
            raise ValueError("SERVICE_ISSUER is not set: it is what the service names itself in its assertions")
        return self

    @property
    def logo(self) -> Path | None:
        """The file of the service's logo; a name without a folder is one in the instance folder."""
        return None if self.service_logo is None else self.instance_path / self.service_logo

    @property
    def where_to_end(self) -> dict[str, str]:
        """Who bills memberships by themselves → the page where their customers end them."""
        pairs = (one.partition("=") for one in self.billed_by)
        return {name.strip(): address.strip() for name, _, address in pairs}

    @property
    def palettes(self) -> tuple[colours.Palette, colours.Palette] | None:
        """The light and the dark palette of the service's own colours; None: it has none, and gets the usual look."""
        if self.service_colour is None:
            return None
        highlight = self.service_highlight or self.service_colour
        dark_highlight = self.service_highlight_dark or highlight
        dark = self.service_colour_dark or colours.lightened(self.service_colour, dark_highlight)
        return colours.light(self.service_colour, highlight), colours.dark(dark, dark_highlight)

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.service_timezone)

    @property
    def window(self) -> tuple[time, time] | None:
        """From when until when notices may go out, each day; None: at any time."""
        opens, dash, closes = self.mail_window.partition("-")
        return (time.fromisoformat(opens), time.fromisoformat(closes)) if dash else None

    def withdrawal_notice(self, language: str) -> "Notice | None":
        """What is said of the right of withdrawal beside an order; in another language rather than not at all."""
        texts = {"en": self.withdrawal_notice_en, "de": self.withdrawal_notice_de}
        for tag in sorted(texts, key=lambda tag: tag != language):
            lines = texts[tag].replace("\\n", "\n").split("\n")
            if paragraphs := tuple(line.strip() for line in lines if line.strip()):
                return Notice(tag, paragraphs)
        return None

    @property
    def variants(self) -> tuple[str, ...]:
        """Which catalogues lie over the usual words, the last on top."""
        found = [
            name
            for name, chosen in (("du", self.german_form == "du"), ("abo", self.membership_word == "Abo"))
            if chosen
        ]
        return (*found, "abo-du") if len(found) == 2 else tuple(found)

    @property
    def wording_version(self) -> str:
        """Which words a member had before them: the version of the texts, and the variant."""
        return "/".join((WORDING_VERSION, *self.variants[-1:]))

    @property
    def translation_folders(self) -> list[str]:
        folder = ROOT / "translations"
        return [str(folder), *(str(folder / "variants" / name) for name in self.variants)]

    def gives_back(self, price_minor: int | None, subscription_status: str | None) -> bool:
        """Whether an end gives the rest of a paid period back, so that access ends with the membership."""
        return self.refund == "pro_rata" and bool(price_minor) and subscription_status == SubscriptionStatus.ACTIVE

    @property
    def policy(self) -> Policy:
        since = self.use_known_since
        return Policy(
            zone=self.zone,
            never_used_months=self.never_used_months,
            stopped_using_months=self.stopped_using_months,
            use_known_since=None if since is None else start_of_day(since, self.zone),
            exempt_plans=frozenset(self.exempt_plans),
        )

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        for name, value in super().__repr_args__():
            yield name, "…" if name in SECRET and value else value

    @property
    def networks(self) -> list[IPv4Network | IPv6Network]:
        """Private networks that webhooks may go to, also without TLS."""
        return [ip_network(one) for one in self.webhook_networks]

    @property
    def secrets(self) -> list[str]:
        """The keys that sign, oldest first: what itsdangerous expects for rotation."""
        return [*self.secret_key_fallbacks, self.secret_key]

    @property
    def default_database_url(self) -> str:
        """The database in the instance folder, which is used where none is configured."""
        return f"sqlite:///{self.instance_path.resolve() / 'dormouse.db'}"

    def flask_config(self) -> dict[str, object]:
        """What Flask and its extensions read of this."""
        url = urlsplit(self.public_url)
        return {
            "SECRET_KEY": self.secret_key,
            "SECRET_KEY_FALLBACKS": list(reversed(self.secret_key_fallbacks)),
            "APPLICATION_ROOT": url.path or "/",
            "PREFERRED_URL_SCHEME": url.scheme,
            "SESSION_COOKIE_NAME": "dormouse",
            "SESSION_COOKIE_PATH": url.path or "/",
            "SESSION_COOKIE_SECURE": url.scheme == "https",
            "SESSION_COOKIE_HTTPONLY": True,
            "SESSION_COOKIE_SAMESITE": "Lax",
            "PERMANENT_SESSION_LIFETIME": timedelta(days=31),
            "MAX_CONTENT_LENGTH": 1024 * 1024,
            "WTF_CSRF_TIME_LIMIT": None,
            "BABEL_DEFAULT_LOCALE": self.default_locale,
            "BABEL_DEFAULT_TIMEZONE": self.service_timezone,
            "SQLALCHEMY_DATABASE_URI": self.database_url,
            "MAIL_SERVER": self.mail_server,
            "MAIL_PORT": self.mail_port,
            "MAIL_USERNAME": self.mail_username,
            "MAIL_PASSWORD": self.mail_password,
            "MAIL_USE_TLS": self.mail_use_tls,
            "MAIL_USE_SSL": self.mail_use_ssl,
            "MAIL_DEFAULT_SENDER": _named(self.mail_default_sender, self.service_name),
            "MAIL_MAX_EMAILS": self.mail_max_emails or None,
            "MAIL_DEBUG": 0,
        }


def _usable_logo(logo: Path | None) -> None:
    if logo is None:
        return
    if logo.suffix not in (".svg", ".png", ".webp"):
        raise ValueError(f"SERVICE_LOGO: {logo.name} is no .svg, .png or .webp file")
    try:
        size = logo.stat().st_size
    except OSError as error:
        raise ValueError(f"SERVICE_LOGO: {logo} cannot be read: {error.strerror}") from None
    if size > LARGEST_LOGO:
        raise ValueError(
            f"SERVICE_LOGO: {logo.name} has {size} bytes; every page carries it, so {LARGEST_LOGO} are enough"
        )


SEEN = {"accent": "a link or button", "accent-hover": "a link", "accent-bg": "a box", "glow": "the notice"}


def _readable(settings: Settings) -> None:
    """Colours that cannot be read end the start, with one that can."""
    lonely = {"SERVICE_COLOUR_DARK", "SERVICE_HIGHLIGHT", "SERVICE_HIGHLIGHT_DARK"}
    if settings.palettes is None:
        for name in sorted(lonely):
            if getattr(settings, name.lower()) is not None:
                raise ValueError(f"{name} needs SERVICE_COLOUR beside it")
        return
    for palette, name, mended in zip(
        settings.palettes, ("SERVICE_COLOUR", "SERVICE_COLOUR_DARK"), (colours.darkened, colours.lightened), strict=True
    ):
        weak = colours.weak(palette)
        if weak:
            front, ground, found = min(weak, key=lambda pair: pair[2])
            raise ValueError(
                f"{name}: {palette['accent']} cannot be read well: {SEEN.get(front, 'a text')} on"
                f" {SEEN.get(ground, 'the page')} would have a contrast of {found:.1f}, and {colours.TEXT} is the least"
                f" (WCAG 2.2); {mended(palette['accent'], settings.service_highlight)} would do"
            )


def load(**overrides: object) -> Settings:
    """Read the environment and ``instance/dormouse.env``; ``overrides`` win over both.

    Fills in what has no fixed default: the database in the instance folder, and, with SQLite, the keys that sign: made
    once and kept there (mode 0600). Several machines on PostgreSQL must share them, so there they have to be set: one
    cannot start without SECRET_KEY, and signs no evidence without EVIDENCE_KEY.
    """
    try:
        instance = Path(str(overrides.get("instance_path") or os.environ.get("INSTANCE_PATH") or ROOT / "instance"))
        settings = Settings(_env_file=instance / "dormouse.env", **overrides)  # type: ignore[call-arg, arg-type]
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None
    except UnicodeDecodeError:
        raise SettingsError(f"{instance / 'dormouse.env'} is not UTF-8") from None
    missing: dict[str, object] = {}
    if not settings.database_url:
        missing["database_url"] = settings.default_database_url
    url = str(missing.get("database_url", settings.database_url))
    if not settings.secret_key:
        if not url.startswith("sqlite"):
            raise SettingsError(
                "SECRET_KEY is not set; with PostgreSQL every process needs the same one", keyless=settings
            )
        missing["secret_key"] = _kept_key(settings.instance_path, "secret_key", secrets.token_urlsafe(48))
    if not settings.evidence_key and url.startswith("sqlite"):
        fresh = base64.b64encode(secrets.token_bytes(32)).decode()
        missing["evidence_key"] = _kept_key(settings.instance_path, "evidence_key", fresh)
        try:
            _key_of_32_bytes(str(missing["evidence_key"]))
        except ValueError as error:
            raise SettingsError(f"{settings.instance_path / 'evidence_key'} is no key: {error}") from None
    return settings.model_copy(update=missing)


def _kept_key(instance: Path, name: str, fresh: str) -> str:
    """What the file of this name holds; ``fresh``, if there is none yet."""
    path = instance / name
    try:
        instance.mkdir(parents=True, exist_ok=True)
        try:
            # Made whole before it gets its name: of two processes that start at once, both read the same key.
            draft = instance / f".{name}.{secrets.token_hex(4)}"
            draft.touch(mode=0o600)
            draft.write_text(fresh)
            if not path.exists():
                os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink(missing_ok=True)
        key = path.read_text().strip()
    except OSError as error:
        what = name.replace("_", " ")
        raise SettingsError(f"INSTANCE_PATH={instance}: cannot keep the {what} there: {error.strerror}") from None
    if not key:
        raise SettingsError(f"{path} is empty: remove it, and a new key is made")
    return key


_WRITE_IT = {
    "bool_parsing": "write on or off",
    "float_parsing": "write a number like 14 or 0.5",
    "int_parsing": "write a whole number like 14",
    "int_from_float": "write a whole number like 14",
}
"""What pydantic says of these is for programmers."""


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = str(first["loc"][0]).upper() if first["loc"] else ""
    text = _WRITE_IT.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"{name}: {text}" if name else text
