"""What the one map costs on etcd as a cluster grows: bytes a change, and changes a second of one leader.

The map is as the simulations' study of scale makes it. A leader saves it as a coordinator does (`Candidate`),
so a change is the encoding of the whole map, its comparison to what etcd has, and one transaction.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import msgspec
import trio

from greenroom.cluster_map import ClusterMap, ShardEntry
from greenroom_cluster.coordination.etcd import gateway
from greenroom_cluster.coordination.etcd.gateway import Compare, Put
from greenroom_cluster.coordination.etcd.layout import values_of
from greenroom_cluster.coordination.genesis import ClusterOptions
from greenroom_cluster.etcd_options import EtcdOptions
from greenroom_cluster.runtime.etcd_reach import forget_cluster
from greenroom_cluster.runtime.etcd_store import open_candidate
from simulations.studies.scale import map_of_size

SIZES = ((10, 1024), (100, 4096), (1000, 4096))
"""Nodes and shards; 4,096 shards are the most that are allowed."""
BEYOND = ((100, 8192), (1000, 65536))
"""Of these only the bytes are told."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One size. `change`: one shard gets another configuration; `failure`: a node is lost, in one change.

    Bytes are those of the keys that are written, `sent` those of the request that carries them. Rates are of
    changes one after the other, and not measured beyond the shards that are allowed.
    """

    nodes: int
    shards: int
    map_bytes: int
    change_bytes: int
    change_sent_bytes: int
    failure_shards: int
    failure_bytes: int
    failure_fits: bool
    changes_per_second: float | None = None
    failure_seconds: float | None = None


def changed(cluster_map: ClusterMap, shard: int) -> ClusterMap:
    """Return the map after one decision about a shard."""
    shards = list(cluster_map.shards)
    shards[shard] = _next(shards[shard])
    return msgspec.structs.replace(cluster_map, version=cluster_map.version + 1, shards=tuple(shards))


def without_node(cluster_map: ClusterMap, name: str) -> tuple[ClusterMap, int]:
    """Return the map after a node was lost: each of its shards has another configuration; and how many."""
    lost = [index for index, entry in enumerate(cluster_map.shards) if f"{name}/0" in entry.wanted]
    shards = list(cluster_map.shards)
    for index in lost:
        shards[index] = _next(shards[index])
    nodes = dict(cluster_map.nodes)
    nodes[name] = msgspec.structs.replace(nodes[name], state="down")
    actors = {
        key: msgspec.structs.replace(actor, state="dead") if actor.node == name else actor
        for key, actor in cluster_map.actors.items()
    }
    after = msgspec.structs.replace(
        cluster_map, version=cluster_map.version + 1, nodes=nodes, actors=actors, shards=tuple(shards)
    )
    return after, len(lost)


def _next(entry: ShardEntry) -> ShardEntry:
    return msgspec.structs.replace(entry, epoch=entry.epoch + 1)


def _written(before: ClusterMap, after: ClusterMap) -> tuple[int, int]:
    """Return the bytes of the keys that differ, and of the request; 0 if etcd would not take that."""
    held = values_of(before)
    values = {key.encode(): value for key, value in values_of(after).items() if held.get(key) != value}
    written = sum(len(key) + len(value) for key, value in values.items())
    compares = [Compare(key, "MOD", 1 << 20) for key in values]
    try:
        body = gateway.transaction_body(compares, [Put(key, value) for key, value in values.items()])
    except ValueError:
        return written, 0
    return written, len(body)


def _map(nodes: int, shards: int) -> ClusterMap:
    """Return the map of one size, with incarnations as random as those of actors: keys are chosen by them."""
    cluster_map = map_of_size(nodes, shards)
    actors = {}
    for actor in cluster_map.actors.values():
        incarnation = blake2b(actor.incarnation, digest_size=16).digest()
        actors[incarnation] = msgspec.structs.replace(actor, incarnation=incarnation)
    return msgspec.structs.replace(cluster_map, actors=actors)


def computed(nodes: int, shards: int) -> tuple[Cost, ClusterMap]:
    """Return the bytes of one size, and its map."""
    cluster_map = _map(nodes, shards)
    change_bytes, sent = _written(cluster_map, changed(cluster_map, shards // 2))
    after, lost = without_node(cluster_map, sorted(cluster_map.nodes)[nodes // 2])
    failure_bytes, failure_sent = _written(cluster_map, after)
    cost = Cost(
        nodes=nodes,
        shards=shards,
        map_bytes=sum(len(value) for value in values_of(cluster_map).values()),
        change_bytes=change_bytes,
        change_sent_bytes=sent,
        failure_shards=lost,
        failure_bytes=failure_bytes,
        failure_fits=bool(failure_sent),
    )
    return cost, cluster_map


async def measured(store: str, nodes: int, shards: int, seconds: float) -> Cost:
    """Return all of one size, with `seconds` of changes saved in etcd. Raises what the client does."""
    cost, cluster_map = computed(nodes, shards)
    options, cluster = EtcdOptions(store=store), f"scale-{nodes}"
    opened = open_candidate(options, ClusterOptions(cluster, shards, 2), "leader")
    async with opened as candidate, candidate.leading() as kept:
        cluster_map = msgspec.structs.replace(
            cluster_map, cluster=cluster, identity=kept.map.identity, version=kept.map.version + 1
        )
        await kept.store.save(cluster_map, vouched=True)
        done, begun = 0, time.monotonic()
        while time.monotonic() < begun + seconds:
            cluster_map = changed(cluster_map, done * 17 % shards)
            await kept.store.save(cluster_map, vouched=True)
            done += 1
        rate = done / (time.monotonic() - begun)
        failures = list(_failures(cluster_map))
        begun = time.monotonic()
        for each in failures:
            await kept.store.save(each, vouched=True)
        failure_seconds = (time.monotonic() - begun) / len(failures)
    await forget_cluster(options, cluster)
    return msgspec.structs.replace(cost, changes_per_second=rate, failure_seconds=failure_seconds)


def _failures(cluster_map: ClusterMap) -> Iterator[ClusterMap]:
    """Yield the map after each of five nodes was lost, one after the other."""
    for name in sorted(cluster_map.nodes)[:5]:
        cluster_map, _ = without_node(cluster_map, name)
        yield cluster_map


def all_sizes(store: str, seconds: float, say: Callable[[str], None]) -> list[Cost]:
    """Measure and compute every size."""
    found = []
    for nodes, shards in SIZES:
        say(f"{nodes} nodes, {shards} shards")
        found.append(trio.run(measured, store, nodes, shards, seconds))
    return found + [computed(nodes, shards)[0] for nodes, shards in BEYOND]


def table(costs: Sequence[Cost]) -> str:
    """Return a table in Markdown."""
    head = "| nodes | shards | map in etcd | one change writes | and sends | changes/s |"
    lines = [f"{head} a node's failure changes | in one change |", "|" + "---:|" * 8]
    for each in costs:
        cells = (
            f"{each.nodes:,}",
            f"{each.shards:,}",
            f"{each.map_bytes / 1024:,.0f} KiB",
            f"{each.change_bytes / 1024:.1f} KiB",
            f"{each.change_sent_bytes / 1024:.1f} KiB",
            "" if each.changes_per_second is None else f"{each.changes_per_second:,.0f}",
            f"{each.failure_shards} shards, {each.failure_bytes / 1024:,.0f} KiB",
            _failure(each),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _failure(each: Cost) -> str:
    if not each.failure_fits:
        return "too long for one"
    return "" if each.failure_seconds is None else f"{each.failure_seconds * 1000:.0f} ms"
