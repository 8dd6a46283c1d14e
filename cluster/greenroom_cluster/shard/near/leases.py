"""The connections that hold sessions, and until when they may show them without asking.

One lease covers all that a connection holds, in whatever shards of this actor. It ends before the lease of
each of these shards does, so that nobody shows what a later primary has changed. A connection that is gone
proves nothing: what came on it may be shown until its lease is over.

A holder's clock may run slower than ours, so it counts as alive for longer than its lease.
"""

from collections import deque
from heapq import heappop, heappush
from typing import Protocol

from greenroom.ids import DIGEST_BYTES
from greenroom.near_messages import CLOCK_DRIFT, EncodedNearReply, Invalidate, NearLease
from greenroom.near_use import NearUse
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.effects import ReplyToClient
from greenroom_cluster.shard.registrants import Registrant, Registrants
from greenroom_cluster.shard.settings import NS_PER_SECOND, ns

HOLDERS_MAX = 200_000
"""The most holdings of one actor, one for each session and connection; more are refused, none is given up."""
HELD_MAX = 16_384
"""The most that one connection holds, all of which it may let go in one step."""

HITS_TOTAL_MAX = 1 << 62
"""More is not counted, for clients may say anything."""


def drifted(span_ns: int) -> int:
    """Return how long that may last by a clock that runs slower."""
    return int(span_ns * (1 + CLOCK_DRIFT)) + 1


class Part(Protocol):
    """What one shard's primary has given out."""

    def until_ns(self) -> int:
        """Return until when a lease may run that covers this shard, 0 if none may."""

    def note_alive(self, alive_ns: int) -> None:
        """Note that a holder of this shard may show it until then."""

    def revoke(self, holder: "Holder") -> None:
        """Have a holder drop all of this shard, unless it was told already."""

    def is_revoking(self, holder: "Holder") -> bool:
        """Whether a holder was told to drop all of this shard, and has not acknowledged that."""

    def forget(self, holder: "Holder", key: bytes) -> None:
        """Note that a holder holds this no longer."""

    def acknowledged(self, holder: "Holder", barrier: object, now_ns: int, wall_us: int) -> None:
        """Let this barrier, or without one a revocation, wait for this holder no longer."""


class Holder(Registrant[Part]):
    """One connection, and what it holds.

    Its lease ends at `granted_ns`, by our clock; it counts as alive until `alive_ns`. `invalidated` is the
    number of the newest `Invalidate`, `acknowledged` that of the newest ack, `late` that of one that was not
    acknowledged in time. `owed` is what waits for it, by number: barriers, and None for revocations.
    `renewing` are the patches on it of sessions that it held.
    """

    __slots__ = (
        *("acknowledged", "alive_ns", "granted_ns", "invalidated"),
        *("is_gone", "late", "owed", "renewing"),
    )

    def __init__(self, connection: int) -> None:
        super().__init__(connection)
        self.granted_ns = 0
        self.alive_ns = 0
        self.invalidated = 0
        self.acknowledged = 0
        self.late = 0
        self.is_gone = False
        self.owed: list[tuple[int, Part, object]] = []
        self.renewing: set[int] = set()


