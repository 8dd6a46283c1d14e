"""What the core of an actor tells of its replicas: nothing is counted for that, it is looked at. Pure."""

from collections import Counter
from collections.abc import Sequence

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.metrics.readings import NS, Readings
from greenroom_cluster.planning.zones import crowded_zone, is_on_one_node
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.roles.primary import Primary
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.roles.role import Role, label_of
from greenroom_cluster.shard.state.memory import Memory
from greenroom_cluster.shard_states import STATE_NAMES

STATES = tuple(STATE_NAMES.values())
_ROLES = tuple(label_of(role) for role in Role if role is not Role.NONE)


def tell_core(
    readings: Readings, replicas: Sequence[Replica | None], memory: Memory, slot: str, now_ns: int
) -> None:
    """Add what can be seen of the replicas by shard, None where there is none."""
    held = [each for each in replicas if each is not None]
    _tell_replicas(readings, held, now_ns)
    _tell_memory(readings, memory, slot, now_ns)
    if held:
        # All of them share these.
        _tell_resources(readings, held, held[0].resources, now_ns)


def _tell_replicas(readings: Readings, held: Sequence[Replica], now_ns: int) -> None:
    roles, states = dict.fromkeys(_ROLES, 0), dict.fromkeys(STATES, 0)
    sessions, stored = Counter(primary=0, other=0), Counter(primary=0, other=0)
    log_bytes = waiting = 0
    for each in held:
        roles[label_of(each.role)] += 1
        kind = "other" if each.primary is None else "primary"
        sessions[kind] += len(each.table.sessions)
        stored[kind] += each.table.stored_bytes
        log_bytes += each.log.held_bytes
        if each.suspension is not None:
            states["suspended"] += 1
        elif each.primary is not None:
            states[_state(each, each.primary, now_ns)] += 1
            waiting += len(each.primary.held)
    readings.tell_each("greenroom_replicas", roles)
    readings.tell_each("greenroom_shards", states)
    readings.tell_each("greenroom_sessions", sessions)
    readings.tell_each("greenroom_stored_bytes", stored)
    readings.tell("greenroom_log_memory_bytes", log_bytes)
    readings.tell("greenroom_held_requests", waiting)


def _state(replica: Replica, primary: Primary, now_ns: int) -> str:
    """Return the state of a shard as its primary sees it; `greenroom status` asks the backups too."""
    if primary.paused or not primary.leased(now_ns):
        return "unavailable"
    known = replica.context.map
    if known is None or len(replica.members) < known.replicas:
        return "joining" if primary.membership.joiner is not None or len(replica.members) > 1 else "alone"
    return _crowding(known, replica.shard)


def _crowding(known: ClusterMap, shard: int) -> str:
    entry = known.shards[shard]
    if is_on_one_node(known, entry):
        return "same_node"
    return "same_zone" if crowded_zone(known, entry) else "whole"


def _tell_memory(readings: Readings, memory: Memory, slot: str, now_ns: int) -> None:
    readings.tell("greenroom_memory_used_bytes", memory.used_bytes)
    readings.tell("greenroom_memory_free_bytes", memory.unused_bytes)
    readings.tell("greenroom_memory_limit_bytes", max(memory.limit_bytes, 0))
    readings.tell("greenroom_memory_refusing", float(slot in memory.refusing(now_ns)))


def _tell_resources(readings: Readings, held: Sequence[Replica], resources: Resources, now_ns: int) -> None:
    readings.tell("greenroom_sessions_expired_total", resources.context.expired)
    readings.tell("greenroom_sessions_evicted_total", resources.evictions.sessions)
    readings.tell("greenroom_joins_started_total", resources.joins.begun)
    readings.tell("greenroom_joins_in_progress", resources.joins.taken)
    readings.tell("greenroom_join_sent_ratio", _sent_ratio(held))
    pairs = resources.pairs.outgoing.values()
    readings.tell("greenroom_replication_in_flight", sum(len(pair.flights) for pair in pairs))
    margins = [
        pair.lease_until_ns - now_ns if pair.lease_until_ns else 0
        for pair in pairs
        if any(recipient.counted for recipient in pair.recipients.values())
    ]
    if margins:
        readings.tell("greenroom_lease_margin_seconds", min(margins) * NS)
    use = resources.near.use
    readings.tell("greenroom_near_held", use.held)
    readings.tell("greenroom_near_granted_total", use.granted)
    readings.tell("greenroom_near_refused_total", use.refused)
    readings.tell("greenroom_near_invalidations_total", use.invalidations)
    readings.tell("greenroom_near_waits_total", use.waits)
    readings.tell("greenroom_near_waits_lapsed_total", use.waits_lapsed)
    readings.tell("greenroom_near_wait_seconds_total", use.waited_seconds)
    watches = resources.watchers.use
    readings.tell("greenroom_watched_sessions", watches.watched)
    readings.tell("greenroom_watch_endings_total", watches.told)
    readings.tell("greenroom_watch_refusals_total", watches.refused)


def _sent_ratio(held: Sequence[Replica]) -> float:
    """Return how much of the snapshots under way is sent."""
    sent = whole = 0
    for each in held:
        transfer = None if each.primary is None else each.primary.membership.transfer
        if transfer is not None:
            done, all_of_it = transfer.progress
            sent += done
            whole += all_of_it
    return sent / whole if whole else 1.0
