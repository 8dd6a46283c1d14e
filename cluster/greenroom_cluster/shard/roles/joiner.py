"""The work of a joiner: take in a snapshot chunk by chunk, and refuse chunks that do not continue it."""

from collections.abc import Sequence

from greenroom_cluster.shard.effects import ReplyToPeer
from greenroom_cluster.shard.joining.snapshot import SnapshotReceiver
from greenroom_cluster.shard.messages import SnapshotChunk, SnapshotOk, SnapshotRefused
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.roles.replicas import Replicas
from greenroom_cluster.shard.state.ladder import Rung


def take_chunk(
    replicas: Replicas,
    replica: Replica | None,
    now_ns: int,
    _wall_us: int,
    sender: bytes,
    chunk: SnapshotChunk,
) -> bool:
    """Take in a chunk of a snapshot and acknowledge it, or say why not. The first one creates the replica."""
    shard = chunk.shard
    context, memory = replicas.resources.context, replicas.resources.memory
    reason, full, waits = _objection(replicas, replica, sender, chunk), False, False
    if reason is None and chunk.number == 0:
        memory.count_all()
        missed = replicas.recovery.missed_bytes(chunk)
        reason, full = memory.refusal_of_join(shard, chunk.shard_bytes, missed) or (None, False)
        waits = reason is not None and not full
    if reason is not None:
        context.ignore("SnapshotChunk", reason, shard, chunk.epoch)
        refusal = SnapshotRefused(shard, chunk.epoch, chunk.join, reason, full, waits)
        context.effects.append(ReplyToPeer(sender, refusal))
        return True
    if chunk.continues is not None:
        _go_on(replicas, now_ns, sender, chunk, chunk.continues)
        return True
    if chunk.number == 0:
        replica = replicas.begin(shard, chunk.epoch, now_ns)
        replica.become_joining(sender, SnapshotReceiver(chunk, replica.table))
    assert replica is not None
    assert replica.receiver is not None
    replica.receiver.take(chunk)
    replica.clock.heard(chunk.time_us, now_ns)
    replica.count_arrived()
    if replicas.resources.disk is not None:
        replicas.resources.disk.take_chunk(replica, chunk)
    context.effects.append(ReplyToPeer(sender, SnapshotOk(shard, chunk.epoch, chunk.join, chunk.number)))
    return True


def _go_on(
    replicas: Replicas,
    now_ns: int,
    sender: bytes,
    chunk: SnapshotChunk,
    continues: tuple[int, Sequence[Rung]],
) -> None:
    """Go on with the copy found on disk, or say that a snapshot is needed."""
    shard, effects = chunk.shard, replicas.resources.context.effects
    found = replicas.recovery.take_up(shard, continues)
    if found is None:
        replicas.resources.memory.joined(shard)
        reason = "the joiner has no copy from which it could go on"
        effects.append(ReplyToPeer(sender, SnapshotRefused(shard, chunk.epoch, chunk.join, reason)))
        return
    replicas.by_shard[shard] = found
    found.become_continuing(now_ns, sender, chunk)
    told = SnapshotOk(shard, chunk.epoch, chunk.join, chunk.number, sequence=found.log.appended)
    effects.append(ReplyToPeer(sender, told))


def _objection(
    replicas: Replicas, replica: Replica | None, sender: bytes, chunk: SnapshotChunk
) -> str | None:
    """Return why a chunk is refused regardless of memory, None if it may be taken."""
    known = replicas.resources.context.map
    if known is None or not 0 <= chunk.shard < len(replicas.by_shard):
        return "the joiner has no map with that shard yet"
    entry = known.shards[chunk.shard]
    if entry.epoch > chunk.epoch:
        return f"the joiner knows epoch {entry.epoch}"
    if replica is None:
        return None if chunk.number == 0 else "the chunk belongs to another join"
    return _out_of_order(replica, sender, chunk)


def _out_of_order(replica: Replica, sender: bytes, chunk: SnapshotChunk) -> str | None:
    """Return why a chunk neither continues the copy here nor may replace it; None if it does or may.

    The primary may count on this copy already, so it is not replaced for a superseded primary, nor for a late
    chunk of an earlier join.
    """
    receiver = replica.receiver
    assert receiver is not None
    if chunk.epoch < replica.epoch:
        return f"the joiner has a copy of epoch {replica.epoch}"
    same_primary = replica.primary_incarnation == sender
    if chunk.number == 0 and not (same_primary and chunk.join <= receiver.join):
        return None
    if not same_primary or receiver.join != chunk.join:
        return "the chunk belongs to another join"
    if receiver.complete or receiver.next_number != chunk.number:
        return f"chunk {chunk.number} is not the next one"
    return None
