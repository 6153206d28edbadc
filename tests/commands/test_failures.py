"""What a person can put right is one clear line on stderr with exit code 1; the commands run as processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import create_engine, text

from models import db
from settings import ROOT

BIN = Path(sys.executable).parent


def run(command: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLASK_")}
    return subprocess.run(
        [str(BIN / word) if index == 0 else word for index, word in enumerate(command.split())],
        cwd=ROOT,
        env={**environment, "INSTANCE_PATH": str(folder), **settings},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def one_line(finished: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in finished.stderr.splitlines() if line.startswith("Error") or "Traceback" in line]
    assert finished.returncode != 0
    assert len(lines) == 1, finished.stderr
    return lines[0]


@pytest.mark.parametrize(
    "command", ["flask db upgrade", "flask run", "flask jobs list", "flask routes", "flask operator"]
)
def test_a_bad_setting_is_named_whatever_the_command(tmp_path: Path, command: str) -> None:
    said = run(command, tmp_path, SERVICE_TIMEZONE="Europe/Berln")
    assert one_line(said) == "Error: SERVICE_TIMEZONE: there is no such time zone; write it like Europe/Berlin"
    assert said.returncode == 1
    assert said.stderr.count("\n") == 1


def test_a_server_with_a_bad_setting_ends_with_the_line(tmp_path: Path) -> None:
    said = run("gunicorn --no-control-socket --bind 127.0.0.1:0 app:create_app()", tmp_path, MAIL_PORT="mail")
    assert one_line(said).startswith("Error: MAIL_PORT: ")
    assert said.returncode == 3


def test_the_doctor_still_comes_when_the_settings_are_bad(tmp_path: Path) -> None:
    said = run("flask doctor", tmp_path, CAMPAIGN_DAY="31")
    assert (said.returncode, said.stderr) == (1, "")
    assert said.stdout.startswith("BAD  settings: CAMPAIGN_DAY: ")


def test_help_lists_the_commands_without_a_database(tmp_path: Path) -> None:
    said = run("flask --help", tmp_path)
    assert said.returncode == 0, said.stderr
    for command in ("campaign", "doctor", "jobs", "members", "operator", "scheduler", "demo"):
        assert f"  {command} " in said.stdout


def test_a_database_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    url = "postgresql://dormouse:secret@127.0.0.1:1/dormouse"
    for command in ("flask jobs list", "flask db upgrade", "flask campaign preview"):
        line = one_line(run(command, tmp_path, DATABASE_URL=url, SECRET_KEY="k" * 32))
        assert "dormouse:***@127.0.0.1:1/dormouse" in line
        assert "check DATABASE_URL" in line
        assert "secret" not in line


def test_an_instance_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = one_line(run("flask jobs list", tmp_path / "file" / "instance"))
    assert str(tmp_path / "file" / "instance") in line
    said = run("flask jobs list", tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/nowhere/dormouse.db")
    assert "unable to open database file" in one_line(said)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "dormouse.db").write_text("a letter to the editor " * 100)
    assert "holds something else" in one_line(run("flask jobs list", tmp_path))


def test_a_database_without_tables_says_what_to_run(tmp_path: Path) -> None:
    assert one_line(run("flask operator list", tmp_path)).endswith('run "flask db upgrade"')


def test_a_schema_of_a_newer_version_is_called_that(tmp_path: Path, sqlite_template: Path) -> None:
    shutil.copy(sqlite_template, tmp_path / "dormouse.db")
    engine = create_engine(f"sqlite:///{tmp_path / 'dormouse.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("ALTER TABLE operator RENAME TO manager"))
    engine.dispose()
    assert "newer version than this program" in one_line(run("flask operator list", tmp_path))


def test_the_same_on_both_databases_from_inside(app: Flask) -> None:
    db.session.execute(text("ALTER TABLE operator RENAME TO manager"))
    db.session.commit()
    result: Result = app.test_cli_runner().invoke(args=["operator", "list"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert 'run "flask db upgrade"' in result.stderr


def test_a_refusal_is_its_sentence(app: Flask) -> None:
    result: Result = app.test_cli_runner().invoke(args=["campaign", "status", "2020-01"])
    assert (result.exit_code, result.stderr) == (1, "Error: There is no campaign of 2020-01.\n")
