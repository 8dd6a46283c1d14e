"""What the entries of an actor's disk amount to: for each shard a snapshot, and the log that follows it.

Nothing is applied here. Up to `committed` the log may be; what follows is prepared, and may still be cut, for
it need not have reached the other members. Nor is a record decoded: where it stands is all that matters until
it is known who goes on with the shard.
"""

from collections.abc import Iterable, Sequence

import msgspec

from greenroom_cluster.disk.batches import DamagedError
from greenroom_cluster.disk.entries import (
    Based,
    Chunk,
    Committed,
    Configured,
    Cut,
    EntryRead,
    Kept,
    Left,
    Proposed,
)
from greenroom_cluster.shard.state.ladder import Rung
from greenroom_cluster.shard.state.records import EncodedRecord, heading


class DiskCopy:
    """One shard as the disk has it: the `chunks` of a snapshot at `base.sequence`, and the records after it.

    Nothing of it stands in a batch up to `mark`, nor within the first `begin_bytes` of the log.
    `proposals` are those at the present epoch, the newest for each set of others. Without a `base` the
    snapshot has not arrived as a whole: the copy stands for nothing.
    """

    __slots__ = (
        "_rungs",
        "base",
        "begin_bytes",
        "chunks",
        "committed",
        "configuration",
        "from_sequence",
        "mark",
        "proposals",
        "records",
        "shard",
    )

    def __init__(self, shard: int, from_sequence: int, mark: int, begin_bytes: int) -> None:
        self.shard = shard
        self.mark = mark
        self.begin_bytes = begin_bytes
        self.from_sequence = from_sequence
        self.base: Based | None = None
        self.chunks: list[bytes] = []
        self.records: list[EncodedRecord] = []
        self._rungs: dict[int, int] = {}
        self.committed = from_sequence
        self.configuration: Configured | None = None
        self.proposals: dict[tuple[bytes, ...], Proposed] = {}

    @property
    def proposal(self) -> Proposed | None:
        """The newest proposal at the present epoch."""
        return next(reversed(self.proposals.values()), None)

    @property
    def appended(self) -> int:
        """The number of the last record."""
        return self.from_sequence + len(self.records)

    @property
    def time_us(self) -> int:
        """The newest shard time that the copy has seen."""
        based = 0 if self.base is None else self.base.time_us
        return max(based, heading(self.records[-1]).time_us if self.records else 0)

    @property
    def ladder(self) -> tuple[Rung, ...]:
        """For each epoch in the copy, the number of its last record; the newest last."""
        rungs = {} if self.base is None else dict(self.base.ladder)
        return tuple(sorted((rungs | self._rungs).items()))

    @property
    def last(self) -> Rung:
        """Epoch and number of the last record; (0, 0) if there never was one."""
        ladder = self.ladder
        return ladder[-1] if ladder else (0, 0)

    def cut(self, after: int) -> None:
        """Drop the records after a number. Raises DamagedError if that goes back behind the snapshot."""
        if after < self.from_sequence:
            raise DamagedError(
                f"shard {self.shard}: record {after + 1} comes after a snapshot at {self.from_sequence}"
            )
        records = self.records
        del records[after - self.from_sequence :]
        self._rungs = {epoch: last for epoch, last in self._rungs.items() if last <= after}
        if records:
            last = heading(records[-1])
            self._rungs[last.epoch] = last.sequence
        self.committed = min(self.committed, after)

    def log(self, added: Sequence[EncodedRecord]) -> None:
        """Take in records. Raises DamagedError if they leave a gap, or are none."""
        records = self.records
        first, appended = heading(added[0]), self.from_sequence + len(records)
        if first.sequence != appended + 1:
            if first.sequence > appended + 1:
                raise DamagedError(f"shard {self.shard}: record {first.sequence} comes after {appended}")
            self.cut(first.sequence - 1)
        last = heading(added[-1]) if len(added) > 1 else first
        if last.epoch != first.epoch:
            self._rungs.update((each.epoch, each.sequence) for each in map(heading, added))
        self._rungs[last.epoch] = last.sequence
        records.extend(added)

    def take(self, entry: Cut | Committed | Configured | Proposed) -> None:
        """Take in what concerns the log or the configuration. Raises DamagedError if it cannot follow."""
        if isinstance(entry, Cut):
            self.cut(entry.after)
        elif isinstance(entry, Committed):
            self.committed = max(self.committed, min(entry.sequence, self.appended))
        elif isinstance(entry, Configured):
            if self.configuration is None or self.configuration.epoch != entry.epoch:
                self.proposals = {}
            self.configuration = entry
        else:
            self.proposals.pop(entry.others, None)
            self.proposals[entry.others] = entry

    def begin_at(self, based: Based) -> None:
        """Count from now on. Raises DamagedError if the snapshot has not arrived as a whole."""
        if based.sequence != self.from_sequence:
            raise DamagedError(
                f"shard {self.shard}: a snapshot at {based.sequence} ends one that began at "
                f"{self.from_sequence}"
            )
        self.base = based
        self.committed = max(self.committed, based.sequence)


