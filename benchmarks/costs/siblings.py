"""How much slower a processor is while its neighbour works: a stage alone, and beside a busy process."""

import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.costs.figures import without_collector
from benchmarks.processes import Process, python_module

_TURNS_MIN = 5
_IDLE_SHARE = 0.15


class Turns(msgspec.Struct, frozen=True):
    """CPU microseconds of an operation, one figure a turn: with the other processor idle, or busy.

    Turns in which somebody else worked there are in neither.
    """

    alone: list[float]
    beside: list[float]


class Siblings(msgspec.Struct, frozen=True, kw_only=True):
    """Medians of all turns, CPU microseconds of an operation."""

    alone_us: float
    beside_us: float

    @property
    def factor(self) -> float:
        """How many times the CPU time of alone it takes beside a busy process."""
        return self.beside_us / self.alone_us


def siblings_of(turns: Iterable[Turns]) -> Siblings | None:
    """Return the medians; None if there was hardly a moment in which the other processor did nothing."""
    taken = list(turns)
    alone = [each for some in taken for each in some.alone]
    beside = [each for some in taken for each in some.beside]
    if min(len(alone), len(beside)) < _TURNS_MIN:
        return None
    return Siblings(alone_us=median(alone), beside_us=median(beside))


def take_turns(action: Callable[[], object], operations: int, turns: int) -> Turns:
    """Measure an action of so many operations both ways. No turns on a machine with one processor."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        return Turns([], [])
    own, other = processors[:2]
    os.sched_setaffinity(0, {own})
    try:
        alone = [_turn(action, operations, other) for _ in range(turns)]
        busy = Process([*python_module("benchmarks.costs.siblings"), str(other)], talks=True)
        try:
            busy.answer()
            beside = [_turn(action, operations, other) for _ in range(turns)]
        finally:
            busy.kill_tree()
    finally:
        os.sched_setaffinity(0, processors)
    return Turns(
        [spent_us for spent_us, share in alone if share < _IDLE_SHARE],
        [spent_us for spent_us, share in beside if share > 1 - _IDLE_SHARE],
    )


def _turn(action: Callable[[], object], operations: int, other: int) -> tuple[float, float]:
    """Return CPU microseconds of an operation, and the share of the time that the other processor worked."""
    idle, whole = _ticks(other)
    spent_us = _cpu_us(action) / operations
    idle_after, whole_after = _ticks(other)
    return spent_us, 1 - (idle_after - idle) / max(1, whole_after - whole)


def _ticks(processor: int) -> tuple[int, int]:
    """Return how many ticks a processor was idle, and how many there were."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{processor}":
            counts = list(map(int, ticks))
            return counts[3] + counts[4], sum(counts[:8])
    return 0, 0


def _cpu_us(action: Callable[[], object]) -> float:
    with without_collector():
        began = time.process_time_ns()
        action()
        return (time.process_time_ns() - began) / 1000


def _be_busy(processor: int) -> None:
    os.sched_setaffinity(0, {processor})
    sys.stdout.write("busy\n")
    sys.stdout.flush()
    table: dict[int, str] = {}
    number = 0
    while True:
        # Something like an interpreter's usual work: calls, dicts, objects.
        number += 1
        table[number % 4096] = str(number)


if __name__ == "__main__":
    _be_busy(int(sys.argv[1]))
