"""What a process tells at its HTTP port."""

from typing import Protocol

from greenroom_cluster.inspection import ClusterStatus


class View(Protocol):
    """A node or a coordinator, as its HTTP port sees it."""

    def objection(self) -> str:
        """Return why this process does not serve now; empty if it does."""

    async def look(self) -> ClusterStatus:
        """Return the state of the whole cluster. Raises UnavailableError, UsageError."""
