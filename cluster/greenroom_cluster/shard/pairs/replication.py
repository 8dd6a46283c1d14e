"""The log of one shard at its primary, and those who have to have it before it is committed."""

from greenroom_cluster.shard.pairs.outgoing import Outgoing, Progress
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.state.copy import Copy
from greenroom_cluster.shard.state.log import record_bytes
from greenroom_cluster.shard.state.memory import CLIENT_BYTES, REPLY_BYTES
from greenroom_cluster.shard.state.records import Command, Record


class Replication:
    """Appends records, has them sent, and says up to which of them the log is committed.

    `followers` are sent the log, and `counted` are those of them whom the primary obeys. `inherited` is what
    the log held when this actor became primary. Until all of that is applied the primary is `behind`; with
    `copy_first` that has to wait until another member has it.
    """

    __slots__ = (
        "_context",
        "_memory",
        "_step",
        "behind",
        "copy",
        "copy_first",
        "counted",
        "followers",
        "inherited",
        "log",
    )

    def __init__(self, copy: Copy, resources: Resources) -> None:
        self._context = resources.context
        self._memory = resources.memory
        self._step = resources.step
        self.copy = copy
        self.log = copy.log
        self.followers: list[Progress] = []
        self.counted: tuple[Progress, ...] = ()
        self.inherited = copy.log.appended
        self.behind = copy.committed < self.inherited
        self.copy_first = False

    # --- the log --------------------------------------------------------------------------------------------

    def append(
        self, now_ns: int, time_us: int, client: bytes, command: Command, size: int, charge: int
    ) -> int:
        """Stamp a record, log it and have it sent; return its number."""
        copy, log = self.copy, self.log
        shard, sequence = copy.shard, log.appended + 1
        log.append(Record(copy.epoch, sequence, time_us, client, command), size, charge)
        self._memory.add(shard, charge)
        for follower in self.followers:
            if follower.streaming:
                pair = follower.pair
                pair.unsent[shard] = follower
                pair.room_bytes -= charge
                if pair.room_bytes < pair.enough_bytes:
                    pair.ask_for_room()
                if follower.waiting_since_ns == 0:
                    follower.waiting_since_ns = now_ns
        if not self.counted:
            self._step.ready[shard] = None
        return sequence

    def decide(self, now_ns: int, time_us: int, command: Command, client: bytes = b"") -> int:
        """Log what the primary decides on its own, which removes sessions and adds a reply at most."""
        size = record_bytes(command)
        return self.append(now_ns, time_us, client, command, size, size + REPLY_BYTES + CLIENT_BYTES)

    def decided(self) -> int:
        """Return the number up to which the log is committed, whether it is applied or not."""
        if self.behind and not self.copy_first:
            return self.inherited
        if self.copy_first and not self._is_copied():
            return self.copy.committed
        target = self.log.appended
        for follower in self.counted:
            if follower.acknowledged < target:
                target = follower.acknowledged
        return target

    def _is_copied(self) -> bool:
        """Whether another member follows, or none is to."""
        context, copy = self._context, self.copy
        if len(copy.members) > 1 or context.map is None:
            return True
        return all(slot == context.slot for slot in context.map.shards[copy.shard].wanted)

    def needed_after(self, committed: int) -> int:
        """Return the number up to which nobody needs the records, if so much is committed."""
        for follower in self.followers:
            if follower.acknowledged < committed:
                committed = follower.acknowledged
        return committed

    def trim(self) -> None:
        """Drop the records that nobody needs any more."""
        self.log.trim(self.needed_after(self.copy.committed))
        self.copy.count()

    # --- who follows ----------------------------------------------------------------------------------------

    def follow(self, pair: Outgoing, acknowledged: int, now_ns: int, *, counted: bool) -> Progress:
        """Have a peer follow that has the log up to a record."""
        follower = Progress(self.copy, pair, acknowledged, now_ns, counted=counted)
        pair.follow(follower)
        self.followers.append(follower)
        return follower

    def drop(self, follower: Progress) -> None:
        """Let a follower go."""
        self.followers.remove(follower)
        follower.pair.unfollow(follower)

    def count_followers(self) -> None:
        """Obey from now on whoever is marked so."""
        self.counted = tuple(follower for follower in self.followers if follower.counted)

    def tell_commit_point(self) -> None:
        """Have the followers told what is committed, with the next records or the next beacon."""
        shard = self.copy.shard
        for follower in self.followers:
            if follower.streaming:
                follower.pair.commits_due[shard] = follower
