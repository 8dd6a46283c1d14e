"""Log events have one style, and the operations page tells them all."""

import ast
import re
from pathlib import Path

import greenroom_cluster

SOURCES = Path(greenroom_cluster.__file__).parent
PAGE = Path(__file__).parents[3] / "docs" / "operations.md"
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


def logged() -> dict[str, set[str]]:
    """Every event that is logged, with its levels."""
    found: dict[str, set[str]] = {}
    for path in SOURCES.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and isinstance(call.func.value, ast.Name)
                and call.func.value.id in {"_log", "_limited_log"}
                and call.func.attr in LEVELS
            ):
                event = ast.literal_eval(call.args[0])
                level = "error" if call.func.attr == "exception" else call.func.attr
                found.setdefault(event, set()).add(level)
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
