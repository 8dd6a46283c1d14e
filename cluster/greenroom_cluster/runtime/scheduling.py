"""The scheduling policy of an actor: `SCHED_BATCH` (sched(7)), in which a woken process interrupts no other.

An actor that interrupts its client or its peer finds little to do: a moment later, there would have been more
of their messages. If a processor is idle, the actor is still woken at once. But if the host's processors are
busy with other work, an actor that waits milliseconds for each turn serves only a half or a quarter of what
it could. So it measures how long it waits for a processor, and returns to the usual policy for a minute if
that is long.
"""

import os
from collections.abc import Callable
from pathlib import Path

import structlog
import trio

LOOK_SECONDS = 1.0
SUSPENSION_SECONDS = 60.0

# Measured on two processors, from 1 to 500 callers: at most 0.9 with only actors and their clients; 1.4 to 5
# beside two busy loops, and above 2 whenever throughput was halved.
_WAITED_PER_RUN_MAX = 2.0
_WAITED_NS_MIN = 50_000_000

_SCHEDSTAT = Path("/proc/thread-self/schedstat")
_log = structlog.get_logger(__name__)


class BatchRule:
    """Decides, from how long a thread ran and waited, whether to run it under `SCHED_BATCH`."""

    def __init__(self, ran_ns: int, waited_ns: int) -> None:
        self.holds = True
        self._ran_ns = ran_ns
        self._waited_ns = waited_ns
        self._suspended_until_ns = 0

    def look(self, now_ns: int, ran_ns: int, waited_ns: int) -> bool:
        """Take the times that this thread has run and waited so far; return whether to use the policy."""
        ran, waited = ran_ns - self._ran_ns, waited_ns - self._waited_ns
        self._ran_ns, self._waited_ns = ran_ns, waited_ns
        if self.holds:
            if waited >= _WAITED_NS_MIN and waited > _WAITED_PER_RUN_MAX * ran:
                self.holds = False
                self._suspended_until_ns = now_ns + int(SUSPENSION_SECONDS * 1e9)
        elif now_ns >= self._suspended_until_ns:
            self.holds = True
        return self.holds


def read_times() -> tuple[int, int]:
    """Return how long this thread has run and has waited to run, nanoseconds. Raises OSError, ValueError."""
    ran, waited, _ = _SCHEDSTAT.read_text().split()
    return int(ran), int(waited)


async def keep_policy(
    now_ns: Callable[[], int],
    times: Callable[[], tuple[int, int]] = read_times,
    set_policy: Callable[[int], None] = lambda policy: os.sched_setscheduler(0, policy, os.sched_param(0)),
) -> None:
    """Keep this process under `SCHED_BATCH` while it pays off; do nothing if it cannot be measured or set.

    A policy other than the usual one is the operator's choice, and is kept.
    """
    try:
        rule = BatchRule(*times())
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            return
        set_policy(os.SCHED_BATCH)
        while True:
            await trio.sleep(LOOK_SECONDS)
            held = rule.holds
            if rule.look(now_ns(), *times()) is not held:
                set_policy(os.SCHED_OTHER if held else os.SCHED_BATCH)
                _log.info("scheduling_policy", policy="SCHED_OTHER" if held else "SCHED_BATCH")
    except (OSError, ValueError):  # forbidden in some sandboxes; nothing depends on it
        return
