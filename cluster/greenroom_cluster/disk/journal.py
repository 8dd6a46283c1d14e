"""The log of one actor slot on disk: segments of batches, of which the newest is written.

    lock                        held with flock(2) while an actor uses the directory
    log-<number>-<copy>.db      a segment; the number is that of its first batch
    synced                      the newest batch known to be on stable storage; a hint, itself never synced

Opening writes the newest segment anew, as its next copy, and syncs that before anything is told of what was
read. What the kernel shows of a file need not be on the disk: after a kill it holds writes that were never
synced, and after a failed sync pages that no later sync will write.
"""

import fcntl
import os
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from greenroom.errors import GreenroomError, UsageError
from greenroom_cluster.disk.batches import Batch, believable, encode_batch
from greenroom_cluster.disk.entries import Entry, decode_entries, encode_entries
from greenroom_cluster.disk.segment import Segment, read_segment, remove_segment
from greenroom_cluster.lasting_files import sync_directory

SEGMENT_BYTES = 64 << 20
_NOTE = struct.Struct(">QI")


class DiskFailedError(GreenroomError):
    """A write or a sync failed: the process must end, and nothing is tried again."""


class _Found(NamedTuple):
    """A segment by its name."""

    first: int
    copy: int
    path: Path


class Journal:
    """The directory of one actor slot, locked for this process while open. Its methods block.

    Raises UsageError if another process holds the directory or it cannot be used, DamagedError if it lacks
    what was synced.
    """

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._failure = ""
        self._sealing: Thread | None = None
        self._lock = _locked(directory)
        self._note = -1
        try:
            self._note = os.open(directory / "synced", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._open()
        except BaseException:
            self._release()
            raise

    def _open(self) -> None:
        segments = _segments(self._directory)
        self._tail: list[Batch] = []
        self.synced = 0
        if segments:
            newest = segments.pop()
            self._tail = believable(read_segment(newest.path), newest.first, self._noted())
            self.synced = newest.first + len(self._tail) - 1
            if self._tail:
                segments.append(self._written_anew(newest))
            remove_segment(newest.path)
        self._sealed = segments
        self._read = segments[: -1 if self._tail else None]
        self._segment = self._begun()
        self.note_synced()

    def entries(self) -> Iterator[Entry]:
        """Yield what the directory held when it was opened, once, before anything is appended.

        Raises DamagedError if a batch is missing that was synced.
        """
        followers = [found.first for found in self._sealed[1:]] + [self._segment.first]
        for found, follower in zip(self._read, followers, strict=False):
            for batch in believable(read_segment(found.path), found.first, follower - 1):
                yield from decode_entries(batch.body)
        tail, self._tail, self._read = self._tail, [], []
        for batch in tail:
            yield from decode_entries(batch.body)

    def append(self, entries: tuple[Entry, ...]) -> int:
        """Write entries as one batch, which is on stable storage when this returns; return its number.

        Raises DiskFailedError, then and on every later call.
        """
        if self._failure:
            raise DiskFailedError(self._failure)
        batch = Batch(self.synced + 1, self.synced, encode_entries(entries))
        try:
            self._segment.append(batch.number, encode_batch(batch))
            self.synced = batch.number
            if self._segment.written_bytes >= self._segment_bytes:
                self._seal_behind()
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            raise DiskFailedError(self._failure) from error
        return self.synced

    def note_synced(self) -> None:
        """Write down what is synced: without that, losing the very last batches looks like a torn end."""
        numbers = struct.pack(">Q", self.synced)
        os.pwrite(self._note, _NOTE.pack(self.synced, zlib.crc32(numbers)), 0)

    def drop_before(self, number: int) -> None:
        """Delete the segments that hold no batch from this one on."""
        self._wait_sealed()
        while self._sealed:
            follower = self._sealed[1].first if len(self._sealed) > 1 else self._segment.first
            if follower > number:
                break
            remove_segment(self._sealed.pop(0).path)
        sync_directory(self._directory)

    def close(self) -> None:
        """Seal what was written, and give up the lock; closing twice is fine."""
        if self._lock < 0:
            return
        self._wait_sealed()
        if self._failure:
            self._segment.abandon()
        else:
            self._segment.seal()
            self.note_synced()
        self._release()

    def _written_anew(self, found: _Found) -> _Found:
        """Write what is believed of a segment as its next copy, which counts from when its name is synced."""
        copy = _Found(found.first, found.copy + 1, _path(self._directory, found.first, found.copy + 1))
        fresh = self._directory / "next.db"
        remove_segment(fresh)
        segment = Segment(fresh, found.first)
        segment.append_all([(batch.number, encode_batch(batch)) for batch in self._tail])
        segment.seal()
        fresh.rename(copy.path)
        sync_directory(self._directory)
        return copy

    def _begun(self) -> Segment:
        segment = Segment(_path(self._directory, self.synced + 1, 0), self.synced + 1)
        sync_directory(self._directory)
        return segment

    def _seal_behind(self) -> None:
        """Go on in the next segment, and seal the full one meanwhile: that takes long."""
        self._wait_sealed()
        full = self._segment
        self._sealed.append(_Found(full.first, 0, full.path))
        self._segment = self._begun()
        self._sealing = Thread(target=self._seal, args=(full,), name="sealing", daemon=True)
        self._sealing.start()

    def _seal(self, full: Segment) -> None:
        try:
            full.seal()
        except sqlite3.Error as error:
            self._fail(error)

    def _wait_sealed(self) -> None:
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None

    def _noted(self) -> int:
        data = os.pread(self._note, _NOTE.size, 0)
        if len(data) < _NOTE.size:
            return 0
        number, checksum = _NOTE.unpack(data)
        return int(number) if checksum == zlib.crc32(data[:8]) else 0

    def _release(self) -> None:
        for file in (self._note, self._lock):
            if file >= 0:
                os.close(file)
        self._note = self._lock = -1

    def _fail(self, error: sqlite3.Error | OSError) -> None:
        self._failure = (
            f"writing to {self._directory} failed ({error}): this actor ends, and the other copy of its "
            "sessions serves them; see that the disk is writable and has room"
        )


def _locked(directory: Path) -> int:
    """Return a locked file in the directory, which is made with mode 0700 if it is not there."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(
            f"the directory {directory} cannot be used ({error.strerror}): make it a directory that this "
            "user may write to, or choose another with --data-dir (GREENROOM_DATA_DIR)"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise UsageError(
            f"another process uses the directory {directory}: stop it, or choose another with --data-dir "
            "(GREENROOM_DATA_DIR)"
        ) from error
    return lock


def _segments(directory: Path) -> list[_Found]:
    """Return the segments in their order; of several copies of one the newest counts, and the others go."""
    by_first: dict[int, _Found] = {}
    for path in sorted(directory.glob("log-*.db")):
        _, first, copy = path.stem.split("-")
        found = _Found(int(first), int(copy), path)
        former = by_first.get(found.first)
        if former is not None:
            remove_segment(former.path)
        by_first[found.first] = found
    return [by_first[first] for first in sorted(by_first)]


def _path(directory: Path, first: int, copy: int) -> Path:
    return directory / f"log-{first:016d}-{copy:06d}.db"
