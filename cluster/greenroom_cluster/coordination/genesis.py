"""The map that a coordinator starts with: a new one, the one on disk, or a new lineage of that."""

import re
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from greenroom.cluster_map import (
    CLUSTER_IDENTITY_BYTES,
    SHARDS_MAX,
    ActorEntry,
    ClusterMap,
    NodeEntry,
    ShardEntry,
)
from greenroom.errors import UsageError
from greenroom_cluster.coordination.bounds import map_objection
from greenroom_cluster.coordination.rules import begin_lineage

SHARDS_DEFAULT = 64
REPLICAS_DEFAULT = 2
REPLICAS_MAX = 3

ADOPTION_MISSING = (
    "--new-lineage needs the newest map that is in use: name nodes that run with --adopt-from "
    "host:port,host:port (GREENROOM_ADOPT_FROM). Only if no node of the cluster is running, give "
    "--adopt-from-directories (GREENROOM_ADOPT_FROM_DIRECTORIES), if nodes keep sessions on disk, or "
    "--give-up-newer (GREENROOM_GIVE_UP_NEWER) instead: all that was decided since the copy in the data "
    "directory is given up, and with it the sessions of every shard whose replicas have moved or restarted "
    "since, though they may be alive"
)

_CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class ClusterOptions(msgspec.Struct, frozen=True):
    """An operator's options for the cluster; None: that of the existing one, or the default for a new one.

    `recover_alone_seconds` is of each run, and not fixed for the cluster (`ClusterMap`).
    `give_up_newer`: a new lineage may begin from the stored map alone, although actors may know newer ones.
    `adopt_directories`: it begins from what the directories of actors know (`adoption`); with `give_up_newer`
    shards that none of them knows begin empty.
    """

    cluster: str
    shards: int | None = None
    replicas: int | None = None
    new_lineage: bool = False
    give_up_newer: bool = False
    adopt_directories: bool = False
    recover_alone_seconds: float = 0.0


def starting_map(
    stored: ClusterMap | None,
    options: ClusterOptions,
    adopted: Sequence[ClusterMap] = (),
    *,
    identity: bytes = b"",
) -> ClusterMap:
    """Return the map to start with; the caller saves it before anything else if it is not `stored`.

    A new cluster gets the random `identity`.

    A new lineage begins from the newest configuration of each shard in the stored map and the maps `adopted`
    from running nodes. An older configuration would name dead incarnations as the only holders of sessions
    that living ones hold.

    Raises UsageError if the options are invalid or differ from the cluster that is stored or adopted.
    """
    if options.new_lineage and not adopted and not options.give_up_newer:
        raise UsageError(ADOPTION_MISSING)
    if stored is not None and adopted and not any(entry.epoch for entry in stored.shards):
        stored = None  # written by a first start in an emptied directory: nothing was started by it
    if stored is not None:
        _check_fixed(options, stored)
    for running in adopted:
        complaint = map_objection(running)
        if complaint:
            raise UsageError(f"--adopt-from (GREENROOM_ADOPT_FROM): a node gave a malformed map: {complaint}")
        _check_adopted(options, stored, running)
    known = [*adopted] if stored is None else [stored, *adopted]
    if not known:
        fresh = blank_map(msgspec.structs.replace(options, recover_alone_seconds=0.0), identity=identity)
        return begin_lineage(fresh) if options.new_lineage else fresh
    newest = _merged(known)
    identities = {each.identity for each in known if each.identity}
    if len(identities) > 1:
        raise UsageError(
            "--adopt-from (GREENROOM_ADOPT_FROM) names nodes of another cluster of this name, one created "
            "anew: they and the map in --data-dir (GREENROOM_DATA_DIR) do not belong together. Put the map "
            "of their own cluster there, give an empty directory, or name nodes of one cluster only"
        )
    if identities and not newest.identity:
        newest = msgspec.structs.replace(newest, identity=identities.pop())
    return begin_lineage(newest) if options.new_lineage else newest


def begun(stored: ClusterMap | None, options: ClusterOptions, identity: bytes) -> ClusterMap:
    """Return the map with which a run goes on from what is stored; `stored` itself if nothing changes.

    Raises UsageError as `starting_map` does. What is of a first run only was done in its predecessor.
    """
    options = msgspec.structs.replace(options, new_lineage=False, adopt_directories=False)
    first = starting_map(stored, options, identity=identity)
    return with_patience(identified(first), options.recover_alone_seconds)


