"""Which record to suspect when an actor hangs or ends: one verdict for supervisors, real and simulated.

An actor marks the record that it is about to apply where its supervisor can see it. Under load some record is
in hand at almost any moment, so that alone proves nothing of an actor that was killed. What accuses a record
is that the actor crashed with it in hand, or that it cost far more processor time than any record may. Time
of the processor, not of the clock: an actor that is stopped, or waits for a busy machine, works on nothing.

A false suspicion costs little. It is taken back once the actor goes on, and nobody minds it but a backup that
takes over without having been told that its primary had applied the record.
"""

import signal

import msgspec

from greenroom.cluster_map import SuspectRecord
from greenroom_cluster.coordination.messages import Suspicion

WATCH_SECONDS = 0.1
HANG_SECONDS = 0.3
"""Of processor time: three times what any step may take. A backup takes over a second after the last sign of
life, so it is told in time even if the machine has only half a processor for the actor."""
KILL_SECONDS = 0.1
"""The same for an actor that was killed, by whoever it was: the kernel, when memory ran out, does it so."""

CRASH_SIGNALS = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS}
)


class InHand(msgspec.Struct, frozen=True):
    """The record that an actor is applying."""

    shard: int
    epoch: int
    sequence: int


class Watch:
    """What is known of one actor's record in hand. `passed` was suspected last, and is not any more.

    `busy` is the processor time that the actor has used so far, in seconds; None if it cannot be told.
    """

    __slots__ = ("_busy_from", "_in_hand", "_spent", "passed", "suspect")

    def __init__(self) -> None:
        self._in_hand: InHand | None = None
        self._busy_from: float | None = None
        self._spent = 0.0
        self.suspect: InHand | None = None
        self.passed: InHand | None = None

    def look(self, in_hand: InHand | None, busy: float | None) -> bool:
        """Note what is in hand now; whether `suspect` is another than before."""
        self._note(in_hand, busy)
        return self._conclude(in_hand if self._spent >= HANG_SECONDS else None)

    def ended(self, in_hand: InHand | None, busy: float | None, *, crashed: bool) -> None:
        """Conclude what to suspect of an actor that ended with this record in hand."""
        self._note(in_hand, busy)
        self._conclude(in_hand if crashed or self._spent >= KILL_SECONDS else None)

    def suspicion(self, incarnation: bytes) -> Suspicion | None:
        """Return what the coordinator is to know of this actor's records, if there is anything."""
        record = self.suspect or self.passed
        if record is None:
            return None
        named = SuspectRecord(incarnation, record.epoch, record.sequence)
        return Suspicion(record.shard, named, passed=self.suspect is None)

    def _conclude(self, suspect: InHand | None) -> bool:
        before, self.suspect = self.suspect, suspect
        if suspect is not None:
            self.passed = None
        elif before is not None:
            self.passed = before
        return suspect != before

    def _note(self, in_hand: InHand | None, busy: float | None) -> None:
        if in_hand is None or in_hand != self._in_hand:
            self._in_hand, self._busy_from, self._spent = in_hand, busy, 0.0
        elif busy is not None:
            if self._busy_from is None:
                self._busy_from = busy
            self._spent = busy - self._busy_from
