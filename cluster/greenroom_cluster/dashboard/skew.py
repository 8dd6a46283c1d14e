"""How evenly sessions lie over shards, actors and nodes."""

from collections.abc import Mapping

import msgspec


class Skew(msgspec.Struct, frozen=True):
    """How uneven counts are: the largest of them, whose it is, and how many times the mean that is.

    `ratio` is 1.0 where all have the same, and 0.0 where there is nothing to compare.
    """

    of: str
    count: int
    mean: float = 0.0
    most: int = 0
    most_name: str = ""
    ratio: float = 0.0


def skew(of: str, counts: Mapping[str, int]) -> Skew:
    """Return how uneven these counts are; the first of several largest ones is named."""
    total = sum(counts.values())
    if not total:
        return Skew(of, len(counts))
    mean = total / len(counts)
    name = max(counts, key=lambda each: counts[each])
    return Skew(of, len(counts), round(mean, 1), counts[name], name, round(counts[name] / mean, 2))
