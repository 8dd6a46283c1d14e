"""The state of a cluster for an operator: the map, and what each actor reports of its replicas. Pure."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import msgspec

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap
from greenroom.near_use import NearUse
from greenroom.watch_use import WatchUse
from greenroom_cluster.coordination.messages import ETCD_AWAY
from greenroom_cluster.coordination.recovery import durable_members
from greenroom_cluster.coordinator_status import (
    AWAY,
    CUT_OFF,
    UNKNOWN,
    UP,
    CoordinatorStatus,
    Undecided,
    who_leads,
)
from greenroom_cluster.crowding import on_one_node, within_one_zone, without_zone
from greenroom_cluster.namespace_status import NamespaceStatus, namespaces_of
from greenroom_cluster.planning.placement import node_of
from greenroom_cluster.planning.waiting import (
    MissingDirectories,
    Waiting,
    awaited,
    directories_in_use,
    missing_directories,
    shards_without_directories,
    waiting_shards,
)
from greenroom_cluster.planning.zones import crowded_zone, is_on_one_node
from greenroom_cluster.shard_states import (
    ALONE,
    FULL,
    JOINING,
    SAME_NODE,
    SAME_ZONE,
    STATE_NAMES,
    STATES,
    SUSPENDED,
    UNAVAILABLE,
)
from greenroom_cluster.shortages import LackedCopy, lacked_copies, over_bound, refused_growth, short_of_disk

_AGAIN_SECONDS = 0.3


class NodeStatus(msgspec.Struct, frozen=True):
    """One node of the map."""

    name: str
    address: str
    state: str
    actors: int
    zone: str = ""


class ActorStatus(msgspec.Struct, frozen=True):
    """One actor incarnation of the map; `reachable`: it answered just now.

    `used_bytes` and `free_bytes` of its memory are 0 if it does not report them. `grantable_bytes` of the
    free ones belong to no shard's share yet. `evicted` counts the sessions that its primaries ended to make
    room. `refuses_growth`: it had no memory for a write within the last minute. `near`: what it holds for
    near caches; `watches`: what it tells of endings. `excess_bytes`: by how much it is over its bound.
    `disk_short`: its disk is nearly full. `untrusted`: why it does not tell whoever asks, if it is that.
    """

    slot: str
    incarnation: str
    address: str
    state: str
    pid: int
    reachable: bool
    primaries: int
    backups: int
    sessions: int
    used_bytes: int = 0
    free_bytes: int = 0
    memory_bytes_max: int = 0
    evicted: int = 0
    grantable_bytes: int = 0
    refuses_growth: bool = False
    near: NearUse = NearUse()
    watches: WatchUse = WatchUse()
    excess_bytes: int = 0
    disk_short: bool = False
    untrusted: str = ""


class SuspendedStatus(msgspec.Struct, frozen=True):
    """The record at which a shard is suspended; `following` more wait behind it."""

    epoch: int
    sequence: int
    kind: str
    size_bytes: int
    following: int


class KeptStatus(msgspec.Struct, frozen=True):
    """What the directory of an actor holds of a shard without living members: up to which record."""

    slot: str
    epoch: int
    sequence: int


class ShardStatus(msgspec.Struct, frozen=True):
    """One shard. `primary` and `backups` are slots; `state` is one of the states above.

    `same_node`: all replicas are there, but on one node, whose loss would lose the shard. `same_zone`: they
    are in one zone, named in `zone`, though the cluster has a node elsewhere. `waits_for` lists the nodes
    that are away and may hold its sessions, if the shard cannot go on without them. `suspended` is the record
    that ended its primary, if the shard has stopped before that record. `join_refusal` says why an actor did
    not take the copy that it should hold; `join_refused_by` is its slot if it had no memory for the copy's
    `join_bytes`. `missing_directories` are the slots whose directories it waits for if all its members are
    dead, and `kept` is what the others hold. `appended` is the number of the primary's last record, and
    `stored_bytes` what its sessions take. Clients keep `held` of its sessions. `joiner` is the slot that is
    being given a copy, and `join_progress` how many sessions of it were sent, and how many there are.
    """

    shard: int
    epoch: int
    primary: str
    backups: tuple[str, ...]
    sessions: int
    state: str
    waits_for: tuple[str, ...] = ()
    suspended: SuspendedStatus | None = None
    join_refusal: str = ""
    join_refused_by: str = ""
    join_bytes: int = 0
    missing_directories: tuple[str, ...] = ()
    kept: tuple[KeptStatus, ...] = ()
    zone: str = ""
    appended: int = 0
    stored_bytes: int = 0
    held: int = 0
    joiner: str = ""
    join_progress: tuple[int, int] = (0, 0)

    def told(self) -> str:
        """Return why the shard is suspended, and what to do."""
        record = self.suspended
        assert record is not None
        return (
            f"shard {self.shard} is suspended on {self.primary}: a {record.kind} of {record.size_bytes} "
            f"bytes ended its primary, and {record.following} more records wait behind it; drop that record "
            f"(`greenroom drop-record {self.shard}`) or wait: nothing is lost until then"
        )


class ClusterStatus(msgspec.Struct, frozen=True):
    """The whole cluster, at roughly one moment."""

    cluster: str
    lineage: int
    version: int
    replicas: int
    nodes: tuple[NodeStatus, ...]
    actors: tuple[ActorStatus, ...]
    shards: tuple[ShardStatus, ...]
    waiting: tuple[Waiting, ...] = ()
    coordinator: CoordinatorStatus = CoordinatorStatus()
    missing_directories: tuple[MissingDirectories, ...] = ()
    namespaces: tuple[NamespaceStatus, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether every shard serves with all its replicas, on several nodes and in several zones if it can.

        The coordinator need not be reachable for that.
        """
        return all(shard.state == FULL for shard in self.shards)

    @property
    def refusing(self) -> tuple[str, ...]:
        """The slots of the actors whose lack of memory caused a refused write within the last minute."""
        return tuple(actor.slot for actor in self.actors if actor.refuses_growth)

    @property
    def nodes_up(self) -> int:
        """How many nodes are up and have registered an actor."""
        return sum(node.state == "up" and node.actors > 0 for node in self.nodes)

    def states(self) -> dict[str, int]:
        """Return how many shards are in each state."""
        counted = Counter(shard.state for shard in self.shards)
        return {state: counted[state] for state in STATES}

    def crowded(self) -> dict[str, list[int]]:
        """Return the shards whose replicas are all within one zone, by that."""
        found: dict[str, list[int]] = {}
        for shard in self.shards:
            if shard.zone:
                found.setdefault(shard.zone, []).append(shard.shard)
        return dict(sorted(found.items()))

    def counts(self) -> str:
        """Return how many shards are in each state, for people."""
        return ", ".join(f"{count} {STATE_NAMES[state]}" for state, count in self.states().items() if count)

    def warnings(self) -> list[str]:
        """Return warnings: an unreachable coordinator, shards that wait, shards at risk."""
        on_nodes = Counter(node_of(shard.primary) for shard in self.shards if shard.state == SAME_NODE)
        refused = [
            LackedCopy(shard.shard, shard.join_refusal, shard.join_refused_by, shard.join_bytes)
            for shard in self.shards
            if shard.join_refusal
        ]
        told = [self.coordinator.told(), *(each.told() for each in self.waiting)]
        told += [each.told() for each in self.missing_directories]
        told += [shard.told() for shard in self.shards if shard.suspended is not None]
        return (
            _untold([actor for actor in self.actors if actor.untrusted])
            + [line for line in told if line]
            + over_bound((actor.slot, actor.excess_bytes) for actor in self.actors if actor.excess_bytes)
            + refused_growth(self.refusing)
            + short_of_disk([actor.slot for actor in self.actors if actor.disk_short])
            + [line for namespace in self.namespaces for line in namespace.warnings()]
            + lacked_copies(refused)
            + on_one_node(on_nodes)
            + within_one_zone(self.crowded())
            + without_zone((node.name, node.zone) for node in self.nodes)
        )


