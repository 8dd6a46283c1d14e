"""Whom a coordinator must hear first if it cannot tell whether its map is the newest.

A coordinator restored from an older copy would decide epochs a second time. A backup that was removed after
the copy was made, and never learned of it, knows no later map either: if it were heard first, it would be
made primary beside the primary that removed it. So an unproven coordinator (another boot of its host, or
another directory, than the run before) decides about a shard only once no one is left who could know a later
map:

- every member that the map does not call dead was heard since the start, with a map no later than ours;
- for a shard that is to start empty or from disk, or with a member that died unheard since the start, every
  node was heard, and connected peers have had a moment to speak.

A member that the map already calls dead cannot have decided anything since. An operator who forgets a node
gives up what it might have said. Once all were heard, this run is proven for good.
"""

from collections.abc import Iterable, Mapping

from greenroom.cluster_map import ActorEntry, ClusterMap

_OF_THE_DEAD = ("start", "recover")
"""Who may know of a later one is no member, or a member's heir."""


class Hearing:
    """Who was heard since the start of a coordinator with this map; a `proven` one waits for no one.

    `settled_ns`: when connected peers have had their moment, by the coordinator's clock.
    """

    def __init__(self, cluster_map: ClusterMap, settled_ns: int, *, proven: bool) -> None:
        self._settled_ns = settled_ns
        self._members: tuple[frozenset[bytes], ...] = ()
        self._unheard: dict[bytes, None] = {}
        self._unheard_nodes: dict[str, None] = {}
        self._proven = proven
        if not proven:
            self._members = tuple(
                _not_dead(entry.members, cluster_map.actors) for entry in cluster_map.shards
            )
            self._unheard = dict.fromkeys(member for members in self._members for member in members)
            self._unheard_nodes = dict.fromkeys(cluster_map.nodes)

    def heard(self, incarnation: bytes) -> None:
        """Note an actor that was heard and knows no later map."""
        self._unheard.pop(incarnation, None)

    def heard_node(self, name: str) -> None:
        """Note a node's supervisor that was heard and knows no later map."""
        self._unheard_nodes.pop(name, None)

    def awaits(self, incarnation: bytes) -> bool:
        """Whether this actor must still be heard."""
        return incarnation in self._unheard

    def give_up(self, name: str, incarnations: Iterable[bytes]) -> None:
        """Stop waiting for a node and these actors: an operator says that they are gone."""
        self._unheard_nodes.pop(name, None)
        for incarnation in incarnations:
            self._unheard.pop(incarnation, None)

    def keep_nodes(self, nodes: Mapping[str, object]) -> None:
        """Stop waiting for a node that has left for good."""
        for name in [name for name in self._unheard_nodes if name not in nodes]:
            del self._unheard_nodes[name]

    def proven(self, now_ns: int) -> bool:
        """Whether all were heard, so that this run is as safe as a coordinator that never stopped."""
        if not self._proven and not self._unheard and self._all_came(now_ns):
            self._proven = True
            self._members = ()
        return self._proven

    def progress(self, now_ns: int) -> tuple[int, int, bool]:
        """Return what changes whenever a proposal that was held back may no longer be."""
        return len(self._unheard), len(self._unheard_nodes), now_ns >= self._settled_ns

    def holds_back(self, now_ns: int, shard: int, kind: str, actors: Mapping[bytes, ActorEntry]) -> bool:
        """Whether a proposal of that kind must wait; `actors` are those of the present map."""
        if self._proven:
            return False
        awaited = [member for member in self._members[shard] if member in self._unheard]
        if any(not _is_dead(member, actors) for member in awaited):
            return True
        return (bool(awaited) or kind in _OF_THE_DEAD) and not self._all_came(now_ns)

    def awaited(self, now_ns: int, shards: Iterable[int], actors: Mapping[bytes, ActorEntry]) -> list[str]:
        """Return the nodes that these shards wait to hear."""
        nodes: dict[str, None] = {}
        for shard in shards:
            for member in self._members[shard] if self._members else ():
                if member in self._unheard and not _is_dead(member, actors):
                    nodes[actors[member].node] = None
        return sorted(nodes or self._unheard_nodes)

    def _all_came(self, now_ns: int) -> bool:
        return not self._unheard_nodes and now_ns >= self._settled_ns


def _not_dead(members: Iterable[bytes], actors: Mapping[bytes, ActorEntry]) -> frozenset[bytes]:
    return frozenset(member for member in members if not _is_dead(member, actors))


def _is_dead(member: bytes, actors: Mapping[bytes, ActorEntry]) -> bool:
    """Whether the map knows of the actor's death; one that it no longer names was forgotten."""
    actor = actors.get(member)
    return actor is None or actor.state == "dead"
