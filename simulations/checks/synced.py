"""The rule `synced`: with fsync, a record is committed only once it is on the disk of every member.

A record counts as there if a batch that was synced holds it, or a snapshot that ends after it; even if the
copy was given up meanwhile, for its acknowledgement may still be under way.
"""

from greenroom_cluster.disk.entries import Based, Kept, decode_entries
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.state.ladder import Rung
from greenroom_cluster.shard.state.records import Record, heading
from simulations.cluster.stage import Stage
from simulations.kernel.disk import Directory


class _Kept:
    """What is stable of one shard in one directory."""

    __slots__ = ("records", "through")

    def __init__(self) -> None:
        self.through = 0
        self.records: set[Rung] = set()


class _Index:
    """What is stable in one directory, as far as its batches were read."""

    def __init__(self) -> None:
        self._read = 0
        self._shards: dict[int, _Kept] = {}
        self._batches: dict[int, bytes] = {}

    def holds(self, directory: Directory, shard: int, record: Record) -> bool:
        """Whether that record is stable in the directory."""
        if directory.batches is not self._batches:
            # An older copy is in its place, whatever it has come to since.
            self._read, self._shards, self._batches = 0, {}, directory.batches
        if directory.synced > self._read:
            self._read_on(directory)
        kept = self._shards.get(shard)
        if kept is None:
            return False
        return record.sequence <= kept.through or (record.epoch, record.sequence) in kept.records

    def _read_on(self, directory: Directory) -> None:
        for number, body in directory.batches.items():
            if self._read < number <= directory.synced:
                for entry in decode_entries(body):
                    kept = self._shards.setdefault(entry.shard, _Kept())
                    if isinstance(entry, Based):
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
            actor = self._stage.actors.get(member)
            if actor is None or actor.disk is None or actor.durability != "fsync":
                continue
            directory = actor.disk.directory
            index = self._indexes.setdefault(directory.identity, _Index())
            if not index.holds(directory, replica.shard, record):
                lacking = f"{record.sequence} was committed, not on the disk of {actor.name}"
                self._stage.violate("synced", f"shard {replica.shard}: {lacking}")
