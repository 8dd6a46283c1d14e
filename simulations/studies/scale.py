"""The cost of the cluster map and of planning as clusters grow, computed with the real placement.

For each size: the map in bytes, and a change of one shard; how long planning takes; how evenly replicas and
primaries lie; how many replicas move when a node joins, leaves, or a third of the nodes (a zone) is lost,
beside the least that must move; and the control messages per second that a node and the coordinator see.

The least: a joining node must take over its fair share; what is lost with nodes must be placed again.
"""

import json
import math
import time
from collections import Counter
from pathlib import Path

import msgspec

from greenroom.cluster_map import ActorEntry, ClusterMap, MapDelta, NodeEntry, ShardEntry
from greenroom_cluster.planning.placement import plan

SIZES = ((10, 1024), (100, 8192), (1000, 65536))
BEACONS_PER_SECOND = 4
HEARTBEATS_PER_SECOND = 2
_encode = msgspec.msgpack.Encoder().encode


class Move(msgspec.Struct, frozen=True):
    """Replicas moved by a change of nodes, and how long planning it took."""

    change: str
    moved: int
    least: int
    primaries_moved: int
    seconds: float


class Size(msgspec.Struct, frozen=True):
    """One size of cluster. Loads are relative to the average: 1.0 is perfectly even."""

    nodes: int
    shards: int
    map_bytes: int
    change_bytes: int
    plan_seconds: float
    replicas_most: float
    replicas_least: float
    primaries_most: float
    peers_per_actor: float
    beacon_messages_per_second: float
    coordinator_messages_per_second: int
    failover_changes_bytes: int
    moves: list[Move]


def map_of_size(nodes: int, shards: int, replicas: int = 2) -> ClusterMap:
    """Return the map of a cluster of one actor a node, planned as the controller plans."""
    names = _names(nodes)
    return _planned(_map(names, shards, replicas), names)[0]


def _names(nodes: int) -> list[str]:
    return [f"node-{number:04}" for number in range(nodes)]


