"""Settings: where they come from, what a bad one gets, and the secret key that is made once."""

import base64
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from domain.dates import named_day
from settings import ROOT, SECRET, Settings, SettingsError, load

BAD = [
    ("SERVICE_TIMEZONE", "Mars/Olympus"),
    ("SERVICE_TIMEZONE", "Europe"),
    ("SERVICE_TIMEZONE", "../../etc/passwd"),
    ("SERVICE_TIMEZONE", "/etc/localtime"),
    ("PUBLIC_URL", "members.example.org"),
    ("PUBLIC_URL", "ftp://members.example.org"),
    ("PUBLIC_URL", "https://members.example.org/?a=b"),
    ("PUBLIC_URL", "https://members.example.org/#top"),
    ("PUBLIC_URL", "https://"),
    ("PUBLIC_URL", "http://[::1"),
    ("PUBLIC_URL", "http://members.example.org:door"),
    ("DATABASE_URL", "mysql://root@localhost/dormouse"),
    ("DATABASE_URL", "dormouse.db"),
    ("TRUSTED_PROXIES", "-1"),
    ("DEFAULT_LOCALE", "fr"),
    ("SERVICE_NAME", "Lumio\r\nBcc: everyone@example.org"),
    ("USE_KNOWN_SINCE", "2026-02-30"),
    ("USE_KNOWN_SINCE", "last year"),
    ("NEVER_USED_MONTHS", "0"),
    ("NEVER_USED_MONTHS", "twelve"),
    ("STOPPED_USING_MONTHS", "-1"),
    ("KEEP_MONTHS", "0"),
    ("KEEP_MONTHS", "9.5"),
    ("MIN_NOTICE_DAYS", "0"),
    ("MIN_NOTICE_DAYS", "61"),
    ("CAMPAIGN_DAY", "0"),
    ("CAMPAIGN_DAY", "29"),
    ("CAMPAIGN_APPROVAL", "perhaps"),
    ("ON_SILENCE", "delete"),
    ("MAX_DORMANT_PERCENT", "101"),
    ("MAX_DORMANT_PERCENT", "nan"),
    ("HOLD_MIN_MEMBERS", "-1"),
    ("USE_FEED_MAX_DAYS", "0"),
    ("API_RATE", "-1"),
    ("API_RATE", "many"),
    ("SCHEDULER", "sometimes"),
    ("DEMO", "sometimes"),
    ("MAIL_PORT", "0"),
    ("MAIL_PORT", "65536"),
    ("MAIL_USE_TLS", "starttls"),
    ("MAIL_USE_SSL", "2"),
    ("MAIL_DEFAULT_SENDER", "membership"),
    ("MAIL_DEFAULT_SENDER", " "),
    ("MAIL_DEFAULT_SENDER", "Lumio, Inc. <membership@lumio.example>"),
    ("MAIL_DEFAULT_SENDER", "a@example.org, b@example.org"),
    ("MAIL_DEFAULT_SENDER", f"Lumio <membership@{'ä' * 64}.example>"),
    ("MAIL_DEFAULT_SENDER", "a@example.org\nBcc: b@example.org"),
    ("MAIL_DKIM_SELECTOR", "2026a._domainkey.example.org."),
    ("BOUNCE_ADDRESS", "bounces"),
    ("BOUNCE_ADDRESS", "bounces+all@example.org"),
    ("BOUNCE_ADDRESS", "a-local-part-that-is-much-too-long@example.org"),
    ("BOUNCE_IMAP_PORT", "0"),
    ("BOUNCE_IMAP_STARTTLS", "perhaps"),
    ("BOUNCE_IMAP_FOLDER", "Rückläufer"),
    ("BOUNCE_IMAP_ASIDE", "a\nb"),
    ("BOUNCE_WEBHOOK_SECRET", "whsec_"),
    ("SERVICE_KEYS", "MCowBQYDK2VwAyEA"),
    ("SERVICE_KEYS", "swordfish"),
    ("SERVICE_KEY_ALGORITHM", "none"),
    ("SERVICE_ISSUER", "a\nb"),
    ("SERVICE_ORIGINS", "https://lumio.example/"),
    ("SERVICE_ORIGINS", "*"),
    ("SERVICE_ORIGINS", "null"),
    ("EVENTS_URL", "https://name:word@lumio.example/hooks"),
    ("EVENTS_SECRET", "whsec_c2hvcnQ="),
    ("WEBHOOK_NETWORKS", "10.0.0.1/8"),
    ("BOUNCE_WEBHOOK_SECRET", "whsec_c2hvcnQ="),
    ("BOUNCE_WEBHOOK_SECRET", "whsec_not Base64 at all, however long"),
    ("SERVICE_URL", "www.lumio.example"),
    ("MEMBERSHIP_WORD", "Vertrag"),
    ("GERMAN_FORM", "ihr"),
    ("SERVICE_LOGO", "nowhere.svg"),
    ("SERVICE_LOGO", "logo.bmp"),
    ("SERVICE_COLOUR", "blue"),
    ("SERVICE_COLOUR", "#ffcc00"),
    ("SERVICE_COLOUR_DARK", "#0b5d7a"),
    ("SERVICE_HIGHLIGHT", "#fff"),
    ("SERVICE_HIGHLIGHT_DARK", "#a9752b"),
    ("MAIL_CONNECTIONS", "0"),
    ("MAIL_MAX_EMAILS", "-1"),
    ("MAIL_RATE", "-1"),
    ("MAIL_RATE", "nan"),
    ("MAIL_DAILY", "-1"),
    ("MAIL_WINDOW", "8-20"),
    ("MAIL_WINDOW", "08:00-24:00"),
    ("MAIL_WINDOW", "08:00-08:00"),
    ("MAX_BOUNCE_PERCENT", "101"),
    ("BILLING", "cash"),
    ("EVIDENCE_KEY", "c2hvcnQ="),
    ("EVIDENCE_KEY", "no Base64 at all, and not 32 bytes"),
    ("EVIDENCE_KEYS_BEFORE", "c2hvcnQ="),
    ("REFUND", "all"),
    ("BILLED_BY", "App Store"),
    ("BILLED_BY", "App Store=http://plain.example.org"),
    ("BILLING_URL", "lumio.example"),
    ("BILLING_SECRET", "whsec_short"),
    ("BILLING_RATE", "0"),
    ("BILLING_RATE", "inf"),
    ("BILLING_CONNECTIONS", "0"),
    ("STRIPE_LIVE", "perhaps"),
    ("STRIPE_API", "localhost:8420"),
]

