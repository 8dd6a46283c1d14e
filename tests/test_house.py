"""Habits of the tree that no tool checks."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEST_NAME_CHARACTERS_MAX = 70


def names_in(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name


def test_names_of_tests_are_short() -> None:
    """A longer sentence belongs into the docstring."""
    names = [name for file in ROOT.glob("tests/**/test_*.py") for name in names_in(file)]
    assert len(names) > 1000
    assert [name for name in names if len(name) > TEST_NAME_CHARACTERS_MAX] == []
