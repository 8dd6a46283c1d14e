"""The rule `synced`: with fsync, a record is committed only once it is on the disk of every member.

And nobody becomes a member whose copy of the shard is not there.

A record counts as there if a batch that was synced holds it, or a snapshot that ends after it; even if the
copy was given up meanwhile, for its acknowledgement may still be under way.
"""

from greenroom_cluster.disk.entries import Based, Kept, decode_entries
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.state.ladder import Rung
from greenroom_cluster.shard.state.records import Record, heading
from simulations.cluster.stage import Stage
from simulations.kernel.directory import Directory, Written


class _Kept:
    """What is stable of one shard in one directory."""

    __slots__ = ("based", "records", "through")

    def __init__(self) -> None:
        self.based = False
        self.through = 0
        self.records: set[Rung] = set()


class _Index:
    """What is stable in one directory, as far as its batches were read."""

    def __init__(self) -> None:
        self._read = 0
        self._shards: dict[int, _Kept] = {}
        self._batches: dict[int, Written] = {}

    def kept(self, directory: Directory, shard: int) -> _Kept | None:
        """Return what is stable of a shard in the directory; None if no copy ever was."""
        if directory.batches is not self._batches:
            # An older copy is in its place, or what was stable was cut off, whatever it has come to since.
            self._read, self._shards, self._batches = 0, {}, directory.batches
        if directory.synced > self._read:
            self._read_on(directory)
        return self._shards.get(shard)

    def holds(self, directory: Directory, shard: int, record: Record) -> bool:
        """Whether that record is stable in the directory."""
        kept = self.kept(directory, shard)
        if kept is None:
            return False
        return record.sequence <= kept.through or (record.epoch, record.sequence) in kept.records

    def _read_on(self, directory: Directory) -> None:
        for number, written in directory.batches.items():
            if self._read < number <= directory.synced:
                for entry in decode_entries(written.body):
                    kept = self._shards.setdefault(entry.shard, _Kept())
                    if isinstance(entry, Based):
                        kept.based = True
                        kept.through = max(kept.through, entry.sequence)
                    elif isinstance(entry, Kept):
                        kept.records |= {(each.epoch, each.sequence) for each in map(heading, entry.records)}
        self._read = directory.synced


class SyncOracle:
    """Watches what is committed in one world."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._indexes: dict[bytes, _Index] = {}

    def committed(self, replica: Replica, record: Record) -> None:
        """Judge a record that a primary has committed before anybody else."""
        for member in replica.members:
            directory = self._directory_of(member)
            if directory is not None and not self._index(directory).holds(directory, replica.shard, record):
                lacking = f"{record.sequence} was committed, not on the disk of {directory.slot}"
                self._stage.violate("synced", f"shard {replica.shard}: {lacking}")

    def added(self, shard: int, member: bytes) -> None:
        """Judge a new member."""
        directory = self._directory_of(member)
        if directory is not None and not self._has_copy(directory, shard):
            lacking = f"{directory.slot} became a member, its copy is not on disk"
            self._stage.violate("synced", f"shard {shard}: {lacking}")

    def _has_copy(self, directory: Directory, shard: int) -> bool:
        kept = self._index(directory).kept(directory, shard)
        return kept is not None and kept.based

    def _directory_of(self, member: bytes) -> Directory | None:
        """Return to which directory a member syncs what it acknowledges; None if that is none of its own."""
        actor = self._stage.actors.get(member)
        if actor is None or actor.disk is None or actor.durability != "fsync":
            return None
        directory = actor.disk.directory
        # What it has acknowledged may still be under way when an older copy is put in its place.
        return None if directory.doubtful else directory

    def _index(self, directory: Directory) -> _Index:
        return self._indexes.setdefault(directory.identity, _Index())
