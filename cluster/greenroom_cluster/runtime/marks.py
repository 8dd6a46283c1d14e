"""The mark of the record in hand: a few bytes of shared memory between an actor and its supervisor.

Beside it is how far the actor's directory has come, which the thread that writes there puts down.

The supervisor makes a file for each incarnation, readable by its own user only, and the actor unlinks it once
it has opened it. It holds no secret: a shard, an epoch and a sequence number.
"""

import mmap
import os
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

import structlog

from greenroom_cluster.node.inputs import ChildEnded, RecordMark
from greenroom_cluster.runtime.processes import busy_seconds
from greenroom_cluster.runtime.supervision import ChildProcess
from greenroom_cluster.shard.step import MARK_DIRECTORY, Mark
from greenroom_cluster.suspect_records import InHand

_LAYOUT = struct.Struct("@qqqq")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  a file of a random name, created by us alone

_log = structlog.get_logger("greenroom.supervision")


class MarkFile:
    """The supervisor's side of one incarnation's mark. Raises OSError if there is no room for it."""

    def __init__(self) -> None:
        writable = os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
        fd, self.path = tempfile.mkstemp(prefix="greenroom-mark-", dir=_SHARED_MEMORY if writable else None)
        try:
            # Allocate now: an actor that finds no room when it writes would be killed.
            os.posix_fallocate(fd, 0, mmap.PAGESIZE)
            self._memory = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
        except OSError:
            Path(self.path).unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def read(self) -> InHand | None:
        """Return the record in hand."""
        shard, epoch, sequence, _ = _LAYOUT.unpack_from(self._memory)
        return InHand(shard, epoch, sequence) if sequence else None

    def directory_mark(self) -> int:
        """Return how far the actor's directory has come, 0 if it has none."""
        return int(_LAYOUT.unpack_from(self._memory)[MARK_DIRECTORY])

    def close(self) -> None:
        """Release the memory, and unlink the file unless the actor did."""
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


class MarkFiles:
    """The mark files of a node's actors, by slot; a new incarnation closes the file of the former one."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, MarkFile]] = {}

    def open(self, slot: str, incarnation: bytes) -> str:
        """Make a file for an incarnation that is about to start; return its path, or "" for none."""
        self._close(slot)
        try:
            file = MarkFile()
        except OSError as error:
            # The actor serves anyway. But if a record ends it, its successor is not warned.
            _log.warning("record_mark_unavailable", process=slot, error=str(error))
            return ""
        self._files[slot] = (incarnation, file)
        return file.path

    def read(self, children: Iterable[ChildProcess]) -> tuple[RecordMark, ...]:
        """Return the marks of those children that are ready."""
        return tuple(self._mark_of(child) for child in children if child.ready and self._file_of(child))

    def ended(self, child: ChildProcess) -> ChildEnded:
        """Return what a child's end says of its last record, and close its file."""
        mark = self._mark_of(child)
        if self._file_of(child) is not None:
            self._close(child.name)
        return ChildEnded(mark, child.exit_status)

    def close(self) -> None:
        """Close every file."""
        for slot in list(self._files):
            self._close(slot)

    def _mark_of(self, child: ChildProcess) -> RecordMark:
        file = self._file_of(child)
        in_hand = None if file is None else file.read()
        directory_mark = 0 if file is None else file.directory_mark()
        busy = None if in_hand is None else busy_seconds(child.pid, child.started_ticks)
        return RecordMark(child.name, child.incarnation, child.pid, in_hand, busy, directory_mark)

    def _file_of(self, child: ChildProcess) -> MarkFile | None:
        incarnation, file = self._files.get(child.name, (b"", None))
        return file if incarnation == child.incarnation else None

    def _close(self, slot: str) -> None:
        _, file = self._files.pop(slot, (b"", None))
        if file is not None:
            file.close()
