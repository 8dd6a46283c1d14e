"""Virtual time: one heap of events, and machines whose clocks may drift or be set.

Everything that happens in a world is an event here. Events of the same nanosecond run in the order in which
they were added, so the seed alone decides a run.
"""

import heapq
from collections.abc import Callable
from typing import Any

ORIGIN_NS = 1_000_000_000_000
"""When every world begins, on its own clock."""

WALL_ORIGIN_US = 1_800_000_000_000_000
"""UTC at the beginning, in microseconds."""

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
_MILLION = 1_000_000


class Timeline:
    """The events to come. `now` is the world's true time in nanoseconds."""

    __slots__ = ("_events", "_order", "now", "steps")

    def __init__(self) -> None:
        self.now = ORIGIN_NS
        self.steps = 0
        self._order = 0
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, when: int, call: Callable[..., None], *args: Any) -> None:
        """Call at that time, or now if it has passed."""
        self._order += 1
        heapq.heappush(self._events, (max(when, self.now), self._order, call, args))

    def after(self, delay: int, call: Callable[..., None], *args: Any) -> None:
        """Call so many nanoseconds from now."""
        self._order += 1
        heapq.heappush(self._events, (self.now + delay, self._order, call, args))

    def run_until(self, end: int, done: Callable[[], bool] | None = None) -> bool:
        """Run events up to `end`, or until `done`, which is asked after each; return whether it was done."""
        events = self._events
        pop = heapq.heappop
        while events and events[0][0] <= end:
            self.now, _, call, args = pop(events)
            self.steps += 1
            call(*args)
            if done is not None and done():
                return True
        self.now = max(self.now, end)
        return done is not None and done()


class Machine:
    """A host with clocks of its own. Only processes on it read them.

    `rate` is how fast its monotonic clock runs, in millionths of true time. `boot` rises with each restart.
    """

    __slots__ = ("_base_local", "_base_true", "_timeline", "boot", "name", "rate", "up", "wall_offset_us")

    def __init__(self, timeline: Timeline, name: str, rate: int = _MILLION) -> None:
        self._timeline = timeline
        self.name = name
        self.rate = rate
        self.up = True
        self.boot = 1
        self.wall_offset_us = 0
        self._base_true = timeline.now
        self._base_local = timeline.now

    def now_ns(self) -> int:
        """Return what the monotonic clock shows."""
        elapsed = self._timeline.now - self._base_true
        return self._base_local + (elapsed if self.rate == _MILLION else elapsed * self.rate // _MILLION)

    def wall_us(self) -> int:
        """Return what the wall clock shows."""
        return WALL_ORIGIN_US + (self._timeline.now - ORIGIN_NS) // 1000 + self.wall_offset_us

    def moment(self, local_ns: int) -> int:
        """Return the true time at which the monotonic clock will have reached `local_ns`."""
        ahead = local_ns - self._base_local
        if self.rate != _MILLION:
            ahead = -(-ahead * _MILLION // self.rate)
        return self._base_true + ahead

    def set_rate(self, rate: int) -> None:
        """Let the monotonic clock run at another rate from now on."""
        self._base_local = self.now_ns()
        self._base_true = self._timeline.now
        self.rate = rate
