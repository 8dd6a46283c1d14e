"""A coordinator, as its HTTP port sees it. The port is the supervisor's, and the map its child's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from greenroom.errors import UnavailableError
from greenroom_cluster.http.gathering import gather, tell_self
from greenroom_cluster.metrics.readings import Reading, Readings
from greenroom_cluster.runtime.proving import Keys, credentials_in
from greenroom_cluster.runtime.supervision import Supervisor

if TYPE_CHECKING:
    from greenroom_cluster.cluster_status import ClusterStatus

NAME = "coordinator"


@dataclass(frozen=True, slots=True)
class CoordinatorView:
    """What one coordinator at an address tells. `supervisor` returns None before it runs."""

    address: str
    cluster: str
    keys: Keys | None
    supervisor: Callable[[], Supervisor | None]

    def objection(self) -> str:
        """Return why this coordinator neither serves nor stands by now; empty if it does."""
        supervisor = self.supervisor()
        children = {} if supervisor is None else supervisor.children
        ready = any(child.ready for child in children.values())
        return "" if ready else "the coordinator is being started"

    async def look(self) -> "ClusterStatus":
        """Return the state of the whole cluster.

        Raises UnavailableError, with TLS in any case: a coordinator's certificate does not open actors.
        """
        if credentials_in(self.keys) is not None:
            raise UnavailableError(
                "with TLS a coordinator may not ask the actors how they are: ask a node at its HTTP port"
            )
        # Only here: few coordinators are ever asked.
        from greenroom_cluster.inspection import inspect_cluster

        return await inspect_cluster((self.address,), self.cluster, credentials=self.keys)

    async def readings(self) -> Mapping[str, Sequence[Reading]]:
        """Return what this coordinator tells. It and its supervisor have one name."""
        readings = Readings()
        tell_self(readings, self.keys, ready=not self.objection())
        told = await gather(self.supervisor(), "greenroom_coordinator_up")
        return {f"{NAME}/supervisor": readings.all, NAME: told.get(NAME, ())}