def measure(nodes: int, shards: int, replicas: int = 2) -> Size:
    """Compute one size."""
    names = _names(nodes)
    cluster_map = _map(names, shards, replicas)
    cluster_map, seconds = _planned(cluster_map, names)
    wanted = [entry.wanted for entry in cluster_map.shards]
    load = Counter(slot for members in wanted for slot in members)
    primaries = Counter(members[0] for members in wanted)
    peers: dict[str, set[str]] = {}
    for members in wanted:
        for one in members:
            peers.setdefault(one, set()).update(members)
    average = shards * replicas / nodes
    peer_count = sum(len(each) - 1 for each in peers.values()) / max(len(peers), 1)
    failed = names[nodes // 2] + "/0"
    changed = tuple(
        (index, entry) for index, entry in enumerate(cluster_map.shards) if failed in entry.wanted
    )
    return Size(
        nodes=nodes,
        shards=shards,
        map_bytes=len(_encode(cluster_map)),
        change_bytes=len(_encode(MapDelta(1, 1, 2, shards=((0, cluster_map.shards[0]),)))),
        plan_seconds=seconds,
        replicas_most=max(load.values()) / average,
        replicas_least=min(load.get(f"{name}/0", 0) for name in names) / average,
        primaries_most=max(primaries.values()) / (shards / nodes),
        peers_per_actor=peer_count,
        # A pair sends beacons in each direction in which one is primary for the other, and gets answers.
        beacon_messages_per_second=2 * BEACONS_PER_SECOND * peer_count,
        coordinator_messages_per_second=HEARTBEATS_PER_SECOND * nodes,
        failover_changes_bytes=len(_encode(MapDelta(1, 1, 2, shards=changed))) * nodes,
        moves=_moves(cluster_map, names),
    )


def _map(names: list[str], shards: int, replicas: int) -> ClusterMap:
    blank = ShardEntry(1, b"p" * 16, (b"b" * 16,), b"n" * 12, ())
    nodes = {name: NodeEntry(name, f"{name}.example:7600", "up") for name in names}
    actors = {}
    for number, name in enumerate(names):
        incarnation = number.to_bytes(16, "big")
        slot, address = f"{name}/0", f"{name}.example:7601"
        actors[incarnation] = ActorEntry(incarnation, name, slot, address, "up", "host", 1, 1)
    return ClusterMap("scale", 1, 1, replicas, nodes, actors, (blank,) * shards)


def _planned(cluster_map: ClusterMap, names: list[str]) -> tuple[ClusterMap, float]:
    began = time.process_time()
    changed = plan(cluster_map, [f"{name}/0" for name in names])
    seconds = time.process_time() - began
    shards = list(cluster_map.shards)
    for index, wanted in changed.items():
        shards[index] = msgspec.structs.replace(shards[index], wanted=wanted)
    return msgspec.structs.replace(cluster_map, shards=tuple(shards)), seconds


def _moves(cluster_map: ClusterMap, names: list[str]) -> list[Move]:
    joined = [*names, f"node-{len(names):04}"]
    zone = names[: len(names) // 3]
    rest = [name for name in names if name not in set(zone)]
    replicas = cluster_map.replicas * len(cluster_map.shards)
    lost = _held(cluster_map, set(zone))
    return [
        _move(cluster_map, "a node joins", joined, math.floor(0.75 * replicas / len(joined))),
        _move(cluster_map, "a node leaves", names[1:], _held(cluster_map, {names[0]})),
        _move(cluster_map, "a third is lost", rest, lost),
    ]


def _held(cluster_map: ClusterMap, nodes: set[str]) -> int:
    return sum(slot.partition("/")[0] in nodes for entry in cluster_map.shards for slot in entry.wanted)


def _move(cluster_map: ClusterMap, change: str, names: list[str], least: int) -> Move:
    after, seconds = _planned(cluster_map, names)
    moved = primaries = 0
    for before, now in zip(cluster_map.shards, after.shards, strict=True):
        moved += len(set(now.wanted) - set(before.wanted))
        primaries += now.wanted[0] != before.wanted[0]
    return Move(change, moved, least, primaries, seconds)


# --- telling ---------------------------------------------------------------------------------------------


def as_json(sizes: list[Size]) -> str:
    """Return all sizes as one JSON object."""
    return json.dumps({"sizes": msgspec.to_builtins(sizes)})


def as_table(sizes: list[Size]) -> str:
    """Return two tables in Markdown: what a size costs, and what moves."""
    head = "| nodes | shards | map | one change | plan | replicas, most/least | primaries, most | peers | "
    lines = [f"{head}beacons/s per node | heartbeats/s in all |", "|" + "---:|" * 10]
    lines += [_cost_row(each) for each in sizes]
    lines += ["", "| nodes | change | replicas moved | least | primaries moved | plan |"]
    lines.append("|---:|---|---:|---:|---:|---:|")
    lines += [
        f"| {each.nodes} | {move.change} | {move.moved} | {move.least} | {move.primaries_moved} | "
        f"{move.seconds:.2f} s |"
        for each in sizes
        for move in each.moves
    ]
    return "\n".join(lines)


def _cost_row(each: Size) -> str:
    cells = (
        each.nodes,
        each.shards,
        f"{each.map_bytes / 1024:.0f} KiB",
        f"{each.change_bytes} B",
        f"{each.plan_seconds:.2f} s",
        f"{each.replicas_most:.2f}/{each.replicas_least:.2f}",
        f"{each.primaries_most:.2f}",
        f"{each.peers_per_actor:.0f}",
        f"{each.beacon_messages_per_second:.0f}",
        each.coordinator_messages_per_second,
    )
    return f"| {' | '.join(map(str, cells))} |"


def draw(sizes: list[Size], path: Path) -> None:
    """Write a picture: what grows with the number of nodes, on logarithmic axes."""
    series: dict[str, list[float]] = {
        "map, bytes": [each.map_bytes for each in sizes],
        "changes sent after one node fails, bytes": [each.failover_changes_bytes for each in sizes],
        "planning, microseconds": [each.plan_seconds * 1e6 for each in sizes],
        "beacons per second and node": [each.beacon_messages_per_second for each in sizes],
    }
    colors = ("#4c78a8", "#e15759", "#59a14f", "#b07aa1")
    top = max(max(values) for values in series.values())
    parts = ['<text x="60" y="20" font-size="15">One cluster map, as a cluster grows</text>']

    def place(number: int, value: float) -> tuple[float, float]:
        x = 60 + 520 * number / max(len(sizes) - 1, 1)
        return x, 380 - 330 * math.log10(max(value, 1)) / math.log10(top)

    for color, (name, values) in zip(colors, series.items(), strict=True):
        points = [place(number, value) for number, value in enumerate(values)]
        path_text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path_text}" fill="none" stroke="{color}" stroke-width="2"/>')
        x, y = points[-1]
        parts.append(f'<text x="{x + 8:.0f}" y="{y + 4:.0f}" font-size="11" fill="{color}">{name}</text>')
    for number, each in enumerate(sizes):
        x, _ = place(number, 1)
        parts.append(
            f'<text x="{x:.0f}" y="400" font-size="11">{each.nodes} nodes, {each.shards} shards</text>'
        )
    exponent = 0
    while 10**exponent <= top:
        _, y = place(0, 10**exponent)
        parts.append(f'<line x1="60" y1="{y:.0f}" x2="580" y2="{y:.0f}" stroke="#ddd"/>')
        parts.append(f'<text x="52" y="{y + 4:.0f}" font-size="10" text-anchor="end">1e{exponent}</text>')
        exponent += 1
    body = "\n".join(parts)
    path.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 420" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )
