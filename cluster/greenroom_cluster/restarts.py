"""Rules for restarting a supervised process, and for giving up: one for one, as in Erlang's supervisors.

The first restart is immediate; later ones back off exponentially with jitter. Once a process has stayed up
for a while, the back-off starts over. Too many restarts within a window mean that restarting does not help:
the supervisor ends, and its own supervisor decides.
"""

import math
import random
from collections import deque
from typing import Annotated

import msgspec

from greenroom.errors import UsageError
from greenroom_cluster.flags import Flag

WINDOW_SECONDS = 30.0
RESTARTS_MAX_MAX = 10_000


class RestartSettings(msgspec.Struct, frozen=True):
    """Delays in seconds; at most `restarts_max` restarts within `window_seconds`.

    The n-th restart in a row waits `backoff_seconds * 2**(n - 2)`, at most `backoff_seconds_max`, give or
    take the fraction `jitter`; the first does not wait. Raises UsageError if values contradict each other.
    """

    restarts_max: Annotated[
        int,
        Flag(help=f"Restarts of one process within {WINDOW_SECONDS:g} s before its supervisor gives up."),
    ] = 10
    window_seconds: float = WINDOW_SECONDS
    backoff_seconds: float = 0.1
    backoff_seconds_max: float = 2.0
    jitter: float = 0.2
    sound_after_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.restarts_max <= RESTARTS_MAX_MAX:
            raise UsageError(f"--restarts-max must be 0 to {RESTARTS_MAX_MAX}; it is {self.restarts_max}")
        if not 0 < self.window_seconds < math.inf:
            raise UsageError(f"window_seconds must be above 0; it is {self.window_seconds:g}")
        if not 0 <= self.jitter < 1:
            raise UsageError("jitter must be at least 0 and below 1")
        if not 0 < self.backoff_seconds <= self.backoff_seconds_max:
            raise UsageError("backoff_seconds must be above 0 and at most backoff_seconds_max")
        if self.sound_after_seconds <= 0:
            raise UsageError("sound_after_seconds must be above 0")


class Restart(msgspec.Struct, frozen=True):
    """Start the process again after a delay in nanoseconds; `attempt` counts restarts in a row from 1."""

    delay_ns: int
    attempt: int


class GiveUp(msgspec.Struct, frozen=True):
    """Do not start it again: end the supervisor. `reason` says why, and where to look."""

    reason: str


class RestartPolicy:
    """The restarts of one supervised process. Times are nanoseconds of any one clock."""

    def __init__(self, name: str, settings: RestartSettings, chance: random.Random) -> None:
        self._name = name
        self._settings = settings
        self._chance = chance
        self._started_ns: int | None = None
        self._attempt = 0
        self._restarts: deque[int] = deque()

    def started(self, now_ns: int) -> None:
        """Note that the process was started."""
        self._started_ns = now_ns

    def exited(self, now_ns: int) -> Restart | GiveUp:
        """Return what to do after an unexpected exit or a failed start."""
        settings = self._settings
        if self._started_ns is not None and now_ns - self._started_ns >= settings.sound_after_seconds * 1e9:
            self._attempt = 0
        self._started_ns = None
        window_ns = round(settings.window_seconds * 1e9)
        while self._restarts and now_ns - self._restarts[0] >= window_ns:
            self._restarts.popleft()
        if len(self._restarts) >= settings.restarts_max:
            return GiveUp(
                f"{self._name} exited {len(self._restarts) + 1} times within {settings.window_seconds:g} s: "
                "see its log for the cause; --restarts-max (GREENROOM_RESTARTS_MAX) is the limit"
            )
        self._attempt += 1
        delay_ns = self._delay_ns()
        self._restarts.append(now_ns + delay_ns)
        return Restart(delay_ns, self._attempt)

    def _delay_ns(self) -> int:
        if self._attempt == 1:
            return 0
        settings = self._settings
        doublings = min(self._attempt - 2, 32)
        seconds = min(settings.backoff_seconds * 2.0**doublings, settings.backoff_seconds_max)
        return round(seconds * self._chance.uniform(1 - settings.jitter, 1 + settings.jitter) * 1e9)