def _merged(known: Sequence[ClusterMap]) -> ClusterMap:
    """Return the map of the latest lineage, each shard as in the map that knows its latest epoch.

    If an older copy was in use beside the newest map, their versions do not say which is later, and each may
    hold decisions that the other lacks. Nodes and actors are taken from the map with the most decisions, and
    of each directory the highest mark that any of them saw.
    """
    lineage = max(each.lineage for each in known)
    latest = sorted(
        (each for each in known if each.lineage == lineage),
        key=lambda each: (sum(each.epochs), each.version),
        reverse=True,
    )
    base, others = latest[0], latest[1:]
    if not others:
        return base
    shards = tuple(
        msgspec.structs.replace(
            max((each.shards[shard] for each in latest), key=lambda one: one.epoch), wanted=entry.wanted
        )
        for shard, entry in enumerate(base.shards)
    )
    named = {member for entry in shards for member in entry.members}
    nodes, actors = dict(base.nodes), dict(base.actors)
    held = {actor.slot for actor in actors.values() if actor.state == "up"}
    for each in others:
        for incarnation, actor in each.actors.items():
            found = actors.get(incarnation)
            if found is None and incarnation in named:
                state = "replaced" if actor.state == "up" and actor.slot in held else actor.state
                actors[incarnation] = msgspec.structs.replace(actor, state=state)
                held.add(actor.slot)
                if actor.node in each.nodes:
                    nodes.setdefault(actor.node, each.nodes[actor.node])
            elif found is not None and actor.state == "dead":
                actors[incarnation] = msgspec.structs.replace(found, state="dead")
    _merge_directories(actors, nodes, latest)
    floors = {
        directory: max(each.floors.get(directory, 0) for each in latest)
        for directory in sorted({actor.directory for actor in actors.values() if actor.directory})
    }
    return msgspec.structs.replace(
        base,
        version=max(each.version for each in latest),
        nodes=nodes,
        actors=actors,
        shards=shards,
        floors=floors,
    )


def _merge_directories(
    actors: dict[bytes, ActorEntry], nodes: dict[str, NodeEntry], maps: Sequence[ClusterMap]
) -> None:
    """Have who opened a directory last among the actors; it proved dead all who had opened it before."""
    kept = {actor.directory for actor in actors.values() if actor.directory}
    newest: dict[bytes, ActorEntry] = {}
    for each in maps:
        for actor in each.actors.values():
            found = newest.get(actor.directory)
            if actor.directory in kept and (found is None or actor.mark > found.mark):
                newest[actor.directory] = actor
                if actor.node in each.nodes:
                    nodes.setdefault(actor.node, each.nodes[actor.node])
    for incarnation, actor in list(actors.items()):
        if actor.directory and newest[actor.directory].incarnation != incarnation:
            actors[incarnation] = msgspec.structs.replace(actor, state="dead")
    held = {actor.slot for actor in actors.values() if actor.state == "up"}
    for actor in newest.values():
        if actor.incarnation not in actors:
            state = "replaced" if actor.state == "up" and actor.slot in held else actor.state
            actors[actor.incarnation] = msgspec.structs.replace(actor, state=state)
            held.add(actor.slot)


def blank_map(options: ClusterOptions, shards: int | None = None, identity: bytes = b"") -> ClusterMap:
    """Return the map of a cluster in which nothing is known yet. Raises UsageError."""
    if shards is None:
        shards = SHARDS_DEFAULT if options.shards is None else options.shards
    replicas = REPLICAS_DEFAULT if options.replicas is None else options.replicas
    blank = first_map(options.cluster, shards, replicas, identity)
    return msgspec.structs.replace(blank, recover_alone_seconds=options.recover_alone_seconds)


def begins_from_directories(stored: ClusterMap | None, options: ClusterOptions) -> bool:
    """Whether the map is to be made anew. Raises UsageError if one in which anything was decided is there."""
    if not options.adopt_directories:
        return False
    if stored is not None and any(entry.epoch for entry in stored.shards):
        raise UsageError(
            "--adopt-from-directories (GREENROOM_ADOPT_FROM_DIRECTORIES) makes the cluster map anew, and "
            "--data-dir (GREENROOM_DATA_DIR) holds one: leave the option out to go on from it; only if it "
            "is an older copy, and no node runs, give an empty directory"
        )
    return True


