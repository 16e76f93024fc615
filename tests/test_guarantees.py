"""docs/guarantees.md names tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

from guarantees import DOCUMENT, named_tests, sections

HERE = Path(__file__).parent


def test_every_test_that_is_named_exists() -> None:
    named = named_tests(DOCUMENT.read_text())
    assert len(named) > 60
    functions: dict[str, set[str]] = {}
    for name in named:
        file, _, function = name.partition("::")
        if file not in functions:
            tree = ast.parse((HERE / file).read_text())
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
            functions[file] = {node.name for node in tree.body if isinstance(node, kinds)}
        assert function in functions[file], name


def test_every_promise_names_its_tests() -> None:
    for title, tests in sections().items():
        if title not in ("The kernel's limits that stay", "Counts", "Long runs"):
            assert tests, title


def test_the_readme_points_there() -> None:
    assert "docs/guarantees.md" in (DOCUMENT.parent.parent / "README.md").read_text()
