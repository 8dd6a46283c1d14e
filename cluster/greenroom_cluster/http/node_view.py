"""A node, as its HTTP port sees it."""

from collections.abc import Callable, Mapping
from typing import Protocol

from greenroom.cluster_map import ClusterMap
from greenroom.errors import UnavailableError
from greenroom_cluster.inspection import ClusterStatus, inspect_actors, summarize
from greenroom_cluster.runtime.proving import Keys


class Child(Protocol):
    """An actor's process."""

    @property
    def ready(self) -> bool:
        """Whether it has said that it serves."""


class Standing(Protocol):
    """How the node stands with the coordinator."""

    @property
    def joined(self) -> bool:
        """Whether the coordinator has registered it."""

    @property
    def serving(self) -> bool:
        """Whether it has not been asked to stop."""


class NodeView:
    """What one node tells. `children` returns its actors' processes, `newest_map` the map that it follows."""

    def __init__(
        self,
        standing: Standing,
        actors: int,
        children: Callable[[], Mapping[str, Child]],
        newest_map: Callable[[], ClusterMap | None],
        keys: Keys | None,
    ) -> None:
        self._standing = standing
        self._actors = actors
        self._children = children
        self._newest_map = newest_map
        self._keys = keys

    def objection(self) -> str:
        """Return why this node does not serve now; empty if it does."""
        if not self._standing.serving:
            return "this node stops"
        if not self._standing.joined:
            return "this node has not joined the cluster yet"
        ready = sum(child.ready for child in self._children().values())
        return "" if ready >= self._actors else f"{ready} of {self._actors} actors serve"

    async def look(self) -> ClusterStatus:
        """Return the state of the whole cluster, by the map that this node has.

        Raises UnavailableError if it has none yet.
        """
        cluster_map = self._newest_map()
        if cluster_map is None:
            raise UnavailableError("this node has not got the cluster map yet")
        return summarize(cluster_map, await inspect_actors(cluster_map, credentials=self._keys))
