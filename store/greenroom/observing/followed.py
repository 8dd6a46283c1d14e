"""Figures that stores and sessions count anyway: they are asked for when somebody looks."""

from collections import Counter
from collections.abc import Callable, Mapping

from greenroom.dialog.near import NearCounts, total


class Followed:
    """What the stores and sessions of one observer tell, each sum over all of them."""

    def __init__(self) -> None:
        self.near_of_stores: list[Callable[[], NearCounts]] = []
        self.events_of_sessions: list[Callable[[], Mapping[str, int]]] = []

    def near(self) -> NearCounts | None:
        """Return what near caches have done; None if there is no store that could have one."""
        return total([each() for each in self.near_of_stores]) if self.near_of_stores else None

    def events(self) -> Mapping[str, int]:
        """Return how often each event has happened."""
        counts: Counter[str] = Counter()
        for each in self.events_of_sessions:
            counts.update(each())
        return counts
