"""Decides when a supervised process hangs, and what follows its end.

Pure: supervisors, real and simulated, report what happens to a process and act on the verdict.
"""

import random

import msgspec

from greenroom_cluster.restarts import GiveUp, Restart, RestartPolicy, RestartSettings

WATCH_SECONDS = 0.25
"""How often to call `Keeper.hangs`."""


class SupervisionSettings(msgspec.Struct, frozen=True):
    """Times for watching and stopping children, in seconds.

    A child is killed after `hang_seconds` without a heartbeat, or, before it is ready, after `start_seconds`
    without saying that its start goes on. It has `stop_seconds` to clean up once it was asked to stop.
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
        """Note the start of a new incarnation."""
        self._policy.started(now_ns)
        self._ready = False
        self._looked_ns = now_ns
        self._starting_ns = self._silent_ns = 0

    def heard(self, *, ready: bool = False, goes_on: bool = False) -> None:
        """Note a message from the child; it may say that it serves, or that its start goes on."""
        self._ready = self._ready or ready
        if goes_on:
            self._starting_ns = 0
        self._silent_ns = 0

    def hangs(self, now_ns: int) -> bool:
        """Whether to kill the child: its heartbeats stopped, or it never became ready."""
        # A pause of this process itself must not count as silence of the child.
        passed_ns = min(now_ns - self._looked_ns, round(2 * WATCH_SECONDS * 1e9))
        self._looked_ns = now_ns
        if self._ready:
            self._silent_ns += passed_ns
            return self._silent_ns > self._settings.hang_seconds * 1e9
        self._starting_ns += passed_ns
        return self._starting_ns > self._settings.start_seconds * 1e9

    def stop(self) -> float:
        """Stop restarting it; return how many seconds it has to clean up before it is killed."""
        self._stopping = True
        return self._settings.stop_seconds if self._ready else 0.0

    def exited(self, now_ns: int) -> Restart | GiveUp | None:
        """Return what to do after its end; None: nothing, because it was asked to stop."""
        return None if self._stopping else self._policy.exited(now_ns)
