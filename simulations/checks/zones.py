"""Whether the replicas of each shard stand in different zones, by where the nodes are in truth."""

from simulations.cluster.stage import Stage


def crowded(stage: Stage) -> list[str]:
    """Return the shards whose replicas stand in fewer zones than they could, and where they stand."""
    if not stage.plan.zones:
        return []
    there = {
        _zone(stage, each.node)
        for each in stage.supervisors.values()
        if each.alive and not each.leaving and any(child.alive for child in each.children.values())
    }
    found = []
    for shard, entry in enumerate(stage.disk.map.shards):
        nodes = [stage.actors[member].slot.partition("/")[0] for member in entry.members]
        if len({_zone(stage, node) for node in nodes}) < min(len(nodes), len(there)):
            found.append(f"shard {shard} on {[(node, stage.zone_of(node)) for node in nodes]}")
    return found


def _zone(stage: Stage, node: str) -> tuple[str, str]:
    zone = stage.zone_of(node)
    return (zone, "") if zone else ("", node)
