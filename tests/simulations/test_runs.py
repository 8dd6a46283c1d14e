"""Seeds run clean, a run is decided by its seed alone, and what was found once stays fixed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from simulations.checks.linearizability import Operation
from simulations.plans.generation import make_plan
from simulations.plans.plan import Fault, Plan
from simulations.plans.shrinking import Shrinker
from simulations.runs.batch import run_plan, run_seed, summarize
from simulations.runs.world import World

FOUND = sorted((Path(__file__).parent / "found").glob("*.json"))
REPOSITORY = Path(__file__).parents[2]

DIGESTS = """
import json, sys
from simulations.runs.batch import run_seed
print(json.dumps([run_seed(seed).digest for seed in range(int(sys.argv[1]))]))
"""


@pytest.mark.timeout(170)
def test_two_hundred_seeds_break_no_rule() -> None:
    summary = summarize(range(200), progress=False)
    assert not summary.violations
    assert summary.seeds == 200
    assert summary.undecided <= 2, (
        "three histories of a thousand are too entangled, as busy callers share them"
    )
    assert summary.answered > 50 * 200, "runs below a minimum load show nothing"


@pytest.mark.timeout(170)
@pytest.mark.parametrize("profile", ["durable", "mixed"])
def test_seeds_with_disks_break_no_rule(profile: str) -> None:
    summary = summarize(range(8), progress=False, profile=profile)
    assert not summary.violations
    assert summary.answered > 50 * 8, "runs below a minimum load show nothing"


def test_shards_come_back_from_disk_after_a_power_cut_of_everything() -> None:
    faults = (Fault(1500.0, "crash all nodes", "coordinator", 1.0),)
    plan = msgspec.structs.replace(make_plan(2), durability=("fsync",), seconds=8.0, faults=faults)
    result, world = run_plan(plan)
    assert result.violations == []
    assert result.faults["shard recovered from disk"] == plan.shards
    assert world.oracles.lost == set()


def test_shards_come_back_though_the_coordinators_disk_is_lost_too() -> None:
    """The map is made anew of what the directories of actors know."""
    faults = (Fault(1500.0, "crash all nodes", "coordinator", 1.0, 2.0),)
    plan = msgspec.structs.replace(make_plan(2), durability=("fsync",), seconds=12.0, faults=faults)
    result, world = run_plan(plan)
    assert result.violations == []
    assert result.faults["map made of directories"] == 1
    assert result.faults["shard recovered from disk"] == plan.shards
    assert world.oracles.lost == set()


def test_without_disks_a_power_cut_of_everything_loses_the_shards() -> None:
    faults = (Fault(1500.0, "crash all nodes", "coordinator", 1.0),)
    plan = msgspec.structs.replace(make_plan(2), seconds=8.0, faults=faults)
    result, world = run_plan(plan)
    assert result.violations == []
    assert world.oracles.lost == set(range(plan.shards))


def test_the_history_leaves_out_what_both_tenants_had_in_a_lost_shard() -> None:
    world = World(msgspec.structs.replace(make_plan(2), tenants=True, shards=4, sessions=8))
    for session in world.workload.sessions:
        asked = Operation(client="c", session=session.name, kind="get", key=session.keys[-1], invoked_ns=1)
        world.workload.history.append(asked)
    world.oracles.lost.add(0)
    kept = {operation.session for operation in world.history()}
    assert kept == {"s2", "s3", "s6", "s7"}, "the second of a pair is where the first is"


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_a_plan_that_once_failed_breaks_no_rule(path: Path) -> None:
    plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    result, _ = run_plan(plan)
    assert result.violations == []


def test_the_same_seed_gives_the_same_trace_whatever_the_hash_seed() -> None:
    digests = []
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", DIGESTS, "8"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(REPOSITORY)},
            cwd=REPOSITORY,
            capture_output=True,
            check=True,
        )
        digests.append(json.loads(run.stdout))
    assert digests[0] == digests[1]
    assert digests[0][0] == run_seed(0).digest


def test_a_plan_survives_being_written_down() -> None:
    plan = make_plan(3)
    again = msgspec.json.decode(msgspec.json.encode(plan), type=Plan)
    assert again == plan
    assert run_plan(again)[0].digest == run_plan(plan)[0].digest


def test_shrinking_keeps_only_what_breaks_the_rule() -> None:
    plan = make_plan(5)
    needed = Fault(1000.0, "kill actor", "primary of shard 0")
    plan = msgspec.structs.replace(plan, faults=(*plan.faults, needed, *plan.faults))
    shrinker = Shrinker(lambda candidate: needed in candidate.faults and len(candidate.actions) >= 3)
    small = shrinker.shrink(plan)
    assert small.faults == (needed,)
    assert len(small.actions) == 3
