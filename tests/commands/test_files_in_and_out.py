"""The commands around files, as an operator types them."""

import csv
import json
import stat
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from models import Case, Member, UseFeed
from tests import factories

HEADER = "external_id,email,joined_at,name"


class Shell:
    def __init__(self, app: Flask, folder: Path) -> None:
        self._runner, self.folder = app.test_cli_runner(), folder

    def __call__(self, *words: str) -> Result:
        return self._runner.invoke(args=list(words))

    def file(self, name: str, content: str) -> str:
        path = self.folder / name
        path.write_text(content, encoding="utf-8")
        return str(path)


@pytest.fixture
def shell(app: Flask, tmp_path: Path) -> Shell:
    return Shell(app, tmp_path)


def test_an_import_prints_its_counts_last_and_says_what_it_rejected(shell: Shell, session: Session) -> None:
    path = shell.file("m.csv", f"{HEADER}\nm-1,a@example.org,2024-01-05,A\nm-2,b,2024-01-05,B\n")
    result = shell("members", "import", path)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "created 1, updated 0, unchanged 0, rejected 1"
    assert "1 row was rejected:\n  line 3 (m-2): 'b' is no e-mail address" in result.stderr
    assert session.scalars(select(Member.external_id)).all() == ["m-1"]


def test_the_rejects_file_can_be_opened_in_a_spreadsheet(shell: Shell) -> None:
    path = shell.file(
        "m.csv", f"{HEADER}\n=1+1,b,2024-01-05,B\n@x,a@example.org,2999-01-01,=HYPERLINK(1)\n-3,c,2024-01-05,C\n"
    )
    rejects = shell.folder / "rejects.csv"
    result = shell("members", "import", path, "--rejects", str(rejects))
    assert f"3 rows were rejected; see {rejects}" in result.stderr
    rows = list(csv.DictReader(rejects.read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["line", "external_id", "reason", "row"]
    assert [row["line"] for row in rows] == ["2", "3", "4"]
    assert [row["external_id"] for row in rows] == ["'=1+1", "'@x", "'-3"]
    assert rows[0]["row"] == "'=1+1,b,2024-01-05,B"
    assert stat.S_IMODE(rejects.stat().st_mode) == 0o600


def test_the_rejects_do_not_overwrite_the_file_that_is_imported(shell: Shell) -> None:
    path = shell.file("m.csv", f"{HEADER}\n")
    result = shell("members", "import", path, "--rejects", path)
    assert result.exit_code == 1
    assert "is the file that is imported" in result.stderr
    assert Path(path).read_text() == f"{HEADER}\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nowhere.csv", None, "cannot be read: No such file"),
        ("m.csv", "", "the file is empty"),
        ("m.csv", "external_id,e_mail,joined_at\n", "unknown column 'e_mail': did you mean email?"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line_and_exit_code_1(
    shell: Shell, name: str, content: str | None, said: str
) -> None:
    path = str(shell.folder / name) if content is None else shell.file(name, content)
    result = shell("members", "import", path)
    assert result.exit_code == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output


def test_a_dry_run_keeps_nothing(shell: Shell, session: Session) -> None:
    path = shell.file("m.csv", f"{HEADER}\nm-1,a@example.org,2024-01-05,A\n")
    result = shell("members", "import", path, "--dry-run")
    assert result.stdout.splitlines()[-1] == "created 1, updated 0, unchanged 0, rejected 0"
    assert session.scalar(select(func.count()).select_from(Member)) == 0


def test_a_map_and_a_complete_file_that_looks_wrong(shell: Shell, session: Session) -> None:
    for _ in range(40):
        factories.member(session)
    session.commit()
    path = shell.file("m.csv", "No,Mail,Since\nm-new,a@example.org,2024-01-05\n")
    names = shell.file("map.json", '{"No": "external_id", "Mail": "email", "Since": "joined_at"}')
    result = shell("members", "import", path, "--map", names, "--complete")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "created 1, updated 0, unchanged 0, rejected 0"
    assert "40 of 41 active members are absent from the file" in result.stderr
    assert session.scalar(select(func.count()).where(Member.status == "ended")) == 0


def test_activity_and_its_feed(shell: Shell, session: Session) -> None:
    factories.member(session, external_id="m-1")
    session.commit()
    path = shell.file("a.csv", "external_id,used_at\nm-1,2026-06-01T10:00:00Z\nm-1,2026-05-01\nnobody,2026-05-01\n")
    result = shell("activity", "import", path, "--through", "2026-06-02T00:00:00+02:00", "--source", "plays")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "updated 1, unchanged 1, rejected 1"
    feed = session.get_one(UseFeed, "plays")
    assert (feed.last_event_at, feed.complete_through) == (
        factories.at("2026-06-01 10:00"), factories.at("2026-06-01 22:00"),
    )  # fmt: skip
    assert "in the future" in shell("activity", "import", path, "--through", "2026-06-04").stderr
    assert "--through 'soon' is no date" in shell("activity", "import", path, "--through", "soon").stderr


def test_a_library_goes_out_as_it_came_in(shell: Shell, session: Session) -> None:
    factories.member(session, external_id="m-1")
    session.commit()
    item = {"ref": "t", "title": "Träume", "added_at": None}
    profiles = [{"name": "A", "settings": {"b": 1}, "lists": [{"kind": "favourites", "name": "F", "items": [item]}]}]
    content = json.dumps({"external_id": "m-1", "profiles": profiles}, ensure_ascii=False) + "\n"
    result = shell("library", "import", shell.file("in.ndjson", content))
    assert result.stdout.splitlines()[-1] == "created 1, updated 0, rejected 0"
    out = shell.folder / "out.ndjson"
    assert shell("library", "export", str(out)).stdout == "exported 1\n"
    assert out.read_text(encoding="utf-8") == content
    result = shell("library", "export", str(shell.folder / "no" / "where"))
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


def test_a_member_is_shown_in_words_and_as_json(shell: Shell, session: Session) -> None:
    member = factories.member(session, external_id="m-1", name="Eva")
    factories.library(session, member)
    session.commit()
    result = shell("members", "show", "m-1")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("m-1: active, dormant. Joined on 15 January 2025 and has not used it since")
    assert "€12.99 a month" in result.stdout
    assert json.loads(shell("members", "show", "m-1", "--json").stdout)["reason"] == "never_used"
    missing = shell("members", "show", "m-2")
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)


def test_an_operator_exempts_answers_and_erases(shell: Shell, session: Session) -> None:
    factories.member(session, external_id="m-1")
    session.commit()

    def member() -> Member:
        return session.scalars(select(Member).execution_options(populate_existing=True)).one()

    assert shell("members", "exempt", "m-1", "--reason", "asked us to").stdout == "m-1 is exempt: asked us to\n"
    assert member().operator_exempt_reason == "asked us to"
    session.rollback()
    assert "no longer exempt" in shell("members", "exempt", "m-1", "--reason", "").stdout
    assert member().operator_exempt_reason is None

    session.rollback()
    assert shell("members", "answer", "m-1", "lapse", "--reason", "by phone").stdout == "m-1 ends with 2026-06-30\n"
    assert shell("members", "answer", "m-1", "keep", "--reason", "by phone").stdout == "m-1 keeps the membership\n"
    shown = json.loads(shell("members", "show", "m-1", "--json").stdout)
    assert (shown["case"]["answer"], shown["case"]["answered_through"]) == ("keep", "operator")
    assert shell("members", "answer", "m-1", "maybe", "--reason", "x").exit_code == 2
    assert shell("members", "answer", "m-1", "keep", "--reason", " ").exit_code == 1
    session.rollback()
    refused = shell("members", "void-keep", "m-1", "--reason", "a scanner")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "came through operator" in refused.stderr
    session.rollback()
    session.execute(update(Case).values(answered_through="link"))
    session.commit()
    assert shell("members", "void-keep", "m-1", "--reason", " ").exit_code == 1
    assert "as was answered before" in shell("members", "void-keep", "m-1", "--reason", "a scanner").stdout
    assert "a scanner" in shell("members", "show", "m-1").stdout

    session.rollback()
    result = shell("members", "erase", "m-1")
    assert result.exit_code == 0, result.output
    assert "m-1" in result.stdout
    assert shell("members", "erase", "m-2").exit_code == 1
