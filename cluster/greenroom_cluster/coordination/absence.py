"""Who is not waited for when a shard comes back from disk, by an operator's word beforehand.

With `recover_alone_seconds` a shard goes on without members that were away for so long: on a node that is not
heard, or known dead while nobody claims with what they kept. A claim ends when its claimant was away for as
long. The rules pass members over only if one who claims has all that was acknowledged (`rules`).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from greenroom.cluster_map import ActorEntry, NodeEntry, ShardEntry
from greenroom_cluster.coordination.owners import Owners
from greenroom_cluster.coordination.recovery import Recoveries, is_known_dead


class Awaiting(NamedTuple):
    """The members that are `absent`, and so need not be dead, and those for whom the time is over."""

    absent: frozenset[bytes] = frozenset()
    passed_over: frozenset[bytes] = frozenset()


EVERYBODY = Awaiting()


def is_away(member: bytes, actors: Mapping[bytes, ActorEntry], nodes: Mapping[str, NodeEntry]) -> bool:
    """Whether an incarnation that is not known dead is on a node that is not heard."""
    actor = actors.get(member)
    node = None if actor is None else nodes.get(actor.node)
    return node is not None and node.state == "down"


class Absence:
    """Says who is absent for how long. `seconds` 0: everybody is waited for."""

    def __init__(self, owners: Owners, recoveries: Recoveries, seconds: float) -> None:
        self._owners = owners
        self._recoveries = recoveries
        self._after_ns = round(seconds * 1e9)

    @property
    def counts(self) -> bool:
        """Whether anybody is ever passed over."""
        return self._after_ns > 0

    def on(
        self,
        now_ns: int,
        shard: int,
        entry: ShardEntry,
        actors: Mapping[bytes, ActorEntry],
        nodes: Mapping[str, NodeEntry],
    ) -> Awaiting:
        """Return who need not be waited for in a shard."""
        if not self._after_ns:
            return EVERYBODY
        absent = frozenset(
            member
            for member in entry.members
            if not is_known_dead(member, actors) and is_away(member, actors, nodes)
        )
        is_over = self.judge(now_ns, actors, nodes)
        claimed_long = self._recoveries.claimed_ns(now_ns, shard, entry.epoch) >= self._after_ns

        def is_passed_over(member: bytes) -> bool:
            if is_known_dead(member, actors) and claimed_long:
                return True
            return is_over(member)

        return Awaiting(absent, frozenset(filter(is_passed_over, entry.members)))

    def judge(
        self, now_ns: int, actors: Mapping[bytes, ActorEntry], nodes: Mapping[str, NodeEntry]
    ) -> Callable[[bytes], bool]:
        """Return who says whether an incarnation was silent for so long that nothing it claimed counts."""

        def is_over(incarnation: bytes) -> bool:
            if not self._after_ns or not is_away(incarnation, actors, nodes):
                return False
            return self._owners.silence_ns(now_ns, actors[incarnation].node) >= self._after_ns

        return is_over
