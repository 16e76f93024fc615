"""The mutations can be made, and their tests exist (mutations.py runs them)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from mutations import MUTATIONS, ROOT, Mutation, stale

if not (ROOT / "src").is_dir() or not (ROOT / "csrc").is_dir():
    pytest.skip("the sources are not here", allow_module_level=True)


def test_what_they_take_out_is_there() -> None:
    """Of most of them; those that a change of the source has left behind the command names."""
    left_behind = [line for mutation in MUTATIONS for line in stale(mutation)]
    assert len(left_behind) <= len(MUTATIONS) // 5, left_behind


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_its_tests_exist(mutation: Mutation) -> None:
    assert mutation.tests
    for name in mutation.tests:
        file, _, function = name.partition("::")
        tree = ast.parse((Path(__file__).parent / file).read_text())
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert function in {node.name for node in tree.body if isinstance(node, kinds)}
