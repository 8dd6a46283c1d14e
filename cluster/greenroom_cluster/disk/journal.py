"""The log of one actor slot on disk: segments of batches, of which the newest is written.

    log-<number>-<copy>.log     a segment; the number is that of its first batch
    synced, oldest              what must be there when the log is read again (`notes`)

Opening writes the newest segment anew, as its next copy, and syncs that before anything is told of what was
read. What the kernel shows of a file need not be on the disk: after a kill it holds writes that were never
synced, and after a failed sync pages that no later sync will write. It adds no batch: the number of the
newest tells a directory from a copy made before, and must not rise by opening that again and again.
"""

import mmap
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from greenroom.errors import GreenroomError, UsageError
from greenroom_cluster.disk.batches import Batch, DamagedError, Tail, read_tail, sealed
from greenroom_cluster.disk.directory import Directory
from greenroom_cluster.disk.entries import Entry, EntryRead, decode_entries, encode_entries
from greenroom_cluster.disk.notes import (
    NOTE_BYTES,
    Known,
    decode_note,
    encode_beginning,
    encode_note,
    known_of,
)
from greenroom_cluster.disk.segment import Segment, read_segment
from greenroom_cluster.lasting_files import sync_directory

SEGMENT_BYTES = 16 << 20
_NEXT = "next.log"
"""A segment that has no name yet, and holds nothing that counts."""
_NAME = re.compile(r"log-(\d{16})-(\d{6})\.log")


class DiskFailedError(GreenroomError):
    """A write or a sync failed: the process must end, and nothing is tried again."""


class Found(NamedTuple):
    """A segment by its name: the number of its first batch, and how often it was written anew."""

    first: int
    copy: int
    path: Path


