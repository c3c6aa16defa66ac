"""The faults of tests/mutants.py can still be put into the library; whether they are found, only a run of it says."""

import ast

import pytest
from mutants import MUTANTS, ROOT, mutated


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file} {m.old[:40]}")
def test_a_fault_changes_one_place(mutant):
    text = (ROOT / "tmtlib" / mutant.file).read_text(encoding="utf-8")
    assert ast.dump(ast.parse(mutated(mutant, text))) != ast.dump(ast.parse(text))
    assert (ROOT / mutant.tests.split()[0]).is_file()
