"""When a supervised process counts as hanging, and what follows its end.

A pure machine: the supervisors, real and simulated, bring what happens to a process, and do what it says.
"""

import random

import msgspec

from greenroom_cluster.restarts import GiveUp, Restart, RestartPolicy, RestartSettings

WATCH_SECONDS = 0.25
"""How often `Keeper.hangs` is to be asked."""


class SupervisionSettings(msgspec.Struct, frozen=True):
    """How children are watched and stopped. All times in seconds.

    `hang_seconds` without a heartbeat, or `start_seconds` without the message that it is ready, and a child
    is killed. `stop_seconds` is what it has to clean up after it was asked to stop.
    """

    beat_seconds: float = 0.5
    hang_seconds: float = 10.0
    start_seconds: float = 30.0
    stop_seconds: float = 2.0


class Keeper:
    """Keeps one child running, incarnation after incarnation."""

    def __init__(
        self, name: str, settings: SupervisionSettings, restarts: RestartSettings, chance: random.Random
    ) -> None:
        self._settings = settings
        self._policy = RestartPolicy(name, restarts, chance)
        self._stopping = False
        self._ready = False
        self._looked_ns = 0
        self._starting_ns = 0
        self._silent_ns = 0

    def start(self, now_ns: int) -> None:
        """Note that a new incarnation is started."""
        self._policy.started(now_ns)
        self._ready = False
        self._looked_ns = now_ns
        self._starting_ns = self._silent_ns = 0

    def heard(self, *, ready: bool = False) -> None:
        """Note a message of the child; `ready`: that it serves."""
        self._ready = self._ready or ready
        self._silent_ns = 0

    def hangs(self, now_ns: int) -> bool:
        """Whether the child stopped beating, or never got ready, and is to be killed."""
        # A pause of this very process must not count as the child's silence.
        passed_ns = min(now_ns - self._looked_ns, round(2 * WATCH_SECONDS * 1e9))
        self._looked_ns = now_ns
        if self._ready:
            self._silent_ns += passed_ns
            return self._silent_ns > self._settings.hang_seconds * 1e9
        self._starting_ns += passed_ns
        return self._starting_ns > self._settings.start_seconds * 1e9

    def stop(self) -> float:
        """Start it no more; return after how many seconds to kill it, for it may have to clean up."""
        self._stopping = True
        return self._settings.stop_seconds if self._ready else 0.0

    def exited(self, now_ns: int) -> Restart | GiveUp | None:
        """Say what to do after its end; None: nothing, for it was to stop."""
        return None if self._stopping else self._policy.exited(now_ns)