FREE_TEXT = {
    "INSTANCE_PATH",
    "SECRET_KEY",
    "SECRET_KEY_FALLBACKS",
    "EXEMPT_PLANS",
    "USE_TYPES",
    "MAIL_SERVER",
    "BOUNCE_IMAP_SERVER",
    "BOUNCE_IMAP_USERNAME",
    "BOUNCE_IMAP_PASSWORD",
    "MAIL_USERNAME",
    "MAIL_PASSWORD",
    "STRIPE_KEY",
    "STRIPE_WEBHOOK_SECRET",
    "WITHDRAWAL_NOTICE_EN",
    "WITHDRAWAL_NOTICE_DE",
}
"""Settings of which no value is wrong in itself."""


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


# What a bad value gets


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_gives_one_line_that_names_the_setting(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"^{name}\b") as refused:
        load(instance_path=tmp_path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) > len(name) + 10, "it says what would be right"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MAIL_RATE", "fast", "write a number like 14 or 0.5"),
        ("MAIL_DAILY", "1.5", "write a whole number like 14"),
        ("MAIL_DAILY", "many", "write a whole number like 14"),
        ("MAIL_USE_TLS", "maybe", "write on or off"),
    ],
)
def test_what_is_no_number_is_said_in_words_for_operators(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: {said}$"):
        load(instance_path=tmp_path)


def test_every_setting_that_can_be_wrong_is_tried() -> None:
    assert {name for name, _ in BAD} | FREE_TEXT == {name.upper() for name in Settings.model_fields}


def test_a_bad_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://root:swordfish@localhost/dormouse")
    with pytest.raises(SettingsError) as refused:
        load(instance_path=tmp_path)
    assert "swordfish" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "live"),
    [("", "off"), ("pk_test_abc", "off"), ("sk_live_abc", "off"), ("rk_test_abc", "on"), ("whsec_abc", "on")],
)
def test_a_stripe_key_that_is_none_or_of_the_other_mode_ends_the_start(
    key: str, live: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BILLING", "stripe")
    monkeypatch.setenv("STRIPE_KEY", key)
    monkeypatch.setenv("STRIPE_LIVE", live)
    with pytest.raises(SettingsError, match="STRIPE_KEY is") as refused:
        load(instance_path=tmp_path)
    assert not key or key not in str(refused.value)
    monkeypatch.setenv("STRIPE_KEY", f"rk_{'live' if live == 'on' else 'test'}_abc")
    assert load(instance_path=tmp_path).stripe_live == (live == "on")


def test_starttls_and_tls_from_the_start_exclude_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAIL_USE_TLS", "on")
    monkeypatch.setenv("MAIL_USE_SSL", "on")
    with pytest.raises(SettingsError, match="MAIL_USE_TLS and MAIL_USE_SSL exclude each other"):
        load(instance_path=tmp_path)


def test_an_instance_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"^INSTANCE_PATH=.*/file/instance: cannot keep the secret key there"):
        load(instance_path=tmp_path / "file" / "instance")


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load(instance_path=tmp_path).keep_months = 0


