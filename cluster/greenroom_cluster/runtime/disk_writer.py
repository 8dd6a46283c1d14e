"""The thread that owns an actor's journal: it writes what the core persists, and says what is stable.

The event loop never waits for the disk. All that is queued when the thread comes round is one batch. A write
or a sync that fails ends the process at once: what is on the disk is unknown then, and nothing is tried
again.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import structlog
import trio

from greenroom_cluster.disk.entries import Chunk, Entry
from greenroom_cluster.disk.journal import DiskFailedError, Journal
from greenroom_cluster.links.outbox import DiskEffect
from greenroom_cluster.shard.disk_log import DiskStalledError
from greenroom_cluster.shard.effects import Persist
from greenroom_cluster.shard.inputs import DiskMeasured, Synced, Written
from greenroom_cluster.shard.settings import DISK_FREE_BYTES_MIN

EXIT_DISK_FAILED = 73
"""The status with which an actor leaves whose disk has failed."""
_LOOK_SECONDS = 5.0
_WARN_SECONDS = 60.0
_SLOW_SECONDS = 1.0
_CHUNK_BYTES_MAX = 1 << 20
"""Of snapshots a batch has no more than that and one part, so that the records behind them need not wait."""

_log = structlog.get_logger(__name__)


class DiskWriter:
    """Writes to a journal, which is the writer's from now on.

    `tell` is called in the thread, and must not block. `interval_seconds` None: every batch is synced before
    anything is told of it; else a batch is told as `Written` at once, and synced after half of that time, so
    that it is over in time, or at once if a part of it asks for that. `leave(status)` ends the process.
    """

    def __init__(
        self,
        journal: Journal,
        tell: Callable[[Written | Synced | DiskMeasured], None],
        *,
        interval_seconds: float | None = None,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self._journal = journal
        self._tell = tell
        self._interval_seconds = interval_seconds
        self._leave = leave
        self._queue: SimpleQueue[Sequence[DiskEffect] | None] = SimpleQueue()
        self._next: list[DiskEffect] = []
        self._ends = False
        self._position = 0
        self._due = 0.0
        self._short = False
        self._looked = -_LOOK_SECONDS
        self._full, self._slow = _OnceAMinute(), _OnceAMinute()
        self._thread = Thread(target=self._run, name="disk", daemon=True)
        self._thread.start()

    def write(self, effects: Sequence[DiskEffect]) -> None:
        """Have these done, in their order; never blocks."""
        self._queue.put(effects)

    async def close(self) -> None:
        """Return once all that was to be written is on stable storage, and the journal is closed."""
        self._queue.put(None)
        await trio.to_thread.run_sync(self._thread.join)

    # --- in the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._ends or self._next:
                self._work(self._taken())
            self._sync()
            self._journal.close()
        except BaseException as error:  # noqa: BLE001  whatever it is, the disk cannot be relied on
            end_for_disk(self._journal.directory, error, self._leave)

    def _work(self, effects: list[DiskEffect]) -> None:
        entries: list[Entry] = []
        persists = at_once = False
        dropped = 0
        for effect in effects:
            if isinstance(effect, Persist):
                entries += effect.entries
                self._position = effect.position
                persists = True
                at_once = at_once or effect.at_once
            else:
                dropped = effect.mark
        if persists:
            self._append(tuple(entries), at_once=at_once)
        elif self._is_due():
            self._sync()
        if dropped:
            self._journal.drop_before(dropped)
        self._look_at_space()

    def _append(self, entries: tuple[Entry, ...], *, at_once: bool) -> None:
        began = time.monotonic()
        journal = self._journal
        behind = journal.synced < journal.appended
        journal.append(entries)
        if self._interval_seconds is None:
            self._warn_if_slow(began)
            self._tell(Synced(self._position, journal.synced, journal.stored_bytes))
            return
        self._tell(Written(self._position))
        if not behind:
            self._due = began + self._interval_seconds / 2
        if at_once or self._is_due() or journal.synced == journal.appended:
            self._sync()

    def _sync(self) -> None:
        """In mode "interval", sync what was written, and tell it."""
        if self._interval_seconds is None or not self._position:
            return
        began = time.monotonic()
        self._journal.sync()
        self._due = 0.0
        self._warn_if_slow(began)
        self._tell(Synced(self._position, self._journal.synced, self._journal.stored_bytes))

    def _is_due(self) -> bool:
        return bool(self._due) and time.monotonic() >= self._due

    def _taken(self) -> list[DiskEffect]:
        """Return what goes into the next batch; nothing if a sync is due before there is any."""
        if not self._next:
            timeout = self._patience()
            try:
                self._receive(self._queue.get(timeout=timeout))
            except Empty:
                return []
        while True:
            try:
                self._receive(self._queue.get_nowait())
            except Empty:
                break
        count = _batch(self._next)
        taken, self._next = self._next[:count], self._next[count:]
        return taken

    def _patience(self) -> float | None:
        """Return for how long nothing may be there to do."""
        now = time.monotonic()
        dues = [self._due] if self._due else []
        if self._short:
            dues.append(self._looked + _LOOK_SECONDS)  # while writes are refused, nothing else has it look
        return max(0.0, min(dues) - now) if dues else None

    def _receive(self, effects: Sequence[DiskEffect] | None) -> None:
        if effects is None:
            self._ends = True
        else:
            self._next += effects

    # --- what an operator should know ----------------------------------------------------------------------

    def _look_at_space(self) -> None:
        now = time.monotonic()
        if now < self._looked + _LOOK_SECONDS:
            return
        self._looked = now
        try:
            found = os.statvfs(self._journal.directory)
        except OSError:
            return  # a disk that fails shows when it is written
        free_bytes = found.f_bavail * found.f_frsize
        self._short = free_bytes < DISK_FREE_BYTES_MIN
        self._tell(DiskMeasured(free_bytes))
        if self._short and self._full.is_due():
            _log.warning(
                "disk_nearly_full",
                directory=str(self._journal.directory),
                free_mib=free_bytes >> 20,
                hint=_FULL_HINT,
            )

    def _warn_if_slow(self, began: float) -> None:
        seconds = time.monotonic() - began
        if seconds > _SLOW_SECONDS and self._slow.is_due():
            _log.warning(
                "disk_slow",
                directory=str(self._journal.directory),
                seconds=round(seconds, 1),
                hint=_SLOW_HINT,
            )


def end_for_disk(directory: Path, error: BaseException, leave: Callable[[int], None] = os._exit) -> None:
    """End the process, because a directory cannot be relied on any longer."""
    known = isinstance(error, DiskFailedError | DiskStalledError)
    try:
        _log.critical(
            "disk_failed",
            directory=str(directory),
            reason=str(error) if known else type(error).__name__,
            trace="" if known else "".join(traceback.format_tb(error.__traceback__)),
        )
        for output in (sys.stdout, sys.stderr):
            output.flush()
    finally:
        leave(EXIT_DISK_FAILED)


class _OnceAMinute:
    """Whether a warning is due again."""

    def __init__(self) -> None:
        self._last = -_WARN_SECONDS

    def is_due(self) -> bool:
        now = time.monotonic()
        due = now >= self._last + _WARN_SECONDS
        if due:
            self._last = now
        return due


def _batch(effects: Sequence[DiskEffect]) -> int:
    """Return how many of these go into one batch."""
    chunk_bytes = 0
    for count, effect in enumerate(effects, 1):
        if isinstance(effect, Persist):
            chunk_bytes += sum(len(entry.body) for entry in effect.entries if isinstance(entry, Chunk))
            if chunk_bytes > _CHUNK_BYTES_MAX:
                return count
    return len(effects)


_FULL_HINT = "make room: until then writes are refused; once the disk is full, this actor ends"
_SLOW_HINT = "a write waits for the disk: give --data-dir (GREENROOM_DATA_DIR) a faster or less busy one"
