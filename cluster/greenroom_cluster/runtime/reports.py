"""Reports of a thread to the event loop, through the poller that wakes it for sockets too.

The loop's own way from a thread costs a turn of its scheduler for each report, beside the one that the poller
takes anyway. Here a report is one more descriptor that is ready.
"""

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from greenroom_cluster.runtime.poller import Poller

Report = TypeVar("Report")


class Reports(Generic[Report]):
    """Calls `take` in the loop, while the poller runs, for each report of a thread, in their order."""

    def __init__(self, poller: Poller, take: Callable[[Report], None]) -> None:
        self._take = take
        self._waiting: deque[Report] = deque()
        self._told = False
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        poller.watch(self._descriptor, self._receive)

    def put(self, report: Report) -> None:
        """Have this taken; never blocks. For one thread at a time."""
        self._waiting.append(report)
        if not self._told:
            self._told = True
            os.eventfd_write(self._descriptor, 1)

    def close(self) -> None:
        """Take no more. The thread must have ended."""
        os.close(self._descriptor)

    def _receive(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)
        # First, so that a report that comes from now on wakes the loop again.
        self._told = False
        waiting = self._waiting
        while waiting:
            self._take(waiting.popleft())
