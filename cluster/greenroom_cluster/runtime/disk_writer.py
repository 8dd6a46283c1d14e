"""Writes what an actor's core persists to its journal, and says what is stable.

The loop writes: what a step persists is a batch, and is in the file before the next step. That costs less
than to hand it to a thread, and waits for no sync. A thread syncs, and does all else that waits for the disk;
what comes when is decided in `links.disk_schedule`. A write or a sync that fails ends the process at once.
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

from greenroom.deadlines import NEVER_NS
from greenroom_cluster.coordination.storage import StorageFailedError
from greenroom_cluster.disk.journal import DiskFailedError, Journal
from greenroom_cluster.links.disk_schedule import DiskSchedule, End, Measure, Step, Sync, Wait
from greenroom_cluster.links.outbox import DiskEffect
from greenroom_cluster.links.sync_news import SyncNews
from greenroom_cluster.metrics.readings import Spread
from greenroom_cluster.runtime.disk_room import DiskRoom
from greenroom_cluster.runtime.log_limits import OnceAMinute
from greenroom_cluster.shard.disk_log import DiskStalledError
from greenroom_cluster.shard.effects import DropBefore, Persist
from greenroom_cluster.shard.inputs import DiskMeasured, Synced
from greenroom_cluster.shard.settings import NS_PER_SECOND, ns

EXIT_DISK_FAILED = 73
"""The status with which an actor leaves whose disk has failed."""
_SLOW_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class DiskWriter:
    """Writes to a journal, which is the writer's from now on.

    All syncs are in `news`. `tell` is called in the thread if one is awaited, and `note` with the newest
    batch of each; neither may block. `interval_seconds` None: what was written counts once it is synced,
    which is at once. Else it counts once it is written, and is synced in time, or at once if a part of it
    asks for that. `leave(status)` ends the process.
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
        self._leave = leave
        self._note = note
        self.news = SyncNews()
        self.syncs = Spread()
        """The times of all syncs so far, in nanoseconds."""
        self.free_bytes = 0
        """The room on the disk when it was last measured."""
        self._schedule = DiskSchedule(0 if interval_seconds is None else ns(interval_seconds))
        self._words: SimpleQueue[None] = SimpleQueue()
        self._room = DiskRoom(journal.directory, _FULL_HINT)
        self._slow = OnceAMinute()
        self._thread = Thread(target=self._run, name="disk", daemon=True)
        self._thread.start()

    @property
    def log_bytes(self) -> int:
        """How large the log is."""
        return self._journal.stored_bytes

    async def close(self) -> None:
        """Return once all that was written is on stable storage, and the journal is closed."""
        if self._schedule.close():
            self._words.put(None)
        await trio.to_thread.run_sync(self._thread.join)

    # --- in the loop ---------------------------------------------------------------------------------------

    def write(self, effects: Sequence[DiskEffect]) -> None:
        """Do these in their order. Raises DiskFailedError, and then the process must end."""
        for effect in effects:
            if isinstance(effect, Persist):
                self._journal.append(effect.entries)
                if self._schedule.wrote(effect):
                    self._words.put(None)
            elif self._schedule.drops(effect):
                self._words.put(None)

    # --- in the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._work()
            self._journal.close()
        except BaseException as error:  # noqa: BLE001  whatever it is, the disk cannot be relied on
            end_for_disk(self._journal.directory, error, self._leave)

    def _work(self) -> None:
        """Take the steps of the schedule to its end. Raises what made one fail."""
        schedule, failure = self._schedule, None
        step: Step = Wait(NEVER_NS)
        while not isinstance(step, End):
            try:
                self._take(step)
            except BaseException as error:  # noqa: BLE001  as above
                failure = error
                schedule.fail()
            step = schedule.next(time.monotonic_ns())
        if failure is not None:
            raise failure

    def _take(self, step: Step) -> None:
        match step:
            case Sync():
                self._sync()
            case Wait(until_ns=until_ns):
                self._wait(until_ns)
            case DropBefore(mark=mark):
                self._journal.drop_before(mark)
            case Measure():
                self._measure()

    def _wait(self, until_ns: int) -> None:
        patience = None
        if until_ns != NEVER_NS:
            patience = max(0.0, (until_ns - time.monotonic_ns()) / NS_PER_SECOND)
        try:
            self._words.get(timeout=patience)
        except Empty:
            return
        self._schedule.heard()

    def _sync(self) -> None:
        """Sync what was written, and tell it."""
        began_ns = time.monotonic_ns()
        journal = self._journal
        journal.sync()
        self.syncs.note(time.monotonic_ns() - began_ns)
        position = self._schedule.ended()
        self._note(journal.synced)
        synced = Synced(position, journal.synced, journal.stored_bytes)
        if self.news.put(synced):
            self._tell(synced)
        self._warn_if_slow(began_ns)

    # --- what an operator should know ----------------------------------------------------------------------

    def _measure(self) -> None:
        free_bytes = self._room.measure()
        if free_bytes is None:
            return
        self.free_bytes = free_bytes
        short = self._schedule.measured(free_bytes)
        self._tell(DiskMeasured(free_bytes))
        if short:
            self._room.warn(free_bytes)

    def _warn_if_slow(self, began_ns: int) -> None:
        seconds = (time.monotonic_ns() - began_ns) / NS_PER_SECOND
        if seconds > _SLOW_SECONDS and self._slow.is_due():
            _log.warning(
                "disk_slow",
                directory=str(self._journal.directory),
                seconds=round(seconds, 1),
                hint=_SLOW_HINT,
            )


def end_for_disk(directory: Path, error: BaseException, leave: Callable[[int], None] = os._exit) -> None:
    """End the process, because a directory cannot be relied on any longer."""
    known = isinstance(error, DiskFailedError | DiskStalledError | StorageFailedError)
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


_FULL_HINT = "make room: until then writes are refused; once the disk is full, this actor ends"
_SLOW_HINT = "a write waits for the disk: give --data-dir (GREENROOM_DATA_DIR) a faster or less busy one"
