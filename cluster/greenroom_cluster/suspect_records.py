"""Decides which record to suspect when an actor hangs or ends, for real and simulated supervisors.

An actor marks the record that it is about to apply where its supervisor can see it. Under load almost every
moment falls into some record, so if the actor was killed, the mark alone proves nothing. A record is
suspected if the actor crashed while applying it, or if it took far more processor time than any record may.
Processor time counts, not clock time: an actor that is stopped, or waits for a processor, makes no progress
on anything.

A false suspicion costs little. It is withdrawn once the actor continues, and affects only a backup that takes
over before it learns that its primary applied the record.
"""

from collections.abc import Iterable

import msgspec

from greenroom.cluster_map import SuspectRecord
from greenroom_cluster.coordination.messages import SUSPICIONS_MAX, Suspicion

WATCH_SECONDS = 0.1
HANG_SECONDS = 0.3
"""Processor time: three times what any step may take. A backup takes over a second after the last sign of
life, so it learns in time even if the actor gets only half a processor."""
KILL_SECONDS = 0.1
"""The same for an actor that was killed by another process or by the kernel, as when memory runs out."""
EXIT_CORE_FAILED = 72
"""The status with which an actor leaves whose core has failed."""
CRASH_SIGNALS = frozenset({4, 6, 7, 8, 11, 31})
"""By these a process ends that did itself in: SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS, as Linux
counts them. SIGKILL comes from others."""
PASSED_MAX = 16
"""How many passed records are remembered per actor. Each is repeated with every heartbeat."""


def has_crashed(exit_status: int | None) -> bool:
    """Return whether a process ended by its own doing. A status is negative for a signal, None if unknown."""
    return exit_status is not None and (exit_status == EXIT_CORE_FAILED or -exit_status in CRASH_SIGNALS)


class InHand(msgspec.Struct, frozen=True):
    """The record that an actor is applying."""

    shard: int
    epoch: int
    sequence: int


class Watch:
    """Knowledge of one actor's record in hand.

    `passed` holds records that are no longer suspected, by shard, the latest last. Each is reported until
    another record of its shard is suspected, or `PASSED_MAX` others were. `busy` is the processor time that
    the actor has used so far, in seconds; None if that is unknown.
    """

    __slots__ = ("_busy_from", "_in_hand", "_spent", "passed", "suspect")

    def __init__(self) -> None:
        self._in_hand: InHand | None = None
        self._busy_from: float | None = None
        self._spent = 0.0
        self.suspect: InHand | None = None
        self.passed: dict[int, InHand] = {}

    def look(self, in_hand: InHand | None, busy: float | None) -> bool:
        """Note which record is in hand; return whether `suspect` changed."""
        self._note(in_hand, busy)
        return self._conclude(in_hand if self._spent >= HANG_SECONDS else None)

    def ended(self, in_hand: InHand | None, busy: float | None, *, crashed: bool) -> None:
        """Decide which record to suspect after the actor ended with this record in hand."""
        self._note(in_hand, busy)
        self._conclude(in_hand if crashed or self._spent >= KILL_SECONDS else None)

    def suspicions(self, incarnation: bytes) -> tuple[Suspicion, ...]:
        """Return this actor's suspicions for the coordinator, the current one first."""
        told = [] if self.suspect is None else [(self.suspect, False)]
        told += [(record, True) for record in reversed(self.passed.values())]
        return tuple(
            Suspicion(record.shard, SuspectRecord(incarnation, record.epoch, record.sequence), passed)
            for record, passed in told
        )

    def _conclude(self, suspect: InHand | None) -> bool:
        before, self.suspect = self.suspect, suspect
        if suspect == before:
            return False
        if before is not None:
            self.passed.pop(before.shard, None)
            self.passed[before.shard] = before
            while len(self.passed) > PASSED_MAX:
                del self.passed[next(iter(self.passed))]
        if suspect is not None:
            self.passed.pop(suspect.shard, None)
        return True

    def _note(self, in_hand: InHand | None, busy: float | None) -> None:
        if in_hand is None or in_hand != self._in_hand:
            self._in_hand, self._busy_from, self._spent = in_hand, busy, 0.0
        elif busy is not None:
            if self._busy_from is None:
                self._busy_from = busy
            self._spent = busy - self._busy_from


def bounded(suspicions: Iterable[Suspicion]) -> tuple[Suspicion, ...]:
    """Return as many as one message holds; records on which actors still hang come first."""
    return tuple(sorted(suspicions, key=lambda each: each.passed)[:SUSPICIONS_MAX])
