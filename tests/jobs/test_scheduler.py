"""Where the scheduler starts and where it does not: real servers and commands, each a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import create_engine, text

from jobs.scheduler import _Worker
from settings import ROOT
from tests.ports import held_port

BIN = Path(sys.executable).parent

PROBE = """
import os
from pathlib import Path
from app import create_app as create

def create_app():
    app = create()
    with Path(os.environ["PROBE"]).open("a") as file:
        file.write(f"reloaded={os.environ.get('WERKZEUG_RUN_MAIN')} started={'dormouse_wake' in app.extensions}\\n")
    return app
"""


class Machine:
    """A database and an instance folder, on which commands run as an operator would run them."""

    def __init__(self, url: str, folder: Path) -> None:
        self.probe, self._engine = folder / "probe.txt", create_engine(url)
        (folder / "probe_app.py").write_text(PROBE)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "WERKZEUG_"))},
            "DATABASE_URL": url,
            "INSTANCE_PATH": str(folder),
            "SECRET_KEY": "a key for tests, long enough to sign with",
            "FLASK_APP": str(folder / "probe_app.py"),
            "PYTHONPATH": f"{ROOT}:{folder}",
            "PROBE": str(self.probe),
        }

    @contextmanager
    def running(self, *command: str, **more: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            cwd=ROOT,
            env={**self._environment, **more},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def output(self, *command: str, typed: str = "") -> str:
        with self.running(*command) as process:
            return process.communicate(typed, timeout=300)[0]

    def ticked(self) -> bool:
        with self._engine.connect() as connection:
            return (
                connection.execute(text("SELECT count(*) FROM job_run WHERE finished_at IS NOT NULL")).scalar_one() > 0
            )

    def probed(self) -> list[str]:
        return self.probe.read_text().splitlines() if self.probe.exists() else []


@pytest.fixture
def machine(sqlite_url: str, tmp_path: Path) -> Iterator[Machine]:
    found = Machine(sqlite_url, tmp_path)
    yield found
    found._engine.dispose()


def eventually(holds: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 300) -> None:
    until = monotonic() + seconds
    while not holds():
        assert process.poll() is None, process.communicate()[0]
        assert monotonic() < until
        Event().wait(0.05)


@pytest.fixture
def port() -> Iterator[str]:
    with held_port() as port:
        yield str(port)


def test_scenario_44_another_command_does_not_start_it(machine: Machine) -> None:
    said = machine.output(
        "flask", "shell", typed="from flask import current_app\nprint(sorted(current_app.extensions))\n"
    )
    assert "dormouse_jobs" in said
    assert "dormouse_wake" not in said
    machine.output("flask", "db", "upgrade")
    assert machine.probed() == ["reloaded=None started=False"] * 2


def test_scenario_44_a_test_does_not_start_it(make_app: Callable[..., Flask]) -> None:
    app = make_app(scheduler=True)
    client: FlaskClient = app.test_client()
    client.get("/healthz")
    assert "dormouse_wake" not in app.extensions


def test_flask_run_starts_it(machine: Machine, port: str) -> None:
    with machine.running("flask", "run", "--port", port) as process:
        eventually(machine.ticked, process)
    assert machine.probed() == ["reloaded=None started=True"]


def test_scenario_44_with_the_reloader_only_the_process_that_serves_starts_it(machine: Machine, port: str) -> None:
    with machine.running("flask", "run", "--debug", "--port", port) as process:
        eventually(lambda: len(machine.probed()) >= 2, process)
        eventually(machine.ticked, process)
    assert machine.probed() == ["reloaded=None started=False", "reloaded=true started=True"]


def test_with_scheduler_off_a_server_does_not_start_it(machine: Machine, port: str) -> None:
    with machine.running("flask", "run", "--port", port, SCHEDULER="off") as process:
        eventually(lambda: len(machine.probed()) >= 1, process)
    assert machine.probed() == ["reloaded=None started=False"]


@pytest.mark.parametrize("option", ["--workers=2", "--preload"])
def test_under_gunicorn_the_worker_starts_it_before_any_request(machine: Machine, port: str, option: str) -> None:
    with machine.running(
        "gunicorn", option, "--no-control-socket", "--bind", f"127.0.0.1:{port}", "probe_app:create_app()"
    ) as process:
        eventually(machine.ticked, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 0
    assert set(machine.probed()) == {"reloaded=None started=False"}


def test_under_any_other_server_the_first_request_starts_it(machine: Machine) -> None:
    said = machine.output(
        "python",
        "-c",
        "from app import create_app; app = create_app(); print('dormouse_wake' in app.extensions);"
        "app.test_client().get('/healthz'); print('dormouse_wake' in app.extensions)",
    )
    assert said.split() == ["False", "True"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_scheduler_alone_works_and_ends_cleanly(machine: Machine, number: int) -> None:
    with machine.running("flask", "scheduler", SCHEDULER="off") as process:
        eventually(machine.ticked, process)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.splitlines()[-1] == "The scheduler has ended."
    assert "Traceback" not in said


def test_a_worker_that_is_asked_while_it_works_looks_once_more() -> None:
    begun, go_on, done = Event(), Event(), Event()
    turns: list[int] = []

    def work() -> None:
        turns.append(1)
        begun.set()
        go_on.wait(60)
        if len(turns) == 2:
            done.set()

    worker = _Worker("test", work)
    worker.look()
    assert begun.wait(60)
    for _ in range(5):
        worker.look(again=True)
        worker.look()
    go_on.set()
    assert done.wait(60)
    worker.join(60)
    assert len(turns) == 2
