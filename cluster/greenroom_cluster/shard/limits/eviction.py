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

Nothing is evicted while the log goes to an actor of a release that cannot read evictions; while it is not yet
known whether it does, the store asks again.

Memory belongs to all namespaces. So the one that takes the most of its quota makes room, session by session;
without a quota, the memory that it takes is measured against the largest that another has. A namespace that
is at its quota makes room among its own alone.
"""

from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heapreplace

from greenroom_cluster.shard.pairs.outgoing import Outgoing
from greenroom_cluster.shard.pairs.replication import Replication
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.state.memory import ANONYMOUS_BYTES, SESSION_BYTES
from greenroom_cluster.shard.state.quotas import memory_of
from greenroom_cluster.shard.state.records import Evict

EVICTING = "memory is full: sessions without a user are evicted to make room"

_MARGIN_SHARE = 128
"""This share of the memory here, or of a quota, is freed beyond what is needed; at a peer, what it keeps
spare."""


class Eviction:
    """One primary's evictions, one at a time. `under_way_bytes` is what the present one frees.

    `may_evict` says whether all recipients can read one, None if that is not known yet.
    """

    __slots__ = (
        "_before",
        "_context",
        "_copy",
        "_evictions",
        "_may_evict",
        "_memory",
        "_quotas",
        "_replication",
        "_step",
        "_table",
        "_through",
        "under_way_bytes",
    )

    def __init__(
        self, replication: Replication, resources: Resources, may_evict: Callable[[], bool | None]
    ) -> None:
        self._replication = replication
        self._may_evict = may_evict
        self._copy = replication.copy
        self._table = replication.copy.table
        self._context = resources.context
        self._step = resources.step
        self._memory = resources.memory
        self._evictions = resources.evictions
        self._quotas = resources.quotas
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
        may_evict = self._may_evict()
        if not may_evict:
            return may_evict is None
        if self._evict(self._fairly(), wanted, spared):
            self._tell()
            return True
        # Each shard evicts its own oldest sessions, so one may run out while others have some.
        if evictions.evictable_bytes <= self._table.evictable_bytes:
            return False
        evictions.wanted_bytes = max(evictions.wanted_bytes, wanted)
        return True

    def make_way(self, namespace: str, sessions: int, size: int, *, spared: bytes) -> bool:
        """Return whether so many sessions and bytes are being freed of a namespace that is at its quota.

        `spared` is the session that wants to grow; it is not evicted for that.
        """
        order, part = self._table.anonymous, self._quotas.part(namespace)
        if order is None or part is None:
            return False
        if self.under_way_bytes:
            return True
        count, stored_bytes = order.taken_by(namespace)
        if order.holds(spared):
            count, stored_bytes = count - 1, stored_bytes - len(self._table.sessions[spared])
        if sessions > count or size > stored_bytes:
            return False
        may_evict = self._may_evict()
        if not may_evict:
            return may_evict is None
        wanted_sessions = sessions and sessions + part.sessions // _MARGIN_SHARE
        wanted_bytes = size and size + part.stored_bytes // _MARGIN_SHARE
        return self._evict(order.oldest(namespace), memory_of(0, wanted_bytes), spared, wanted_sessions)

    def help(self) -> None:
        """Make the room that a shard with nothing to evict has asked for."""
        wanted = self._evictions.wanted_bytes
        if wanted and self._table.anonymous and not self.under_way_bytes and self._may_evict():
            if self._evict(self._fairly(), wanted, b""):
                self._tell()
            self._evictions.wanted_bytes = max(wanted - self.under_way_bytes, 0)

    def _fairly(self) -> Iterator[bytes]:
        """Yield sessions without a user, each the oldest of the namespace that takes most for its quota."""
        order, table = self._table.anonymous, self._table
        assert order is not None
        if len(order.namespaces) == 1:
            yield from order
            return
        taken = {each: memory_of(*table.used_by(each)) for each in order.namespaces}
        left = {each: order.oldest(each) for each in taken}
        most = [(-size / self._quotas.weight(each), each) for each, size in taken.items()]
        heapify(most)
        while most:
            namespace = most[0][1]
            key = next(left[namespace], None)
            if key is None:
                heappop(most)
                continue
            yield key
            taken[namespace] -= memory_of(1, len(table.sessions[key]))
            heapreplace(most, (-taken[namespace] / self._quotas.weight(namespace), namespace))

    def _evict(self, keys: Iterator[bytes], wanted_bytes: int, spared: bytes, wanted_count: int = 0) -> bool:
        """Begin to evict, in this order, so many bytes and sessions; return False if there are none."""
        sessions = self._table.sessions
        evicted: list[bytes] = []
        freed = 0
        for key in keys:
            if key == spared:
                continue
            evicted.append(key)
            freed += len(sessions[key]) + SESSION_BYTES + ANONYMOUS_BYTES
            if freed >= wanted_bytes and len(evicted) >= wanted_count:
                break
            if len(evicted) >= self._context.settings.page_max:
                break
        if evicted:
            self._begin(Evict(tuple(evicted)), freed)
        return bool(evicted)

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

    def _tell(self) -> None:
        self._context.warn_now_and_then(
            self._step.now_ns,
            EVICTING,
            f"{EVICTING} ({self._evictions.sessions} so far); raise --memory-max to keep them, or let "
            "sessions without a user end sooner",
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
