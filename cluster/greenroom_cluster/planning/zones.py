"""Which nodes may be lost together: those of one zone. A node without one may be lost alone.

So a cluster in which nobody has named a zone is planned as if there were none, and nodes can be given their
zones one after the other: each only adds to what must stand apart.
"""

from typing import TypeAlias

from greenroom.cluster_map import ClusterMap, ShardEntry

Zone: TypeAlias = tuple[str, str]
"""The name of a zone and nothing; or nothing, and the name of the node that stands for itself."""


def zone_of(cluster_map: ClusterMap, node: str) -> Zone:
    """Return the zone of a node, which need not be in the map any more."""
    entry = cluster_map.nodes.get(node)
    return (entry.zone, "") if entry is not None and entry.zone else ("", node)


def is_on_one_node(cluster_map: ClusterMap, entry: ShardEntry) -> bool:
    """Whether all members of a shard that the map names are on one node, though they are several."""
    nodes = {actor.node for member in entry.members if (actor := cluster_map.actors.get(member)) is not None}
    return len(entry.members) > 1 and len(nodes) == 1


def crowded_zone(cluster_map: ClusterMap, entry: ShardEntry) -> str:
    """Return the one zone that holds all members of a shard, if others could hold some; "" if there is none.

    Others could if the map has a node elsewhere, up or down, that does not leave.
    """
    actors = [cluster_map.actors.get(member) for member in entry.members]
    zones = {zone_of(cluster_map, actor.node) for actor in actors if actor is not None}
    if len(entry.members) < 2 or len(zones) != 1 or None in actors:
        return ""
    here = zones.pop()
    staying = (node.name for node in cluster_map.nodes.values() if node.state != "leaving")
    return here[0] if any(zone_of(cluster_map, name) != here for name in staying) else ""
