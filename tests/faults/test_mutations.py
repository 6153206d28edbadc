"""Each thing that `make mutate` breaks on purpose is there to be broken, and so is the test that has to notice."""

import pytest

from settings import ROOT
from tests.faults.mutations import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.broken)
def test_a_mutation_changes_something(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.old) == 1
    assert mutation.old != mutation.new
    file, _, name = mutation.tests.partition("::")
    # Without a name the whole file is meant.
    assert not name or f"def {name.partition('[')[0]}(" in (ROOT / file).read_text()