# Where they come from


def test_without_anything_everything_has_its_default(tmp_path: Path) -> None:
    settings = load(instance_path=tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path / 'dormouse.db'}"
    assert (settings.never_used_months, settings.stopped_using_months, settings.keep_months) == (12, 24, 10)
    assert (settings.min_notice_days, settings.campaign_day) == (14, 1)
    assert (settings.campaign_approval, settings.on_silence) == ("manual", "lapse")
    assert (settings.max_dormant_percent, settings.hold_min_members, settings.use_feed_max_days) == (2, 25, 3)
    assert settings.scheduler
    assert not settings.demo


def test_the_file_in_the_instance_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "dormouse.env").write_text(
        'SERVICE_NAME="Lumio & Söhne"\n# a comment\nKEEP_MONTHS=12\nEXEMPT_PLANS=Patron, Staff ,\n'
    )
    settings = load(instance_path=tmp_path)
    assert (settings.service_name, settings.keep_months) == ("Lumio & Söhne", 12)
    assert settings.exempt_plans == ("Patron", "Staff")
    assert settings.policy.exempt_plans == {"Patron", "Staff"}


def test_instance_path_itself_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dormouse.env").write_text("KEEP_MONTHS=11\n")
    monkeypatch.setenv("INSTANCE_PATH", str(tmp_path))
    settings = load()
    assert (settings.instance_path, settings.keep_months) == (tmp_path, 11)


def test_the_environment_wins_over_the_file_and_an_argument_over_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dormouse.env").write_text("KEEP_MONTHS=11\nMIN_NOTICE_DAYS=20\nCAMPAIGN_DAY=2\n")
    monkeypatch.setenv("KEEP_MONTHS", "12")
    monkeypatch.setenv("CAMPAIGN_DAY", "3")
    settings = load(instance_path=tmp_path, campaign_day=4)
    assert (settings.keep_months, settings.min_notice_days, settings.campaign_day) == (12, 20, 4)


def test_a_bad_value_in_the_file_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "dormouse.env").write_text("KEEP_MONTHS=ten\n")
    with pytest.raises(SettingsError, match=r"^KEEP_MONTHS\b"):
        load(instance_path=tmp_path)


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "dormouse.env").write_bytes("SERVICE_NAME=Söhne\n".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"dormouse\.env.*UTF-8"):
        load(instance_path=tmp_path)


