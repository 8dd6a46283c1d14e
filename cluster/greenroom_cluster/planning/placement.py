"""Which actors should hold a shard: the wanted placement, as slots, that of the primary first.

A shard's members come to match it one change at a time: the primary proposes each (`shard.roles.membership`),
and the coordinator allows it or not (`coordination.rules`).

A plan starts from the wanted and present slots and moves only what it must, in this order: replace slots that
are gone; put the replicas of a shard into different zones and on different nodes, as far as there are enough;
bring loads within bounds. Standing apart wins over balance. New places are found by consistent hashing with
bounded loads (Mirrokni, Thorup, Zadimoghaddam, SODA 2018): the first slot in the shard's order on the ring
that has room.

Every slot's replicas, and its primaries, should lie between 3/4 and 5/4 of the average; new places are
filled only up to 11/10, so that small changes later move nothing. A node or zone whose share would exceed one
replica of every shard gets just that, and the average of the others rises (`planning.shares`).

A balanced plan is left as it is, so planning again never oscillates: each step brings loads closer to their
bounds, and balancing ends when no step does.
"""

from collections.abc import Collection, Iterable
from math import ceil, floor

import msgspec

from greenroom.cluster_map import ClusterMap, ShardEntry
from greenroom_cluster.planning.balance import Board, Bounds, balance
from greenroom_cluster.planning.ring import Ring
from greenroom_cluster.planning.shares import Sites, replica_averages
from greenroom_cluster.planning.zones import zone_of

HIGH = 1.25
FILL = 1.1
LOW = 0.75


class Aim(msgspec.Struct, frozen=True):
    """The goal for every shard: so many replicas, on so many different nodes, in so many different zones."""

    replicas: int
    nodes: int
    zones: int

    def reachable(self, board: Board, members: Iterable[int]) -> bool:
        """Whether adding members to these can still reach the goal.

        What is added in a new zone is on a new node too, so neither count can be in the other's way.
        """
        taken = list(members)
        missing = self.replicas - len(taken)
        return (
            board.node_count_of(taken) + missing >= self.nodes
            and board.zone_count_of(taken) + missing >= self.zones
        )


def node_of(slot: str) -> str:
    """Return the name of the node that the slot is on."""
    return slot.rpartition("/")[0]


def plan(cluster_map: ClusterMap, usable: Collection[str]) -> dict[int, tuple[str, ...]]:
    """Return the changes of the wanted placement, by shard, given the usable slots.

    Without a usable slot nothing changes.
    """
    names = sorted(set(usable))
    if not names:
        return {}
    sites = _sites(cluster_map, names)
    slot_number = {name: index for index, name in enumerate(names)}
    replicas = min(cluster_map.replicas, len(names))
    aim = Aim(replicas, sites.nodes_needed(replicas), sites.zones_needed(replicas))
    shard_count = cluster_map.shard_count
    averages = replica_averages(sites, shard_count, replicas)
    board = Board(sites, shard_count, aim.nodes, aim.zones)
    kept = [_kept(cluster_map, entry, slot_number, board, aim) for entry in cluster_map.shards]
    for shard, members in enumerate(kept):
        for slot in members:
            board.put(shard, slot)
    _fill(board, Ring(names), aim, averages)
    balance(
        board,
        Bounds([_low(average) for average in averages], [_high(average) for average in averages]),
        Bounds.alike(len(names), _low(shard_count / len(names)), _high(shard_count / len(names))),
    )
    changed = {}
    for shard, entry in enumerate(cluster_map.shards):
        wanted = tuple(names[slot] for slot in board.members[shard])
        if wanted != entry.wanted:
            changed[shard] = wanted
    return changed


def _sites(cluster_map: ClusterMap, names: list[str]) -> Sites:
    nodes = [node_of(name) for name in names]
    zones = [zone_of(cluster_map, node) for node in nodes]
    node_number = {node: number for number, node in enumerate(sorted(set(nodes)))}
    zone_number = {zone: number for number, zone in enumerate(sorted(set(zones)))}
    return Sites([node_number[node] for node in nodes], [zone_number[zone] for zone in zones])


def _high(average: float) -> int:
    return ceil(average * HIGH - 1e-9)


def _low(average: float) -> int:
    return floor(average * LOW + 1e-9)


def _kept(
    cluster_map: ClusterMap, entry: ShardEntry, slot_number: dict[str, int], board: Board, aim: Aim
) -> list[int]:
    """Return the slots that a shard keeps: its wanted ones, or else those that already hold its sessions."""
    wanted = [slot_number[name] for name in dict.fromkeys(entry.wanted) if name in slot_number]
    present = _present(cluster_map, entry, slot_number)
    first_gone = bool(entry.wanted) and entry.wanted[0] not in slot_number
    if first_gone and present and present[0] in wanted:
        # The wanted primary is gone. Of the others, the present primary needs no hand-over.
        wanted.remove(present[0])
        wanted.insert(0, present[0])
    kept: list[int] = []
    for slot in (*wanted, *present):
        if slot not in kept and len(kept) < aim.replicas and aim.reachable(board, (*kept, slot)):
            kept.append(slot)
    return kept


def _present(cluster_map: ClusterMap, entry: ShardEntry, slot_number: dict[str, int]) -> list[int]:
    """Return the usable slots whose current incarnation is a member of the shard, the primary's first."""
    found = []
    for member in entry.members:
        actor = cluster_map.actors.get(member)
        if actor is not None and actor.state == "up" and actor.slot in slot_number:
            found.append(slot_number[actor.slot])
    return found


def _fill(board: Board, ring: Ring, aim: Aim, averages: list[float]) -> None:
    """Give every shard its missing replicas."""
    fill = [ceil(average * FILL - 1e-9) for average in averages]
    high = [_high(average) for average in averages]
    for shard, members in enumerate(board.members):
        while len(members) < aim.replicas:
            board.put(shard, _room_for(board, ring, aim, shard, (fill, high)))


def _room_for(board: Board, ring: Ring, aim: Aim, shard: int, limits: tuple[list[int], ...]) -> int:
    """Return the first slot in the shard's order below the first limit, or the next, or the least loaded."""
    members = board.members[shard]

    def fits(slot: int) -> bool:
        return slot not in members and aim.reachable(board, (*members, slot))

    for limit in limits:
        for slot in ring.preference(shard):
            if board.load(slot) < limit[slot] and fits(slot):
                return slot
    return min(filter(fits, ring.preference(shard)), key=board.load)
