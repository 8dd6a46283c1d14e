"""Brings the loads of slots within bounds with few moves, and never together what must stand apart.

First replicas: a slot with too many gives one away, a slot with too few takes one, directly or by way of one
other slot. Then primaries: swapping a shard's primary with one of its backups is only a hand-over, so chains
of swaps may be of any length.
"""

from collections.abc import Callable, Iterator

import msgspec

from greenroom_cluster.planning.shares import Sites


class Bounds(msgspec.Struct, frozen=True):
    """The least and the most that each slot should carry."""

    low: list[int]
    high: list[int]

    @classmethod
    def alike(cls, slot_count: int, low: int, high: int) -> "Bounds":
        """Return the same bounds for every slot."""
        return cls([low] * slot_count, [high] * slot_count)


class Board:
    """Shards placed on slots. `members[shard]` are its slots, the primary's first.

    A shard must be on so many different nodes, and in so many different zones.
    """

    def __init__(self, sites: Sites, shard_count: int, nodes: int, zones: int) -> None:
        self.members: list[list[int]] = [[] for _ in range(shard_count)]
        self._node = sites.node
        self._zone = sites.zone
        self._nodes = nodes
        self._zones = zones
        self._holding: list[set[int]] = [set() for _ in sites.node]
        self._primaries: list[set[int]] = [set() for _ in sites.node]

    @property
    def slot_count(self) -> int:
        """The number of slots."""
        return len(self._node)

    def load(self, slot: int) -> int:
        """Return how many replicas the slot has."""
        return len(self._holding[slot])

    def primary_load(self, slot: int) -> int:
        """Return how many primaries the slot has."""
        return len(self._primaries[slot])

    def backups_on(self, slot: int) -> list[int]:
        """Return the shards that have a backup on the slot, in order."""
        return sorted(self._holding[slot] - self._primaries[slot])

    def primaries_on(self, slot: int) -> list[int]:
        """Return the shards that have their primary on the slot, in order."""
        return sorted(self._primaries[slot])

    def node_count_of(self, slots: list[int]) -> int:
        """Return the number of different nodes of these slots."""
        return len({self._node[slot] for slot in slots})

    def zone_count_of(self, slots: list[int]) -> int:
        """Return the number of different zones of these slots."""
        return len({self._zone[slot] for slot in slots})

    def put(self, shard: int, slot: int) -> None:
        """Add a replica; the first one is the primary."""
        if not self.members[shard]:
            self._primaries[slot].add(shard)
        self.members[shard].append(slot)
        self._holding[slot].add(shard)

    def movable(self, shard: int, source: int, target: int) -> bool:
        """Whether the replica may move from one slot to the other and the shard still stands apart."""
        members = self.members[shard]
        if target in members:
            return False
        if self._node[source] == self._node[target]:
            return True
        after = [target, *(slot for slot in members if slot != source)]
        if self.node_count_of(after) < self._nodes:
            return False
        return self._zone[source] == self._zone[target] or self.zone_count_of(after) >= self._zones

    def move(self, shard: int, source: int, target: int) -> None:
        """Move a replica to another slot, in the same role."""
        members = self.members[shard]
        members[members.index(source)] = target
        self._holding[source].remove(shard)
        self._holding[target].add(shard)
        if shard in self._primaries[source]:
            self._primaries[source].remove(shard)
            self._primaries[target].add(shard)

    def promote(self, shard: int, slot: int) -> None:
        """Make the shard's replica on the slot its primary, and the former primary a backup in its place."""
        members = self.members[shard]
        former, index = members[0], members.index(slot)
        members[0], members[index] = slot, former
        self._primaries[former].remove(shard)
        self._primaries[slot].add(shard)

    def find_movable(self, source: int, target: int) -> int:
        """Return a shard whose replica may move, a backup if there is one; -1 if there is none."""
        for shard in self.backups_on(source):
            if self.movable(shard, source, target):
                return shard
        for shard in self.primaries_on(source):
            if self.movable(shard, source, target):
                return shard
        return -1


def balance(board: Board, replicas: Bounds, primaries: Bounds) -> None:
    """Move replicas, then swap primaries, until loads are within bounds or no step brings them closer."""
    while _round(board, board.load, replicas, _give, _take):
        pass
    while _round(board, board.primary_load, primaries, _shed_primary, _gain_primary):
        pass


