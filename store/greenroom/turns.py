"""Queues and retries for optimistic changes: read, change, write on condition.

Calls of one process that change the same session queue up, since they would only spoil each other's attempts.
Against other processes there are retries, after growing random pauses, until a deadline. This works under
asyncio and trio alike; trio is never imported here, because it is loaded already wherever it runs.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from random import SystemRandom
from time import monotonic
from typing import Any

from greenroom.errors import UnavailableError, VersionConflictError

PAUSE_SECONDS_MIN = 0.001
PAUSE_SECONDS_MAX = 0.05

_random = SystemRandom()
_queues: dict[Hashable, "_Queue"] = {}


class _Queue:
    """Callers queued to change one session."""

    __slots__ = ("lock", "members")

    def __init__(self) -> None:
        self.lock = new_lock()
        self.members = 0


class Patience:
    """A deadline for optimistic retries, `seconds` from now. `operation` is its name in errors."""

    __slots__ = ("_attempts", "_end", "_operation", "_seconds")

    def __init__(self, operation: str, seconds: float) -> None:
        self._operation = operation
        self._seconds = seconds
        self._end = monotonic() + seconds
        self._attempts = 0

    def begin(self) -> None:
        """Begin the first attempt. Raises UnavailableError if the deadline has passed already."""
        if monotonic() >= self._end:
            raise UnavailableError(
                f"{self._operation} was not applied: for {self._seconds:g} s it waited for its turn behind "
                "other changes of the same session in this process. Repeating it is safe"
            )

    async def again(self) -> None:
        """Pause before the next attempt. Raises VersionConflictError if the deadline has passed."""
        self._attempts += 1
        left = self._end - monotonic()
        if left <= 0:
            raise VersionConflictError(
                f"{self._operation} was not applied: others changed the session during each of "
                f"{self._attempts} attempts in {self._seconds:g} s. Repeating it is safe"
            )
        longest = min(PAUSE_SECONDS_MIN * 2 ** min(self._attempts, 10), PAUSE_SECONDS_MAX, left)
        await pause(_random.uniform(0, longest))


@asynccontextmanager
async def in_turn(*subject: Hashable) -> AsyncIterator[None]:
    """Wait until no other caller in this event loop is inside with the same subject, in order of arrival.

    Not reentrant. If a caller is cancelled, waiting or inside, the next one goes on.
    """
    key = (loop_key(), *subject)
    queue = _queues.get(key)
    if queue is None:
        queue = _queues[key] = _Queue()
    queue.members += 1
    try:
        async with queue.lock:
            yield
    finally:
        queue.members -= 1
        if not queue.members:
            del _queues[key]


async def pause(seconds: float) -> None:
    """Sleep for this long under the running library."""
    trio = running_trio()
    await (asyncio.sleep(seconds) if trio is None else trio.sleep(seconds))


def running_trio() -> Any:
    """Return the module trio if the caller runs under it, else None."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            trio.lowlevel.current_task()
        except (RuntimeError, AttributeError):
            return None
    return trio


def new_lock() -> Any:
    """Return a lock of the running library, for `async with`."""
    trio = running_trio()
    return asyncio.Lock() if trio is None else trio.Lock()


def loop_key() -> Hashable:
    """Return the identity of the running event loop: the asyncio loop, or trio's token."""
    trio = running_trio()
    if trio is None:
        return asyncio.get_running_loop()
    token: Hashable = trio.lowlevel.current_trio_token()
    return token
