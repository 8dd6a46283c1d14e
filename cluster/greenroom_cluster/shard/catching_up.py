"""How replicas come to what is committed, in as many steps as it takes, above all after a start from disk."""

from greenroom_cluster.shard.roles.accepts import deliver
from greenroom_cluster.shard.roles.replicas import Replicas
from greenroom_cluster.shard.roles.role import InputKind


def catch_up(replicas: Replicas, now_ns: int, wall_us: int) -> None:
    """Go on with what is left, first with what was inherited: those shards serve nobody until then."""
    step, by_shard = replicas.resources.step, replicas.by_shard
    behind, step.behind = step.behind, {}
    found = [replica for shard in behind if (replica := by_shard[shard]) is not None]
    found.sort(key=lambda each: not each.inherits)
    for place, replica in enumerate(found):
        if step.bytes_left <= 0:
            step.behind.update({each.shard: None for each in found[place:]})
            break
        if replica.log.unread:
            replica.read_on(now_ns, wall_us)
        else:
            deliver(replicas, (replica.shard,), now_ns, wall_us, b"", InputKind.CATCH_UP)