def summarize(
    cluster_map: ClusterMap,
    inspections: Mapping[bytes, wire.Inspection],
    untrusted: Mapping[bytes, str] = MappingProxyType({}),
) -> ClusterStatus:
    """Combine the map with the actors' reports, and with why some do not report."""
    replicas = {
        (replica.shard, incarnation): replica
        for incarnation, inspection in inspections.items()
        for replica in inspection.replicas
    }
    away = _away(cluster_map, inspections)
    used = directories_in_use(cluster_map)
    refusing = {slot for inspection in inspections.values() for slot in inspection.refusing}
    shards = tuple(
        _shard_status(cluster_map, index, replicas, away, used) for index in range(cluster_map.shard_count)
    )
    return ClusterStatus(
        cluster=cluster_map.cluster,
        lineage=cluster_map.lineage,
        version=cluster_map.version,
        replicas=cluster_map.replicas,
        nodes=tuple(
            NodeStatus(
                node.name,
                node.address,
                node.state,
                sum(actor.node == node.name and actor.state == "up" for actor in cluster_map.actors.values()),
                node.zone,
            )
            for node in sorted(cluster_map.nodes.values(), key=lambda node: node.name)
        ),
        actors=tuple(
            _actor_status(
                cluster_map,
                actor,
                inspections.get(actor.incarnation),
                refusing,
                untrusted.get(actor.incarnation, ""),
            )
            for actor in sorted(cluster_map.actors.values(), key=lambda actor: (actor.slot, actor.state))
        ),
        shards=shards,
        waiting=waiting_shards(cluster_map, (shard.waits_for for shard in shards)),
        coordinator=_coordinator_status(cluster_map, inspections),
        missing_directories=shards_without_directories(cluster_map, (s.missing_directories for s in shards)),
        namespaces=namespaces_of(
            (_slot(cluster_map, key), inspection.namespaces) for key, inspection in inspections.items()
        ),
    )


