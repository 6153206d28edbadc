"""`flask evidence`: what operators hand out, and what somebody checks who trusts neither them nor this program."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from html5lib import HTMLParser

from models import db
from services import signing
from settings import ROOT
from tests import factories
from tests.doubles import FrozenClock
from tests.services.test_evidence import MONTH_END, ended

SEED = base64.b64encode(bytes(range(32))).decode()
FINGERPRINT = "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c"
"""SHA-256 of the public key of RFC 8032 that belongs to the seed 00 01 … 1f."""


@pytest.fixture
def app(make_app: Callable[..., Flask], clock: FrozenClock) -> Flask:
    app = make_app(evidence_key=SEED)
    with app.app_context():
        ended(
            db.session(), app.extensions["dormouse"].settings, external_id="K-7", email="mia@example.org", locale="de"
        )
        factories.using(db.session(), external_id="K-8")
        db.session.commit()
    clock.travel(MONTH_END)
    return app


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


def exported(runner: FlaskCliRunner, folder: Path) -> tuple[Path, Path]:
    done = runner.invoke(args=["evidence", "export", "K-7", "--to", str(folder)])
    assert done.exit_code == 0, done.output
    file, page = map(Path, done.output.split())
    return file, page


def test_from_the_export_to_the_verdict(runner: FlaskCliRunner, tmp_path: Path) -> None:
    file, page = exported(runner, tmp_path / "out")
    assert (file.stat().st_mode & 0o077, page.stat().st_mode & 0o077) == (0, 0)
    html = page.read_text()
    HTMLParser(strict=True).parse(html)
    assert '<html lang="de">' in html
    assert "30. Juni 2026" in html
    assert json.loads(file.read_text())["signature"]["value"] in html, "both are of one moment"
    assert not re.search(r"<(script|style|link|img)|\shref=", html), "it is read without this site"
    keys = runner.invoke(args=["evidence", "key"])
    assert (keys.exit_code, FINGERPRINT in keys.output.replace(" ", "")) == (0, True)
    pem = tmp_path / "keys.pem"
    pem.write_text(keys.output)
    for trusted in ([], ["--key", str(pem)], ["--fingerprint", FINGERPRINT], ["--fingerprint", FINGERPRINT.upper()]):
        done = runner.invoke(args=["evidence", "verify", str(file), *trusted])
        assert done.exit_code == 0, done.output
        assert "the signature is good" in done.output
        assert "2026-06-30" in done.output


def test_a_changed_file_another_key_and_no_record_each_get_one_clear_line(
    runner: FlaskCliRunner, tmp_path: Path
) -> None:
    file, page = exported(runner, tmp_path)
    content = file.read_text()
    assert '"accepted_at": "2026-06-03T' in content
    forged = tmp_path / "forged.json"
    forged.write_text(content.replace('"accepted_at": "2026-06-03T', '"accepted_at": "2026-06-02T', 1))
    others = tmp_path / "others.pem"
    others.write_text(signing.PublicKey(bytes([1] * 32)).pem)
    for arguments, why in (
        ([forged], "the record is not as it was signed"),
        ([page], "it is not JSON"),
        ([file, "--key", others], "signed by a key that is not in"),
        ([file, "--key", page], "there is no public key"),
        ([file, "--fingerprint", "3b1c"], "signed by another key"),
    ):
        refused = runner.invoke(args=["evidence", "verify", *map(str, arguments)])
        assert refused.exit_code == 1
        assert why in refused.output
        assert len(refused.output.splitlines()) == 1, refused.output


def test_the_lines_in_the_document_verify_without_this_program(runner: FlaskCliRunner, tmp_path: Path) -> None:
    file, _ = exported(runner, tmp_path)
    [script] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "evidence.md").read_text(), re.S)
    program = tmp_path / "verify.py"
    program.write_text(script)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", str(program), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    good = run(str(file), FINGERPRINT)
    assert (good.returncode, good.stdout) == (0, f"good, signed by {FINGERPRINT}\n"), good.stderr
    assert "another key" in run(str(file), "3b1c").stderr
    changed = tmp_path / "changed.json"
    changed.write_text(file.read_text().replace('"by": "silence"', '"by": "own_wish"'))
    assert "InvalidSignature" in run(str(changed)).stderr


def test_somebody_elses_record_verifies_and_says_that_the_key_is_to_be_compared(
    runner: FlaskCliRunner, make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    """Whoever made the file up can sign it: with a key of their own."""
    file, _ = exported(runner, tmp_path)
    stranger = make_app(evidence_key=base64.b64encode(bytes(32)).decode()).test_cli_runner()
    done = stranger.invoke(args=["evidence", "verify", str(file)])
    assert done.exit_code == 0
    assert "compare the fingerprint" in done.output
    assert "one of this installation" not in done.output


def test_a_terminal_shows_each_end_and_says_who_has_none(runner: FlaskCliRunner) -> None:
    shown = runner.invoke(args=["evidence", "show", "K-7"]).output
    for part in ("ended with 30 June 2026", "250 2.0.0 queued", "mia@example.org", "sub_stopped_1", "Wording"):
        assert part in shown, part
    (signed,) = json.loads(runner.invoke(args=["evidence", "show", "K-7", "--json"]).output)
    record = signed["record"]["case"]["id"]
    assert json.loads(runner.invoke(args=["evidence", "show", "--record", record, "--json"]).output) == [signed]
    for arguments, why in (
        (["K-8"], "has not been ended by this programme"),
        (["K-9"], "There is no member 'K-9'"),
        (["--record", "nothing"], "There is no record"),
        ([], "name a member"),
    ):
        refused = runner.invoke(args=["evidence", "show", *arguments])
        assert (refused.exit_code, why in refused.output) == (1, True), refused.output


def test_without_a_key_it_says_what_to_set(make_app: Callable[..., Flask]) -> None:
    runner = make_app().test_cli_runner()
    for arguments in (["key"], ["export", "K-7"]):
        refused = runner.invoke(args=["evidence", *arguments])
        assert refused.exit_code == 1
        assert "EVIDENCE_KEY is not set" in refused.output
    assert "EVIDENCE_KEY is not set" in runner.invoke(args=["doctor"]).output
