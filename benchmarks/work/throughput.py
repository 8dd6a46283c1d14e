"""(a) Throughput, latency and CPU of every contender at every work, number of callers and size of session.

For each size all contenders run at the same time; they take turns, cell by cell and round by round, so that
whatever else the machine does falls on all of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import msgspec

from benchmarks.clients import ClientProcess, ContenderError
from benchmarks.orders import Measure, WorkName
from benchmarks.results import Reading
from benchmarks.samples import Sample
from benchmarks.stage import Part, Stage

SESSIONS = 1000
SMALL = 300
COMPARED = frozenset({"echo", "greenroom", "redis_py", "redis_wait", "valkey_glide", "emcache"})
COMPARED_WORKS: tuple[WorkName, ...] = ("get", "update")
PLOTTED_CALLERS = 64
_STORED_BYTES = 1 << 24


def run(stage: Stage) -> None:
    """Measure everything."""
    for size in stage.scale.sizes:
        with stage.clients(stage.asked()) as parts:
            for name, part in list(parts.items()):
                if not stage.attempt(name, partial(_prepare, part, size)):
                    del parts[name]
            rounds = stage.scale.rounds if size == SMALL else stage.scale.rounds_of_larger
            for turn in range(rounds):
                stage.say(f"throughput: {size} bytes, round {turn + 1} of {rounds}")
                _round(stage, turn, parts, size, stage.scale.works)
            compared = {name: part for name, part in parts.items() if name in COMPARED}
            more = stage.scale.rounds_of_compared if size == SMALL else 0
            for turn in range(more):
                stage.say(f"throughput: what is compared, {size} bytes, round {turn + 1} of {more} more")
                _round(stage, rounds + turn, compared, size, COMPARED_WORKS)


def _prepare(part: Part, size: int) -> bool:
    sessions = max(SESSIONS // 4, min(SESSIONS, _STORED_BYTES // size))
    part.fill(sessions, size)
    part.choose(sessions, sessions, size)
    return True


def _round(stage: Stage, turn: int, parts: dict[str, Part], size: int, works: Iterable[WorkName]) -> None:
    for work in works:
        for callers in stage.scale.callers:
            for name in turned(list(parts), turn):
                order = Measure(work=work, callers=callers, seconds=stage.scale.seconds)
                try:
                    sample = parts[name].client.measure(order)
                except ContenderError as error:
                    stage.skip(f"{name} at {work}, {callers} callers, {size} bytes", error)
                    continue
                kept = size == SMALL and callers == PLOTTED_CALLERS and work in {"get", "update"}
                stage.results.throughput.append(
                    Reading(
                        round=turn,
                        contender=name,
                        work=work,
                        size=size,
                        callers=callers,
                        sample=sample if kept else without_distribution(sample),
                    )
                )


Cell: TypeAlias = tuple[WorkName, int, Sequence[str]]
"""What is measured in turns: a work, its number of callers, and the contenders."""


def in_turns(
    clients: Mapping[str, ClientProcess],
    cells: Sequence[Cell],
    *,
    rounds: int,
    seconds: float,
    size: int,
    say: Callable[[str], None],
) -> Iterator[Reading]:
    """Have those contenders that are there take turns at every cell, round by round."""
    for turn in range(rounds):
        say(f"round {turn + 1} of {rounds}")
        for work, callers, names in cells:
            for name in turned([name for name in names if name in clients], turn):
                order = Measure(work=work, callers=callers, seconds=seconds)
                sample = without_distribution(clients[name].measure(order))
                yield Reading(
                    round=turn, contender=name, work=work, size=size, callers=callers, sample=sample
                )


def turned(names: list[str], turn: int) -> list[str]:
    """Return the names with another one first in every round: who follows whom should not matter."""
    first = turn % max(1, len(names))
    return names[first:] + names[:first]


def without_distribution(sample: Sample) -> Sample:
    """Return the sample without what only the plot of latencies needs."""
    return msgspec.structs.replace(sample, distribution=[])
