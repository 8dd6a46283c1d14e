"""A coordinator, as its HTTP port sees it. The port is the supervisor's, and the map its child's."""

from collections.abc import Callable
from dataclasses import dataclass

from greenroom.errors import UnavailableError
from greenroom_cluster.inspection import ClusterStatus, inspect_cluster
from greenroom_cluster.runtime.proving import Keys, credentials_in


@dataclass(frozen=True, slots=True)
class CoordinatorView:
    """What one coordinator at an address tells. `serves`: whether its child has said so, or stands by."""

    address: str
    cluster: str
    keys: Keys | None
    serves: Callable[[], bool]

    def objection(self) -> str:
        """Return why this coordinator neither serves nor stands by now; empty if it does."""
        return "" if self.serves() else "the coordinator is being started"

    async def look(self) -> ClusterStatus:
        """Return the state of the whole cluster.

        Raises UnavailableError, with TLS in any case: a coordinator's certificate does not open actors.
        """
        if credentials_in(self.keys) is not None:
            raise UnavailableError(
                "with TLS a coordinator may not ask the actors how they are: ask a node at its HTTP port"
            )
        return await inspect_cluster((self.address,), self.cluster, credentials=self.keys)
