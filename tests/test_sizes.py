"""How long modules and functions may be: what is longer is not read in one sitting."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60

# What is longer for now, each with what is to become of it.
LONGER_MODULES: set[str] = set()
LONGER_FUNCTIONS = {
    # Its parameters are the options of a session and of a command line, each on a line of its own.
    "store/greenroom/web/session.py:__init__",
    "cluster/greenroom_cluster/cli/commands.py:up",
}


def sources() -> list[str]:
    """Return the modules of the product, the simulations and the benchmarks, by path."""
    roots = ("store/greenroom", "cluster/greenroom_cluster", "simulations", "benchmarks")
    return [str(path.relative_to(ROOT)) for root in roots for path in sorted((ROOT / root).rglob("*.py"))]


def longer_functions(text: str) -> list[str]:
    """Return the functions that are too long, decorators counted."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if (node.end_lineno or 0) - first + 1 > FUNCTION_LINES_MAX:
                found.append(node.name)
    return found


@pytest.mark.parametrize("name", sources())
def test_a_module_is_read_in_one_sitting(name: str) -> None:
    text = (ROOT / name).read_text()
    if name not in LONGER_MODULES:
        assert text.count("\n") <= MODULE_LINES_MAX
    assert {f"{name}:{function}" for function in longer_functions(text)} <= LONGER_FUNCTIONS


def test_every_exception_is_a_module_that_is_there() -> None:
    assert {each.partition(":")[0] for each in LONGER_MODULES | LONGER_FUNCTIONS} <= set(sources())


def test_a_function_that_is_too_long_would_be_seen() -> None:
    body = "    pass\n" * FUNCTION_LINES_MAX
    assert longer_functions(f"def f():\n{body}") == ["f"]
    assert longer_functions(f"def f():\n{body[9:]}") == []
