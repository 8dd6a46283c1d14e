"""Times and bytes by stage, and what is kept of several repeats."""

import gc
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Literal, TypeAlias

import msgspec

Place: TypeAlias = Literal["client", "servers", "kernel, client", "kernel, servers"]
Work: TypeAlias = Literal["get", "update"]
PLACES: tuple[Place, ...] = ("client", "kernel, client", "servers", "kernel, servers")
WORKS: tuple[Work, ...] = ("get", "update")
SIZE = 300


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured. `batches` are requests that come together; `operations` are of one repeat.

    Repeats are short, and everything is gone through in several passes, so that some of it falls into moments
    in which the machine does nothing else. `seconds` are of one measurement of the cluster.
    """

    batches: tuple[int, ...] = (1, 8, 24)
    operations: int = 480
    repeats: int = 9
    passes: int = 6
    seconds: float = 3.0

    def rounds(self, batch: int) -> int:
        """Return how many batches one repeat has."""
        return max(1, self.operations // batch)


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds that a stage takes of one operation, the least and the median of all repeats."""

    place: Place
    stage: str
    work: Work
    batch: int
    least_us: float
    median_us: float


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of one operation in one direction, frame headers included."""

    message: str
    work: Work
    batch: int
    bytes: float


class Meter:
    """Adds up nanoseconds and bytes by stage."""

    __slots__ = ("bytes", "ns")

    def __init__(self) -> None:
        self.ns: defaultdict[str, int] = defaultdict(int)
        self.bytes: defaultdict[str, int] = defaultdict(int)

    def clear(self) -> None:
        """Start anew."""
        self.ns.clear()
        self.bytes.clear()


def figures_of(
    place: Place, work: Work, batch: int, operations: int, repeats: list[Mapping[str, int]]
) -> list[Figure]:
    """Return a figure for every stage; `repeats` hold nanoseconds of so many operations."""
    return [
        Figure(
            place=place,
            stage=stage,
            work=work,
            batch=batch,
            least_us=min(repeat[stage] for repeat in repeats) / operations / 1000,
            median_us=median(repeat[stage] for repeat in repeats) / operations / 1000,
        )
        for stage in repeats[0]
    ]


def together(passes: list[list[Figure]]) -> list[Figure]:
    """Return figures of several passes as one: the least of all, and the median of the medians."""
    return [
        msgspec.structs.replace(
            same[0],
            least_us=min(each.least_us for each in same),
            median_us=median(each.median_us for each in same),
        )
        for same in zip(*passes, strict=True)
    ]


def repeated(meter: Meter, repeats: int, once: Callable[[], object]) -> list[Mapping[str, int]]:
    """Return the meter's nanoseconds of each repeat, after one that warms up."""
    once()
    taken: list[Mapping[str, int]] = []
    for _ in range(repeats):
        meter.clear()
        with without_collector():
            once()
        taken.append(dict(meter.ns))
    return taken


@contextmanager
def without_collector() -> Iterator[None]:
    """Keep pauses of the cyclic collector out of what is measured."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
