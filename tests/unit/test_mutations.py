"""The table of mutations fits the sources; `make mutations` shows that each of them is caught."""

import ast
import re
from collections import Counter
from functools import cache

import pytest
from mutations.run import ROOT, MutationError, Result, check_mutation, format_table
from mutations.table import MUTATIONS, Mutation

MUTATED = Mutation("a", "b", "f.py", "x = 1", "x = 2", ("tests/unit/test_a.py::test_b",))


@cache
def names_in(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_each_mutation_can_be_applied_and_names_tests_that_exist(mutation):
    check_mutation(mutation)
    assert mutation.tests
    for test in mutation.tests:
        path, _, name = test.partition("::")
        assert path.startswith(f"tests/{mutation.tier}/")
        assert name.partition("[")[0] in names_in(path)


def test_each_mutation_has_its_own_name_and_a_promise_in_one_sentence():
    assert not [name for name, n in Counter(one.name for one in MUTATIONS).items() if n > 1]
    for mutation in MUTATIONS:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", mutation.name)
        assert re.fullmatch(r"[A-Z][^\n]*\.", mutation.promise)


@pytest.mark.parametrize("source", ["", "x = 1\nx = 1\n", "x = 2\n"])
def test_a_mutation_whose_old_text_is_missing_or_not_unique_is_an_error(tmp_path, source):
    (tmp_path / "f.py").write_text(source)
    with pytest.raises(MutationError, match=r"f\.py"):
        check_mutation(MUTATED, tmp_path)
    (tmp_path / "f.py").write_text("x = 1\n")
    check_mutation(MUTATED, tmp_path)


def test_the_table_of_results_names_what_survived():
    told = format_table([Result(MUTATED, MUTATED.tests[0], 1.0), Result(MUTATED, "", 2.0)])
    header, caught, survived = (re.split(r" *\| *", line) for line in told.splitlines())
    assert header == ["mutation", "caught by", "tier", "seconds"]
    assert caught == ["a", "tests/unit/test_a.py::test_b", "unit", "1.0"]
    assert survived == ["a", "SURVIVED", "unit", "2.0"]
