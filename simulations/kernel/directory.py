"""Directories that outlive the processes which write to them, as files that crashes and bad disks can harm.

A batch is written (the kernel has it: it survives the end of the process) and later synced (it survives a
power cut). A power cut keeps a prefix of what was written and not synced; of the rest nothing, a part, or a
batch that follows a hole. After a failed sync the kernel shows pages that no later sync will write. What may
be believed of the bytes that are left, and whether a directory lies where it was used, the product decides.

The mark is the number of the newest synced batch. Opening adds none: it writes the newest file anew.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec

from greenroom_cluster.disk import batches as rules
from greenroom_cluster.disk import notes
from greenroom_cluster.disk.batches import HEADER_BYTES, MARK_BYTES, Batch
from greenroom_cluster.disk.directory import Identity, Place, entered
from greenroom_cluster.disk.entries import Chunk, Entry, EntryRead, decode_entries, encode_entries
from greenroom_cluster.disk.notes import Known
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND

SEGMENT_BYTES = 1000
FLIPS = ("tail", "middle", "chunk")
_CLUSTER = "simulated"


class InUseError(Exception):
    """A process that lives holds the directory."""


class FailedError(Exception):
    """A sync failed, or there is no room: the process that met it ends."""


class Written(NamedTuple):
    """A batch, and the newest batch that was synced when it was written."""

    synced: int
    body: bytes

    @property
    def size_bytes(self) -> int:
        """What it takes."""
        return HEADER_BYTES + len(self.body)


class Segment(NamedTuple):
    """A file of batches from `first` on."""

    first: int
    mark: bytes


class Backup(msgspec.Struct, frozen=True):
    """A copy of a directory, taken while it was in use."""

    synced: int
    batches: dict[int, Written]
    segments: tuple[Segment, ...]
    beginning: bytes
    rested: int


class Directory:
    """What one actor slot keeps. `batches` are those written, by number; those above `synced` are only that.

    `lies` is where it is now. `sync_ns` is how long a sync takes in the middle, and `room` how many bytes
    the disk still has, None for enough. While `failing` a sync fails; while `hanging` it does not end.

    `openers` are all that ever opened it; it is `cloned` if it belongs elsewhere. `behind` is what an older
    copy, which is in its place, has replaced; with `taken_back` an older copy has come to stay, and with
    `lacks` what once was stable was cut off. It is `misjudged` if that was known to be synced, and `shaken`
    if power was cut since it was opened, or a sync failed.
    """

    def __init__(
        self,
        slot: str,
        identity: bytes,
        random: Random,
        sync_ns: int = MILLISECOND,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.slot = slot
        self.random = random
        self.sync_ns = sync_ns
        machine, device, filesystem = slot.partition("/")[0], 1, 17
        self.lies = Place(machine, "", device, filesystem, random.getrandbits(32))
        self.known = Identity(identity, _CLUSTER, self.lies)
        self.synced = 0
        self.batches: dict[int, Written] = {}
        self.stored_bytes = 0
        self.room: int | None = None
        self.owner: Process | None = None
        self.openers: list[Process] = []
        self.failing = False
        self.behind: Backup | None = None
        self.cloned = self.taken_back = self.lacks = self.misjudged = False
        self.shaken = self.hanging = False
        self.waiting: list[Callable[[], None]] = []
        self._segment_bytes = segment_bytes
        self._segments: list[Segment] = []
        self._newest_bytes = 0
        # What the file `synced` says, and what it says at least after a power cut.
        self._note = self._note_kept = 0
        # What the file `oldest` says; and up to where something was deleted because of what was synced.
        self._beginning = b""
        self._rested = 0
        # Batches as they are found in place of what was written: damaged, or left by a power cut.
        self._flipped: dict[int, bytes] = {}
        self._debris: dict[int, bytes] = {}
        # Above this the kernel shows what is not on the disk, for a sync has failed.
        self._shown_only: int | None = None

    @property
    def identity(self) -> bytes:
        """Which directory it says that it is."""
        return self.known.directory

    @property
    def newest(self) -> int:
        """The number of the newest batch written."""
        return next(reversed(self.batches), self.synced)

    @property
    def doubtful(self) -> bool:
        """Whether it may lack what once was stable."""
        return self.taken_back or self.lacks or self.behind is not None

    @property
    def harmed(self) -> bool:
        """Whether anything that it held is not as it was written."""
        return bool(self._flipped)

    # --- opening -----------------------------------------------------------------------------------------

    def open(self, process: Process, incarnation: bytes = b"", boot: str = "1") -> dict[int, bytes]:
        """Let this process own it; return the batches that it holds.

        Raises InUseError, UsageError if it was moved here, DamagedError, and FailedError.
        """
        if self.owner is not None and self.owner.alive:
            raise InUseError(self.slot)
        place = msgspec.structs.replace(self.lies, boot=boot)
        self.known = entered(self.known, place, self.known.cluster, incarnation, Path(self.slot))
        harmed = self.harmed
        self._write_anew()
        found: dict[int, bytes] = {}
        for segment, follower in zip(self._segments, self._segments[1:], strict=False):
            for batch in rules.sealed(self._found(segment), segment.first, follower.first - 1):
                found[batch.number] = batch.body
        if harmed and found != {number: written.body for number, written in self.batches.items()}:
            self.misjudged = True
        self.owner, self.shaken = process, False
        self.openers.append(process)
        return found

    def _write_anew(self) -> None:
        """Make stable, in other segments, what may be believed of those that need not have been synced."""
        segments = self._segments
        tail = rules.read_tail(
            [each.first for each in segments],
            lambda index: self._found(segments[index]),
            notes.known_of(self._beginning, self._note).synced,
        )
        if segments:
            size_bytes = sum(len(batch.body) + HEADER_BYTES for part in tail.batches for batch in part)
            if self.failing or not self._has_room(size_bytes):
                raise FailedError(self.slot)
        if tail.batches:
            first = segments[tail.unsettled].first
            del segments[tail.unsettled :]
            self._keep(first, [batch for part in tail.batches for batch in part])
        segments += [self._begun(part[0].number) for part in tail.batches if part]
        segments.append(self._begun(self.newest + 1))
        self._newest_bytes = 0
        if self.newest > self.synced:
            # Of what was not written anew no sync knows.
            self._shown_only = self.synced

    def _keep(self, first: int, tail: list[Batch]) -> None:
        last = first + len(tail) - 1
        if last < self.synced:
            # Whoever watches the batches is to begin again.
            self.lacks, self.batches = True, dict(self.batches)
            told = max(self._note, self._rested, *(written.synced for written in self.batches.values()))
            self.misjudged = self.misjudged or last < told
        for number in [each for each in self.batches if each > last]:
            self._delete(number)
        for batch in tail:
            if batch.number not in self.batches:
                self._enter(batch.number, Written(batch.synced, batch.body))
        self._debris.clear()
        self._flipped = {number: data for number, data in self._flipped.items() if number < first}
        self._shown_only = None
        self.synced = last

    def _begun(self, first: int) -> Segment:
        return Segment(first, self.random.randbytes(MARK_BYTES))

    def _found(self, segment: Segment) -> list[Batch | None]:
        """Return what is in a segment, as the product reads it."""
        follower = next((each.first for each in self._segments if each.first > segment.first), 1 << 62)
        numbers = {*self.batches, *self._debris, *self._flipped}
        here = sorted(number for number in numbers if segment.first <= number < follower)
        data = b"".join(self._bytes(number, segment.mark) for number in here)
        return list(rules.found_batches(data, 0, segment.mark))

    def _bytes(self, number: int, mark: bytes) -> bytes:
        harmed = self._flipped.get(number, self._debris.get(number))
        if harmed is not None:
            return harmed
        written = self.batches[number]
        return rules.encode_batch(Batch(number, written.synced, written.body), mark)

    def _segment_of(self, number: int) -> Segment:
        return next(each for each in reversed(self._segments) if each.first <= number)

    def read(self) -> list[EntryRead]:
        """Return what was written, whatever has become of it."""
        return [entry for written in self.batches.values() for entry in decode_entries(written.body)]

    # --- writing -----------------------------------------------------------------------------------------

    def write(self, entries: tuple[Entry, ...]) -> int:
        """Write a batch; return its number. Raises FailedError if there is no room."""
        number = self.newest + 1
        written = Written(self.synced, encode_entries(entries))
        if not self._has_room(written.size_bytes):
            raise FailedError(self.slot)
        # A sync has seen to the next one since this one was begun.
        if self._newest_bytes >= self._segment_bytes and self.synced >= self._segments[-1].first:
            self._segments.append(self._begun(number))
            self._newest_bytes = 0
        self._enter(number, written)
        self._newest_bytes += written.size_bytes
        return number

    def settle(self, number: int) -> None:
        """Have the batches up to this one on stable storage, unless a failed sync has lost one of them."""
        if self._shown_only is not None:
            return
        self.synced = self._note = max(self.synced, min(number, self.newest))
        if self.random.random() < 0.2:
            self._note_kept = self._note  # the kernel writes that back when it likes

    def drop_before(self, number: int) -> None:
        """Delete the files that hold no batch from this one on."""
        begins = [each.first for each in self._segments[1:] if each.first <= number]
        if begins:
            self._beginning, self._rested = (
                notes.encode_beginning(Known(begins[-1], self.synced)),
                self.synced,
            )
        while len(self._segments) > 1 and self._segments[1].first <= number:
            first = self._segments.pop(0).first
            for each in [each for each in self.batches if first <= each < self._segments[0].first]:
                self._delete(each)

    def draw_sync_ns(self) -> int:
        """Return how long the next sync takes: about as long as always, or now and then far longer."""
        share = self.random.uniform(0.5, 2.0)
        return int(self.sync_ns * (share if self.random.random() < 0.95 else 10 * share))

    def _has_room(self, size_bytes: int) -> bool:
        return self.room is None or size_bytes <= self.room

    def _enter(self, number: int, written: Written) -> None:
        self.batches[number] = written
        self._take(written.size_bytes)

    def _delete(self, number: int) -> None:
        self._take(-self.batches.pop(number).size_bytes)
        self._flipped.pop(number, None)

    def _take(self, size_bytes: int) -> None:
        self.stored_bytes += size_bytes
        if self.room is not None:
            self.room -= size_bytes

    # --- faults ------------------------------------------------------------------------------------------

    def hang(self) -> None:
        """Let no sync end from now on."""
        self.hanging = True

    def go_on(self) -> None:
        """Let the syncs that hang end, and later ones too."""
        self.hanging = False
        waiting, self.waiting = self.waiting, []
        for end in waiting:
            end()

    def lose_power(self) -> int:
        """Keep a drawn prefix of what was not synced; return how many batches are gone."""
        self.shaken = True
        unsynced = [number for number in self.batches if number > self.synced]
        on_disk = [each for each in unsynced if self._shown_only is None or each <= self._shown_only]
        lost = unsynced[self.random.randrange(len(on_disk) + 1) :]
        self._leave_debris(lost, gone=set(unsynced) - set(on_disk))
        self._shown_only = None
        self._note = self._note_kept = self.random.randint(self._note_kept, self._note)
        return len(lost)

    def fail_sync(self) -> None:
        """Have what was not synced never reach the disk. The kernel may show it for a while."""
        self.shaken = True
        if self.random.random() < 0.5:
            lost = [number for number in self.batches if number > self.synced]
            self._leave_debris(lost[self.random.randrange(len(lost) + 1) :], gone=set())
        self._shown_only = self.synced

    def _leave_debris(self, lost: list[int], gone: set[int]) -> None:
        """Put what a crash leaves in the place of batches: nothing, a part, or after a hole all of one."""
        for number in lost:
            data = self._bytes(number, self._segment_of(number).mark)
            self._delete(number)
            ways = ("none",) if number in gone else ("none", "part") if number == lost[0] else _WAYS
            match self.random.choice(ways):
                case "none":
                    self._debris[number] = bytes(len(data))
                case "part":
                    kept = self.random.randrange(len(data))
                    self._debris[number] = data[:kept] + bytes(len(data) - kept)
                case _:
                    self._debris[number] = data

    def flip(self, where: str) -> bool:
        """Flip a bit of a stable batch: in the `tail`, the `middle`, or a `chunk` of a snapshot."""
        stable = [number for number in self.batches if number <= self.synced]
        if where == "tail":
            stable = stable[-1:]
        elif where == "chunk":
            stable = [number for number in stable if self._has_chunk(number)]
        else:
            stable = stable[:-1]
        if not stable:
            return False
        number = self.random.choice(stable)
        data = bytearray(self._bytes(number, self._segment_of(number).mark))
        bit = self.random.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        self._flipped[number] = bytes(data)
        return True

    def unflip(self) -> None:
        """Have all bits as they were written."""
        self._flipped.clear()

    def _has_chunk(self, number: int) -> bool:
        return any(isinstance(entry, Chunk) for entry in decode_entries(self.batches[number].body))

    def copy(self) -> Backup:
        """Return a copy of what is stable now."""
        kept = {number: written for number, written in self.batches.items() if number <= self.synced}
        segments = tuple(each for each in self._segments if each.first <= self.newest)
        return Backup(self.synced, kept, segments, self._beginning, self._rested)

    def put_back(self, backup: Backup) -> None:
        """Replace all that it holds by a copy. No process may use it."""
        if self.owner is not None and self.owner.alive:
            raise InUseError(self.slot)
        self.synced = self._note = self._note_kept = backup.synced
        self.batches = dict(backup.batches)
        self.stored_bytes = sum(written.size_bytes for written in self.batches.values())
        self._segments = list(backup.segments)
        self._beginning, self._rested = backup.beginning, backup.rested
        self._debris.clear()
        self._flipped.clear()
        self._shown_only = None

    def move(self, what: str) -> None:
        """Have it lie elsewhere: on another `machine`, another `filesystem`, or as another directory."""
        change = {"machine": "elsewhere"} if what == "machine" else {what: self.random.getrandbits(32)}
        self.lies = msgspec.structs.replace(self.lies, **change)

    @property
    def counts_here(self) -> bool:
        """Whether it lies where it was used, or an operator said that it counts."""
        return msgspec.structs.replace(self.known.place, boot=self.lies.boot) == self.lies

    def adopt(self) -> None:
        """Have it count where it lies, as an operator says."""
        self.known = msgspec.structs.replace(self.known, place=self.lies)


_WAYS = ("none", "part", "whole")
