"""What the map lacks of this node: its entry in the present state, and its ready actors."""

import msgspec

from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry

DEAD = "dead"


def without_directory(actor: ActorEntry) -> ActorEntry:
    """Return the entry as a release passes it on that knows of no directories."""
    return msgspec.structs.replace(actor, durability="", directory=b"", mark=0)


def without_zone(node: NodeEntry) -> NodeEntry:
    """Return the entry as a release passes it on that knows no zones."""
    return msgspec.structs.replace(node, zone="")


class Registration:
    """The entries that the map should have of a node.

    What was accepted since the present map is on its way to us; what was refused is requested again later.
    """

    def __init__(self, node: NodeEntry) -> None:
        self.node = node
        self.joined = False
        self.actors: dict[bytes, ActorEntry] = {}
        # Whether the coordinator of this connection has accepted the node, as it was given.
        self._met = False
        self._accepted: set[NodeEntry | ActorEntry] = set()
        self._refused: set[NodeEntry | ActorEntry] = set()

    def accept(self, entry: NodeEntry | ActorEntry) -> None:
        """Note that the coordinator accepted it."""
        self._accepted.add(entry)
        self._met = self._met or entry == self.node

    def refuse(self, entry: NodeEntry | ActorEntry) -> None:
        """Note that it was refused; it is not missing again until `ask_again`."""
        self._refused.add(entry)

    def renew(self) -> None:
        """Start over with a new map."""
        self._accepted.clear()
        self._refused.clear()

    def meet(self) -> None:
        """Start over with a new connection, perhaps to a coordinator of another release."""
        self.renew()
        self._met = False

    def zone_is_lost(self, cluster_map: ClusterMap) -> bool:
        """Whether the coordinator took our zone and does not keep it, like a release that knows none."""
        known = cluster_map.nodes.get(self.node.name)
        return self._met and known != self.node and known == without_zone(self.node)

    def ask_again(self) -> bool:
        """Request again what was refused; return whether anything was."""
        refused = bool(self._refused)
        self._refused.clear()
        return refused

    def contested(self, cluster_map: ClusterMap) -> tuple[list[ActorEntry], list[ActorEntry]]:
        """Return our actors of which the map says otherwise: dead, or another node's."""
        dead: list[ActorEntry] = []
        foreign: list[ActorEntry] = []
        for actor in self.actors.values():
            known = cluster_map.actors.get(actor.incarnation)
            if known is not None and known != actor:
                (dead if known.state == DEAD else foreign).append(actor)
        return dead, foreign

    def missing(self, cluster_map: ClusterMap) -> NodeEntry | ActorEntry | None:
        """Return what to register next: first the node, which owns its actors."""
        known = cluster_map.nodes.get(self.node.name) == self.node or self.node in self._accepted
        if not self.joined or not (known or self.zone_is_lost(cluster_map)):
            return None if self.node in self._refused else self.node
        settled = self._accepted | self._refused
        for actor in self.actors.values():
            if actor.incarnation not in cluster_map.actors and actor not in settled:
                return actor
        return None
