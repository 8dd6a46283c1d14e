"""What the map of a coordinator tells. Pure."""

from collections import Counter

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.recovery import is_known_dead
from greenroom_cluster.metrics.readings import Readings

NODE_STATES = ("up", "down", "leaving")
ACTOR_STATES = ("up", "replaced", "dead")


def tell_map(readings: Readings, cluster_map: ClusterMap | None) -> None:
    """Add what is known of nodes, actors and shards; nothing without a map."""
    if cluster_map is None:
        return
    nodes, actors = dict.fromkeys(NODE_STATES, 0), dict.fromkeys(ACTOR_STATES, 0)
    readings.tell("greenroom_map_version", cluster_map.version)
    readings.tell("greenroom_map_shards", cluster_map.shard_count)
    readings.tell_each("greenroom_nodes", nodes | Counter(each.state for each in cluster_map.nodes.values()))
    readings.tell_each(
        "greenroom_actors", actors | Counter(each.state for each in cluster_map.actors.values())
    )
    gone = sum(is_known_dead(shard.primary, cluster_map.actors) for shard in cluster_map.shards)
    readings.tell("greenroom_shards_without_primary", gone)
