"""The log of one shard at its primary, and the replicas that must have it before it is committed."""

from greenroom_cluster.shard.joining.continuation import Departed
from greenroom_cluster.shard.pairs.outgoing import Outgoing, Recipient
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.settings import ns
from greenroom_cluster.shard.state.copy import Copy
from greenroom_cluster.shard.state.log import record_bytes
from greenroom_cluster.shard.state.memory import CLIENT_BYTES, REPLY_BYTES
from greenroom_cluster.shard.state.records import Command, Expire, Record

KEPT_FRACTION = 4
"""What part of the log that may wait for recipients is kept for former members: one in so many."""


class Replication:
    """Appends records to the log, has them sent, and decides up to which the log is committed.

    `departed` are former members that may come back with their directories, by those.
    `recipients` are sent the log; it is committed once all that are `counted` have it, and the own disk, if
    there is one. `inherited` is what the log held when this actor became primary. Until all of that is
    applied, and the snapshot before it, the primary is `behind`. With `copy_first`, it is applied only once
    another member has it.
    """

    __slots__ = (
        "_context",
        "_disk",
        "_memory",
        "_step",
        "behind",
        "copy",
        "copy_first",
        "counted",
        "departed",
        "inherited",
        "log",
        "recipients",
    )

    def __init__(self, copy: Copy, resources: Resources) -> None:
        self._context = resources.context
        self._disk = resources.disk
        self._memory = resources.memory
        self._step = resources.step
        self.copy = copy
        self.log = copy.log
        self.recipients: list[Recipient] = []
        self.counted: tuple[Recipient, ...] = ()
        self.inherited = copy.log.appended
        self.behind = copy.committed < self.inherited or bool(copy.log.unread)
        self.copy_first = False
        self.departed: dict[bytes, Departed] = {}

    # --- the log --------------------------------------------------------------------------------------------

    def append(
        self, now_ns: int, time_us: int, client: bytes, command: Command, size: int, charge: int
    ) -> int:
        """Stamp a record, log it and have it sent; return its number."""
        copy, log = self.copy, self.log
        shard, sequence = copy.shard, log.appended + 1
        record = Record(copy.epoch, sequence, time_us, client, command)
        log.append(record, size, charge)
        if self._disk is not None:
            self._disk.append(copy, record, size)
        self._memory.add(shard, charge)
        for recipient in self.recipients:
            if recipient.streaming:
                pair = recipient.pair
                pair.unsent[shard] = recipient
                pair.room_bytes -= charge
                if pair.room_bytes < pair.enough_bytes:
                    pair.ask_for_room()
                if recipient.waiting_since_ns == 0:
                    recipient.waiting_since_ns = now_ns
        if not self.counted:
            self._step.ready[shard] = None
        return sequence

    def decide(self, now_ns: int, time_us: int, command: Command, client: bytes = b"") -> int:
        """Log a decision of the primary itself, which removes sessions and adds no more than a reply."""
        size = record_bytes(command)
        if isinstance(command, Expire):
            self._context.expired += len(command.digests)
        return self.append(now_ns, time_us, client, command, size, size + REPLY_BYTES + CLIENT_BYTES)

    def decided(self) -> int:
        """Return the number up to which the log is committed, whether it is applied or not."""
        if self.copy.unsettled:
            return self.copy.committed
        if self.behind and not self.copy_first:
            return self.inherited
        if self.copy_first and not self._is_copied():
            return self.copy.committed
        target, stable = self.log.appended, self.copy.stable
        for recipient in self.counted:
            if recipient.acknowledged < target:
                target = recipient.acknowledged
        if stable < target:
            assert self._disk is not None
            self._disk.awaited[self.copy.shard] = None
            return stable
        return target

    def _is_copied(self) -> bool:
        """Whether another member has a copy, or none is to have one."""
        context, copy = self._context, self.copy
        if len(copy.members) > 1 or context.map is None:
            return True
        return all(slot == context.slot for slot in context.map.shards[copy.shard].wanted)

    def needed_after(self, committed: int) -> int:
        """Return up to which number all recipients have the records, if so much is committed."""
        for recipient in self.recipients:
            if recipient.acknowledged < committed:
                committed = recipient.acknowledged
        if self.departed:
            committed = min(committed, self._kept_from())
        return committed

    def _kept_from(self) -> int:
        """Return what is kept for former members, if the log is not too long for that."""
        settings, memory = self._context.settings, self._memory
        long = self.log.held_bytes > settings.uncommitted_bytes_max // KEPT_FRACTION
        # If copies from disk are what takes the memory, those of others do as well, and go on by this alone.
        short = memory.free_bytes + memory.found_bytes <= memory.ample_bytes and not memory.overfull
        if long or short:
            self.departed.clear()
            return self.log.appended
        return min(departed.kept_from for departed in self.departed.values())

    def depart(self, directory: bytes, kept_from: int, now_ns: int, shard_bytes: int) -> None:
        """Keep what a former member lacks, for a while, if it may come back with its directory.

        Up to there the shard took at least so much.
        """
        if directory:
            self.departed[directory] = Departed(kept_from, now_ns, shard_bytes)

    def forget_departed(self, now_ns: int) -> None:
        """Keep nothing any longer for those who have been away for too long."""
        kept_ns = ns(self._context.settings.departed_seconds)
        late = [key for key, one in self.departed.items() if now_ns - one.since_ns > kept_ns]
        for directory in late:
            del self.departed[directory]
        if late:
            self.trim()

    @property
    def short_of_disk(self) -> str:
        """The slot whose disk is nearly full, empty if none is."""
        if self._disk is not None and self._disk.short:
            return self._context.slot
        for recipient in self.counted:
            if recipient.pair.disk_short:
                return self._context.slot_of(recipient.pair.peer)
        return ""

    def trim(self) -> None:
        """Drop the records that no recipient needs any longer."""
        self.log.trim(self.needed_after(self.copy.committed))
        self.copy.count()

    # --- recipients -----------------------------------------------------------------------------------------

    def send_to(self, pair: Outgoing, acknowledged: int, now_ns: int, *, counted: bool) -> Recipient:
        """Send the log to a peer from now on; it has it up to `acknowledged`."""
        recipient = Recipient(self.copy, pair, acknowledged, now_ns, counted=counted)
        pair.add(recipient)
        self.recipients.append(recipient)
        return recipient

    def drop(self, recipient: Recipient) -> None:
        """Send nothing more to a recipient."""
        self.recipients.remove(recipient)
        recipient.pair.remove(recipient)

    def count_recipients(self) -> None:
        """Count from now on the recipients that are marked so."""
        self.counted = tuple(recipient for recipient in self.recipients if recipient.counted)

    def tell_commit_point(self) -> None:
        """Tell the recipients what is committed, with the next records or the next beacon."""
        shard = self.copy.shard
        for recipient in self.recipients:
            if recipient.streaming:
                recipient.pair.commits_due[shard] = recipient
