"""The rule `synced`: with fsync, a record is committed only once it is on the disk of every member.

And nobody becomes a member whose copy of the shard is not there. With interval it must have been written.

A record counts as there if a batch that was synced holds it, or a snapshot that ends after it; even if the
copy was given up meanwhile, for its acknowledgement may still be under way.
"""

from collections.abc import Iterable

from greenroom_cluster.disk.entries import Based, Kept, decode_entries
from greenroom_cluster.shard.effects import DropBefore, HostEffect
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.state.ladder import Rung
from greenroom_cluster.shard.state.records import Record, heading
from simulations.cluster.actors import ActorProcess
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
    """What is stable in one directory, as far as it was read; if `written`, also what is only that."""

    def __init__(self, *, written: bool) -> None:
        self._written = written
        self._read = 0
        self._shards: dict[int, _Kept] = {}
        self._batches: dict[int, Written] = {}
        self._openers = 0

    def kept(self, directory: Directory, shard: int) -> _Kept | None:
        """Return what is stable of a shard in the directory; None if no copy ever was."""
        begun_anew = self._written and len(directory.openers) > self._openers
        if directory.batches is not self._batches or begun_anew:
            # An older copy is in its place, or what was there was cut off, whatever it has come to since.
            self._read, self._shards, self._batches = 0, {}, directory.batches
            self._openers = len(directory.openers)
        through = directory.newest if self._written else directory.synced
        if through > self._read:
            self._read_on(directory, through)
        return self._shards.get(shard)

    def holds(self, directory: Directory, shard: int, record: Record) -> bool:
        """Whether that record is stable in the directory."""
        kept = self.kept(directory, shard)
        if kept is None:
            return False
        return record.sequence <= kept.through or (record.epoch, record.sequence) in kept.records

    def _read_on(self, directory: Directory, through: int) -> None:
        for number, written in directory.batches.items():
            if self._read < number <= through:
                for entry in decode_entries(written.body):
                    kept = self._shards.setdefault(entry.shard, _Kept())
                    if isinstance(entry, Based):
                        kept.based = True
                        kept.through = max(kept.through, entry.sequence)
                    elif isinstance(entry, Kept):
                        kept.records |= {(each.epoch, each.sequence) for each in map(heading, entry.records)}
        self._read = through


class SyncOracle:
    """Watches what is committed in one world."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._indexes: dict[tuple[bytes, bool], _Index] = {}

    def committed(self, replica: Replica, record: Record) -> None:
        """Judge a record that a primary has committed before anybody else."""
        for member in replica.members:
            # What it says of a record that it has yet to write, a primary says behind the write.
            for written in (False, True) if member != replica.context.incarnation else (False,):
                directory = self._directory_of(member, written=written)
                if directory is None:
                    continue
                if self._index(directory, written=written).holds(directory, replica.shard, record):
                    continue
                lacking = f"{record.sequence} was committed, not on the disk of {directory.slot}"
                self._stage.violate("synced", f"shard {replica.shard}: {lacking}")

    def dropping(self, actor: ActorProcess, effects: Iterable[HostEffect]) -> None:
        """Read what is about to be dropped: an acknowledgement of it may still be under way."""
        for effect in effects:
            if type(effect) is DropBefore and actor.disk is not None:
                written = actor.durability == "interval"
                self._index(actor.disk.directory, written=written).kept(actor.disk.directory, 0)

    def added(self, shard: int, member: bytes) -> None:
        """Judge a new member."""
        directory = self._directory_of(member, written=False)
        if directory is not None and not self._has_copy(directory, shard):
            lacking = f"{directory.slot} became a member, its copy is not on disk"
            self._stage.violate("synced", f"shard {shard}: {lacking}")

    def _has_copy(self, directory: Directory, shard: int) -> bool:
        kept = self._index(directory, written=False).kept(directory, shard)
        return kept is not None and kept.based

    def _directory_of(self, member: bytes, *, written: bool) -> Directory | None:
        """Return to which directory a member syncs what it acknowledges, or only writes it before.

        None if that is none of its own.
        """
        actor = self._stage.actors.get(member)
        if actor is None or actor.disk is None or actor.durability != ("interval" if written else "fsync"):
            return None
        directory = actor.disk.directory
        # What it has acknowledged may still be under way when an older copy is put in its place, or when what
        # it had written is gone.
        if directory.doubtful or (written and (directory.owner is not actor or directory.shaken)):
            return None
        return directory

    def _index(self, directory: Directory, *, written: bool) -> _Index:
        return self._indexes.setdefault((directory.identity, written), _Index(written=written))
