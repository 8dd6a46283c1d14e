"""What a process tells at its HTTP port."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from greenroom_cluster.metrics.readings import Reading

if TYPE_CHECKING:
    from greenroom_cluster.cluster_status import ClusterStatus


class View(Protocol):
    """A node or a coordinator, as its HTTP port sees it."""

    def objection(self) -> str:
        """Return why this process does not serve now; empty if it does."""

    async def look(self) -> "ClusterStatus":
        """Return the state of the whole cluster. Raises UnavailableError, UsageError."""

    async def readings(self) -> Mapping[str, Sequence[Reading]]:
        """Return what this process and its children tell, by their names."""
