"""Log events have one style, and the operations page tells them all."""

import ast
import re
from pathlib import Path

import greenroom_cluster

SOURCES = Path(greenroom_cluster.__file__).parent
PAGE = Path(__file__).parents[3] / "docs" / "operations.md"
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


def of_shell(call: ast.Call) -> tuple[str, str] | None:
    """Return (event, level) of `_log.level(event)`."""
    func = call.func
    if (
        isinstance(func, ast.Attribute)
        and isinstance(func.value, ast.Name)
        and func.value.id in {"_log", "_limited_log"}
        and func.attr in LEVELS
    ):
        return ast.literal_eval(call.args[0]), func.attr
    return None


def of_core(call: ast.Call) -> tuple[str, str] | None:
    """Return (event, level) of `Log(level, event)` or `self._log(level, event)`, which are effects."""
    func = call.func
    name = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
    if name in {"Log", "_log"} and call.args and isinstance(call.args[0], ast.Constant):
        return ast.literal_eval(call.args[1]), ast.literal_eval(call.args[0])
    return None


def logged() -> dict[str, set[str]]:
    """Every event that is logged, with its levels."""
    found: dict[str, set[str]] = {}
    for path in SOURCES.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and (told := of_shell(call) or of_core(call)) is not None:
                event, level = told
                found.setdefault(event, set()).add("error" if level == "exception" else level)
    return found


def documented() -> dict[str, set[str]]:
    """Every event of the table, with its level."""
    section = PAGE.read_text().partition("\n## Logs\n")[2].partition("\n## ")[0]
    found: dict[str, set[str]] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 4:
            levels = cells[1].split(", ")
            for event, level in zip(re.findall(r"`([^`]+)`", cells[0]), levels * 9, strict=False):
                found.setdefault(event, set()).add(level)
    return found


def test_events_have_one_style() -> None:
    assert len(logged()) > 20
    assert [event for event in logged() if not re.fullmatch(r"[a-z]+(_[a-z]+)*", event)] == []


def test_events_are_those_of_the_operations_page() -> None:
    assert documented() == logged()
