"""The work of a backup: log records, then acknowledge them, and apply what is committed."""

from greenroom_cluster.shard.messages import ShardRecords
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.roles.replicas import Replicas
from greenroom_cluster.shard.roles.role import InputKind
from greenroom_cluster.shard.state.log import LogDivergedError, record_bytes
from greenroom_cluster.shard.state.memory import GROWTH_BYTES


def receive_records(
    replicas: Replicas, replica: Replica, now_ns: int, _wall_us: int, sender: bytes, entry: ShardRecords
) -> bool:
    """Log an entry of a `Prepare`; return whether all of it is in the log now.

    A copy whose log differs from the primary's is given up: its actor is removed from the shard, and joins
    anew. The process goes on: if one forged record ended it, it could end both actors of a pair.
    """
    if not _is_from_primary(replica, sender, entry.shard_epoch, InputKind.RECORDS):
        return False
    try:
        return _log(replicas, replica, now_ns, entry)
    except LogDivergedError as error:
        replicas.close(replica.shard, now_ns, "its log is not the primary's")
        replica.context.warn(
            f"this copy was given up, for its log is not the primary's: {error}", replica.shard
        )
        return False


def _log(replicas: Replicas, replica: Replica, now_ns: int, entry: ShardRecords) -> bool:
    """Log an entry and apply what it commits; return whether all of it is in the log now."""
    log, records, disk = replica.log, entry.records, replicas.resources.disk
    before = log.appended
    memory = replica.memory
    if memory.free_bytes <= memory.ample_bytes:
        whole = log.receive(records, lambda command: record_bytes(command) + GROWTH_BYTES)
    else:
        # With so much room, it does not matter what the log may add.
        whole = log.receive(records)
    if log.appended > before:
        replica.clock.heard(records[-1].time_us, now_ns)
        if disk is not None:
            disk.receive(replica, records, before, log.appended)
    if not whole:
        replica.context.ignore("Prepare", f"a gap after record {log.appended}", replica.shard, replica.epoch)
        return False
    _commit(replica, entry.committed)
    replica.count()
    return True


def receive_commit(
    _replicas: Replicas,
    replica: Replica,
    now_ns: int,
    _wall_us: int,
    sender: bytes,
    message: tuple[int, int, int, int],
) -> bool:
    """Take in a commit point and the shard's time."""
    _, epoch, committed, time_us = message
    if not _is_from_primary(replica, sender, epoch, InputKind.COMMIT):
        return False
    replica.clock.heard(time_us, now_ns)
    _commit(replica, committed)
    replica.count()
    return True


def catch_up(
    _replicas: Replicas, replica: Replica, _now_ns: int, _wall_us: int, _sender: bytes, _message: None
) -> bool:
    """Apply committed records that an earlier step left."""
    _commit(replica, replica.known_committed)
    replica.count()
    return True


def _is_from_primary(replica: Replica, sender: bytes, epoch: int, kind: InputKind) -> bool:
    """Whether this comes from the replica's primary.

    A later epoch of the same primary is accepted: it is primary in a configuration of which this replica has
    yet to hear, and in the present one too.
    """
    if epoch < replica.epoch:
        reason = f"epoch {epoch} is over"
    elif sender != replica.primary_incarnation:
        reason = "not from its primary"
    else:
        return True
    replica.context.ignore(kind.value, reason, replica.shard, replica.epoch)
    return False


def _commit(replica: Replica, committed: int) -> None:
    if replica.receiver is not None and not replica.receiver.complete:
        return
    target = min(committed, replica.log.appended)
    if target <= replica.committed:
        return
    reached = replica.affordable(target)
    if reached > replica.committed:
        replica.commit(reached)
