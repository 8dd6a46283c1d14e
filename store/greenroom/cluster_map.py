"""The cluster map: the versioned document that says which actor serves which shard.

One actor incarnation is 16 random bytes; a slot is `"node/index"`, the place that successive incarnations of
one actor take. Configurations name incarnations, never slots, so a restarted actor is never taken for its
predecessor. `wanted` names slots, because a plan outlives restarts.
"""

from collections.abc import Iterable

import msgspec

SHARDS_MAX = 4096

CLUSTER_IDENTITY_BYTES = 16


def are_foreign(one: bytes, other: bytes) -> bool:
    """Return whether two identities are known to be those of two clusters; an empty one is not known."""
    return bool(one and other) and one != other


class NodeEntry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One node. `state` is "up", "leaving" (drains, then stops) or "down" (unreachable).

    Nodes of one `zone` may be lost together. It is empty if nobody has named one, or if a release that knows
    no zones has passed the entry on.
    """

    name: str
    address: str
    state: str
    zone: str = ""


class ActorEntry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One actor incarnation. `state` is "up", "replaced" or "dead".

    "up" is the current incarnation of its slot, at most one per slot. "replaced" has a successor in its slot,
    which proves nothing about its life: it may still run and serve. "dead" is final: its exit was seen.

    `host` identifies the kernel and pid namespace in which (`pid`, `started_ticks`) has a meaning.

    `durability` is "" if the actor keeps nothing on disk, else "interval" or "fsync". `directory` then names
    the directory that it writes to, which its successors in the slot open again, and `mark` how far that had
    come when the actor opened it.
    """

    incarnation: bytes
    node: str
    slot: str
    address: str
    state: str
    host: str
    pid: int
    started_ticks: int
    durability: str = ""
    directory: bytes = b""
    mark: int = 0


class SuspectRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The record of a shard's log on which the incarnation `actor` died or hangs.

    `epoch` and `sequence` are what the log calls it; no other record of the shard has both.
    """

    actor: bytes
    epoch: int
    sequence: int


class ShardEntry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Configuration of one shard. Epoch 0 and an empty primary: not yet started.

    `nonce` names the proposal that made this configuration. `wanted` is the controller's plan: slots, the
    primary's first. A backup that takes over does not apply `suspect`.

    `recovered_us` is the coordinator's wall clock when it decided that the shard goes on from disk in this
    configuration, in microseconds; 0 if that was not so.
    """

    epoch: int
    primary: bytes
    backups: tuple[bytes, ...]
    nonce: bytes
    wanted: tuple[str, ...]
    suspect: SuspectRecord | None = None
    recovered_us: int = 0

    @property
    def members(self) -> tuple[bytes, ...]:
        """Every incarnation of the configuration, the primary first; empty when not yet started."""
        return (self.primary, *self.backups) if self.primary else ()


