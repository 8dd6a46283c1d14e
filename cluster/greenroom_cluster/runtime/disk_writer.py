"""Writes what an actor's core persists to its journal, and says what is stable.

The loop writes: what a step persists is a batch, and is in the file before the next step. That costs less
than to hand it to a thread, and waits for no sync. A thread syncs, and does all else that waits for the disk;
what was written while it did is synced next. A write or a sync that fails ends the process at once: what is
on the disk is unknown then, and nothing is tried again.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Literal

import structlog
import trio

from greenroom_cluster.disk.journal import DiskFailedError, Journal
from greenroom_cluster.links.outbox import DiskEffect
from greenroom_cluster.links.sync_news import SyncNews
from greenroom_cluster.shard.disk_log import DiskStalledError
from greenroom_cluster.shard.effects import Persist
from greenroom_cluster.shard.inputs import DiskMeasured, Synced
from greenroom_cluster.shard.settings import DISK_FREE_BYTES_MIN

EXIT_DISK_FAILED = 73
"""The status with which an actor leaves whose disk has failed."""
_LOOK_SECONDS = 5.0
_WARN_SECONDS = 60.0
_SLOW_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class DiskWriter:
    """Writes to a journal, which is the writer's from now on.

    All syncs are in `news`. `tell` is called in the thread if one is awaited, and `note` with the newest
    batch of each; neither may block. `interval_seconds` None: what was written counts once it is synced,
    which is at once. Else it counts once it is written, and is synced after half of that time, so that it is
    over in time, or at once if a part of it asks for that. `leave(status)` ends the process.
    """

    def __init__(
        self,
        journal: Journal,
        tell: Callable[[Synced | DiskMeasured], None],
        *,
        interval_seconds: float | None = None,
        note: Callable[[int], None] = lambda _: None,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self._journal = journal
        self._tell = tell
        self._interval_seconds = interval_seconds
        self._leave = leave
        self._note = note
        self.news = SyncNews()
        # Set in the loop.
        self._position = self._drop_before = 0
        self._at_once = False
        # A word in the queue has the thread look; `asked`: there is one.
        self._asked = False
        self._queue: SimpleQueue[Literal["look", "end"]] = SimpleQueue()
        self._synced = self._dropped = 0
        self._due = 0.0
        self._short = False
        self._looked = -_LOOK_SECONDS
        self._full, self._slow = _OnceAMinute(), _OnceAMinute()
        self._thread = Thread(target=self._run, name="disk", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Return once all that was written is on stable storage, and the journal is closed."""
        self._queue.put("end")
        await trio.to_thread.run_sync(self._thread.join)

    # --- in the loop ---------------------------------------------------------------------------------------

    def write(self, effects: Sequence[DiskEffect]) -> None:
        """Do these in their order. Raises DiskFailedError, and then the process must end."""
        journal = self._journal
        for effect in effects:
            if isinstance(effect, Persist):
                journal.append(effect.entries)
                self._position = effect.position
                if self._interval_seconds is None:
                    self._ask()
                elif effect.at_once:
                    self._at_once = True
                    self._ask()
                elif self._synced >= effect.position - 1:
                    self._ask()  # it is the first that waits for a sync
            else:
                self._drop_before = effect.mark
                self._ask()

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._queue.put("look")

    # --- in the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._awaited():
                self._work()
            self._at_once = True
            self._work()
            self._journal.close()
        except BaseException as error:  # noqa: BLE001  whatever it is, the disk cannot be relied on
            end_for_disk(self._journal.directory, error, self._leave)

    def _awaited(self) -> bool:
        """Wait until there is something to do; return whether to go on after it."""
        try:
            asked = self._queue.get(timeout=self._patience())
        except Empty:
            return True
        # First, so that what is asked for from now on is seen.
        self._asked = False
        return asked == "look"

    def _work(self) -> None:
        interval_seconds = self._interval_seconds
        if self._synced < self._position:
            if interval_seconds is None or self._at_once or self._is_due():
                self._sync()
            elif not self._due:
                self._due = time.monotonic() + interval_seconds / 2
        if self._dropped < (drop_before := self._drop_before):
            self._dropped = drop_before
            self._journal.drop_before(drop_before)
        self._look_at_space()

    def _sync(self) -> None:
        """Sync what was written, and tell it."""
        began = time.monotonic()
        self._at_once = False
        # What is written meanwhile need not be covered.
        position = self._position
        self._journal.sync()
        self._synced = position
        self._note(self._journal.synced)
        synced = Synced(position, self._journal.synced, self._journal.stored_bytes)
        if self.news.put(synced):
            self._tell(synced)
        self._due = 0.0
        if self._interval_seconds is not None and position < self._position:
            self._due = began + self._interval_seconds / 2
        self._warn_if_slow(began)

    def _is_due(self) -> bool:
        return bool(self._due) and time.monotonic() >= self._due

    def _patience(self) -> float | None:
        """Return for how long nothing may be there to do."""
        dues = [self._due] if self._due else []
        if self._short:
            dues.append(self._looked + _LOOK_SECONDS)  # while writes are refused, nothing else has it look
        return max(0.0, min(dues) - time.monotonic()) if dues else None

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


_FULL_HINT = "make room: until then writes are refused; once the disk is full, this actor ends"
_SLOW_HINT = "a write waits for the disk: give --data-dir (GREENROOM_DATA_DIR) a faster or less busy one"
