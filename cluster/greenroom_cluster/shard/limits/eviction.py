"""Which sessions end before their time when memory is full, if `eviction` says so: the oldest without a user.

A primary that would refuse growth because memory is full logs an `Evict` instead and replies `Overloaded`:
the store asks again, and by then there is room. Like an expiry, an eviction is decided once and applied by
all replicas; a session that got a user earlier in the log stays.

A little more is evicted than needed, so that many writes need one eviction. The next one waits until the room
of this one is there: here until it is applied; at a backup until it has offered room twice, because its first
offer may date from before. Otherwise every write in between would evict more.

Nothing is evicted if that cannot help: if more memory is missing than evicting all such sessions would free.
This happens when something else fills the memory, such as the buffers of connections.

The oldest session is the one that its shard has stored longest under its id, whatever time of creation a
client gives. Each shard looks only at its own sessions, so across shards the order is approximate. A shard
with none left asks the others of its actor, which make room at their next sweep.
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
"""This share of the memory here is freed beyond what is needed; at a peer, what it keeps spare."""
_TOLD_SECONDS = 60.0


class Eviction:
    """One primary's evictions, one at a time. `under_way_bytes` is what the present one frees."""

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
        """Return whether room for a charge is being made, here and at the `full` peers.

        `spared` is the session that wants to grow; it is not evicted for that.
        """
        if self._table.anonymous is None:
            return False
        memory, evictions = self._memory, self._evictions
        wanted = most = 0
        # Room that only has to be shared out again is not missing.
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
        # Each shard evicts its own oldest sessions, so one may run out while others have some.
        if evictions.evictable_bytes <= self._table.evictable_bytes:
            return False
        evictions.wanted_bytes = max(evictions.wanted_bytes, wanted)
        return True

    def help(self) -> None:
        """Make the room that a shard with nothing to evict has asked for."""
        wanted = self._evictions.wanted_bytes
        if wanted and self._table.anonymous and not self.under_way_bytes:
            self._evict(wanted, b"")
            self._evictions.wanted_bytes = max(wanted - self.under_way_bytes, 0)

    def _evict(self, wanted: int, spared: bytes) -> bool:
        """Begin to evict the oldest sessions here, `wanted` bytes of them; return False if there are none."""
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
        """Return how much is free in all if one share is this large; below 0 all of it is missing."""
        return share_bytes * self._memory.shares if share_bytes < 0 else share_bytes

    def _begin(self, command: Evict, freed: int) -> None:
        # In the step of the write that found no room: it has just read the time.
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
        """Count the evicted sessions, once the eviction is applied."""
        if self._through <= self._copy.committed:
            self._evictions.sessions += self._table.evicted - self._before
            self._end()

    def close(self) -> None:
        """Forget the eviction under way: this primary will not learn what becomes of it."""
        self._evictions.tables.pop(self._table, None)
        self._end()

    def _end(self) -> None:
        self._evictions.under_way_bytes -= self.under_way_bytes
        self.under_way_bytes = 0