def _coordinator_status(
    cluster_map: ClusterMap, inspections: Mapping[bytes, wire.Inspection]
) -> CoordinatorStatus:
    told = {
        incarnation: inspection
        for incarnation, inspection in inspections.items()
        if inspection.coordinator_away_seconds is not None
    }
    missing = {key: each for key, each in told.items() if each.coordinator_away_seconds}
    knowing = [each.coordinators for key, each in told.items() if each.coordinators and key not in missing]
    lost = [each.coordinators for each in missing.values() if each.coordinators]
    address, others = who_leads(knowing or lost)
    if not missing:
        return CoordinatorStatus(UP if told else UNKNOWN, address=address, others=others)
    undecided = {
        Undecided(replica.shard, replica.proposes)
        for inspection in missing.values()
        for replica in inspection.replicas
        if replica.proposes
    }
    away_seconds = round(min(each.coordinator_away_seconds or 0.0 for each in missing.values()), 1)
    state = AWAY if len(missing) == len(told) else CUT_OFF
    etcd_is_away = state == AWAY and any(each.farewell == ETCD_AWAY for each in lost)
    return CoordinatorStatus(
        state,
        away_seconds,
        tuple(sorted(_slot(cluster_map, key) for key in missing)),
        tuple(sorted(undecided, key=lambda each: (each.shard, each.kind))),
        address,
        others,
        max(away_seconds, 0.1) if etcd_is_away else 0.0,
    )


def _away(cluster_map: ClusterMap, inspections: Mapping[bytes, wire.Inspection]) -> set[bytes]:
    """Return the incarnations that did not answer and, by the map, will not."""
    up = {node.name for node in cluster_map.nodes.values() if node.state == "up"}
    return {
        actor.incarnation
        for actor in cluster_map.actors.values()
        if actor.incarnation not in inspections and (actor.node not in up or actor.state == "replaced")
    }


def _untold(actors: Sequence[ActorStatus]) -> list[str]:
    """Return of which actors nothing is known because they are asked with the wrong certificate."""
    if not actors:
        return []
    slots = ", ".join(actor.slot for actor in actors)
    told = (
        f"not known, and counted as away: {slots}. Who asks and who answers must trust each other: "
        f"{actors[0].untrusted}. Ask with the certificate of an operator or observer (--tls-cert), or with a "
        "token that all nodes know"
    )
    return [told]