class Replay:
    """Takes entries in their order; `copies` are the shards that the actor then holds.

    `starts` are proposals to begin shards empty of which no copy has begun since: one that was decided need
    not have been acted on.

    The log may begin in the middle: what came before the oldest snapshot that counts was dropped. So entries
    of a shard of which neither a copy nor a snapshot has begun are passed over.
    """

    def __init__(self) -> None:
        self._held: dict[int, DiskCopy] = {}
        self._begun: dict[int, DiskCopy] = {}
        self._mark = self._read_bytes = 0
        self.starts: dict[int, Proposed] = {}

    @property
    def copies(self) -> dict[int, DiskCopy]:
        """The shards held as a whole."""
        return self._held

    @property
    def remembered(self) -> tuple[int, int, tuple[int, ...], bytes]:
        """Lineage and version of the newest map that a copy was configured by, epochs by shard, identity."""
        configured = [copy.configuration for copy in self._held.values() if copy.configuration is not None]
        if not configured:
            return 0, 0, (), b""
        newest = max(configured, key=lambda each: (each.lineage, each.version))
        epochs = {each.shard: each.epoch for each in configured if each.lineage == newest.lineage}
        by_shard = tuple(epochs.get(shard, 0) for shard in range(max(epochs) + 1))
        return newest.lineage, newest.version, by_shard, newest.cluster

    def take_batch(self, number: int, size: int, entries: Iterable[EntryRead]) -> None:
        """Take in a batch of that number and size. Raises DamagedError if it cannot follow the others."""
        self._mark = number - 1
        for entry in entries:
            self.take(entry)
        self._read_bytes += size

    def take(self, entry: EntryRead) -> None:
        """Take in the next entry. Raises DamagedError if it cannot follow those before it."""
        shard = entry.shard
        if isinstance(entry, Kept):
            try:
                for copies in (self._held, self._begun):
                    copy = copies.get(shard)
                    if copy is not None:
                        copy.log(entry.records)
            except msgspec.MsgspecError as error:
                raise DamagedError(f"shard {shard}: what was logged are no records: {error}") from error
        elif isinstance(entry, Left):
            self._held.pop(shard, None)
            self._begun.pop(shard, None)
        elif isinstance(entry, Chunk):
            self._take_chunk(entry)
        elif isinstance(entry, Based):
            self.starts.pop(shard, None)
            begun = self._begun.pop(shard, None)
            if begun is None and entry.chunks:
                return  # the beginning of this snapshot was dropped, because a later one counts
            if begun is None:
                begun = self._copy(shard, entry.sequence)
            begun.begin_at(entry)
            self._held[shard] = begun
        else:
            for copies in (self._held, self._begun):
                copy = copies.get(shard)
                if copy is not None:
                    copy.take(entry)
            if isinstance(entry, Proposed) and entry.kind == "start":
                self.starts[shard] = entry

    def _take_chunk(self, chunk: Chunk) -> None:
        if chunk.number == 0:
            self._begun[chunk.shard] = self._copy(chunk.shard, chunk.sequence)
        begun = self._begun.get(chunk.shard)
        if begun is None:
            return  # the beginning of this snapshot was dropped, because a later one counts
        if chunk.number != len(begun.chunks):
            raise DamagedError(f"shard {chunk.shard}: chunk {chunk.number} comes after {len(begun.chunks)}")
        begun.chunks.append(chunk.body)

    def _copy(self, shard: int, sequence: int) -> DiskCopy:
        return DiskCopy(shard, sequence, self._mark, self._read_bytes)
