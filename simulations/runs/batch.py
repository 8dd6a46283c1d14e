"""Many seeds: in one process or several, with progress, sums, and the seeds that failed."""

import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec

from simulations.plans.plan import Plan
from simulations.plans.seeds import plan_of
from simulations.runs.coverage import never_reached, never_struck
from simulations.runs.world import Result, World

PROGRESS_SECONDS = 5.0
CHUNK = 20


class Summary(msgspec.Struct, kw_only=True):
    """The outcome of many runs. `violations` holds the seed and the first broken rule of each failed run."""

    seeds: int = 0
    violations: list[dict[str, Any]] = []
    simulated_seconds: float = 0.0
    wall_seconds: float = 0.0
    processor_seconds: float = 0.0
    operations: int = 0
    answered: int = 0
    undecided: int = 0
    shards_lost: int = 0
    heal_seconds_max: float = 0.0
    faults: dict[str, int] = {}
    messages: dict[str, int] = {}
    never_reached: list[str] = []
    never_struck: list[str] = []

    def add(self, result: Result) -> None:
        """Count one run."""
        self.seeds += 1
        self.simulated_seconds += result.simulated_seconds
        self.processor_seconds += result.processor_seconds
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
    """Run one plan; return its result, and the world for inspection."""
    world = World(plan, tracing=tracing)
    return world.run(), world


def run_seed(seed: int, profile: str = "") -> Result:
    """Run the plan of a seed, see `plans.seeds` for profiles."""
    began = time.process_time()
    result = run_plan(plan_of(seed, profile))[0]
    result.processor_seconds = time.process_time() - began
    return result


@contextmanager
def worker_pool(jobs: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yield a function like `map` that uses so many processes and keeps the order of results."""
    if jobs <= 1:
        yield lambda call, items, _chunk=1: map(call, items)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield lambda call, items, chunk=1: pool.imap(call, items, chunksize=chunk)


def summarize(
    seeds: range, jobs: int = 1, *, progress: bool = True, stop_after: int = 0, profile: str = ""
) -> Summary:
    """Run seeds and sum up; with `progress`, say on stderr how far it is. 0: never stop early."""
    summary = Summary()
    began = told = time.monotonic()
    with worker_pool(jobs) as pool:
        for result in pool(partial(run_seed, profile=profile), seeds, CHUNK):
            summary.add(result)
            if result.violations:
                print(f"seed {result.seed}: {str(result.violations[0])[:300]}", file=sys.stderr, flush=True)
                if stop_after and len(summary.violations) >= stop_after:
                    break
            now = time.monotonic()
            if progress and now - told >= PROGRESS_SECONDS:
                told = now
                _tell_progress(summary, len(seeds), now - began)
    summary.wall_seconds = time.monotonic() - began
    summary.never_reached = never_reached(summary.messages)
    summary.never_struck = never_struck(summary.faults, profile)
    return summary


def _tell_progress(summary: Summary, total: int, elapsed: float) -> None:
    rate = summary.seeds / elapsed
    print(
        f"{summary.seeds}/{total} seeds, {len(summary.violations)} violations, {rate * 60:.0f} seeds/min, "
        f"{summary.simulated_seconds / elapsed:.0f}x real time, {(total - summary.seeds) / rate:.0f} s left",
        file=sys.stderr,
        flush=True,
    )