class Leases(Registrants[Holder]):
    """All holders of one actor. `alarms` says when which shard is to be looked at, the first one first.

    `lease_ns` is how long a lease runs at most, 0 if none is given. `count` is how much is held.
    """

    __slots__ = (
        *("_context", "_gone", "alarms", "granted", "hits", "invalidations", "lease_ns", "refused"),
        *("waited_ns", "waited_ns_max", "waits", "waits_lapsed"),
    )

    def __init__(self, context: Context) -> None:
        super().__init__(Holder)
        self._context = context
        self.lease_ns = ns(context.settings.near_seconds)
        self.alarms: list[tuple[int, int]] = []
        # What came of it so far.
        self.granted = self.refused = self.invalidations = self.hits = 0
        self.waits = self.waits_lapsed = self.waited_ns = self.waited_ns_max = 0
        self._gone: deque[Holder] = deque()

    @property
    def use(self) -> NearUse:
        """What is held now, and what came of it so far."""
        return NearUse(
            self.count,
            self.granted,
            self.refused,
            self.invalidations,
            self.waits,
            self.waits_lapsed,
            self.waited_ns / NS_PER_SECOND,
            self.waited_ns_max / NS_PER_SECOND,
            self.hits,
        )

    def waited(self, span_ns: int) -> None:
        """Note that a change has waited for so long."""
        self.waited_ns += span_ns
        self.waited_ns_max = max(self.waited_ns_max, span_ns)

    def alarm(self, due_ns: int, shard: int) -> None:
        """Have a shard looked at once that time has come."""
        heappush(self.alarms, (due_ns, shard))

    def due(self, now_ns: int) -> list[int]:
        """Take out the shards that are to be looked at now."""
        shards: dict[int, None] = {}
        while self.alarms and self.alarms[0][0] <= now_ns:
            shards[heappop(self.alarms)[1]] = None
        return list(shards)

    # --- what is said -------------------------------------------------------------------------------------

    def invalidate(self, holder: Holder, keys: tuple[bytes, ...], shards: tuple[int, ...] = ()) -> int:
        """Have a holder drop these, which it holds no longer; return the number that it will acknowledge."""
        holder.invalidated += 1
        self.invalidations += 1
        digests = tuple(key[:DIGEST_BYTES] for key in keys)
        self._say(holder.connection, Invalidate(holder.invalidated, digests, shards))
        return holder.invalidated

    def beacon(self, now_ns: int, connection: int, sent_ns: int, hits: int = 0) -> None:
        """Give a connection the lease that it asks for, as far as all that it holds is covered."""
        self.hits = min(self.hits + hits, HITS_TOTAL_MAX)
        holder, end_ns = self.by_connection.get(connection), now_ns
        if holder is not None:
            end_ns = self._end_of(holder, now_ns)
            holder.granted_ns = max(holder.granted_ns, end_ns)
            holder.alive_ns = max(holder.alive_ns, now_ns + drifted(end_ns - now_ns))
            for part in holder.parts:
                part.note_alive(holder.alive_ns)
        self._say(connection, NearLease(sent_ns, (end_ns - now_ns) // 1000))

    def _end_of(self, holder: Holder, now_ns: int) -> int:
        """Return until when a lease may run, after a word about the shards that it does not cover."""
        ends_ns = []
        for part in tuple(holder.parts):
            if part.is_revoking(holder):
                continue
            until_ns = part.until_ns()
            if until_ns > now_ns:
                ends_ns.append(until_ns)
            else:
                # What it holds of the others may be shown on.
                part.revoke(holder)
        return min(*ends_ns, now_ns + self.lease_ns) if ends_ns else now_ns

    def acknowledge(self, now_ns: int, wall_us: int, connection: int, number: int) -> None:
        """Wait no longer for what a holder has dropped."""
        holder = self.by_connection.get(connection)
        if holder is None:
            return
        holder.acknowledged = max(holder.acknowledged, min(number, holder.invalidated))
        owed, holder.owed = holder.owed, []
        for each in owed:
            if each[0] > holder.acknowledged:
                holder.owed.append(each)
        for number, part, barrier in owed:
            if number <= holder.acknowledged:
                part.acknowledged(holder, barrier, now_ns, wall_us)

    def _say(self, connection: int, message: EncodedNearReply) -> None:
        self._context.effects.append(ReplyToClient(connection, message))

    # --- endings ------------------------------------------------------------------------------------------

    def connection_closed(self, now_ns: int, connection: int) -> None:
        """Note that a connection is gone; forget what those held whose leases are over by now."""
        holder = self.by_connection.pop(connection, None)
        if holder is not None:
            holder.is_gone = True
            self._gone.append(holder)
        while self._gone and self._gone[0].alive_ns < now_ns:
            ended = self._gone.popleft()
            self.let_go(ended, tuple(ended.keys))
