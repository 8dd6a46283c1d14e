"""What is next to do on the disk of an actor: when its log is synced, and what a sync covers.

The loop writes, and says so here. A thread asks for the next step, takes it, and asks again; if there is none
it waits until one is due, or for a word of the loop. A sync covers what was written before it began, and what
is written meanwhile is synced next. What need not be synced at once is synced after half of the interval,
because a core acknowledges nothing more while anything has waited for longer than the whole. After a failure
nothing is tried again: what is on the disk is unknown then.

Loop and thread each write first and look then, so that one of them sees what the other did.
"""

from typing import TypeAlias

import msgspec

from greenroom.deadlines import NEVER_NS
from greenroom_cluster.shard.effects import DropBefore, Persist
from greenroom_cluster.shard.settings import DISK_FREE_BYTES_MIN, ns

_LOOK_SECONDS = 5.0


class Sync(msgspec.Struct, frozen=True, gc=False):
    """Sync the log; then say that it has `ended`."""


class Measure(msgspec.Struct, frozen=True, gc=False):
    """Look how much room there is; then say what was `measured`."""


class Wait(msgspec.Struct, frozen=True, gc=False):
    """Wait until then, or until the loop has a word."""

    until_ns: int


class End(msgspec.Struct, frozen=True, gc=False):
    """Do nothing more: all is stable, or the disk has failed."""


Step: TypeAlias = Sync | DropBefore | Measure | Wait | End


class DiskSchedule:
    """The steps of one disk. All times are of one clock that is never set.

    `interval_ns`: for how long what need not be synced at once may be unsynced; 0 if all is synced at once.
    While less than `free_bytes_min` is free the room is looked at every `look_ns`, else only if there is
    something else to do. If a call of the loop returns True, a word is to be sent to the thread.
    """

    __slots__ = (
        "_asked",
        "_at_once",
        "_began_ns",
        "_closing",
        "_covered",
        "_drop_before",
        "_dropped",
        "_due_ns",
        "_failed",
        "_free_bytes_min",
        "_look_due_ns",
        "_look_ns",
        "_short",
        "_wait_ns",
        "_written",
    )

    def __init__(
        self,
        interval_ns: int = 0,
        *,
        free_bytes_min: int = DISK_FREE_BYTES_MIN,
        look_ns: int = ns(_LOOK_SECONDS),
    ) -> None:
        self._wait_ns = interval_ns // 2
        self._free_bytes_min = free_bytes_min
        self._look_ns = look_ns
        # Set by the loop: the newest position written, and the newest to be synced at once.
        self._written = self._at_once = self._drop_before = 0
        self._closing = False
        # There is a word that the thread has yet to hear.
        self._asked = False
        # Set by the thread: the newest position that the latest sync covers, since that began.
        self._covered = self._dropped = 0
        self._began_ns = 0
        self._due_ns = NEVER_NS
        self._look_due_ns = 0
        self._short = self._failed = False

    # --- in the loop ---------------------------------------------------------------------------------------

    def wrote(self, effect: Persist) -> bool:
        """Note that this was written."""
        self._written = position = effect.position
        if effect.at_once:
            self._at_once = position
        elif self._covered < position - 1:
            return False  # it is not the first that waits, so it is known when to sync
        return not self._asked and self._ask()

    def drops(self, effect: DropBefore) -> bool:
        """Note that the beginning of the log may be dropped."""
        self._drop_before = effect.mark
        return self._ask()

    def close(self) -> bool:
        """Have all that was written synced now, and then end."""
        self._closing = True
        return self._ask()

    def _ask(self) -> bool:
        if self._asked:
            return False
        self._asked = True
        return True

    # --- in the thread -------------------------------------------------------------------------------------

    def heard(self) -> None:
        """Note that the word of the loop was heard, before asking for the next step."""
        self._asked = False

    def next(self, now_ns: int) -> Step:
        """Return what to do now."""
        closing = self._closing  # read first: then all that was written shows
        if self._failed:
            return End()
        if self._covered < self._written:
            if self._due_ns == NEVER_NS:
                self._due_ns = now_ns + self._wait_ns
            if closing or self._covered < self._at_once or now_ns >= self._due_ns:
                self._covered = self._written
                self._began_ns, self._due_ns = now_ns, NEVER_NS
                return Sync()
        if self._dropped < self._drop_before:
            self._dropped = self._drop_before
            return DropBefore(self._dropped)
        if now_ns >= self._look_due_ns:
            self._look_due_ns = now_ns + self._look_ns
            return Measure()
        if closing:
            return End()
        return Wait(min(self._due_ns, self._look_due_ns) if self._short else self._due_ns)

    def ended(self) -> int:
        """Note that the sync is over; return the position up to which all is stable."""
        if self._covered < self._written:
            # What was written meanwhile may have been so since the sync began.
            self._due_ns = self._began_ns + self._wait_ns
        return self._covered

    def measured(self, free_bytes: int) -> bool:
        """Note how much room there is; return whether that is too little."""
        self._short = free_bytes < self._free_bytes_min
        return self._short

    def fail(self) -> None:
        """Note that a step has failed."""
        self._failed = True
