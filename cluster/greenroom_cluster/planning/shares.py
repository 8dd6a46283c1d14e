"""How many replicas each slot should have, where those of a shard stand apart.

Slots share alike, as far as that can be. A node never has two replicas of a shard while there are others
without one, and no zone more than one while there are such zones. So what a zone of many slots cannot take
the others have to: with one node in a zone and five in the other, that one has a replica of every shard.
"""

from bisect import bisect_left
from collections.abc import Sequence

import msgspec


class Sites(msgspec.Struct, frozen=True):
    """Where the slots are: `node[slot]` and `zone[slot]` are numbers from 0 on without a gap."""

    node: list[int]
    zone: list[int]

    def nodes_needed(self, replicas: int) -> int:
        """Return on how many nodes a shard must be."""
        return min(replicas, max(self.node) + 1)

    def zones_needed(self, replicas: int) -> int:
        """Return in how many zones a shard must be."""
        return min(replicas, max(self.zone) + 1)


class _Part(msgspec.Struct):
    """A node or a zone: its slots, and how many replicas of one shard it has at least and at most."""

    slots: int = 0
    least: int = 0
    most: int = 0


def replica_averages(sites: Sites, shard_count: int, replicas: int) -> list[float]:
    """Return each slot's fair share of replicas."""
    nodes = _nodes(sites, replicas)
    zone_of = dict(zip(sites.node, sites.zone, strict=True))
    zones = _zones(sites, nodes, zone_of, replicas)
    shares = [0.0] * len(nodes)
    for zone, share in enumerate(_divided(replicas, zones)):
        inside = [node for node in range(len(nodes)) if zone_of[node] == zone]
        parts = _divided(share, [nodes[node] for node in inside])
        for node, part in zip(inside, parts, strict=True):
            shares[node] = part
    return [shares[node] * shard_count / nodes[node].slots for node in sites.node]


def _nodes(sites: Sites, replicas: int) -> list[_Part]:
    nodes = [_Part() for _ in range(max(sites.node) + 1)]
    for node in sites.node:
        nodes[node].slots += 1
    spare = replicas - sites.nodes_needed(replicas)
    for each in nodes:
        each.least = 1 if len(nodes) <= replicas else 0
        each.most = min(each.slots, 1 + spare)
    return nodes


def _zones(sites: Sites, nodes: list[_Part], zone_of: dict[int, int], replicas: int) -> list[_Part]:
    zones = [_Part() for _ in range(max(sites.zone) + 1)]
    for node, part in enumerate(nodes):
        zone = zones[zone_of[node]]
        zone.slots += part.slots
        zone.least += part.least
        zone.most += part.most
    spare = replicas - sites.zones_needed(replicas)
    for each in zones:
        each.least = max(each.least, 1 if len(zones) <= replicas else 0)
        each.most = min(each.most, 1 + spare)
    return zones


def _divided(total: float, parts: Sequence[_Part]) -> list[float]:
    """Divide by the numbers of slots, within bounds: what one cannot take, or must, the others have to."""

    def filled(rate: float) -> float:
        return sum(min(max(rate * each.slots, each.least), each.most) for each in parts)

    turns = sorted({bound / each.slots for each in parts for bound in (each.least, each.most)})
    index = bisect_left(turns, total - 1e-9, key=filled)
    if index >= len(turns):
        rate = turns[-1]
    elif index == 0:
        rate = turns[0]
    else:
        # Between two turns what is filled grows in proportion.
        low, high = turns[index - 1], turns[index]
        before, after = filled(low), filled(high)
        rate = low + (high - low) * (total - before) / (after - before)
    return [min(max(rate * each.slots, each.least), each.most) for each in parts]
