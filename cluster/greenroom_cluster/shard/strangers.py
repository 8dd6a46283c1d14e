"""What an actor answers to one whom its map does not name.

Such a peer has no part in any configuration known here: somebody made it up, or it is over, or the map that
names it is still on its way. So it is refused in a way after which an honest peer asks again, and nothing is
kept of it.
"""

from collections.abc import Iterable

from greenroom_cluster.peering import (
    PeerReply,
    PeerRequest,
    Prepare,
    PrepareOk,
    SnapshotChunk,
    SnapshotRefused,
)
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.effects import Answer


def is_stranger(context: Context, peer: bytes) -> bool:
    """Whether the map does not name this incarnation."""
    return context.map is None or peer not in context.map.actors


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
