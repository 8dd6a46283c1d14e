"""What a replica does that follows a primary: it logs, then acknowledges, and applies what is committed."""

from greenroom_cluster.shard.messages import ShardRecords
from greenroom_cluster.shard.roles.accepts import ACCEPTS, Kind
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.state.log import LogDivergedError, record_bytes
from greenroom_cluster.shard.state.memory import GROWTH_BYTES


def take_records(replicas: list[Replica | None], now_ns: int, sender: bytes, entry: ShardRecords) -> bool:
    """Log an entry of a `Prepare`; return whether all of it is in the log now.

    A copy whose log is not the primary's is given up, and backs it no more: it is removed, and joins anew.
    The process goes on: whoever could end it by one forged record could end both actors of a pair.
    """
    replica = replicas[entry.shard] if 0 <= entry.shard < len(replicas) else None
    if replica is None:
        return False
    try:
        return _receive_records(replica, now_ns, sender, entry)
    except LogDivergedError as error:
        replica.close(now_ns, "its log is not the primary's")
        replicas[entry.shard] = None
        replica.context.warn(
            f"this copy was given up, for its log is not the primary's: {error}", entry.shard
        )
        return False


def _receive_records(replica: Replica, now_ns: int, sender: bytes, entry: ShardRecords) -> bool:
    """Log an entry of a `Prepare`; return whether all of it is in the log now.

    An entry of a later epoch from the same leader is taken: the leader knows of a configuration that this
    replica has still to hear of, and is the primary in both.
    """
    if not _follows(replica, sender, entry.shard_epoch, Kind.RECORDS):
        return False
    log, records = replica.log, entry.records
    before = log.appended
    memory = replica.memory
    if memory.free_bytes <= memory.ample_bytes:
        whole = log.receive(records, lambda command: record_bytes(command) + GROWTH_BYTES)
    else:
        # What a log may add is little beside so much room.
        whole = log.receive(records)
    if log.appended > before:
        replica.clock.heard(records[-1].time_us, now_ns)
    if not whole:
        replica.context.ignore("Prepare", f"a gap after record {log.appended}", replica.shard, replica.epoch)
        return False
    _commit(replica, entry.committed)
    replica.count()
    return True


def receive_commit(
    replica: Replica, now_ns: int, sender: bytes, epoch: int, committed: int, time_us: int
) -> None:
    """Take in a commit point and the shard's time."""
    if _follows(replica, sender, epoch, Kind.COMMIT):
        replica.clock.heard(time_us, now_ns)
        _commit(replica, committed)
        replica.count()


def catch_up(replica: Replica) -> None:
    """Apply what an earlier step knew to be committed and left."""
    if replica.suspension is not None:
        replica.approach_suspect()
    elif Kind.COMMIT in ACCEPTS[replica.role]:
        _commit(replica, replica.known_committed)
        replica.count()


def grace_over(replica: Replica, now_ns: int, heard_ns: int) -> None:
    """Take over if the primary was silent for the whole grace, or is known dead."""
    if Kind.GRACE_OVER not in ACCEPTS[replica.role]:
        return
    if replica.leader in replica.context.dead:
        replica.propose_takeover(now_ns, "primary known dead")
    elif now_ns - max(heard_ns, replica.since_ns) > replica.context.grace_ns:
        replica.propose_takeover(now_ns, "primary silent for the grace")


def _follows(replica: Replica, sender: bytes, epoch: int, kind: Kind) -> bool:
    if epoch < replica.epoch:
        reason = f"epoch {epoch} is over"
    elif sender != replica.leader:
        reason = "not from the primary followed"
    elif kind not in ACCEPTS[replica.role]:
        reason = f"not as {replica.role.value}"
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
