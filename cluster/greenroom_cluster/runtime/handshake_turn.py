"""Whose turn it is in the handshakes of a listener: they never take all of its time.

A step of a handshake keeps the event loop for up to a millisecond, and anybody may ask for one.
Where more ask than there is time for, the newest has the next turn: the oldest have waited so long that they
are likely to have given up, or are ended to make room. In their order all would wait, and nobody get through.
"""

from collections.abc import Callable
from types import TracebackType

import trio

CROWD = 8
"""So many handshakes at once are ordinary: of an app that starts, of nodes after a failover."""
REST = 4
"""In a crowd each step is followed by so many times its length without one: callers keep most of the time."""


class HandshakeTurn:
    """A turn that one handshake at a time has. `underway` tells how many there are."""

    def __init__(self, underway: Callable[[], int]) -> None:
        self._underway = underway
        self._waiting: list[trio.Event] = []
        self._taken = False
        self._began_at = 0.0
        self._free_at = float("-inf")

    async def __aenter__(self) -> None:
        if self._taken:
            await self._wait()
        self._taken = True
        try:
            await trio.sleep(max(self._free_at - trio.current_time(), 0))
        except trio.Cancelled:
            self._pass_on()
            raise
        self._began_at = trio.current_time()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._underway() > CROWD:
            ended_at = trio.current_time()
            self._free_at = ended_at + REST * (ended_at - self._began_at)
        self._pass_on()

    async def _wait(self) -> None:
        event = trio.Event()
        self._waiting.append(event)
        try:
            await event.wait()
        except trio.Cancelled:
            if event.is_set():
                self._pass_on()
            else:
                self._waiting.remove(event)
            raise

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.pop().set()
        else:
            self._taken = False
