"""Whose word a coordinator awaits that cannot tell whether its map is the newest there is.

Restored from an older copy, a coordinator would decide under epochs that were decided before. A backup that
was removed after the copy was made, and never learnt of it, knows no later map either: heard first, it would
be made primary beside the one that removed it. So an unproven coordinator (another boot of its host, or
another directory, than those of the run before) decides a shard only once nobody is left who could know
better:

- every member that the map does not know to be dead was heard since the start, with a map no later than ours;
- for a shard that is to begin empty, or a member of which died unheard since the start, every node was, and
  those who are connected have had a moment to come.

A member that was dead in the map already cannot have decided anything since. An operator who forgets a node
gives up what it might have said. Once all were heard, this run is proven for good.
"""

from collections.abc import Iterable, Mapping

from greenroom.cluster_map import ActorEntry, ClusterMap


class Hearing:
    """Who was heard since the start of a coordinator with this map; of a `proven` one nobody is awaited.

    `settled_ns`: when those who are connected have had their moment, by the coordinator's clock.
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
        """Note that an actor was heard that knows no later map."""
        self._unheard.pop(incarnation, None)

    def heard_node(self, name: str) -> None:
        """Note that a node's supervisor was heard, which knows no later map."""
        self._unheard_nodes.pop(name, None)

    def awaits(self, incarnation: bytes) -> bool:
        """Whether this actor's word is awaited."""
        return incarnation in self._unheard

    def give_up(self, name: str, incarnations: Iterable[bytes]) -> None:
        """Take an operator's word that nothing will be heard of a node and these actors."""
        self._unheard_nodes.pop(name, None)
        for incarnation in incarnations:
            self._unheard.pop(incarnation, None)

    def keep_nodes(self, nodes: Mapping[str, object]) -> None:
        """Await no node that has left for good."""
        for name in [name for name in self._unheard_nodes if name not in nodes]:
            del self._unheard_nodes[name]

    def proven(self, now_ns: int) -> bool:
        """Whether no later map can be in use any more than with a coordinator that never stopped."""
        if not self._proven and not self._unheard and self._all_came(now_ns):
            self._proven = True
            self._members = ()
        return self._proven

    def holds_back(self, now_ns: int, shard: int, kind: str, actors: Mapping[bytes, ActorEntry]) -> bool:
        """Whether a proposal of that kind has to wait; `actors` are those of the present map."""
        if self._proven:
            return False
        awaited = [member for member in self._members[shard] if member in self._unheard]
        if any(not _is_dead(member, actors) for member in awaited):
            return True
        return (bool(awaited) or kind == "start") and not self._all_came(now_ns)

    def awaited(self, now_ns: int, shards: Iterable[int], actors: Mapping[bytes, ActorEntry]) -> list[str]:
        """Return the nodes whose word these shards wait for."""
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
    """Whether the map knows of a death; one that it does not name any more has been forgotten."""
    actor = actors.get(member)
    return actor is None or actor.state == "dead"
