"""Directories that outlive the processes which write them, and the thread of a process that does so.

A batch is written (the kernel has it: it survives the end of the process) and later synced (it survives a
power cut). A power cut keeps a prefix of what was written and not synced. A thread syncs one batch at a time:
what comes meanwhile is the next. Opening a directory makes all that it shows stable. The mark is the number
of the newest synced batch.
"""

from collections.abc import Callable
from random import Random

import msgspec

from greenroom_cluster.disk.entries import Entry, EntryRead, decode_entries, encode_entries
from greenroom_cluster.links.outbox import DiskEffect
from greenroom_cluster.shard.effects import Persist
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND

_BATCH_BYTES = 24


class InUseError(Exception):
    """A process that lives holds the directory."""


class Backup(msgspec.Struct, frozen=True):
    """A copy of a directory, taken while it was in use."""

    synced: int
    batches: dict[int, bytes]


class Directory:
    """What one actor slot keeps. `batches` are encoded, by number; those above `synced` are only written.

    `sync_ns` is how long a sync takes in the middle. While `failing` a sync fails; while `hanging` it does
    not end. `behind` is what an older copy, which is in its place, has replaced; with
    `taken_back` an older copy has come to stay. `openers` are all that ever opened it.
    """

    def __init__(self, place: str, identity: bytes, random: Random, sync_ns: int = MILLISECOND) -> None:
        self.place = place
        self.identity = identity
        self.random = random
        self.sync_ns = sync_ns
        self.synced = 0
        self.batches: dict[int, bytes] = {}
        self.owner: Process | None = None
        self.openers: list[Process] = []
        self.failing = False
        self.hanging = False
        self.behind: Backup | None = None
        self.taken_back = False
        self.waiting: list[Callable[[], None]] = []

    @property
    def newest(self) -> int:
        """The number of the newest batch written."""
        return next(reversed(self.batches), self.synced)

    @property
    def stored_bytes(self) -> int:
        """What all batches take."""
        return sum(map(len, self.batches.values())) + _BATCH_BYTES * len(self.batches)

    @property
    def doubtful(self) -> bool:
        """Whether it may lack what once was stable."""
        return self.taken_back or self.behind is not None

    def open(self, process: Process) -> dict[int, bytes]:
        """Let this process own it; return its batches. Raises InUseError."""
        if self.owner is not None and self.owner.alive:
            raise InUseError(self.place)
        self.owner = process
        self.openers.append(process)
        self.synced = self.newest
        return self.batches

    def read(self) -> list[EntryRead]:
        """Return what it holds."""
        return [entry for body in self.batches.values() for entry in decode_entries(body)]

    def write(self, entries: tuple[Entry, ...]) -> int:
        """Write a batch; return its number."""
        number = self.newest + 1
        self.batches[number] = encode_entries(entries)
        return number

    def settle(self, number: int) -> None:
        """Have the batches up to this one on stable storage."""
        self.synced = max(self.synced, min(number, self.newest))

    def drop_before(self, number: int) -> None:
        """Delete the batches before this one."""
        for each in [each for each in self.batches if each < min(number, self.synced)]:
            del self.batches[each]

    def draw_sync_ns(self) -> int:
        """Return how long the next sync takes: about as long as always, or now and then far longer."""
        share = self.random.uniform(0.5, 2.0)
        return int(self.sync_ns * (share if self.random.random() < 0.95 else 10 * share))

    # --- faults ------------------------------------------------------------------------------------------

    def lose_unsynced(self) -> int:
        """Keep a drawn prefix of what was not synced, as a power cut or a failed sync does.

        Returns how many batches are gone.
        """
        unsynced = [number for number in self.batches if number > self.synced]
        lost = unsynced[self.random.randrange(len(unsynced) + 1) :]
        for number in lost:
            del self.batches[number]
        return len(lost)

    def copy(self) -> Backup:
        """Return a copy of what is stable now."""
        kept = {number: body for number, body in self.batches.items() if number <= self.synced}
        return Backup(self.synced, kept)

    def put_back(self, backup: Backup) -> None:
        """Replace all that it holds by an older copy of it. No process may use it."""
        if self.owner is not None and self.owner.alive:
            raise InUseError(self.place)
        self.synced = backup.synced
        self.batches = dict(backup.batches)

    def hang(self) -> None:
        """Let no sync end from now on."""
        self.hanging = True

    def go_on(self) -> None:
        """Let the syncs that hang end, and later ones too."""
        self.hanging = False
        waiting, self.waiting = self.waiting, []
        for end in waiting:
            end()


