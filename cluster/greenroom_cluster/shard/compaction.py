"""How the log on disk stays short: shards are written to its end as snapshots, and what is before is dropped.

The shard whose snapshot is the oldest holds the beginning of the log, so its turn is next. A part goes out
once the one before is synced, so a snapshot never takes more of the disk than is left. The snapshot counts,
and the beginning may be dropped, once its end is synced.
"""

from greenroom_cluster.disk.entries import Logged
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.disk_log import Base, DiskLog
from greenroom_cluster.shard.effects import DropBefore
from greenroom_cluster.shard.joining.snapshot import SnapshotSender
from greenroom_cluster.shard.roles.role import Role
from greenroom_cluster.shard.state.copy import Copy
from greenroom_cluster.shard.state.table import SessionTable

LOG_PER_STATE = 1.8
"""How much of the log there may be for each byte of state before it is compacted."""
_LOOKS = 64
"""How often it is looked while the shortest log that is compacted grows."""


class _Writing:
    """A snapshot that is being written; `position` is that of its newest part."""

    __slots__ = ("base", "position", "sender")

    def __init__(self, base: Base, sender: SnapshotSender) -> None:
        self.base = base
        self.sender = sender
        self.position = 0


class Compaction:
    """The snapshot under way, and what was dropped."""

    def __init__(self, context: Context, disk: DiskLog) -> None:
        self._context = context
        self._disk = disk
        self._writing: _Writing | None = None
        self._looked_bytes = 0
        self._dropped = 0

    def step(self) -> None:
        """Go on with the snapshot once its newest part is synced, or begin one if it is time."""
        writing, disk = self._writing, self._disk
        if writing is not None and self._is_over(writing):
            writing = self._writing = None
        if writing is not None and writing.position <= disk.synced_position:
            self._write_more(writing)
        elif writing is None and self._is_due():
            self._begin_oldest()
        if disk.rebased:
            disk.rebased = False
            self._drop()

    def _is_over(self, writing: _Writing) -> bool:
        """Whether nothing is left to write: the snapshot counts, or its copy was given up."""
        disk, base = self._disk, writing.base
        known = disk.bases.get(base.copy.shard)
        if known is None or known.copy is not base.copy:
            return True
        if not writing.sender.finished or writing.position > disk.synced_position:
            return False
        disk.bases[base.copy.shard] = base
        disk.rebased = True
        return True

    def _drop(self) -> None:
        disk = self._disk
        first = min((base.mark for base in disk.bases.values()), default=disk.mark) + 1
        if first > self._dropped:
            self._dropped = first
            self._context.effects.append(DropBefore(first))

    def _is_due(self) -> bool:
        disk, least_bytes = self._disk, self._context.settings.log_bytes_min
        if not disk.bases or disk.given_bytes - self._looked_bytes < least_bytes // _LOOKS:
            return False
        self._looked_bytes = disk.given_bytes
        taken = disk.given_bytes - min(base.given_bytes for base in disk.bases.values())
        if taken <= least_bytes:
            return False
        return taken > LOG_PER_STATE * sum(_snapshot_bytes(base.copy.table) for base in disk.bases.values())

    def rebase(self, copy: Copy) -> None:
        """Write a whole snapshot in this step, so that no record up to now is read again."""
        self._begin(copy)
        writing = self._writing
        while writing is not None and not writing.sender.finished:
            self._write_more(writing)

    def _begin_oldest(self) -> None:
        copy = min(self._disk.bases.values(), key=lambda base: base.given_bytes).copy
        if copy.role is not Role.JOINING:  # which may not be whole yet
            self._begin(copy)

    def _begin(self, copy: Copy) -> None:
        disk, settings = self._disk, self._context.settings
        last = (copy.last_epoch, copy.committed)
        sender = SnapshotSender(copy.shard, copy.epoch, 0, last, copy.table, settings.chunk_bytes)
        writing = self._writing = _Writing(Base(copy, disk.mark, disk.given_bytes), sender)
        self._write_more(writing)
        # All that follows the snapshot stands before its beginning until now, and would be dropped with that.
        records = copy.log.records(copy.committed, copy.log.appended)
        if records:
            disk.enter(Logged(copy.shard, tuple(records)))
        configured = disk.configurations.get(copy.shard)
        if configured is not None:
            disk.enter(configured)

    def _write_more(self, writing: _Writing) -> None:
        copy, sender, disk = writing.base.copy, writing.sender, self._disk
        disk.enter_chunk(sender.chunk(copy.clock.last_us), sender.last)
        writing.position = disk.position + 1


def _snapshot_bytes(table: SessionTable) -> int:
    """Return about what a snapshot takes: sessions, and the replies that are kept for clients."""
    return table.stored_bytes + table.clients.charged_bytes
