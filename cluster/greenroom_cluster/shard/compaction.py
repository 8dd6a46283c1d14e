"""How the log on disk stays short: shards are written to its end as snapshots, and what is before is dropped.

The shard whose snapshot is the oldest holds the beginning of the log, so its turn is next. A part goes out
once the one before is synced, so a snapshot never takes more of the disk than is left. The snapshot counts,
and the beginning may be dropped, once its end is synced.

At first the snapshots of all shards are at one place, the beginning, and nothing can be dropped before all of
them were written anew. So what has to be written until something can be dropped counts as taken already.
"""

from collections.abc import Sequence

from greenroom_cluster.disk.entries import Logged
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.disk_log import Base, DiskLog
from greenroom_cluster.shard.effects import DropBefore
from greenroom_cluster.shard.joining.snapshot import SnapshotSender
from greenroom_cluster.shard.roles.role import Role
from greenroom_cluster.shard.state.copy import Copy

LOG_PER_STATE = 1.9
"""How much of the disk there may be taken for each byte of state before the log is compacted."""
_OLDEST = 8
"""Snapshots in the oldest part of the log, one in so many, have to be written anew together."""
_LARGEST = 4
"""With more than one part in so many of the state in one shard, new snapshots are spread no better."""
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
        known = all(base.copy.log.decoded for base in disk.bases.values())
        sizes = [(base.given_bytes, _snapshot_bytes(base.copy)) for base in disk.bases.values()]
        return is_due(sizes, disk.given_bytes, known=known)

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
        copy.read_all()
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
        for proposed in disk.proposals.get(copy.shard, {}).values():
            disk.enter(proposed)

    def _write_more(self, writing: _Writing) -> None:
        copy, sender, disk = writing.base.copy, writing.sender, self._disk
        disk.enter_chunk(sender.chunk(copy.clock.last_us), sender.last)
        writing.position = disk.position + 1


def is_due(snapshots: Sequence[tuple[int, int]], given_bytes: int, *, known: bool) -> bool:
    """Return whether to write a snapshot anew, when so much of the log was given out.

    Of each shard's snapshot it is told where in the log it begins, and how large it would be now; these sizes
    are rough if not all is `known`, because a start has yet to apply what it found.
    """
    sizes = [size for _, size in snapshots]
    state, oldest = sum(sizes), min(begin for begin, _ in snapshots)
    taken = given_bytes - oldest
    if known and max(sizes) * _LARGEST <= state:
        ahead = oldest + taken // _OLDEST
        taken += sum(size for begin, size in snapshots if begin <= ahead)
    return taken > LOG_PER_STATE * state


def _snapshot_bytes(copy: Copy) -> int:
    """Return about what a snapshot takes: sessions, and the replies that are kept for clients.

    What a start has yet to apply counts as if all of it were new.
    """
    table, log = copy.table, copy.log
    size = table.stored_bytes + table.clients.charged_bytes
    return size if log.decoded else size + log.held_bytes + sum(map(len, log.unread))
