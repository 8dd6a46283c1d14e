"""What an actor answers to one whom its map does not name.

Such a peer has no part in any configuration known here: somebody made it up, or it is over, or the map that
names it is still on its way. So it is refused in a way after which an honest peer asks again, and nothing is
kept of it.
"""

from collections.abc import Iterable

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.effects import Answer
from greenroom_cluster.shard.messages import (
    PeerReply,
    PeerRequest,
    Prepare,
    PrepareOk,
    SnapshotChunk,
    SnapshotRefused,
)

GONE_MAX = 4096


def is_stranger(context: Context, peer: bytes) -> bool:
    """Whether the map does not name this incarnation, or has ceased to name it before."""
    return context.map is None or peer not in context.map.actors or peer in context.gone


def forget_departed(context: Context, before: ClusterMap | None, leaders: set[bytes]) -> None:
    """Drop the incoming pairs of incarnations that have left the map; `leaders` are followed here.

    With a pair goes the memory of what was refused to it, and who does not learn of a refusal may take its
    lease for more than it is. So an incarnation that is forgotten stays a stranger, should a map name it
    again. One that an older copy of the map lacks, with which a lineage begins, has not left: it comes back.
    """
    after = context.map
    if before is None or after is None or before.lineage != after.lineage:
        context.departed.clear()
        return
    left = before.actors.keys() - after.actors.keys()
    context.departed |= left & context.incoming.keys()
    context.departed -= after.actors.keys()
    for peer in sorted(context.departed - leaders):
        if not context.incoming[peer].backed:
            context.departed.discard(peer)
            del context.incoming[peer]
            context.memory.withdraw(peer)
            context.gone[peer] = None
    while len(context.gone) > GONE_MAX:
        del context.gone[next(iter(context.gone))]


def refuse_stranger(context: Context, peer: bytes, messages: Iterable[PeerRequest | PeerReply]) -> None:
    """Refuse records and snapshots. A beacon is not answered, so it gives no lease; another will come."""
    context.ignore("PeerMessages", "the map does not name their sender")
    for message in messages:
        match message:
            case Prepare(batch=batch, entries=entries):
                refused = tuple((entry.shard, entry.shard_epoch) for entry in entries)
                context.effects.append(Answer(peer, PrepareOk(batch, refused)))
            case SnapshotChunk(shard=shard, epoch=epoch, join=join):
                reason = "the joiner's map does not name the sender"
                context.effects.append(Answer(peer, SnapshotRefused(shard, epoch, join, reason)))
            case _:
                pass