def _actor_status(
    cluster_map: ClusterMap,
    actor: ActorEntry,
    inspection: wire.Inspection | None,
    refusing: Collection[str],
    untrusted: str,
) -> ActorStatus:
    return ActorStatus(
        slot=actor.slot,
        incarnation=actor.incarnation.hex(),
        address=actor.address,
        state=actor.state,
        pid=actor.pid,
        reachable=inspection is not None,
        primaries=sum(shard.primary == actor.incarnation for shard in cluster_map.shards),
        backups=sum(actor.incarnation in shard.backups for shard in cluster_map.shards),
        sessions=sum(
            replica.sessions
            for replica in (inspection.replicas if inspection is not None else ())
            if cluster_map.shards[replica.shard].primary == actor.incarnation
        ),
        used_bytes=0 if inspection is None else inspection.used_bytes,
        free_bytes=0 if inspection is None else inspection.free_bytes,
        memory_bytes_max=0 if inspection is None else inspection.memory_bytes_max,
        evicted=0 if inspection is None else inspection.evicted,
        near=NearUse() if inspection is None else inspection.near,
        watches=WatchUse() if inspection is None else inspection.watches,
        grantable_bytes=0 if inspection is None else inspection.grantable_bytes,
        refuses_growth=inspection is not None and actor.slot in refusing,
        excess_bytes=0 if inspection is None else inspection.excess_bytes,
        disk_short=inspection is not None and inspection.disk_short,
        untrusted=untrusted,
    )


def _shard_status(
    cluster_map: ClusterMap,
    index: int,
    replicas: Mapping[tuple[int, bytes], wire.ReplicaState],
    away: set[bytes],
    used: Mapping[bytes, bytes],
) -> ShardStatus:
    entry = cluster_map.shards[index]
    primary = replicas.get((index, entry.primary))
    record = None if primary is None else primary.suspended
    zone = ""
    if record is not None:
        state = SUSPENDED
    elif primary is None or not primary.serving:
        state = UNAVAILABLE
    elif len(entry.members) >= cluster_map.replicas and all(
        _backs(replicas.get((index, backup)), entry.epoch) for backup in entry.backups
    ):
        zone = crowded_zone(cluster_map, entry)
        state = SAME_NODE if is_on_one_node(cluster_map, entry) else SAME_ZONE if zone else FULL
    else:
        state = JOINING if primary.joining or entry.backups else ALONE
    lacks = primary if state in (JOINING, ALONE) else None
    return ShardStatus(
        shard=index,
        epoch=entry.epoch,
        primary=_slot(cluster_map, entry.primary),
        backups=tuple(_slot(cluster_map, backup) for backup in entry.backups),
        sessions=primary.sessions if primary is not None else 0,
        state=state,
        waits_for=awaited(cluster_map, index, away) if state == UNAVAILABLE else (),
        suspended=None if record is None else SuspendedStatus(*msgspec.structs.astuple(record)),
        join_refusal="" if lacks is None else lacks.join_refusal,
        join_refused_by="" if lacks is None else lacks.join_refused_by,
        join_bytes=0 if lacks is None else lacks.join_bytes,
        missing_directories=missing_directories(cluster_map, index, used) if state == UNAVAILABLE else (),
        kept=_kept(cluster_map, index, replicas, used) if state == UNAVAILABLE else (),
        zone=zone,
        appended=primary.appended if primary is not None else 0,
        stored_bytes=primary.stored_bytes if primary is not None else 0,
        held=0 if primary is None else primary.held,
        joiner="" if primary is None else ", ".join(_slot(cluster_map, each) for each in primary.joining),
        join_progress=(0, 0) if primary is None else primary.join_progress,
    )


def _kept(
    cluster_map: ClusterMap,
    shard: int,
    replicas: Mapping[tuple[int, bytes], wire.ReplicaState],
    used: Mapping[bytes, bytes],
) -> tuple[KeptStatus, ...]:
    found = []
    for member in durable_members(cluster_map.shards[shard], cluster_map.actors):
        heir = used.get(member.directory, b"")
        if (copy := replicas.get((shard, heir))) is not None:
            found.append(KeptStatus(_slot(cluster_map, heir), copy.epoch, copy.appended))
    return tuple(found)


def _backs(replica: wire.ReplicaState | None, epoch: int) -> bool:
    # The map may be slightly older than the actor's report.
    return replica is not None and replica.epoch >= epoch and replica.role in {"backup", "primary"}


def _slot(cluster_map: ClusterMap, incarnation: bytes) -> str:
    actor = cluster_map.actors.get(incarnation)
    return actor.slot if actor is not None else ""
