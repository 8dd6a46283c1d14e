"""Clusters with zones, planned by hand."""

from collections.abc import Mapping

import msgspec

from greenroom.cluster_map import ClusterMap, NodeEntry
from greenroom_cluster.planning.placement import node_of, plan
from greenroom_cluster.planning.zones import zone_of

Layout = dict[str, int]
"""How many slots each node has."""


def slots_of(layout: Layout) -> list[str]:
    return [f"{name}/{index}" for name, count in sorted(layout.items()) for index in range(count)]


def with_zones(before: ClusterMap, zones: Mapping[str, str]) -> ClusterMap:
    """The map once these nodes have told their zones."""
    nodes = {name: NodeEntry(name, f"{name}:1", "up", zone) for name, zone in zones.items()}
    return msgspec.structs.replace(before, nodes=nodes)


def planned(before: ClusterMap, usable: list[str]) -> ClusterMap:
    """The map once this plan is written."""
    shards = list(before.shards)
    for number, wanted in plan(before, usable).items():
        shards[number] = msgspec.structs.replace(shards[number], wanted=wanted)
    return msgspec.structs.replace(before, shards=tuple(shards))


def zones_wanted(cluster_map: ClusterMap, shard: int) -> set[tuple[str, str]]:
    return {zone_of(cluster_map, node_of(slot)) for slot in cluster_map.shards[shard].wanted}


def crowded(cluster_map: ClusterMap) -> int:
    """How many shards are wanted within one zone."""
    return sum(len(zones_wanted(cluster_map, shard)) == 1 for shard in range(cluster_map.shard_count))
