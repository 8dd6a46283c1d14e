"""What an actor replies to peers that its map does not name.

Such a peer has no part in any configuration known here: it is made up, or it has left, or the map that names
it is still on its way. So it is refused in a way that lets an honest peer ask again, and nothing is stored
about it.
"""

from collections.abc import Iterable

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.effects import ReplyToPeer
from greenroom_cluster.shard.messages import (
    PeerReply,
    PeerRequest,
    Prepare,
    PrepareOk,
    SnapshotChunk,
    SnapshotRefused,
)
from greenroom_cluster.shard.pairs.registry import Pairs
from greenroom_cluster.shard.state.memory import Memory

GONE_MAX = 4096


class Strangers:
    """The peers that an actor does not know, or no longer deals with."""

    __slots__ = ("_context", "_departed", "_gone", "_memory", "_pairs")

    def __init__(self, context: Context, pairs: Pairs, memory: Memory) -> None:
        self._context = context
        self._pairs = pairs
        self._memory = memory
        # Incarnations that have left the map: those whose pair is still kept, and the others.
        self._departed: set[bytes] = set()
        self._gone: dict[bytes, None] = {}

    def include(self, peer: bytes) -> bool:
        """Whether this incarnation is a stranger: the map does not name it, or has dropped it before."""
        known = self._context.map
        return known is None or peer not in known.actors or peer in self._gone

    def forget_departed(self, before: ClusterMap | None, primaries: set[bytes]) -> None:
        """Drop the incoming pairs of incarnations that left the map, except `primaries` of replicas here.

        With a pair, the refusals made to it are forgotten, and a peer that misses a refusal may believe in a
        lease that it does not have. So a forgotten incarnation stays a stranger even if a later map names it
        again. A lineage may begin with an older copy of the map, which lacks some incarnations: those have
        not left, and come back.
        """
        after, incoming = self._context.map, self._pairs.incoming
        if before is None or after is None or before.lineage != after.lineage:
            self._departed.clear()
            return
        left = before.actors.keys() - after.actors.keys()
        self._departed |= left & incoming.keys()
        self._departed -= after.actors.keys()
        for peer in sorted(self._departed - primaries):
            if not incoming[peer].backed:
                self._departed.discard(peer)
                del incoming[peer]
                self._memory.withdraw(peer)
                self._gone[peer] = None
        while len(self._gone) > GONE_MAX:
            del self._gone[next(iter(self._gone))]


def refuse_stranger(context: Context, peer: bytes, messages: Iterable[PeerRequest | PeerReply]) -> None:
    """Refuse records and snapshots. A beacon is not answered, so it gives no lease; another will come."""
    context.ignore("PeerMessages", "the map does not name their sender")
    for message in messages:
        match message:
            case Prepare(batch=batch, entries=entries):
                refused = tuple((entry.shard, entry.shard_epoch) for entry in entries)
                context.effects.append(ReplyToPeer(peer, PrepareOk(batch, refused)))
            case SnapshotChunk(shard=shard, epoch=epoch, join=join, continues=continues):
                reason, waits = "the joiner's map does not name the sender", continues is not None
                refusal = SnapshotRefused(shard, epoch, join, reason, waits=waits)
                context.effects.append(ReplyToPeer(peer, refusal))
            case _:
                pass