class DiskThread:
    """The thread of one process that writes to its directory, one batch and one sync at a time.

    With `interval_ns` it tells of a batch once that is written, and syncs it so much later, unless it is to
    be synced at once. `on_written(position)` and `on_synced(position, mark, stored_bytes)` are called in the
    process, and `on_failed` when a sync has failed.
    """

    def __init__(
        self,
        process: Process,
        directory: Directory,
        *,
        on_written: Callable[[int], None],
        on_synced: Callable[[int, int, int], None],
        on_failed: Callable[[], None],
        interval_ns: int = 0,
    ) -> None:
        self.directory = directory
        self._process = process
        self._timeline = process.timeline
        self._on_written = on_written
        self._on_synced = on_synced
        self._on_failed = on_failed
        self._interval_ns = interval_ns
        self._queue: list[tuple[int, tuple[Entry, ...]]] = []
        self._syncing = False
        self._wanted = False
        # Of the newest batch written, and the number of the newest that a sync covers.
        self._position = 0
        self._covered = directory.synced
        # The newest batch that this process has synced.
        self.reached = directory.synced
        self._due_at = -1

    def write(self, effects: list[DiskEffect]) -> None:
        """Append entries to the log, and have them synced in their turn; or drop what is not needed."""
        if not self._process.alive:
            return
        for effect in effects:
            if isinstance(effect, Persist):
                self._queue.append((effect.position, effect.entries))
                self._wanted = self._wanted or effect.at_once or not self._interval_ns
            else:
                self.directory.drop_before(effect.mark)
                self._process.network.happened["log dropped"] += 1
        # What one step brings is one batch: the thread wakes up after it.
        self._timeline.after(0, self._go_on)

    def _go_on(self) -> None:
        if self._syncing or not self._process.alive:
            return
        if self._process.paused:
            self._process.tell(0, self._go_on)
            return
        if self._queue:
            queue, self._queue = self._queue, []
            entries = tuple(entry for _, each in queue for entry in each)
            self.directory.write(entries)
            self._position = queue[-1][0]
            if self._interval_ns:
                self._process.tell(0, self._on_written, self._position)
                self._arm()
        if self._wanted:
            self._sync()

    def _arm(self) -> None:
        if self._due_at < 0:
            self._due_at = self._timeline.now + self._interval_ns
            self._timeline.at(self._due_at, self._due)

    def _due(self) -> None:
        self._due_at = -1
        if self._covered < self.directory.newest:
            self._wanted = True
            self._go_on()

    def _sync(self) -> None:
        self._wanted, self._syncing = False, True
        number, position = self.directory.newest, self._position
        self._covered = number
        self._timeline.after(self.directory.draw_sync_ns(), self._sync_ended, number, position)

    def _sync_ended(self, number: int, position: int) -> None:
        directory = self.directory
        if not self._process.alive:
            return
        if directory.hanging:
            directory.waiting.append(lambda: self._sync_ended(number, position))
        elif directory.failing:
            # What the kernel still shows of it, no later sync writes.
            directory.lose_unsynced()
            self._on_failed()
        else:
            directory.settle(number)
            self.reached = number
            self._process.tell(0, self._returned, number, position)

    def _returned(self, number: int, position: int) -> None:
        self._syncing = False
        self._on_synced(position, number, self.directory.stored_bytes)
        self._go_on()
