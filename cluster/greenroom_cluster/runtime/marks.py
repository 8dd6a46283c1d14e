"""The mark of the record in hand: a few bytes of shared memory between an actor and its supervisor.

The supervisor makes a file for each incarnation, readable by its own user alone, and the actor takes its name
away as soon as it has opened it. No secret is in it: a shard, an epoch and a number.
"""

import mmap
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

import structlog

from greenroom_cluster.coordination.messages import Suspicion
from greenroom_cluster.runtime.driver import EXIT_CORE_FAILED
from greenroom_cluster.runtime.processes import busy_seconds
from greenroom_cluster.runtime.supervision import ChildProcess
from greenroom_cluster.shard.context import Mark
from greenroom_cluster.suspicion import CRASH_SIGNALS, InHand, Watch, bounded

_LAYOUT = struct.Struct("@qqq")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  a file of a random name, created by us alone

_log = structlog.get_logger("greenroom.supervision")


class MarkFile:
    """The supervisor's side: where one incarnation marks. Raises OSError if there is no room for it."""

    def __init__(self) -> None:
        writable = os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
        fd, self.path = tempfile.mkstemp(prefix="greenroom-mark-", dir=_SHARED_MEMORY if writable else None)
        try:
            # Room is taken now: an actor that finds none when it writes would be killed for it.
            os.posix_fallocate(fd, 0, mmap.PAGESIZE)
            self._memory = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
        except OSError:
            Path(self.path).unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def read(self) -> InHand | None:
        """Return the record in hand."""
        shard, epoch, sequence = _LAYOUT.unpack_from(self._memory)
        return InHand(shard, epoch, sequence) if sequence else None

    def close(self) -> None:
        """Let go of the memory, and of the name if the actor did not."""
        self._memory.close()
        Path(self.path).unlink(missing_ok=True)


def open_mark(path: str) -> Mark | None:
    """Return the actor's side of a mark file; None for an empty path."""
    if not path:
        return None
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        memory = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED)
    finally:
        os.close(fd)
    Path(path).unlink(missing_ok=True)
    return memoryview(memory).cast("q")


class _Watched:
    """One incarnation under watch."""

    __slots__ = ("file", "incarnation", "watch")

    def __init__(self, incarnation: bytes, file: MarkFile) -> None:
        self.incarnation = incarnation
        self.file = file
        self.watch = Watch()


class RecordWatches:
    """The marks of a node's actors, and what they tell.

    Kept by slot: with a new incarnation the watch of the former one is over.
    """

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}

    def begin(self, slot: str, incarnation: bytes) -> str:
        """Watch an incarnation that is about to start; return the path at which it is to mark, or ""."""
        self._end(slot)
        try:
            file = MarkFile()
        except OSError as error:
            # The actor serves all the same; a record that ends it is then not spared its successor.
            _log.warning("record_mark_unavailable", process=slot, error=str(error))
            return ""
        self._watched[slot] = _Watched(incarnation, file)
        return file.path

    def look(self, children: Mapping[str, ChildProcess]) -> bool:
        """Look at every mark; whether the suspicions are others than before."""
        changed = False
        for slot, watched in self._watched.items():
            child = children.get(slot)
            if child is None or child.incarnation != watched.incarnation or not child.ready:
                continue
            in_hand = watched.file.read()
            busy = None if in_hand is None else busy_seconds(child.pid, child.started_ticks)
            if watched.watch.look(in_hand, busy):
                changed = True
                self._tell(slot, child.pid, watched.watch.suspect)
        return changed

    @property
    def suspicions(self) -> tuple[Suspicion, ...]:
        """The records on which actors hang now, or hung; not more than one message holds."""
        return bounded(
            each
            for watched in self._watched.values()
            for each in watched.watch.suspicions(watched.incarnation)
        )

    def ended(self, child: ChildProcess) -> tuple[Suspicion, ...]:
        """Return what is known of a child's records at its end; its watch is over."""
        watched = self._watched.get(child.name)
        if watched is None or watched.incarnation != child.incarnation:
            return ()
        status = child.exit_status
        crashed = status == EXIT_CORE_FAILED or (status is not None and -status in CRASH_SIGNALS)
        busy = busy_seconds(child.pid, child.started_ticks)
        watched.watch.ended(watched.file.read(), busy, crashed=crashed)
        if watched.watch.suspect is not None:
            self._tell(child.name, child.pid, watched.watch.suspect)
        suspicions = watched.watch.suspicions(child.incarnation)
        self._end(child.name)
        return suspicions

    def close(self) -> None:
        """End every watch."""
        for slot in list(self._watched):
            self._end(slot)

    def _end(self, slot: str) -> None:
        watched = self._watched.pop(slot, None)
        if watched is not None:
            watched.file.close()

    @staticmethod
    def _tell(slot: str, pid: int, suspect: InHand | None) -> None:
        if suspect is None:
            _log.warning("record_passed", process=slot, pid=pid)
            return
        _log.warning(
            "record_suspected",
            process=slot,
            pid=pid,
            shard=suspect.shard,
            epoch=suspect.epoch,
            sequence=suspect.sequence,
        )
