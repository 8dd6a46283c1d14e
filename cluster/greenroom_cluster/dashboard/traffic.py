"""How much one process's actors do, and how long it takes, between two readings of their metrics.

Counters that fell belong to a process that was started again meanwhile: it is left out once. A histogram
knows of a value only how many bits it has, so a quantile is the bound below which that share of values lies.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from greenroom_cluster.metrics.readings import Reading

Told = Mapping[str, Sequence[Reading]]
"""Readings by the name of the process that told them."""

QUANTILE = 0.99
_OURS = frozenset({"inspect", "near_ack", "near_beacon", "unhold", "unwatch", "watch_beacon"})
"""What is asked without a session being read or written: by looks such as this one, and to keep in touch."""


class Times(msgspec.Struct, frozen=True):
    """How many times were measured, their mean, and the bound below which 99 of 100 lie, in seconds."""

    count: int = 0
    mean: float = 0.0
    bound: float = 0.0


class Traffic(msgspec.Struct, frozen=True):
    """What was done in a while: requests a second, and the times of steps and of replication."""

    requests_per_second: float
    steps: Times
    replication: Times


def traffic(before: Told, now: Told, seconds: float) -> Traffic | None:
    """Return what was done between two readings; None if nothing can be compared."""
    both = [(before[name], now[name]) for name in now if name in before]
    same = [(former, later) for former, later in both if _is_later(former, later)]
    if seconds <= 0 or not any(_requests(later) is not None for _, later in same):
        return None
    requests = sum((_requests(later) or 0) - (_requests(former) or 0) for former, later in same)
    return Traffic(
        round(requests / seconds, 1),
        _times("greenroom_step_seconds", same),
        _times("greenroom_replication_seconds", same),
    )


def actors_in(told: Told) -> list[str]:
    """Return which of the processes are actors: those whose traffic this is."""
    return sorted(name for name, readings in told.items() if _requests(readings) is not None)


def _is_later(former: Sequence[Reading], later: Sequence[Reading]) -> bool:
    """Whether both are of one life of a process: no counter of it has fallen, and none is gone."""
    counted = {(each.name, each.labels): each.value for each in _counters(later)}
    return all(counted.get((each.name, each.labels), -1.0) >= each.value for each in _counters(former))


def _counters(readings: Sequence[Reading]) -> Iterator[Reading]:
    return (each for each in readings if each.name == "greenroom_requests_total" or each.counts)


def _requests(readings: Sequence[Reading]) -> float | None:
    """Return how many operations on sessions were asked for; None from what is no actor."""
    found = [each for each in readings if each.name == "greenroom_requests_total"]
    if not found:
        return None
    return sum(each.value for each in found if not _OURS.intersection(each.labels))


def _times(name: str, pairs: Sequence[tuple[Sequence[Reading], Sequence[Reading]]]) -> Times:
    counts: Counter[int] = Counter()
    total, unit = 0.0, 1.0
    for former, later in pairs:
        for readings, sign in ((former, -1), (later, 1)):
            for each in readings:
                if each.name == name:
                    unit = each.unit
                    total += sign * each.value
                    for bits, count in enumerate(each.counts):
                        counts[bits] += sign * count
    count = sum(counts.values())
    if count <= 0:
        return Times()
    return Times(count, max(0.0, total / count), 2.0 ** _bits_at(counts, count) * unit)


def _bits_at(counts: Mapping[int, int], count: int) -> int:
    """Return how many bits the value has that 99 of 100 do not exceed."""
    below = 0
    for bits in sorted(counts):
        below += counts[bits]
        if below >= count * QUANTILE:
            return bits
    return max(counts)
