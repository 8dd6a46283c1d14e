"""Decides when to plan, and with which slots. Writes the wanted placement, never a configuration.

An actor restarts in half a second, so a slot that lost its actor or node stays in plans for a while and is
replaced only if it stays away. The controller waits until no slot has joined for a moment, so that the first
of three nodes does not get every shard. A node that comes back with another zone counts like one that has
joined. It stops using a node that leaves, or was removed, at once.

A shard that is only on disk, because all hosts lost power, is planned once it serves again: until then nobody
can copy it, and most of its slots come back with what they had.

Planning again changes nothing if the placement is as planned, so a restarted controller needs no state.
"""

from collections.abc import Callable, Collection
from typing import TypeAlias

import msgspec

from greenroom.cluster_map import ClusterMap
from greenroom.deadlines import NEVER_NS
from greenroom_cluster.planning.placement import node_of, plan
from greenroom_cluster.planning.waiting import is_only_on_disk
from greenroom_cluster.planning.zones import Zone, zone_of

_Places: TypeAlias = frozenset[tuple[str, Zone]]
"""Usable slots, each with its zone."""


class ControllerSettings(msgspec.Struct, frozen=True):
    """How long to wait for slots.

    New slots are used once none has joined for `settle_seconds`, at the latest after `settle_seconds_max`.
    A slot is replaced after `replace_after_seconds` without an actor, or with its node down.
    """

    settle_seconds: float = 0.3
    settle_seconds_max: float = 3.0
    replace_after_seconds: float = 3.0


class Controller:
    """Turns the map's nodes and actors into the wanted placement of each shard.

    `connected` returns the incarnations that the coordinator is connected with: only these carry out a plan.
    Without it, all may.
    """

    def __init__(
        self, settings: ControllerSettings, connected: Callable[[], Collection[bytes]] | None = None
    ) -> None:
        self._connected = connected
        self._settle_ns = round(settings.settle_seconds * 1e9)
        self._settle_max_ns = round(settings.settle_seconds_max * 1e9)
        self._replace_ns = round(settings.replace_after_seconds * 1e9)
        self._absent_since: dict[str, int] = {}
        self._known: set[str] = set()
        self._places: _Places = frozenset()
        self._planned: _Places | None = None
        self._put_off: frozenset[int] = frozenset()
        self._came_ns = 0
        self._waiting_since = NEVER_NS
        self._seen: ClusterMap | None = None
        self._deadline = NEVER_NS

    def next_deadline(self) -> int:
        """Return when `step` is due even if the map does not change, in nanoseconds of its clock."""
        return self._deadline

    def step(self, now_ns: int, cluster_map: ClusterMap) -> dict[int, tuple[str, ...]]:
        """Return the changes of the wanted placement; usually none.

        Call it after every change of the map and at `next_deadline()`, and write what it returns.
        """
        if cluster_map is self._seen and now_ns < self._deadline:
            return {}
        first = self._seen is None
        self._seen = cluster_map
        if first:
            self._known = {slot for entry in cluster_map.shards for slot in entry.wanted}
        present = _present(cluster_map)
        usable = present | self._held(now_ns, cluster_map, present)
        self._known = usable
        places = frozenset((slot, zone_of(cluster_map, node_of(slot))) for slot in usable)
        if places - self._places or first:
            self._came_ns = now_ns
        self._places = places
        self._deadline = min(
            (since + self._replace_ns for since in self._absent_since.values()), default=NEVER_NS
        )
        again = len(self._only_on_disk(cluster_map, self._put_off)) < len(self._put_off)
        if self._put_off:
            self._deadline = min(self._deadline, now_ns + self._replace_ns)
        if (places == self._planned and not again) or not usable:
            self._waiting_since = NEVER_NS
            return {}
        if self._unsettled(now_ns, cluster_map):
            return {}
        self._planned = places
        self._waiting_since = NEVER_NS
        changed = plan(cluster_map, usable)
        self._put_off = self._only_on_disk(cluster_map, changed)
        if self._put_off:
            self._deadline = min(self._deadline, now_ns + self._replace_ns)
        return {shard: wanted for shard, wanted in changed.items() if shard not in self._put_off}

    def _only_on_disk(self, cluster_map: ClusterMap, shards: Collection[int]) -> frozenset[int]:
        """Return those of these shards that nobody is there to plan for."""
        if self._connected is None or not shards:
            return frozenset()
        connected = self._connected()
        return frozenset(shard for shard in shards if is_only_on_disk(cluster_map, shard, connected))

    def _held(self, now_ns: int, cluster_map: ClusterMap, present: set[str]) -> set[str]:
        """Return the slots that are away and expected back."""
        held = set()
        for slot in sorted(self._known | self._absent_since.keys()):
            node = cluster_map.nodes.get(node_of(slot))
            if slot in present or node is None or node.state == "leaving":
                self._absent_since.pop(slot, None)
            elif now_ns - self._absent_since.setdefault(slot, now_ns) < self._replace_ns:
                held.add(slot)
            else:
                del self._absent_since[slot]
        return held

    def _unsettled(self, now_ns: int, cluster_map: ClusterMap) -> bool:
        """Whether to wait for more slots to join. A cluster that only loses slots does not wait."""
        planned = self._planned
        if planned is not None and not self._places - planned:
            return False
        self._waiting_since = min(self._waiting_since, now_ns)
        until = self._waiting_since + self._settle_max_ns
        if not _awaits_actors(cluster_map):
            until = min(until, self._came_ns + self._settle_ns)
        if now_ns >= until:
            return False
        self._deadline = min(self._deadline, until)
        return True


def _present(cluster_map: ClusterMap) -> set[str]:
    """Return the slots that have a current incarnation on a node that is up."""
    up = {node.name for node in cluster_map.nodes.values() if node.state == "up"}
    return {actor.slot for actor in cluster_map.actors.values() if actor.state == "up" and actor.node in up}


def _awaits_actors(cluster_map: ClusterMap) -> bool:
    """Whether a node is up whose actors are still starting: none has ever registered."""
    seen = {actor.node for actor in cluster_map.actors.values()}
    return any(node.state == "up" and node.name not in seen for node in cluster_map.nodes.values())
