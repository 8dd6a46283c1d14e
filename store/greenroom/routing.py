"""From a routing point to the actor that serves it: point -> shard -> primary incarnation -> address.

A `Router` is made once per version of the cluster map, so that a request costs one shift and one list index.
Points have 16 bits and the shard count is a power of two: a shard is the top bits of a point.
"""

from greenroom.cluster_map import SHARDS_MAX, ActorEntry, ClusterMap
from greenroom.errors import RemoteProtocolError
from greenroom.ids import POINT_BITS


class Router:
    """One version of the cluster map, prepared for look-ups.

    `shift` turns a point into its shard. `primaries` holds each shard's primary, or None if no primary could
    answer (not started yet, or known dead). Raises RemoteProtocolError for a map that no coordinator makes.
    """

    __slots__ = ("map", "primaries", "shift")

    def __init__(self, cluster_map: ClusterMap) -> None:
        count = cluster_map.shard_count
        if not 0 < count <= SHARDS_MAX or count & (count - 1):
            raise RemoteProtocolError(
                f"a cluster map has {count} shards, which is not a power of two up to {SHARDS_MAX}"
            )
        self.map = cluster_map
        self.shift = POINT_BITS - (count.bit_length() - 1)
        actors = cluster_map.actors
        self.primaries: list[ActorEntry | None] = []
        for shard in cluster_map.shards:
            actor = actors.get(shard.primary)
            self.primaries.append(actor if actor is not None and actor.state != "dead" else None)

    def shard_of(self, point: int) -> int:
        """Return the shard that holds a routing point."""
        return point >> self.shift

    def why_no_primary(self, shard: int) -> str:
        """Say why a shard has no actor to ask."""
        entry = self.map.shards[shard]
        if not entry.primary:
            return f"shard {shard} has not been started yet"
        return f"the primary of shard {shard} is gone and no other has taken over yet"