@pytest.mark.parametrize("name", sorted(name.upper() for name in Settings.model_fields))
def test_an_empty_value_counts_as_not_set(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a line of a compose file without a value gives it."""
    usual = load(instance_path=tmp_path)
    monkeypatch.setenv(name, "")
    assert load(instance_path=tmp_path) == usual


# What is made of them


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgresql://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgres://u:p@h:5433/d?sslmode=require", "postgresql+psycopg://u:p@h:5433/d?sslmode=require"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d"),
        ("sqlite:////srv/dormouse.db", "sqlite:////srv/dormouse.db"),
    ],
)
def test_an_address_of_postgresql_gets_the_driver_that_is_installed(given: str, used: str, tmp_path: Path) -> None:
    assert load(instance_path=tmp_path, database_url=given, secret_key="k").database_url == used


@pytest.mark.parametrize("given", ["https://example.org/membership/", "https://example.org/membership"])
def test_a_path_in_the_public_address_is_honoured(given: str, tmp_path: Path) -> None:
    settings = load(instance_path=tmp_path, public_url=given)
    assert settings.public_url == "https://example.org/membership"
    config = settings.flask_config()
    assert config["APPLICATION_ROOT"] == config["SESSION_COOKIE_PATH"] == "/membership"
    assert config["SESSION_COOKIE_SECURE"] is True


def test_use_is_known_from_the_start_of_the_local_day(tmp_path: Path) -> None:
    settings = load(instance_path=tmp_path, use_known_since="2026-01-10", service_timezone="Pacific/Kiritimati")
    since = settings.policy.use_known_since
    assert since is not None
    assert since.isoformat() == "2026-01-09T10:00:00+00:00"
    assert named_day(since, settings.zone).isoformat() == "2026-01-09"


# The keys that sign

KEPT = {"secret_key", "evidence_key"}


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first = load(instance_path=tmp_path / "new").secret_key
    kept = tmp_path / "new" / "secret_key"
    assert len(first) >= 43
    assert load(instance_path=tmp_path / "new").secret_key == first == kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert load(instance_path=tmp_path / "other").secret_key != first
    assert {path.name for path in (tmp_path / "new").iterdir()} == KEPT


def test_of_processes_that_start_at_once_all_have_the_same_key(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time; from settings import load; folder = pathlib.Path(sys.argv[1]);"
        "print('ready', flush=True); sys.stdin.readline(); print(load(instance_path=folder).secret_key)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "instance")],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    keys = {process.communicate(timeout=300)[0].strip() for process in processes}
    assert len(keys) == 1
    assert len(keys.pop()) >= 43
    assert {path.name for path in (tmp_path / "instance").iterdir()} == KEPT


def test_an_empty_key_on_disk_signs_nothing(tmp_path: Path) -> None:
    """What is left of a full disk."""
    (tmp_path / "secret_key").touch()
    with pytest.raises(SettingsError, match=r"secret_key is empty"):
        load(instance_path=tmp_path)


def test_a_key_that_is_set_is_not_kept(tmp_path: Path) -> None:
    signs = base64.b64encode(bytes(32)).decode()
    found = load(instance_path=tmp_path, secret_key="set", evidence_key=signs)
    assert (found.secret_key, found.evidence_key) == ("set", signs)
    assert list(tmp_path.iterdir()) == []


def test_the_key_for_evidence_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    made = load(instance_path=tmp_path).evidence_key
    kept = tmp_path / "evidence_key"
    assert len(base64.b64decode(made, validate=True)) == 32
    assert load(instance_path=tmp_path).evidence_key == made == kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    kept.write_text("half a key")
    with pytest.raises(SettingsError, match=r"evidence_key is no key: .*32 bytes"):
        load(instance_path=tmp_path)


def test_with_postgresql_no_key_for_evidence_is_made_up(tmp_path: Path) -> None:
    """Every process would have one of its own."""
    found = load(instance_path=tmp_path, database_url="postgresql://u@h/d", secret_key="set")
    assert (found.evidence_key, list(tmp_path.iterdir())) == ("", [])


def test_postgresql_needs_a_key_that_is_set(tmp_path: Path) -> None:
    """Several machines share the database, and must share the key."""
    with pytest.raises(SettingsError, match=r"^SECRET_KEY is not set"):
        load(instance_path=tmp_path, database_url="postgresql://h/d")
    assert list(tmp_path.iterdir()) == []


def test_older_keys_still_verify_and_the_newest_signs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET_KEY", "newest")
    monkeypatch.setenv("SECRET_KEY_FALLBACKS", "oldest, older")
    settings = load(instance_path=tmp_path)
    assert settings.secrets == ["oldest", "older", "newest"]
    assert settings.flask_config()["SECRET_KEY_FALLBACKS"] == ["older", "oldest"]


# What is written about them

PAGE = (ROOT / "docs" / "settings.md").read_text()
ROW = re.compile(r"^\| `([A-Z_]+)` \| ([^|]*) \| ([^|]+) \| ([^|]*) \|$", re.MULTILINE)
COMPUTED = {"INSTANCE_PATH", "DATABASE_URL", "SECRET_KEY", "EVIDENCE_KEY"}


def test_no_secret_stands_in_what_is_printed(tmp_path: Path) -> None:
    sounds_like_one = re.compile("secret|password|_key$|_keys")
    named = {name for name in Settings.model_fields if sounds_like_one.search(name)}
    assert named <= SECRET
    assert set(Settings.model_fields) >= SECRET
    told = Settings(
        instance_path=tmp_path,
        database_url="postgresql://dormouse:very-secret@localhost/dormouse",
        secret_key="very-secret",
        mail_password="very-secret",
        secret_key_fallbacks=("very-secret",),
    )
    assert "very-secret" not in f"{told!r} {told}"
    assert "service_name" in repr(told)


def test_every_setting_is_documented_and_nothing_else_is() -> None:
    documented = [found[1] for found in ROW.finditer(PAGE)]
    assert sorted(documented) == sorted(name.upper() for name in Settings.model_fields)


def test_the_documented_defaults_are_those_of_the_code() -> None:
    shown = {found[1]: found[2].strip() for found in ROW.finditer(PAGE) if found[1] not in COMPUTED}
    for name, field in Settings.model_fields.items():
        if name.upper() in COMPUTED:
            continue
        default = field.default
        text = {True: "on", False: "off"}[default] if isinstance(default, bool) else str(default)
        expected = "none" if default in (None, "", ()) and default is not False else f"`{text}`"
        assert shown[name.upper()] == expected, name


def test_the_documented_examples_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lumio.svg").touch()
    for found in ROW.finditer(PAGE):
        name, example = found[1], found[4].strip().strip("`")
        if not example or name == "INSTANCE_PATH":
            continue
        with monkeypatch.context() as environment:
            environment.setenv("SECRET_KEY", "k")
            environment.setenv("SERVICE_ISSUER", "lumio")
            environment.setenv("EVENTS_SECRET", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
            # Which the other colours need beside them.
            environment.setenv("SERVICE_COLOUR", "#0b5d7a")
            environment.setenv(name, example)
            load(instance_path=tmp_path)
