"""A history that is written down is the one that was judged, and its format is the documented one."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulations.checks.linearizability import Operation, UndecidedError, check_history, write_history
from simulations.cli.main import main
from simulations.mutants.hunt import MUTANTS
from simulations.mutants.patching import planted
from simulations.plans.generation import make_plan
from simulations.plans.plan import Plan
from simulations.runs.batch import run_plan
from simulations.runs.plan_files import read_plan
from simulations.runs.world import Result

PAGE = Path(__file__).parents[2] / "docs" / "simulations.md"
# Plans whose runs are clean, while what callers were told in them is not all that explains it.
PLANS = sorted((Path(__file__).parent / "histories").glob("*.json"))


def documented_defaults() -> dict[str, Any]:
    """Return the fields of the documented table, with their defaults; `...` where there is none."""
    section = PAGE.read_text().partition("\n### Histories\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (?:`(.*?)`)? *\|", section, re.MULTILINE)
    return {name: json.loads(default) if default else ... for name, default in rows}


def read_as_documented(path: Path) -> Iterator[Operation]:
    """Read a file by the page alone."""
    defaults = documented_defaults()
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        assert fields.keys() <= defaults.keys()
        whole = {**defaults, **fields}
        assert ... not in whole.values()
        yield Operation(**whole)


def judged_from_file(plan: Plan, path: Path) -> tuple[Result, bool | None, list[Operation]]:
    """Run a plan and write its history; return the run, whether the file is explained, and what is in it."""
    result, world = run_plan(plan)
    write_history(path, world.history())
    history = list(read_as_documented(path))
    try:
        return result, not check_history(history), history
    except UndecidedError:
        return result, None, history


def plain(history: list[Operation]) -> Any:
    """Return all fields of all operations, so that a list and a tuple are the same."""
    fields = Operation.__struct_fields__
    return json.loads(msgspec.json.encode([[getattr(each, name) for name in fields] for each in history]))


def verdict(result: Result) -> bool | None:
    """Return what the run said of its history; None: undecided."""
    if result.undecided:
        return None
    return all(violation.rule != "linearizable" for violation in result.violations)


def test_the_page_tells_every_field_and_its_default() -> None:
    defaults = {
        field.name: field.default_factory() if callable(field.default_factory) else field.default
        for field in msgspec.structs.fields(Operation)
    }
    told = {
        name: msgspec.NODEFAULT if value is ... else value for name, value in documented_defaults().items()
    }
    assert told == defaults


@pytest.mark.timeout(170)
def test_files_are_judged_as_their_runs_were(tmp_path: Path) -> None:
    kinds: set[str] = set()
    lost = 0
    for seed in range(200):
        result, explained, history = judged_from_file(make_plan(seed), tmp_path / "history.jsonl")
        assert explained == verdict(result), f"seed {seed}"
        kinds |= {operation.kind for operation in history}
        lost += result.lost_shards
    assert "expire" in kinds
    assert lost, "seeds that lose no shard show nothing about those that do"


@pytest.mark.parametrize("plan", PLANS, ids=lambda path: path.stem)
def test_replay_writes_what_was_judged(plan: Path, tmp_path: Path) -> None:
    """Their files had sessions of lost shards and no ends of sessions, so no order explained them."""
    path = tmp_path / "history.jsonl"
    assert main(["replay", str(plan), "--history", str(path)]) == 0
    _, world = run_plan(read_plan(str(plan)))
    history = list(read_as_documented(path))
    assert plain(history) == plain(world.history())
    assert check_history(history) == []
    assert check_history(world.workload.history), "what callers were told is not all"


def test_a_history_that_no_order_explains_stays_so_in_its_file(tmp_path: Path) -> None:
    """Else a clean file would say little."""
    found = 0
    for name, mutant in MUTANTS.items():
        with planted(name):
            for seed in range(3):
                plan = mutant.plan or make_plan(seed)
                result, explained, _ = judged_from_file(plan, tmp_path / "history.jsonl")
                assert explained == verdict(result), f"{name}, seed {seed}"
                found += explained is False
        if found >= 2:
            return
    pytest.fail("no mutant broke a history")
