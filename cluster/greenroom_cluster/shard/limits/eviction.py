"""Which sessions end before their time when memory is full, if `eviction` says so: the oldest without a user.

A primary that would refuse growth for want of memory logs an `Evict` instead, and answers `Overloaded`: a
store asks again, and by then there is room. Like an expiry, an eviction is decided once and applied by all: a
session that got a user before that point of the log stays.

A little more is evicted than is needed, so that this happens once for many writes. What one eviction frees is
waited for before the next: here until it is applied, at a backup until that has offered room anew twice,
for the first offer may be of before. Else every write that comes meanwhile would evict more.

Nothing is evicted where that cannot help: where more is lacking than all sessions take that may be evicted by
the primaries here. So it is when something else has filled the memory, such as the buffers of connections.

Old is what its shard has stored the longest under its id, whatever a client says of its creation. Each shard
looks at its own sessions only, so the order across shards is no more than nearly that. One that has none left
asks the others of its actor, which make the room with their next sweep.
"""

from collections.abc import Sequence

from greenroom_cluster.shard.pairs.outgoing import Outgoing
from greenroom_cluster.shard.pairs.replication import Replication
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.settings import ns
from greenroom_cluster.shard.state.memory import ANONYMOUS_BYTES, SESSION_BYTES
from greenroom_cluster.shard.state.records import Evict

EVICTING = "memory is full: sessions without a user are evicted to make room"

_MARGIN_SHARE = 128
"""Such a share of the memory here is made free beyond what is needed; of a peer's, what it keeps spare."""
_TOLD_SECONDS = 60.0


class Eviction:
    """One primary's evictions, of which one at a time is under way. `under_way_bytes` is what that frees."""

    __slots__ = (
        "_before",
        "_context",
        "_copy",
        "_evictions",
        "_memory",
        "_replication",
        "_step",
        "_table",
        "_through",
        "under_way_bytes",
    )

    def __init__(self, replication: Replication, resources: Resources) -> None:
        self._replication = replication
        self._copy = replication.copy
        self._table = replication.copy.table
        self._context = resources.context
        self._step = resources.step
        self._memory = resources.memory
        self._evictions = resources.evictions
        self._before = 0
        self._through = 0
        self.under_way_bytes = 0
        if self._table.anonymous is not None:
            self._evictions.tables[self._table] = None

    def make_room(self, charge: int, full: Sequence[Outgoing], spared: bytes) -> bool:
        """Return whether room for a charge is being made: here, and at the peers that have none.

        Nothing is evicted for the growth of a session that would end by it, `spared`.
        """
        if self._table.anonymous is None:
            return False
        memory, evictions = self._memory, self._evictions
        wanted = most = 0
        # Room that only has to be shared anew is none that is lacking.
        lacking = charge - max(memory.free_bytes, memory.share_bytes) - evictions.under_way_bytes
        if lacking > 0:
            most = charge - max(memory.free_bytes, self._whole(memory.share_bytes))
            wanted = lacking + max(memory.limit_bytes, 0) // _MARGIN_SHARE
        for pair in full:
            lacking = charge - pair.room_bytes - pair.evicting_bytes
            if lacking > 0:
                most = max(most, charge - self._whole(pair.room_bytes))
                wanted = max(wanted, lacking + pair.spare_bytes)
        if not wanted or self.under_way_bytes:
            return True
        if most > evictions.evictable_bytes:
            return False
        if self._evict(wanted, spared):
            return True
        # Each shard evicts its own oldest, so one may have none left while others have.
        if evictions.evictable_bytes <= self._table.evictable_bytes:
            return False
        evictions.wanted_bytes = max(evictions.wanted_bytes, wanted)
        return True

    def help(self) -> None:
        """Make the room that a shard without sessions to evict has asked for."""
        wanted = self._evictions.wanted_bytes
        if wanted and self._table.anonymous and not self.under_way_bytes:
            self._evict(wanted, b"")
            self._evictions.wanted_bytes = max(wanted - self.under_way_bytes, 0)

    def _evict(self, wanted: int, spared: bytes) -> bool:
        """Begin to evict the oldest sessions here that free so much; return False if there are none."""
        sessions = self._table.sessions
        digests: list[bytes] = []
        freed = 0
        for digest in self._table.anonymous or ():
            if digest == spared:
                continue
            digests.append(digest)
            freed += len(sessions[digest]) + SESSION_BYTES + ANONYMOUS_BYTES
            if freed >= wanted or len(digests) >= self._context.settings.page_max:
                break
        if digests:
            self._begin(Evict(tuple(digests)), freed)
        return bool(digests)

    def _whole(self, share_bytes: int) -> int:
        """Return how much is free where one of the shares is so large: below 0 all of it is to be made up."""
        return share_bytes * self._memory.shares if share_bytes < 0 else share_bytes

    def _begin(self, command: Evict, freed: int) -> None:
        # In the step of the write that found no room, whose time was read just now.
        now_ns = self._step.now_ns
        self._through = self._replication.decide(now_ns, self._copy.clock.last_us, command)
        self._before = self._table.evicted
        self.under_way_bytes = freed
        evictions = self._evictions
        evictions.under_way_bytes += freed
        for recipient in self._replication.recipients:
            recipient.pair.evict(freed)
        if evictions.told_ns is None or now_ns - evictions.told_ns >= ns(_TOLD_SECONDS):
            evictions.told_ns = now_ns
            self._context.warn(
                f"{EVICTING} ({evictions.sessions} so far); raise --memory-max to keep them, or let sessions "
                "without a user end sooner"
            )

    def settle(self) -> None:
        """Count what was evicted, once it is applied."""
        if self._through <= self._copy.committed:
            self._evictions.sessions += self._table.evicted - self._before
            self._end()

    def close(self) -> None:
        """Nothing more will come of what is under way, as far as this primary knows."""
        self._evictions.tables.pop(self._table, None)
        self._end()

    def _end(self) -> None:
        self._evictions.under_way_bytes -= self.under_way_bytes
        self.under_way_bytes = 0
