"""When a client gives up one cluster's map for another's.

A cluster that was started anew at the addresses of a former one has the same name but another identity. Its
map is taken only when the former cluster no longer answers: no subscription brings its map; every address
where it might have a node was tried in vain, or belongs to another cluster; every primary was tried in vain
too; and all this has lasted for a while. Otherwise an operator's mistake, or a network partition, would make
an app give up live sessions for none.
"""

from collections.abc import Iterable

SILENCE_NS = 3_000_000_000
"""Longer than most nodes and networks take to come back by themselves."""


class Succession:
    """Signs of life of the cluster whose map is held. Addresses are those of nodes."""

    def __init__(self) -> None:
        self._heard_ns = 0
        self._silent: set[str] = set()

    def heard(self, now_ns: int) -> None:
        """Note that the cluster answers, or did until now."""
        self._heard_ns = now_ns
        self._silent.clear()

    def missed(self, address: str) -> None:
        """Note that the cluster does not answer at this address."""
        self._silent.add(address)

    def was_missed(self, address: str) -> bool:
        """Whether this address was tried in vain since the cluster was last heard of."""
        return address in self._silent

    def was_missed_at_all(self, addresses: Iterable[str]) -> bool:
        """Whether all these addresses were tried in vain since then."""
        return self._silent.issuperset(addresses)

    def is_long_ago(self, now_ns: int) -> bool:
        """Whether the cluster was last heard of long enough ago to give it up."""
        return now_ns - self._heard_ns >= SILENCE_NS
