"""Who may know whom, where import-linter cannot see it: app.py, settings.py, the clock, the environment, templates."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from settings import ROOT

ROOMS = ("domain", "models", "services", "adapters", "jobs", "commands", "blueprints")

MAKES_APPLICATIONS = "commands/demo/"
"""The demo builds applications on databases of its own, and is the only command that does."""

CLOCKS = {
    *(f"datetime.{name}" for name in ("now", "utcnow", "today")),
    *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")),
    *("date.today", "datetime.date.today"),
    *(f"time.{name}" for name in ("time", "time_ns", "localtime", "gmtime", "ctime", "strftime")),
    *(f"func.{name}" for name in ("now", "current_timestamp", "current_date", "localtimestamp", "date", "datetime")),
}
"""time.monotonic is not among them: it measures how long something took, and knows no date."""
SQL_CLOCK = re.compile(r"\b(CURRENT_TIMESTAMP|CURRENT_DATE|clock_timestamp\(|now\(\)|datetime\('now')", re.I)
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.putenv"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def modules(*folders: str) -> list[Path]:
    """The modules of these folders; of everything that runs in production, without any."""
    if not folders:
        return [*ROOT.glob("*.py"), *modules(*ROOMS)]
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """The top-level names a module imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else (node.module or "").partition(".")[0]


def dotted(node: ast.AST) -> str:
    """``a.b.c`` for an attribute of an attribute of a name; of a call in between only what follows."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}".lstrip(".") if isinstance(node, ast.Attribute) else ""


def mentions(path: Path) -> set[str]:
    return {dotted(node) for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute | ast.Name)}


def literals(path: Path) -> Iterator[str]:
    """The strings of a module that are no docstrings."""
    said = {
        id(node.value)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value


# Who may know whom


def test_nobody_but_tests_and_tools_imports_the_wiring() -> None:
    found = [name_of(path) for path in modules() if "app" in imports(path)]
    assert [name for name in found if not name.startswith(MAKES_APPLICATIONS)] == []


def test_rules_persistence_and_the_outside_world_do_not_know_the_settings() -> None:
    assert [name_of(path) for path in modules("domain", "models", "adapters") if "settings" in imports(path)] == []


def test_the_rules_know_the_standard_library_and_one_another() -> None:
    known = sys.stdlib_module_names | {"domain"}
    assert {(name_of(path), name) for path in modules("domain") for name in imports(path) if name not in known} == set()


def test_the_rules_do_no_input_or_output() -> None:
    outside = {
        "os",
        "io",
        "pathlib",
        "socket",
        "subprocess",
        "sqlite3",
        "logging",
        "random",
        "secrets",
        "time",
        "urllib",
    }
    assert {(name_of(path), name) for path in modules("domain") for name in imports(path) if name in outside} == set()


def test_production_does_not_know_tests() -> None:
    assert [name_of(path) for path in modules() if set(imports(path)) & {"tests", "pytest", "benchmarks"}] == []


def test_imports_are_absolute() -> None:
    assert [name_of(path) for path in modules(*ROOMS, "tests") if "." in imports(path)] == []


# The clock and the environment


def test_only_the_clock_adapter_reads_the_clock() -> None:
    found = {name_of(path) for path in modules() if mentions(path) & CLOCKS}
    assert found == {"adapters/clock.py"}


def test_no_statement_asks_the_database_for_the_time() -> None:
    found = {(name_of(path), text) for path in modules() for text in literals(path) if SQL_CLOCK.search(text)}
    assert found == set()


def test_only_the_settings_read_the_environment() -> None:
    found = {name_of(path) for path in modules() if mentions(path) & ENVIRONMENT}
    assert found == {"settings.py"}
    by_name = [
        name_of(path)
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.module == "os" and "environ" in {each.name for each in node.names}
    ]
    assert by_name == []


# What every module has and what none may have


def test_every_module_says_what_it_is_for() -> None:
    assert [name_of(path) for path in modules() if not ast.get_docstring(tree(path))] == []


def test_services_flush_and_never_commit() -> None:
    """The view, the command or the runner commits; long work is handed a function to call after each piece."""
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in modules("services")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and dotted(node.func) in ("session.commit", "db.session.commit")
    ]
    assert found == []


def test_no_test_sleeps() -> None:
    found = [name_of(path) for path in modules("tests") if {"time.sleep", "sleep"} & mentions(path)]
    assert found == []


# Templates

TEMPLATES = sorted(path for path in (ROOT / "templates").rglob("*") if path.is_file())
PAGES = [path for path in TEMPLATES if "email" not in path.relative_to(ROOT / "templates").parts[:1]]
INLINE = {
    "a style attribute": re.compile(r"<[^>]*\sstyle\s*=", re.I),
    "a style element": re.compile(r"<style\b", re.I),
    "a script without src": re.compile(r"<script\b(?![^>]*\bsrc=)", re.I),
    "an event handler": re.compile(r"<[^>]*\son[a-z]+\s*=", re.I),
    "a javascript: address": re.compile(r"javascript:", re.I),
}
UNESCAPED = re.compile(r"\|\s*safe\b|autoescape\s+false", re.I)


@pytest.mark.parametrize("what", INLINE)
def test_pages_hold_nothing_inline(what: str) -> None:
    """The content security policy would refuse it. Mails need it: their clients know nothing else."""
    assert [name_of(path) for path in PAGES if INLINE[what].search(path.read_text())] == []


def test_nothing_is_printed_unescaped() -> None:
    assert [name_of(path) for path in TEMPLATES if UNESCAPED.search(path.read_text())] == []


def test_no_page_or_mail_loads_anything_from_elsewhere() -> None:
    remote = re.compile(
        r"(?:\bsrc|\bsrcset|<link[^>]*\bhref)\s*=\s*[\"'](?:https?:)?//|@import|url\(\s*[\"']?(?:https?:)?//"
    )
    found = [path for path in [*TEMPLATES, *(ROOT / "static").rglob("*.css")] if remote.search(path.read_text())]
    assert [name_of(path) for path in found] == []


def test_every_form_that_posts_carries_its_token() -> None:
    form = re.compile(r"<form\b[^>]*method=[\"']post[\"'][^>]*>.*?</form>", re.I | re.S)
    found = [
        name_of(path)
        for path in PAGES
        for found in form.findall(path.read_text())
        if "csrf" not in found and "hidden_tag" not in found
    ]
    assert found == []


# Documents

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def test_every_link_between_documents_leads_somewhere() -> None:
    link = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
    found = {
        (name_of(page), target)
        for page in DOCUMENTS
        for target in link.findall(page.read_text())
        if not (page.parent / target).exists()
    }
    assert found == set()


def test_the_readme_leads_to_every_document() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")]
    assert [page for page in pages if f"]({page}" not in readme] == []


def test_every_promise_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "promises.md").read_text()
    promises = re.findall(r"^\| (\d+) \|.*$", page, re.M)
    assert promises == [str(number) for number in range(1, 12)]
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page)
    missing = [
        (file, test)
        for file, test in named
        if not (ROOT / file).exists() or (test and f"def {test}(" not in (ROOT / file).read_text())
    ]
    assert missing == []
    rows = [row for row in page.splitlines() if re.match(r"\| \d+ \|", row)]
    assert [row[:60] for row in rows if "`tests/" not in row] == [], "a promise without a test that tries to break it"
