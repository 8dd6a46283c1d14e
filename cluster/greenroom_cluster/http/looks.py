"""Looks at the whole cluster, and at this process, for those who ask at an HTTP port."""

from collections.abc import Mapping, Sequence

import trio

from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.http.view import View
from greenroom_cluster.metrics.readings import Reading

_PAUSE_SECONDS = 0.25
"""A look costs every actor up to a millisecond, and anybody may ask whether the cluster is whole."""


class Looks:
    """One look at a time, four a second at most. Who asks meanwhile shares the next one.

    A look that began before somebody asked tells them nothing: what they have just done may be missing.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._turn = trio.Lock()
        self._scrape = trio.Lock()
        self._began = -_PAUSE_SECONDS
        self._found: ClusterStatus | None = None

    async def look(self) -> ClusterStatus:
        """Return the state of the cluster. Raises what the view does."""
        asked = trio.current_time()
        async with self._turn:
            if self._found is None or self._began < asked:
                await trio.sleep_until(self._began + _PAUSE_SECONDS)
                self._began = trio.current_time()
                self._found = None
                self._found = await self._view.look()
            return self._found

    async def readings(self) -> Mapping[str, Sequence[Reading]]:
        """Return what this process and its children tell; they are asked by one at a time."""
        async with self._scrape:
            return await self._view.readings()
