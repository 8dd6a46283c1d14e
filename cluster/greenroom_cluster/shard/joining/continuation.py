"""Joining by what was missed: an actor that comes back with its directory goes on with the copy in there.

That copy may be longer than what the shard's members went on with, and shorter. The ladders of the two logs
show up to where they are the same; what the copy has beyond is cut off. The primary keeps the records that a
member lacked when it left, for a while (`Departed`), so that it need not come back to a snapshot.
"""

from greenroom_cluster.shard.joining.transfer import Transfer
from greenroom_cluster.shard.messages import SnapshotChunk
from greenroom_cluster.shard.state.copy import Copy


class Departed:
    """A former member with a directory, which left at `since_ns`; records from `kept_from` on are kept."""

    __slots__ = ("kept_from", "since_ns")

    def __init__(self, kept_from: int, since_ns: int) -> None:
        self.kept_from = kept_from
        self.since_ns = since_ns


class Continuation(Transfer):
    """An offer to go on, in place of a `SnapshotSender`: one chunk without a session."""

    __slots__ = ("_continues", "_identity")

    def __init__(self, copy: Copy, join: int, kept_from: int) -> None:
        super().__init__(join, copy.table, copy.committed)
        self._identity = (copy.shard, copy.epoch, join)
        self._continues = (kept_from, copy.ladder.rungs(copy.log.appended))

    def chunk(self, time_us: int) -> SnapshotChunk:
        """Return the offer."""
        shard, epoch, join = self._identity
        self.next_number, self.finished = 1, True
        continues = self._continues
        return SnapshotChunk(
            shard,
            epoch,
            join,
            self.told,
            time_us,
            0,
            last=True,
            sessions=(),
            clients=(),
            replies=(),
            shard_bytes=self.shard_bytes,
            continues=continues,
        )
