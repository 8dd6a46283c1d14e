"""Many seeds: in one process or several, with progress, sums, and the seeds that failed."""

import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from simulations.generation import make_plan
from simulations.plans import Plan
from simulations.world import Result, World

PROGRESS_SECONDS = 5.0
CHUNK = 20


class Summary(msgspec.Struct, kw_only=True):
    """What came of many runs. `violations` holds the seed and the first broken rule of each failed run."""

    seeds: int = 0
    violations: list[dict[str, Any]] = []
    simulated_seconds: float = 0.0
    wall_seconds: float = 0.0
    operations: int = 0
    answered: int = 0
    undecided: int = 0
    shards_lost: int = 0
    heal_seconds_max: float = 0.0
    faults: dict[str, int] = {}
    messages: dict[str, int] = {}

    def add(self, result: Result) -> None:
        """Count one run."""
        self.seeds += 1
        self.simulated_seconds += result.simulated_seconds
        self.operations += result.operations
        self.answered += result.answered
        self.undecided += result.undecided
        self.shards_lost += result.lost_shards
        self.heal_seconds_max = max(self.heal_seconds_max, result.heal_seconds)
        self.faults = dict(Counter(self.faults) + Counter(result.faults))
        self.messages = dict(Counter(self.messages) + Counter(result.messages))
        if result.violations:
            first = result.violations[0]
            self.violations.append({"seed": result.seed, "rule": first.rule, "detail": first.detail})


def run_plan(plan: Plan, *, tracing: bool = False) -> tuple[Result, World]:
    """Run one plan; return what came of it, and the world to look at."""
    world = World(plan, tracing=tracing)
    return world.run(), world


def run_seed(seed: int) -> Result:
    """Run the plan of a seed."""
    return run_plan(make_plan(seed))[0]


def run_seeds(
    seeds: Iterable[int], jobs: int = 1, run: Callable[[int], Result] = run_seed
) -> Iterator[Result]:
    """Yield the result of each seed, in order."""
    if jobs <= 1:
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap(run, seeds, chunksize=CHUNK)


def summarize(seeds: range, jobs: int = 1, *, progress: bool = True, stop_after: int = 0) -> Summary:
    """Run seeds and sum up; with `progress`, say on stderr how far it is. 0: never stop early."""
    summary = Summary()
    began = told = time.monotonic()
    for result in run_seeds(seeds, jobs):
        summary.add(result)
        if result.violations:
            print(f"seed {result.seed}: {str(result.violations[0])[:300]}", file=sys.stderr, flush=True)
            if stop_after and len(summary.violations) >= stop_after:
                break
        now = time.monotonic()
        if progress and now - told >= PROGRESS_SECONDS:
            told = now
            rate = summary.seeds / (now - began)
            left = (len(seeds) - summary.seeds) / rate
            print(
                f"{summary.seeds}/{len(seeds)} seeds, {len(summary.violations)} violations, "
                f"{rate * 60:.0f} seeds/min, {summary.simulated_seconds / (now - began):.0f}x real time, "
                f"{left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
    summary.wall_seconds = time.monotonic() - began
    return summary
