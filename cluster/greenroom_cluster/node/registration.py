"""What the map lacks of this node: its entry in its present state, and every actor that is ready."""

from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry

DEAD = "dead"


class Registration:
    """The entries of a node that are to stand in the map.

    What was accepted under the present map is on its way to us; what was refused is asked for again later.
    """

    def __init__(self, node: NodeEntry) -> None:
        self.node = node
        self.joined = False
        self.actors: dict[bytes, ActorEntry] = {}
        self._accepted: set[NodeEntry | ActorEntry] = set()
        self._refused: set[NodeEntry | ActorEntry] = set()

    def accept(self, entry: NodeEntry | ActorEntry) -> None:
        """Note that the coordinator has entered it."""
        self._accepted.add(entry)

    def refuse(self, entry: NodeEntry | ActorEntry) -> None:
        """Note that it was not entered; it is not missing again until `ask_again`."""
        self._refused.add(entry)

    def renew(self) -> None:
        """Look at everything anew: there is another map, or another connection."""
        self._accepted.clear()
        self._refused.clear()

    def ask_again(self) -> bool:
        """Ask again for what was refused; whether there is any."""
        refused = bool(self._refused)
        self._refused.clear()
        return refused

    def contested(self, cluster_map: ClusterMap) -> tuple[list[ActorEntry], list[ActorEntry]]:
        """Return our actors that the map knows otherwise: those it calls dead, and those of another's."""
        dead: list[ActorEntry] = []
        foreign: list[ActorEntry] = []
        for actor in self.actors.values():
            known = cluster_map.actors.get(actor.incarnation)
            if known is not None and known != actor:
                (dead if known.state == DEAD else foreign).append(actor)
        return dead, foreign

    def missing(self, cluster_map: ClusterMap) -> NodeEntry | ActorEntry | None:
        """Return what to have entered next: the node first, because nobody else may enter its actors."""
        if not self.joined or (
            cluster_map.nodes.get(self.node.name) != self.node and self.node not in self._accepted
        ):
            return None if self.node in self._refused else self.node
        settled = self._accepted | self._refused
        for actor in self.actors.values():
            if actor.incarnation not in cluster_map.actors and actor not in settled:
                return actor
        return None
