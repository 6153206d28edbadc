"""The list of mutations fits the code and the documents, and every numbered scenario has its test.

Whether the tests notice each mutation is what ``make mutate`` finds out; that takes minutes.
"""

import ast
import re
from pathlib import Path

import pytest

from tests.faults.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parent.parent.parent
SCENARIOS = range(1, 45)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.broken)
def test_a_mutation_breaks_one_place_and_names_a_test_that_exists(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.old) == 1, f"{mutation.file}: look again what to break"
    path, _, name = mutation.tests.partition("::")
    assert not name or name in names(ROOT / path)


def test_the_list_in_the_documents_is_this_list() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    _, _, table = page.partition("| Broken | Caught by |\n|---|---|\n")
    listed = [line for line in table.splitlines() if line.startswith("|")]
    assert listed == [f"| {one.broken} | {caught_by(one)} |" for one in MUTATIONS]


def test_every_scenario_has_a_test_of_its_number() -> None:
    found = {
        int(number)
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in names(path)
        for number in re.findall(r"^test_scenario_(\d+)_", name)
    }
    assert set(SCENARIOS) <= found, f"without a test: {sorted(set(SCENARIOS) - found)}"


def caught_by(mutation: Mutation) -> str:
    path, _, name = mutation.tests.partition("::")
    return f"`{name or path}`" + (", on PostgreSQL" if mutation.on == "postgresql" else "")


def names(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
