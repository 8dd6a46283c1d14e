"""A node, as its HTTP port sees it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from greenroom.errors import UnavailableError
from greenroom_cluster.http.gathering import gather, tell_self
from greenroom_cluster.metrics.readings import Reading, Readings
from greenroom_cluster.node.agent import Agent
from greenroom_cluster.runtime.connection_readings import tell_connections
from greenroom_cluster.runtime.coordinator_link import CoordinatorLink
from greenroom_cluster.runtime.listener import Listener
from greenroom_cluster.runtime.proving import Keys
from greenroom_cluster.runtime.supervision import Supervisor

if TYPE_CHECKING:
    from greenroom_cluster.cluster_status import ClusterStatus


@dataclass(frozen=True, slots=True)
class NodeView:
    """What one node with so many actors tells. `supervisor` returns None before it runs."""

    name: str
    actors: int
    agent: Agent
    link: CoordinatorLink
    listener: Listener
    keys: Keys | None
    supervisor: Callable[[], Supervisor | None]

    def objection(self) -> str:
        """Return why this node does not serve now; empty if it does."""
        if not self.agent.serving:
            return "this node stops"
        if not self.agent.joined:
            return "this node has not joined the cluster yet"
        supervisor = self.supervisor()
        children = {} if supervisor is None else supervisor.children
        ready = sum(child.ready for child in children.values())
        return "" if ready >= self.actors else f"{ready} of {self.actors} actors serve"

    async def look(self) -> "ClusterStatus":
        """Return the state of the whole cluster, by the map that this node has.

        Raises UnavailableError if it has none yet.
        """
        cluster_map = self.link.map
        if cluster_map is None:
            raise UnavailableError("this node has not got the cluster map yet")
        # Only here: few nodes are ever asked.
        from greenroom_cluster.cluster_status import summarize
        from greenroom_cluster.inspection import inspect_actors

        untrusted: dict[bytes, str] = {}
        told = await inspect_actors(cluster_map, credentials=self.keys, untrusted=untrusted)
        return summarize(cluster_map, told, untrusted)

    async def readings(self) -> Mapping[str, Sequence[Reading]]:
        """Return what this node and its actors tell, by their names."""
        readings, supervisor = Readings(), self.supervisor()
        tell_self(readings, self.keys, ready=not self.objection())
        readings.tell("greenroom_coordinator_reachable", float(self.link.up))
        readings.tell("greenroom_coordinator_away_seconds", self.link.away_seconds)
        if (cluster_map := self.link.map) is not None:
            readings.tell("greenroom_map_version", cluster_map.version)
            readings.tell("greenroom_map_shards", cluster_map.shard_count)
        tell_connections(readings, self.listener)
        children = {} if supervisor is None else supervisor.children
        ready = {name: child.ready for name, child in children.items()}
        told = await gather(supervisor, "greenroom_actor_up")
        for name, each in ready.items():
            told[name] = [Reading("greenroom_actor_ready", float(each)), *told[name]]
        return {self.name: readings.all, **told}
