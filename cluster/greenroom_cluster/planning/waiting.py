"""Shards that wait for nodes, or for directories, that are away, and what an operator can do about it.

If all living members of a shard are on nodes that are away, the shard is not started empty, because they may
hold its sessions. It continues when one of them is back, or when all are known to be gone: because their node
was started again on the same host and found no process of theirs, or because an operator said so.

If all members of a shard are dead and some kept it on disk, it continues from the directory that has most. So
it waits until all these directories are in use again, or an operator has given up the others.
"""

from collections import Counter
from collections.abc import Collection, Iterable

import msgspec

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.recovery import durable_members, is_known_dead
from greenroom_cluster.planning.placement import node_of


def _alone(seconds: float) -> str:
    if not seconds:
        return ""
    return (
        f". After {seconds:g} s (--recover-alone-after) shards go on without, if a directory in mode fsync "
        "is there"
    )


class Waiting(msgspec.Struct, frozen=True):
    """`shards` shards wait for these nodes. `running`: the nodes are up; only former processes are away.

    `alone_after_seconds` is as in `MissingDirectories`.
    """

    nodes: tuple[str, ...]
    shards: int
    running: bool = False
    alone_after_seconds: float = 0.0

    def told(self) -> str:
        """Return the sentence for an operator: what waits, and what to do."""
        one, alone = self.shards == 1, len(self.nodes) == 1
        names = " and ".join(self.nodes)
        forget = " and ".join(f"`greenroom forget-node {name}`" for name in self.nodes)
        they, them = ("it is", "it") if alone else ("they are", "them")
        nodes = f"node{'' if alone else 's'} {names}"
        what = f"{self.shards} shard{' waits' if one else 's wait'} for"
        held = f"which may hold {'its' if one else 'their'} sessions"
        if self.running:
            return (
                f"{what} former processes of {nodes}, {held}: if they are gone for good, stop {nodes}, run "
                f"{forget} (loses those sessions) and start {them} again"
            )
        return (
            f"{what} {nodes}, {held}: start {them}, or, if {they} gone for good, run {forget} (loses those "
            f"sessions){_alone(self.alone_after_seconds)}"
        )


class MissingDirectories(msgspec.Struct, frozen=True):
    """`shards` shards wait for the directories of these slots. `replaced`: these run, but with others.

    `alone_after_seconds`: after so long each goes on without them, if one that is there has all that was
    acknowledged; 0: never.
    """

    slots: tuple[str, ...]
    shards: int
    alone_after_seconds: float = 0.0
    replaced: bool = False

    def told(self) -> str:
        """Return the sentence for an operator: what waits, and what to do."""
        one, alone = self.shards == 1, len(self.slots) == 1
        nodes = tuple(sorted({node_of(slot) for slot in self.slots}))
        names = " and ".join(nodes)
        forget = " and ".join(f"`greenroom forget-node {name}`" for name in nodes)
        what, they, them = ("directory", "it is", "it") if alone else ("directories", "they are", "them")
        some = f"node{'' if len(nodes) == 1 else 's'} {names}"
        start = f"start {some} with {them}"
        if self.replaced:
            now = f"{'runs' if alone else 'run'} with {'another' if alone else 'others'} now"
            start = f"that {now}; stop {some}, put {them} back and start again"
        return (
            f"{self.shards} shard{' waits' if one else 's wait'} for the {what} of "
            f"{' and '.join(self.slots)}, where {'its' if one else 'their'} sessions were kept: {start}, or, "
            f"if {they} gone for good, run {forget} (loses what is only there)"
            f"{_alone(self.alone_after_seconds)}"
        )


def awaited(cluster_map: ClusterMap, shard: int, away: Collection[bytes]) -> tuple[str, ...]:
    """Return the nodes that a shard waits for: those of its living members if all are `away`, else none."""
    living = [
        actor
        for member in cluster_map.shards[shard].members
        if (actor := cluster_map.actors.get(member)) is not None and actor.state != "dead"
    ]
    if any(actor.incarnation not in away for actor in living):
        return ()
    return tuple(sorted({actor.node for actor in living}))


def missing_directories(cluster_map: ClusterMap, shard: int, used: Collection[bytes]) -> tuple[str, ...]:
    """Return the slots whose directories a shard waits for, given the directories in use; often none."""
    entry, actors = cluster_map.shards[shard], cluster_map.actors
    if not all(is_known_dead(member, actors) for member in entry.members):
        return ()
    missing = (each for each in durable_members(entry, actors) if each.directory not in used)
    return tuple(sorted({each.slot for each in missing}))


def directories_in_use(cluster_map: ClusterMap) -> dict[bytes, bytes]:
    """Return who runs in which directory, on a node that is up."""
    up = {node.name for node in cluster_map.nodes.values() if node.state != "down"}
    return {
        actor.directory: actor.incarnation
        for actor in cluster_map.actors.values()
        if actor.directory and actor.state == "up" and actor.node in up
    }


def is_only_on_disk(cluster_map: ClusterMap, shard: int, connected: Collection[bytes]) -> bool:
    """Whether no member of a shard is there that could carry out a plan, and one has kept it on disk."""
    entry = cluster_map.shards[shard]
    if any(member in connected for member in entry.members):
        return False
    return any(durable_members(entry, cluster_map.actors))


def shards_without_directories(
    cluster_map: ClusterMap, missing: Iterable[tuple[str, ...]]
) -> tuple[MissingDirectories, ...]:
    """Count the waiting shards by the slots whose directories they wait for."""
    counted = Counter(slots for slots in missing if slots)
    after = cluster_map.recover_alone_seconds
    used = directories_in_use(cluster_map).values()
    running = {cluster_map.actors[incarnation].slot for incarnation in used}
    return tuple(
        MissingDirectories(slots, count, after, replaced=running.issuperset(slots))
        for slots, count in sorted(counted.items())
    )


def on_nodes_that_are_down(cluster_map: ClusterMap) -> set[bytes]:
    """Return the incarnations on nodes that the coordinator no longer hears from."""
    down = {node.name for node in cluster_map.nodes.values() if node.state == "down"}
    return {actor.incarnation for actor in cluster_map.actors.values() if actor.node in down}


def waiting_shards(cluster_map: ClusterMap, awaiting: Iterable[tuple[str, ...]]) -> tuple[Waiting, ...]:
    """Count the waiting shards by the nodes that they wait for."""
    counted = Counter(nodes for nodes in awaiting if nodes)
    after = cluster_map.recover_alone_seconds
    return tuple(
        Waiting(nodes, count, all(_runs(cluster_map, name) for name in nodes), after)
        for nodes, count in sorted(counted.items())
    )


def _runs(cluster_map: ClusterMap, name: str) -> bool:
    node = cluster_map.nodes.get(name)
    return node is not None and node.state == "up"
