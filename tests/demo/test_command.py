"""`flask demo` from the outside: what it refuses, what it prints, and that it serves and leaves nothing."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from commands.demo import sample
from settings import ROOT
from tests.demo.test_sample import BERLIN, NOW
from tests.ports import held_port


def environment(instance: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV")}
    return {**kept, "INSTANCE_PATH": str(instance), "PYTHONUNBUFFERED": "1", **more}


def flask(instance: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "flask", *arguments],
        cwd=ROOT,
        env=environment(instance, **more),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as port:
        yield port


@pytest.fixture
def taken() -> Iterator[int]:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize("where", ["environment", "file"])
def test_it_refuses_where_a_database_is_configured(tmp_path: Path, where: str) -> None:
    url = f"sqlite:///{tmp_path / 'real.db'}"
    if where == "file":
        (tmp_path / "dormouse.env").write_text(f"DATABASE_URL={url}\n")
        done = flask(tmp_path, "demo")
    else:
        done = flask(tmp_path, "demo", DATABASE_URL=url)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "DATABASE_URL" in line
    assert not (tmp_path / "real.db").exists()
    assert not (tmp_path / "demo").exists()


def test_it_refuses_a_configured_postgresql_for_that_and_not_for_a_key_it_does_not_need(tmp_path: Path) -> None:
    done = flask(tmp_path, "demo", DATABASE_URL="postgresql://nobody@localhost/nowhere")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "the demo keeps away from it" in line
    assert "SECRET_KEY" not in line
    assert not (tmp_path / "demo").exists()


def test_a_port_in_use_gets_a_clear_line_before_any_work(tmp_path: Path, taken: int) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "of an earlier demo").touch()
    done = flask(tmp_path, "demo", "--port", str(taken))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert f"port {taken}" in line
    assert "--port" in line
    assert (tmp_path / "demo" / "of an earlier demo").exists()


@contextmanager
def running(instance: Path, *arguments: str) -> Iterator[str]:
    """A demo that runs, and what it printed; it is ended as by Ctrl+C, and has nothing to complain about."""
    with subprocess.Popen(
        [sys.executable, "-m", "flask", "demo", *arguments],
        cwd=ROOT,
        env=environment(instance),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line)
            if "Ctrl+C" in line:
                break
        try:
            yield "".join(printed)
        finally:
            process.send_signal(signal.SIGINT)
            _out, errors = process.communicate(timeout=300)
        assert errors == ""
        assert process.returncode == 0


def test_it_serves_the_first_page_and_ends_on_request(tmp_path: Path, port: int) -> None:
    with running(tmp_path, "--port", str(port)) as printed:
        assert f"http://localhost:{port}/demo/" in printed
        with urlopen(f"http://localhost:{port}/demo/", timeout=300) as page:
            assert "people who do not use it" in page.read().decode()
        # A second demo would sweep the folder from under this one.
        with held_port() as another:
            again = flask(tmp_path, "demo", "--port", str(another))
        assert again.returncode == 1
        assert "running already" in again.stderr
    # All it has is in its own folder; no database beside it.
    assert {file.name for file in tmp_path.iterdir()} <= {"demo", "demo.lock", "secret_key", "evidence_key"}


def test_with_keep_it_goes_on_where_it_was(prepared: Path, tmp_path: Path, port: int) -> None:
    shutil.copytree(prepared, tmp_path / "demo")
    mails = len(list((prepared / "mail").glob("*.eml")))
    with running(tmp_path, "--keep", "--port", str(port)) as printed:
        assert "Two months ago" not in printed
        assert f"http://localhost:{port}/demo/" in printed
        with urlopen(f"http://localhost:{port}/demo/mail", timeout=300) as page:
            assert page.read().decode().count("/demo/mail/") == mails


def test_a_file_of_ones_own_is_previewed_and_nothing_stays(tmp_path: Path) -> None:
    instance, temporary = tmp_path / "instance", tmp_path / "temporary"
    instance.mkdir()
    temporary.mkdir()
    path = sample.write_members(tmp_path / "members.csv", sample.membership(NOW, BERLIN))
    with path.open("a", encoding="utf-8") as file:
        file.write("LU-9,not an address,,,2025-01-01,,,,,,,,\n")
    before = path.read_bytes()
    done = flask(instance, "demo", "--members", str(path), TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    assert "1870 rows read, 1 rejected" in done.stdout
    assert "line 1872: " in done.stdout
    assert "never_used" in done.stdout
    assert "stopped_using" in done.stdout
    assert path.read_bytes() == before
    assert list(temporary.iterdir()) == []
    assert {file.name for file in instance.iterdir()} <= {"secret_key", "evidence_key"}


def test_a_preview_needs_neither_the_configured_database_nor_a_key(tmp_path: Path) -> None:
    path = tmp_path / "members.csv"
    path.write_text("external_id,email,joined_at,price,currency\n1,a@example.org,2020-01-05,12.99,EUR\n")
    done = flask(tmp_path, "demo", "--members", str(path), DATABASE_URL="postgresql://nobody@localhost/nowhere")
    assert done.returncode == 0, done.stderr
    assert "never_used 1" in " ".join(done.stdout.split())
    assert "No price is known" not in done.stdout


def test_the_preview_says_that_without_a_price_nobody_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "members.csv"
    path.write_text("external_id,email,joined_at\n1,a@example.org,2020-01-05\n")
    assert "No price is known" in flask(tmp_path, "demo", "--members", str(path)).stdout


@pytest.mark.parametrize(("theirs", "ours"), [("mail", "email"), ("joined", "joined_at"), ("id", "external_id")])
def test_an_unknown_column_gets_a_clear_line_with_what_can_be_done(tmp_path: Path, theirs: str, ours: str) -> None:
    path = tmp_path / "members.csv"
    path.write_text("external_id,email,joined_at\n".replace(ours, theirs) + "1,a@example.org,2025-01-01\n")
    done = flask(tmp_path, "demo", "--members", str(path))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert f"unknown column '{theirs}': did you mean {ours}?" in line
    assert "ARGS=--ignore-unknown" in line


def test_columns_may_be_named_or_left_out(tmp_path: Path) -> None:
    path, names = tmp_path / "members.csv", tmp_path / "names.json"
    path.write_text("No,mail,since,shoe\n1,a@example.org,2025-01-01,43\n")
    names.write_text('{"No": "external_id", "mail": "email", "since": "joined_at"}')
    done = flask(tmp_path, "demo", "--members", str(path), "--map", str(names), "--ignore-unknown")
    assert done.returncode == 0, done.stderr
    assert "1 row read, 0 rejected" in done.stdout


def test_a_map_without_a_file_of_members_is_a_mistake(tmp_path: Path) -> None:
    done = flask(tmp_path, "demo", "--ignore-unknown")
    assert done.returncode == 2
    assert "--members" in done.stderr
