"""When the map of a cluster may be given up for that of another.

A cluster that was started anew on the addresses of a former one has the same name and another identity. Its
map is taken only when nobody of the former one answers any more: no subscription brings that one's map, every
address at which a node of it might be was tried in vain or answers for another cluster, so was every primary,
and all that for a while. Else a mistake of an operator, or a cut of the network, would have an app exchange
sessions that are alive for none.
"""

from collections.abc import Iterable

SILENCE_NS = 3_000_000_000
"""Longer than a node or a network takes that comes back by itself most of the time."""


class Succession:
    """What was heard of the cluster whose map is held. Addresses are those of nodes."""

    def __init__(self) -> None:
        self._heard_ns = 0
        self._silent: set[str] = set()

    def heard(self, now_ns: int) -> None:
        """Note that somebody of the cluster answers, or did until now."""
        self._heard_ns = now_ns
        self._silent.clear()

    def missed(self, address: str) -> None:
        """Note that nobody of the cluster answers at this address."""
        self._silent.add(address)

    def was_missed(self, address: str) -> bool:
        """Whether nobody of the cluster has answered at this address since it was last heard of."""
        return address in self._silent

    def was_missed_at_all(self, addresses: Iterable[str]) -> bool:
        """Whether that is so at each of these."""
        return self._silent.issuperset(addresses)

    def is_long_ago(self, now_ns: int) -> bool:
        """Whether the cluster was last heard of long enough ago to give it up."""
        return now_ns - self._heard_ns >= SILENCE_NS
