"""What differs between two states of a cluster, as an operator sees them one after the other."""

import msgspec

from greenroom_cluster.inspection import ClusterStatus, ShardStatus


class Rates(msgspec.Struct, frozen=True):
    """How fast a cluster changes: records that its primaries appended, sessions that there are more or less.

    A record is a write, or what has ended by time. `by_slot` has those of each actor.
    """

    records_per_second: float = 0.0
    sessions_per_second: float = 0.0
    by_slot: dict[str, float] = {}


def rates(before: ClusterStatus, now: ClusterStatus, seconds: float) -> Rates:
    """Return how fast the cluster changed between two looks at it, `seconds` apart.

    A shard that changed hands meanwhile, or whose primary did not answer, is left out: records that a former
    primary has appended may be gone.
    """
    if seconds <= 0 or before.lineage != now.lineage:
        return Rates()
    earlier = {shard.shard: shard for shard in before.shards}
    records = 0
    sessions = 0
    by_slot: dict[str, float] = {}
    for shard in now.shards:
        former = earlier.get(shard.shard)
        if former is None or former.epoch != shard.epoch or not (former.appended and shard.appended):
            continue
        more = max(0, shard.appended - former.appended)
        records += more
        sessions += shard.sessions - former.sessions
        by_slot[shard.primary] = by_slot.get(shard.primary, 0.0) + more / seconds
    return Rates(records / seconds, sessions / seconds, by_slot)


def changes(before: ClusterStatus, now: ClusterStatus) -> list[str]:
    """Return what has happened between two looks, for people: of nodes, actors and shards."""
    told = []
    nodes = {node.name: node.state for node in before.nodes}
    for node in now.nodes:
        former = nodes.pop(node.name, None)
        if former != node.state:
            told.append(f"node {node.name} is {node.state}" + (f", was {former}" if former else ""))
    told += [f"node {name} has left" for name in sorted(nodes)]
    actors = {actor.slot: actor.incarnation for actor in before.actors if actor.state == "up"}
    for actor in now.actors:
        if actor.state == "up" and actors.get(actor.slot, actor.incarnation) != actor.incarnation:
            told.append(f"actor {actor.slot} was started again")
    if before.coordinator.state != now.coordinator.state:
        told.append(f"coordinator is {now.coordinator.state}, was {before.coordinator.state}")
    earlier = {shard.shard: shard for shard in before.shards}
    for shard in now.shards:
        was = earlier.get(shard.shard)
        if was is not None and (shard.epoch, shard.state) != (was.epoch, was.state):
            told.append(_moved(was, shard))
    return told


def _moved(before: ShardStatus, now: ShardStatus) -> str:
    """Return what has happened to a shard."""
    parts = []
    if before.primary != now.primary:
        parts.append(f"primary {before.primary or '-'} -> {now.primary or '-'}")
    if before.backups != now.backups:
        parts.append(f"backup {', '.join(before.backups) or '-'} -> {', '.join(now.backups) or '-'}")
    if before.state != now.state:
        parts.append(f"{before.state} -> {now.state}")
    return f"shard {now.shard}, epoch {now.epoch}: {'; '.join(parts) or 'another configuration'}"
