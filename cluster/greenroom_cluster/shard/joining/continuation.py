"""Joining by what was missed: an actor that comes back with its directory goes on with the copy in there.

That copy may be longer than what the shard's members went on with, and shorter. The ladders of the two logs
show up to where they are the same; what the copy has beyond is cut off. The primary keeps the records that a
member lacked when it left, for a while (`Departed`), so that it need not come back to a snapshot.
"""

from greenroom_cluster.shard.joining.transfer import Transfer
from greenroom_cluster.shard.messages import SnapshotChunk
from greenroom_cluster.shard.state.copy import Copy
from greenroom_cluster.shard.state.log import Log


class Departed:
    """A former member with a directory, which left at `since_ns`; records from `kept_from` on are kept.

    The shard took at least `shard_bytes` up to there.
    """

    __slots__ = ("kept_from", "shard_bytes", "since_ns")

    def __init__(self, kept_from: int, since_ns: int, shard_bytes: int) -> None:
        self.kept_from = kept_from
        self.since_ns = since_ns
        self.shard_bytes = shard_bytes


class Continuation(Transfer):
    """An offer to go on, in place of a `SnapshotSender`: one chunk without a session.

    By `missed_bytes` at most the shard has grown since the former member left.
    """

    __slots__ = ("_before_bytes", "_continues", "_identity", "missed_bytes")

    def __init__(self, copy: Copy, join: int, departed: Departed) -> None:
        super().__init__(join, copy.table.settled_bytes, copy.committed)
        self._identity = (copy.shard, copy.epoch, join)
        self._continues = (departed.kept_from, copy.ladder.rungs(copy.log.appended))
        self._before_bytes = departed.shard_bytes
        self.missed_bytes = 0

    def measure(self, log: Log) -> None:
        """Count what was logged, in all and since the former member left."""
        super().measure(log)
        # Most commands change what there is: by all that they might add a shard hardly ever grows.
        grown = max(self.shard_bytes - self._before_bytes, 0)
        self.missed_bytes = min(grown, log.growth_after(self._continues[0]))

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
            missed_bytes=self.missed_bytes,
        )