def _round(
    board: Board,
    load: Callable[[int], int],
    bounds: Bounds,
    give: Callable[[Board, Bounds, int], bool],
    take: Callable[[Board, Bounds, int], bool],
) -> bool:
    """Have each slot give while it carries too much, then take while too little; return whether any did."""
    changed = False
    for slot in sorted(range(board.slot_count), key=lambda slot: (-load(slot), slot)):
        while load(slot) > bounds.high[slot] and give(board, bounds, slot):
            changed = True
    for slot in sorted(range(board.slot_count), key=lambda slot: (load(slot), slot)):
        while load(slot) < bounds.low[slot] and take(board, bounds, slot):
            changed = True
    return changed


def _give(board: Board, bounds: Bounds, source: int) -> bool:
    """Move one replica from a slot with too many to one with room."""
    roomy = [slot for slot in range(board.slot_count) if board.load(slot) < bounds.high[slot]]
    roomy.sort(key=lambda slot: (board.load(slot) - bounds.high[slot], slot))
    return _move_one(board, [(source, target) for target in roomy]) or _move_chain(board, [source], roomy)


def _take(board: Board, bounds: Bounds, target: int) -> bool:
    """Move one replica to a slot with too few from one that can spare it."""
    rich = [slot for slot in range(board.slot_count) if board.load(slot) > bounds.low[slot]]
    rich.sort(key=lambda slot: (bounds.low[slot] - board.load(slot), slot))
    return _move_one(board, [(source, target) for source in rich]) or _move_chain(board, rich, [target])


def _move_one(board: Board, ways: list[tuple[int, int]]) -> bool:
    for source, target in ways:
        shard = board.find_movable(source, target)
        if shard >= 0:
            board.move(shard, source, target)
            return True
    return False


def _move_chain(board: Board, sources: list[int], targets: list[int]) -> bool:
    """Move one replica by way of a slot in between, which passes one of its own on."""
    for between in range(board.slot_count):
        incoming = _first_way(board, ((source, between) for source in sources if source != between))
        if incoming is None:
            continue
        outgoing = _first_way(board, ((between, target) for target in targets if target != between))
        if outgoing is None:
            continue
        # Two shards: the arriving one is not on `between` yet, the leaving one is.
        board.move(*incoming)
        board.move(*outgoing)
        return True
    return False


def _first_way(board: Board, ways: Iterator[tuple[int, int]]) -> tuple[int, int, int] | None:
    for source, target in ways:
        shard = board.find_movable(source, target)
        if shard >= 0:
            return shard, source, target
    return None


def _shed_primary(board: Board, bounds: Bounds, slot: int) -> bool:
    """Pass one primary of the slot along the shortest chain of swaps to a slot with room."""

    def onward(here: int) -> Iterator[tuple[int, int]]:
        for shard in board.primaries_on(here):
            for backup in board.members[shard][1:]:
                yield backup, shard

    def room(here: int) -> int:
        return bounds.high[here] - board.primary_load(here)

    chain = _chain(slot, onward, room)
    for shard, reached in chain:
        board.promote(shard, reached)
    return bool(chain)


def _gain_primary(board: Board, bounds: Bounds, slot: int) -> bool:
    """Bring one primary to the slot along the shortest chain of swaps from a slot that can spare it."""

    def onward(here: int) -> Iterator[tuple[int, int]]:
        for shard in board.backups_on(here):
            yield board.members[shard][0], shard

    def spare(here: int) -> int:
        return board.primary_load(here) - bounds.low[here]

    chain = _chain(slot, onward, spare)
    taker = slot
    for shard, giver in chain:
        board.promote(shard, taker)
        taker = giver
    return bool(chain)


def _chain(
    start: int, onward: Callable[[int], Iterator[tuple[int, int]]], worth: Callable[[int], int]
) -> list[tuple[int, int]]:
    """Search breadth first for the nearest slot with a worth above 0; of several, the one with most.

    Returns the steps to it as (shard, slot reached), or nothing. No shard occurs twice: the slots
    differ, and each step is by a shard whose primary is on the slot left (searching backwards: reached).
    """
    came: dict[int, tuple[int, int]] = {start: (-1, -1)}
    layer = [start]
    while layer:
        following = []
        for here in layer:
            for reached, shard in onward(here):
                if reached not in came:
                    came[reached] = (here, shard)
                    following.append(reached)
        best = max(following, key=lambda slot: (worth(slot), -slot), default=-1)
        if best >= 0 and worth(best) > 0:
            steps = []
            while best != start:
                here, shard = came[best]
                steps.append((shard, best))
                best = here
            return steps[::-1]
        layer = following
    return []