class ClusterMap(msgspec.Struct, array_like=True, frozen=True):
    """One version of the whole map. Never mutated: `apply` makes the next one.

    `identity` is drawn at random when the cluster is created and stays the same for as long as it lives. It
    is empty where a release that knows none has passed the map on. Lineages and versions of maps of two
    clusters say nothing about each other, whatever their names.

    `floors` holds, for each directory of an actor in the map, the highest mark that was seen of it: what
    comes back with less is an older copy.

    `recover_alone_seconds` is how long a shard waits for the directories of all its members if one has all
    that was acknowledged; 0: for as long as it takes. It is fixed for one run of a coordinator.
    """

    cluster: str
    lineage: int
    version: int
    replicas: int
    nodes: dict[str, NodeEntry]
    actors: dict[bytes, ActorEntry]
    shards: tuple[ShardEntry, ...]
    identity: bytes = b""
    floors: dict[bytes, int] = {}
    recover_alone_seconds: float = 0.0

    @property
    def shard_count(self) -> int:
        """How many shards the cluster has, a power of two."""
        return len(self.shards)

    def newer_than(self, other: "ClusterMap") -> bool:
        """Whether this map is later in the same lineage, or of a later lineage, of the same cluster."""
        if self.is_foreign_to(other):
            return False
        return (self.lineage, self.version) > (other.lineage, other.version)

    def is_foreign_to(self, other: "ClusterMap") -> bool:
        """Whether this is known to be the map of another cluster."""
        return are_foreign(self.identity, other.identity)

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epoch of each shard."""
        return tuple(entry.epoch for entry in self.shards)

    def by_primary(self, shards: Iterable[int]) -> dict[bytes, list[int]]:
        """Return these shards by the incarnation of their primary, which is empty if they have none."""
        found: dict[bytes, list[int]] = {}
        for shard in shards:
            found.setdefault(self.shards[shard].primary, []).append(shard)
        return found

    def continues(self, other: "ClusterMap") -> bool:
        """Whether this map may have come of the other: newer, and no shard of its lineage has gone back.

        A map that is newer by its version alone comes from a coordinator restored from an older copy.
        """
        if not self.newer_than(other):
            return False
        return self.lineage != other.lineage or all(
            mine.epoch >= theirs.epoch for mine, theirs in zip(self.shards, other.shards, strict=False)
        )

    def apply(self, delta: "MapDelta") -> "ClusterMap":
        """Return the map after `delta`.

        Raises ValueError if the delta starts from another version; the holder then asks for the whole map.
        """
        if (delta.lineage, delta.base) != (self.lineage, self.version):
            raise ValueError(
                f"delta from version {delta.base} of lineage {delta.lineage} does not continue "
                f"version {self.version} of lineage {self.lineage}"
            )
        nodes = {**self.nodes, **{node.name: node for node in delta.nodes}}
        for name in delta.removed_nodes:
            nodes.pop(name, None)
        actors = {**self.actors, **{actor.incarnation: actor for actor in delta.actors}}
        for incarnation in delta.removed_actors:
            actors.pop(incarnation, None)
        shards = list(self.shards)
        for index, entry in delta.shards:
            shards[index] = entry
        floors = {**self.floors, **delta.floors}
        for directory in delta.removed_floors:
            floors.pop(directory, None)
        return ClusterMap(
            self.cluster,
            self.lineage,
            delta.version,
            self.replicas,
            nodes,
            actors,
            tuple(shards),
            self.identity,
            floors,
            self.recover_alone_seconds,
        )


class MapDelta(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The difference between map version `base` and `version` of one lineage."""

    lineage: int
    base: int
    version: int
    nodes: tuple[NodeEntry, ...] = ()
    removed_nodes: tuple[str, ...] = ()
    actors: tuple[ActorEntry, ...] = ()
    removed_actors: tuple[bytes, ...] = ()
    shards: tuple[tuple[int, ShardEntry], ...] = ()
    floors: dict[bytes, int] = {}
    removed_floors: tuple[bytes, ...] = ()


def delta_between(old: ClusterMap, new: ClusterMap) -> MapDelta:
    """Return the delta that turns `old` into `new`, a later map of the same lineage."""
    return MapDelta(
        lineage=new.lineage,
        base=old.version,
        version=new.version,
        nodes=tuple(node for name, node in new.nodes.items() if old.nodes.get(name) != node),
        removed_nodes=tuple(name for name in old.nodes if name not in new.nodes),
        actors=tuple(
            actor for incarnation, actor in new.actors.items() if old.actors.get(incarnation) != actor
        ),
        removed_actors=tuple(incarnation for incarnation in old.actors if incarnation not in new.actors),
        shards=tuple(
            (index, entry)
            for index, (entry, before) in enumerate(zip(new.shards, old.shards, strict=True))
            if entry != before
        ),
        floors={key: mark for key, mark in new.floors.items() if old.floors.get(key) != mark},
        removed_floors=tuple(key for key in old.floors if key not in new.floors),
    )
