"""The wait of a leaving node, which serves until others have every shard, or its time is up.

`runtime.node_process` begins it on SIGTERM.
"""

from greenroom.cluster_map import ClusterMap
from greenroom.deadlines import NEVER_NS

ALONE_SECONDS = 2.0
"""How long a leaving node waits for another node to be up: a late heartbeat must not cost sessions."""

UP = "up"


class Drain:
    """The wait of one leaving node, at most `seconds`."""

    def __init__(self, node: str, seconds: float, now_ns: int) -> None:
        self._node = node
        self._until_ns = now_ns + round(seconds * 1e9)
        self._alone_until_ns = NEVER_NS
        self._map: ClusterMap | None = None
        self.shards_held = 0
        self.others_up = False

    def look(self, now_ns: int, cluster_map: ClusterMap | None) -> bool:
        """Whether the wait is over."""
        if cluster_map is not self._map and cluster_map is not None:
            self._map = cluster_map
            self.shards_held = shards_held(self._node, cluster_map)
            self.others_up = _others_up(self._node, cluster_map)
        if self.others_up:
            self._alone_until_ns = NEVER_NS
        elif self._alone_until_ns == NEVER_NS:
            self._alone_until_ns = now_ns + round(ALONE_SECONDS * 1e9)
        return not self.shards_held or now_ns >= self.next_deadline()

    def next_deadline(self) -> int:
        """Return when it is over at the latest, unless something changes."""
        return min(self._until_ns, self._alone_until_ns)

    def hint(self, now_ns: int) -> str:
        """Return, for an operator, why the node still holds shards."""
        if not self.others_up:
            return "no other node is up: the sessions that only this node holds are lost, if not on its disk"
        if now_ns >= self._until_ns:
            return "a longer --drain-seconds may help"
        return "a second signal ended the wait"


def shards_held(node: str, cluster_map: ClusterMap | None) -> int:
    """Return how many shards have a member on the node."""
    if cluster_map is None:
        return 0
    ours = {actor.incarnation for actor in cluster_map.actors.values() if actor.node == node}
    return sum(not ours.isdisjoint(shard.members) for shard in cluster_map.shards)


def _others_up(node: str, cluster_map: ClusterMap) -> bool:
    return any(each.state == UP and each.name != node for each in cluster_map.nodes.values())