class Journal:
    """The log in a directory, which is closed with it.

    A batch survives the end of this process once it is appended, and is on stable storage once a `sync` that
    was begun later has returned. One thread may append while another does all else, which blocks for the
    disk. `appended` and `synced` are the newest batches of which that is so, `directory` is where they are.

    Raises DamagedError if the directory lacks what was synced. DiskFailedError, when a write or a sync fails,
    is raised then and on every later call.
    """

    def __init__(self, directory: Directory, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._owned = directory
        self.directory = directory.path
        self._segment_bytes = segment_bytes
        self._failure = ""
        self._sealed_bytes = 0
        self._closed = False
        self._note: mmap.mmap | None = None
        # Full, and still to be synced; and where to go on once the present one is full too.
        self._full: deque[tuple[Found, Segment]] = deque()
        self._next: Segment | None = None
        self._unnamed = False
        try:
            with self._final():
                self._open()
        except BaseException:
            self._release()
            raise

    def _open(self) -> None:
        self._note, hint = opened_note(self.directory / "synced")
        known = known_of(read_beginning(self.directory), hint)
        segments = counting_segments(self.directory, known)
        counting = {found.path for found in segments}
        for found in _named_segments(self.directory):
            if found.path not in counting:
                found.path.unlink()
        if not segments:
            self._note_beginning(Known(1, 0))
        read = tail_of(segments, known)
        self.appended = self.synced = read.last
        self._sealed = segments[: read.unsettled]
        for found, batches in zip(segments[read.unsettled :], read.batches, strict=True):
            if batches:
                self._sealed.append(self._written_anew(found, batches))
            found.path.unlink()
        followers = [found.first for found in self._sealed[1:]] + [self.appended + 1]
        self._unread = [(found, next_ - 1) for found, next_ in zip(self._sealed, followers, strict=False)]
        self._weigh()
        self._first = self.appended + 1
        self._segment = Segment(_path(self.directory, self._first, 0))
        sync_directory(self.directory)

    @property
    def stored_bytes(self) -> int:
        """What all segments take on disk."""
        full_bytes = sum(full.stored_bytes for _, full in self._full)
        return self._sealed_bytes + full_bytes + self._segment.stored_bytes

    def batches(self) -> Iterator[tuple[int, int, tuple[EntryRead, ...]]]:
        """Yield number, size and entries of each batch that was there at the opening.

        Once, and before anything is dropped.

        No more than a segment is in memory at a time. Raises DamagedError if a batch is missing that was
        synced, or is none of ours: then nothing that was yielded counts.
        """
        unread, self._unread = self._unread, []
        for found, last in unread:
            for batch in sealed(read_segment(found.path), found.first, last):
                yield batch.number, len(batch.body), entries_of(batch)

    def append(self, entries: tuple[Entry, ...]) -> int:
        """Write entries as one batch, and return its number. It waits for no sync."""
        if self._failure:
            raise DiskFailedError(self._failure)
        number = self.appended + 1
        try:
            if self._segment.used_bytes >= self._segment_bytes and self._next is not None:
                self._go_on_in(self._next, number)
            self._segment.append(Batch(number, self.synced, encode_entries(entries)))
        except OSError as error:
            self._fail(error)
            raise DiskFailedError(self._failure) from error
        self.appended = number
        return number

    def sync(self) -> None:
        """Wait until all that was appended is on stable storage; see that there will be room for more."""
        with self._final():
            self._sync()
            if self._next is None and self._segment.used_bytes >= self._segment_bytes // 2:
                fresh = self.directory / _NEXT
                fresh.unlink(missing_ok=True)
                self._next = Segment(fresh)

    def drop_before(self, number: int) -> None:
        """Delete the segments that hold no batch from this one on."""
        with self._final():
            first_unsealed = self._full[0][0].first if self._full else self._first
            begins = [*(found.first for found in self._sealed[1:]), first_unsealed]
            dropped = sum(follower <= number for follower in begins[: len(self._sealed)])
            if dropped:
                # First: the deletions may reach the disk in any order, and none of them may look like damage.
                # What stands in for what they delete is on stable storage, and must be there from now on.
                self._note_beginning(Known(begins[dropped - 1], self.synced))
                for found in self._sealed[:dropped]:
                    found.path.unlink()
                del self._sealed[:dropped]
                sync_directory(self.directory)
                self._weigh()

    def close(self) -> None:
        """Seal what was written, and close the directory; closing twice is fine."""
        if self._closed:
            return
        try:
            if not self._failure:
                with self._final():
                    self._sync()
                    self._segment.seal()
        finally:
            for segment in (*[full for _, full in self._full], self._segment):
                segment.abandon()
            if self._next is not None:
                self._next.abandon()
                self._next.path.unlink(missing_ok=True)
            self._release()

    def _go_on_in(self, following: Segment, first: int) -> None:
        """Append to the next segment from now on. Its name is synced before a batch in it counts so."""
        path = _path(self.directory, first, 0)
        following.path.rename(path)
        following.path = path
        self._unnamed = True
        self._full.append((Found(self._first, 0, self._segment.path), self._segment))
        self._segment, self._next, self._first = following, None, first

    def _sync(self) -> None:
        number = self.appended
        if self.synced == number:
            return
        while True:
            segment = self._segment
            self._sync_full()
            if segment is self._segment:
                break  # else it has become full meanwhile
        segment.sync()
        if self._unnamed:
            self._unnamed = False
            sync_directory(self.directory)
        self.synced = number
        self._note_synced()

    def _sync_full(self) -> None:
        while self._full:
            found, full = self._full[0]
            full.sync()
            full.seal()
            self._sealed.append(found)
            self._full.popleft()
            self._weigh()

    def _note_synced(self) -> None:
        """Write down what is synced: without that, losing the very last batches looks like a torn end."""
        assert self._note is not None
        self._note[:] = encode_note(self.synced)

    def _note_beginning(self, known: Known) -> None:
        """Write down, lastingly, what the log begins with; in place, for the disk may be full."""
        file = os.open(self.directory / "oldest", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(file, encode_beginning(known), 0)
            os.fsync(file)
        finally:
            os.close(file)

    @contextmanager
    def _final(self) -> Iterator[None]:
        """Have an error of the disk be the last one."""
        if self._failure:
            raise DiskFailedError(self._failure)
        try:
            yield
        except OSError as error:
            self._fail(error)
            raise DiskFailedError(self._failure) from error

    def _written_anew(self, found: Found, tail: Sequence[Batch]) -> Found:
        """Write what is believed of a segment as its next copy, which counts from when its name is synced."""
        copy = Found(found.first, found.copy + 1, _path(self.directory, found.first, found.copy + 1))
        fresh = self.directory / _NEXT
        fresh.unlink(missing_ok=True)
        segment = Segment(fresh)
        segment.append_all(tail)
        segment.sync()
        segment.seal()
        fresh.rename(copy.path)
        sync_directory(self.directory)
        return copy

    def _weigh(self) -> None:
        self._sealed_bytes = sum(found.path.stat().st_size for found in self._sealed)

    def _release(self) -> None:
        self._closed = True
        if self._note is not None:
            self._note.close()
            self._note = None
        self._owned.close()

    def _fail(self, error: OSError) -> None:
        self._failure = (
            f"writing to {self.directory} failed ({error}): this actor ends, and the other copy of its "
            "sessions serves them; see that the disk is writable and has room"
        )


def tail_of(segments: Sequence[Found], known: Known) -> Tail:
    """Read what need not have been synced. Raises DamagedError if it lacks what was."""
    firsts = [found.first for found in segments]
    return read_tail(firsts, lambda index: read_segment(segments[index].path), known.synced)


def found_segments(directory: Path) -> list[Found]:
    """Return the segments in a directory in their order; of several copies of one the newest counts.

    Raises UsageError if the log has the format of a database, which was never released.
    """
    if any(directory.glob("log-*.db")):
        raise UsageError(
            f"the log in the directory {directory} is an SQLite database, as a greenroom under development "
            "wrote it, and is not read: start the greenroom that wrote it, or choose an empty directory with "
            "--data-dir (GREENROOM_DATA_DIR)"
        )
    by_first = {found.first: found for found in sorted(_named_segments(directory))}
    return [by_first[first] for first in sorted(by_first)]


def counting_segments(directory: Path, known: Known) -> list[Found]:
    """Return the segments that were not dropped, in their order.

    Raises DamagedError if the log does not begin where it must, and UsageError as `found_segments` does.
    """
    oldest = known.first
    segments = [found for found in found_segments(directory) if found.first >= oldest]
    # A crash at an opening may leave an empty log without a file.
    lacks = segments[0].first > oldest > 0 if segments else known.synced > 0 or oldest > 1
    if lacks:
        raise DamagedError(f"batch {max(oldest, 1)} is missing, which the log begins with")
    return segments


def read_beginning(directory: Path) -> bytes:
    """Return what the file `oldest` says; nothing if it is not there."""
    with suppress(FileNotFoundError):
        return (directory / "oldest").read_bytes()
    return b""


def _named_segments(directory: Path) -> list[Found]:
    """Return all files with the name of a segment."""
    names = ((path, _NAME.fullmatch(path.name)) for path in directory.glob("log-*.log"))
    return [Found(int(name[1]), int(name[2]), path) for path, name in names if name]


def opened_note(path: Path) -> tuple[mmap.mmap, int]:
    """Return the file `synced` in memory, to be written without a call, and what it says now."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        content = os.pread(file, NOTE_BYTES, 0)
        if len(content) < NOTE_BYTES:
            os.pwrite(file, encode_note(0), 0)
        return mmap.mmap(file, NOTE_BYTES), decode_note(content)
    finally:
        os.close(file)


def entries_of(batch: Batch) -> tuple[EntryRead, ...]:
    """Return the entries of a batch. Raises DamagedError if these are none."""
    try:
        return decode_entries(batch.body)
    except msgspec.MsgspecError as error:
        raise DamagedError(f"batch {batch.number} holds what this release cannot read: {error}") from error


def _path(directory: Path, first: int, copy: int) -> Path:
    return directory / f"log-{first:016d}-{copy:06d}.log"
