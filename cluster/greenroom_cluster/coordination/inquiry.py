"""The maps that nodes are asked for: who has yet to answer, and how long the other answers wait for them.

A node that does not answer holds up the verdict only for a moment. An answer that comes later counts too, as
evidence of its own.
"""

from collections.abc import Iterable

from greenroom.cluster_map import ClusterMap
from greenroom.deadlines import NEVER_NS

ANSWER_SECONDS = 1.0
"""How long all are waited for. A machine that is gone answers nothing, however long one waits."""


class Inquiry:
    """One question to some nodes after the other. Asking again does not move the verdict on what is open."""

    def __init__(self) -> None:
        self._silent: frozenset[str] = frozenset()
        self._maps: list[ClusterMap] = []
        self._until_ns = NEVER_NS

    def begin(self, now_ns: int, addresses: Iterable[str]) -> None:
        """Note that these nodes are asked now."""
        self._silent = frozenset(addresses)
        if self._until_ns == NEVER_NS:
            self._until_ns = now_ns + round(ANSWER_SECONDS * 1e9)

    def answered(self, address: str, shown: ClusterMap | None) -> None:
        """Take the map of a node; None if it gives none."""
        self._silent -= {address}
        if shown is not None:
            self._maps.append(shown)

    def conclude(self, now_ns: int) -> list[ClusterMap] | None:
        """Return the maps to judge now; None while answers are awaited, or if there is nothing to judge."""
        is_open = self._until_ns != NEVER_NS
        if (self._silent and now_ns < self._until_ns) if is_open else not self._maps:
            return None
        maps, self._maps = self._maps, []
        self._silent, self._until_ns = frozenset(), NEVER_NS
        return maps

    def next_deadline(self) -> int:
        """Return when the answers are waited for no longer."""
        return self._until_ns
