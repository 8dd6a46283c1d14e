"""What the entries of an actor's disk amount to: for each shard a snapshot, and the log that follows it.

Nothing is applied here. Up to `committed` the log may be; what follows is prepared, and may still be cut, for
it need not have reached the other members.
"""

from greenroom_cluster.disk.batches import DamagedError
from greenroom_cluster.disk.entries import (
    Based,
    Committed,
    Configured,
    Cut,
    Entry,
    Left,
    Logged,
    Proposed,
    Rung,
)
from greenroom_cluster.shard.state.records import Record


class DiskCopy:
    """One shard as the disk has it. `proposal` is the newest at the present epoch, None if there is none."""

    __slots__ = ("base", "committed", "configuration", "proposal", "records", "shard")

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.base = Based(shard, 0, 0, 0, ())
        self.records: list[Record] = []
        self.committed = 0
        self.configuration: Configured | None = None
        self.proposal: Proposed | None = None

    @property
    def appended(self) -> int:
        """The number of the last record."""
        return self.base.sequence + len(self.records)

    @property
    def time_us(self) -> int:
        """The newest shard time that the copy has seen."""
        return max(self.base.time_us, self.records[-1].time_us if self.records else 0)

    @property
    def ladder(self) -> tuple[Rung, ...]:
        """For each epoch in the copy, the number of its last record; the newest last."""
        rungs = dict(self.base.ladder)
        for record in self.records:
            rungs[record.epoch] = record.sequence
        return tuple(sorted(rungs.items()))

    def cut(self, after: int) -> None:
        """Drop the records after a number. Raises DamagedError if that goes back behind the snapshot."""
        if after < self.base.sequence:
            raise DamagedError(
                f"shard {self.shard}: record {after + 1} comes after a snapshot at {self.base.sequence}"
            )
        del self.records[after - self.base.sequence :]
        self.committed = min(self.committed, after)

    def log(self, records: tuple[Record, ...]) -> None:
        """Take in records. Raises DamagedError if they leave a gap."""
        first = records[0].sequence
        if first > self.appended + 1:
            raise DamagedError(f"shard {self.shard}: record {first} comes after {self.appended}")
        self.cut(first - 1)
        self.records.extend(records)


class Replay:
    """Takes entries in their order; `copies` are the shards that the actor then holds."""

    def __init__(self) -> None:
        self.copies: dict[int, DiskCopy] = {}

    def take(self, entry: Entry) -> None:
        """Take in the next entry. Raises DamagedError if it cannot follow those before it."""
        if isinstance(entry, Left):
            self.copies.pop(entry.shard, None)
            return
        copy = self.copies.get(entry.shard)
        if copy is None:
            copy = self.copies[entry.shard] = DiskCopy(entry.shard)
        if isinstance(entry, Logged):
            copy.log(entry.records)
        elif isinstance(entry, Cut):
            copy.cut(entry.after)
        elif isinstance(entry, Committed):
            copy.committed = max(copy.committed, min(entry.sequence, copy.appended))
        elif isinstance(entry, Configured):
            if copy.configuration is None or copy.configuration.epoch != entry.epoch:
                copy.proposal = None
            copy.configuration = entry
        elif isinstance(entry, Proposed):
            copy.proposal = entry
        else:
            copy.base, copy.committed = entry, entry.sequence
            copy.records = [each for each in copy.records if each.sequence > entry.sequence]