def with_patience(cluster_map: ClusterMap, seconds: float) -> ClusterMap:
    """Return the map for a run in which shards wait so long for the directories of all their members."""
    if cluster_map.recover_alone_seconds == seconds:
        return cluster_map
    version = cluster_map.version + 1
    return msgspec.structs.replace(cluster_map, version=version, recover_alone_seconds=seconds)


def identified(cluster_map: ClusterMap) -> ClusterMap:
    """Return the map with an identity; a map of an earlier release gets one, and the next version.

    It is derived from what is fixed for the cluster, so every copy of such a map gets the same one.
    """
    if cluster_map.identity:
        return cluster_map
    fixed = f"{cluster_map.cluster} {cluster_map.shard_count} {cluster_map.replicas}"
    identity = blake2b(fixed.encode(), digest_size=CLUSTER_IDENTITY_BYTES, person=b"greenroom map").digest()
    return msgspec.structs.replace(cluster_map, version=cluster_map.version + 1, identity=identity)


def renumbered(cluster_map: ClusterMap, wall_ms: int) -> ClusterMap:
    """Return a map that may be an older copy under a version that no other run has used.

    That is the wall clock in milliseconds, if it is later: no coordinator decides that often, so another run
    that started from the same copy, or from the newest map, has other versions.
    """
    return msgspec.structs.replace(cluster_map, version=max(cluster_map.version + 1, wall_ms))


def _check_fixed(options: ClusterOptions, stored: ClusterMap) -> None:
    for option, asked, kept in (
        ("--cluster (GREENROOM_CLUSTER)", options.cluster, stored.cluster),
        ("--shards (GREENROOM_SHARDS)", options.shards, stored.shard_count),
        ("--replicas (GREENROOM_REPLICAS)", options.replicas, stored.replicas),
    ):
        if asked is not None and asked != kept:
            raise UsageError(
                f"{option} is {asked!r}, but the cluster whose map is kept there was created with {kept!r}, "
                "which is fixed: start with that value, or keep the map in another --data-dir "
                "(GREENROOM_DATA_DIR), or under another prefix of --store (GREENROOM_STORE)"
            )


def _check_adopted(options: ClusterOptions, stored: ClusterMap | None, running: ClusterMap) -> None:
    for option, asked, kept, found in (
        ("--cluster", options.cluster, stored and stored.cluster, running.cluster),
        ("--shards", options.shards, stored and stored.shard_count, running.shard_count),
        ("--replicas", options.replicas, stored and stored.replicas, running.replicas),
    ):
        for expected in (asked, kept):
            if expected is not None and expected != found:
                raise UsageError(
                    f"--adopt-from (GREENROOM_ADOPT_FROM) names nodes of another cluster: their "
                    f"{option} is {found!r}, not {expected!r}"
                )


def first_map(cluster: str, shard_count: int, replicas: int, identity: bytes = b"") -> ClusterMap:
    """Return the map of a cluster without nodes, whose shards are not yet started. Raises UsageError."""
    if not _CLUSTER_NAME.fullmatch(cluster):
        raise UsageError(
            f"{cluster!r} is no cluster name: --cluster (GREENROOM_CLUSTER) takes 1 to 63 letters, digits, "
            "dots, dashes and underscores, the first a letter or digit"
        )
    if not 1 <= shard_count <= SHARDS_MAX or shard_count & (shard_count - 1):
        raise UsageError(
            f"{shard_count} shards: --shards (GREENROOM_SHARDS) takes a power of two up to {SHARDS_MAX}"
        )
    if not 1 <= replicas <= REPLICAS_MAX:
        raise UsageError(
            f"{replicas} replicas: --replicas (GREENROOM_REPLICAS) takes 1 to {REPLICAS_MAX}; 2 survives the "
            "loss of any one node"
        )
    blank = ShardEntry(epoch=0, primary=b"", backups=(), nonce=b"", wanted=())
    return ClusterMap(
        cluster=cluster,
        lineage=1,
        version=1,
        replicas=replicas,
        nodes={},
        actors={},
        shards=(blank,) * shard_count,
        identity=identity,
    )
