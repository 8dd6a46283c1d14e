"""Sessions that a client keeps, and may show without asking: the client's half of the near cache.

An entry belongs to the connection on which it came, and may be shown while that is the connection to the
session's primary and the lease of the connection runs. The lease is counted from when it was asked for. The
server tells the connection before anybody is shown another state, and waits for the acknowledgement, or until
the lease is over. So what is shown is never older than what anybody was shown before.

What that rests on is the order of a connection: what a lease covers has come before it, and what had to be
dropped too. So a lease that has lapsed makes entries unusable, not void; the next one revives them, and there
are no timers.

The clock must run on while this host is suspended, and is read for every session that is shown: the time of
an event loop may be as old as its iteration. A session that came before its writer's own request, and arrives
after it, is not kept: `filling` says for which requests answers may be.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from greenroom import wire
from greenroom.dialog.links import Lease, Link
from greenroom.ending_messages import WatchSession
from greenroom.errors import RemoteProtocolError
from greenroom.near_messages import (
    CLOCK_DRIFT,
    HITS_MAX,
    IN_ANY_CASE,
    GetNear,
    Held,
    Invalidate,
    NearAck,
    NearBeacon,
    NearLease,
    NearReply,
    Unhold,
)

BEACON_PAUSE_NS = 100_000_000
"""The least time between two beacons on one connection."""

_FILLING_MAX = 64
"""How many requests for one session are remembered; of those that are never answered some may remain."""


class NearCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the near caches of a store have done, and how many sessions they hold now.

    `hits` were shown from memory. Of the `misses`, `lapsed` had the session but no lease. `invalidations`
    dropped one, `revoked` those of whole shards, `evicted` made room. `refused`: the cluster was asked to
    hold a session and did not. `supported`: some connection is to an actor that holds sessions.
    """

    entries: int = 0
    hits: int = 0
    misses: int = 0
    lapsed: int = 0
    invalidations: int = 0
    revoked: int = 0
    evicted: int = 0
    refused: int = 0
    supported: bool = False


def total(counts: Sequence[NearCounts]) -> NearCounts:
    """Return what several caches have done together."""
    if not counts:
        return NearCounts()
    sums = {name: sum(getattr(each, name) for each in counts) for name in NearCounts.__struct_fields__}
    return NearCounts(**{**sums, "supported": any(each.supported for each in counts)})


class Entry:
    """One session that is kept: of which connection, and until when it may be shown at most."""

    __slots__ = ("link", "point", "session", "until_ns")

    def __init__(self, link: Link, point: int, session: wire.Session, until_ns: int) -> None:
        self.link = link
        self.point = point
        self.session = session
        self.until_ns = until_ns


class Filling:
    """The requests for one session whose answers may be kept, with when each was queued; of one connection.

    All of them were sent since the client last dropped the session, so any order of their answers is safe.
    """

    __slots__ = ("link", "queued_ns")

    def __init__(self, link: Link) -> None:
        self.link = link
        self.queued_ns: dict[int, int] = {}

    def add(self, request_id: int, now_ns: int) -> None:
        """Note a request that is sent now, in the place of the oldest if there are too many."""
        self.queued_ns[request_id] = now_ns
        if len(self.queued_ns) > _FILLING_MAX:
            del self.queued_ns[next(iter(self.queued_ns))]


class NearCache:
    """The sessions that one dialog keeps, at most `entries_max`, the longest unused of which make room.

    `now_ns` reads a clock that runs on while the host is suspended. A session is kept when its version is
    read for the second time, with `eager` for the first.
    """

    def __init__(self, entries_max: int, now_ns: Callable[[], int], *, eager: bool = False) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.filling: dict[bytes, Filling] = {}
        # The version that was last seen of sessions, to ask for those that are read again.
        self._seen: dict[bytes, int] = {}
        self._entries_max = entries_max
        self._now_ns = now_ns
        self._eager = eager
        self._supported = False
        # When a session was asked for that is to be held, if that leaves now.
        self._wanted_ns = 0
        self._hits = self._misses = self._lapsed = 0
        self._invalidations = self._revoked = self._evicted = self._refused = 0
        self.send: Callable[[Link, wire.Frame], None]
        """Queues a message on a connection."""

    @property
    def counts(self) -> NearCounts:
        """What this cache has done so far."""
        return NearCounts(
            entries=len(self.entries),
            hits=self._hits,
            misses=self._misses,
            lapsed=self._lapsed,
            invalidations=self._invalidations,
            revoked=self._revoked,
            evicted=self._evicted,
            refused=self._refused,
            supported=self._supported,
        )

    # --- showing ------------------------------------------------------------------------------------------

    def hit(self, digest: bytes, link: Link | None, *, looks_again: bool = False) -> wire.Session | None:
        """Return the session if it may be shown now; `link` is the connection to its primary.

        Whoever is given it shows it before anything else runs: the clock was read for this. A caller that
        `looks_again` before it asks the cluster has not missed it yet.
        """
        entry = self.entries.get(digest)
        if entry is None or link is None or entry.link is not link:
            self._misses += not looks_again
            return None
        lease = link.lease
        now_ns = self._now_ns()
        if lease is None or now_ns >= lease.until_ns or now_ns >= entry.until_ns:
            self._misses += not looks_again
            self._lapsed += not looks_again
            return None
        self._hits += 1
        lease.hits += 1
        # The longest unused is the first of the dict.
        del self.entries[digest]
        self.entries[digest] = entry
        if lease.until_ns - now_ns < lease.rem_ns >> 1:
            self._ask(link, now_ns)
        return entry.session

    # --- what is sent -------------------------------------------------------------------------------------

    def greeted(self, link: Link) -> None:
        """Note that a connection is ready for requests; one for suspects keeps nothing."""
        agreement, lane = link.agreement, link.lane
        if agreement is None or lane is None or lane.main is not None:
            return
        if wire.FEATURE_NEAR in agreement.features:
            link.lease = Lease()
            self._supported = True

    def leaving(self, link: Link, request: wire.Frame) -> wire.Frame:
        """Return what is sent on a connection in the place of a request for one session."""
        if type(request) is WatchSession:
            return request
        if type(request) is not wire.Get:
            self._change(link, request)
            return request
        if link.lease is None:
            return request
        digest = request.digest
        seen = IN_ANY_CASE if self._eager else self._seen.get(digest, 0)
        if not seen:
            return request
        self._await(link, request)
        return GetNear(request.request_id, request.point, digest, seen)

    def _change(self, link: Link, request: Any) -> None:
        """Drop what a request that is sent now may change."""
        # Whatever becomes of this attempt, the session may be another from now on; and an answer that is on
        # its way may show what it was before. One by handle names no digest, and drops nothing.
        digest = request.digest
        entry = self.entries.get(digest)
        self.drop(digest)
        if type(request) is wire.Rotate:
            self.drop(request.new_digest)
        elif entry is not None and entry.link is link and type(request) is wire.Patch:
            # The server knows that it was held here, and goes on holding it with its answer.
            self._await(link, request)

    def _await(self, link: Link, request: wire.Get | wire.Patch) -> None:
        """Note that what answers this request may be kept, and that a lease is needed for that."""
        now_ns = self._now_ns()
        if len(self.filling) > 2 * self._entries_max:
            self.filling.clear()  # of requests that were never answered
        filling = self.filling.get(request.digest)
        if filling is None or filling.link is not link:
            filling = self.filling[request.digest] = Filling(link)
        filling.add(request.request_id, now_ns)
        self._wanted_ns = now_ns

    def left(self, link: Link) -> None:
        """Ask for the lease behind a request that wants one: it covers what is held when it is given."""
        now_ns, self._wanted_ns = self._wanted_ns, 0
        lease = link.lease
        if now_ns and lease is not None and lease.until_ns - now_ns <= lease.rem_ns >> 1:
            self._ask(link, now_ns)

    def drop(self, digest: bytes) -> None:
        """Show this session no longer, and keep no answer to what was asked before."""
        self.entries.pop(digest, None)
        self.filling.pop(digest, None)

    def _ask(self, link: Link, now_ns: int) -> None:
        """Ask for the lease again, unless that is unanswered, or was asked just now."""
        lease = link.lease
        if lease is None or lease.asked_ns or now_ns - lease.tried_ns < BEACON_PAUSE_NS:
            return
        lease.asked_ns = lease.tried_ns = now_ns
        hits, lease.hits = lease.hits, 0
        self.send(link, NearBeacon(now_ns, min(hits, HITS_MAX)))

    # --- what is received ---------------------------------------------------------------------------------

    def learn(self, link: Link, request: Any, reply: wire.Reply | Held) -> wire.Reply:
        """Note which version the reply to a request shows or has made, and keep one that is held for us.

        Returns the reply for whoever asked.
        """
        if isinstance(reply, Held):
            return self._fill(link, request, reply)
        digest, version = getattr(request, "digest", b""), 0
        if type(reply) is wire.Session:
            version = reply.state.version
            if type(request) is wire.Rotate:
                digest = request.new_digest
            elif self._filled(digest, reply.request_id) is not None:
                self._refused += type(request) is wire.Get
        elif type(reply) is wire.Written:
            version = reply.version
        self._saw(digest, version)
        return reply

    def _fill(self, link: Link, request: wire.Get | wire.Patch, held: Held) -> wire.Session:
        """Keep what the server holds for this connection, if nothing came between; return it as a reply."""
        session = wire.Session(held.request_id, held.state)
        digest = request.digest
        self._saw(digest, held.state.version)
        filling = self.filling.get(digest)
        if filling is None or filling.link is not link:
            return session
        queued_ns = self._filled(digest, held.request_id)
        if queued_ns is None:
            return session
        # By a clock that runs slower than the server's, the session must not outlive its end there.
        until_ns = queued_ns + int(held.left_us * 1000 / (1 + CLOCK_DRIFT))
        self.entries.pop(digest, None)
        self.entries[digest] = Entry(link, request.point, session, until_ns)
        if len(self.entries) > self._entries_max:
            self._evict()
        return session

    def _saw(self, digest: bytes, version: int) -> None:
        """Note which version of a session was seen last, 0 for none; forget the oldest of too many."""
        self._seen.pop(digest, None)
        if version:
            self._seen[digest] = version
            if len(self._seen) > 2 * self._entries_max:
                del self._seen[next(iter(self._seen))]

    def _filled(self, digest: bytes, request_id: int) -> int | None:
        """Forget a request that is answered; return when it was queued, None if its answer is not kept."""
        filling = self.filling.get(digest)
        if filling is None:
            return None
        queued_ns = filling.queued_ns.pop(request_id, None)
        if not filling.queued_ns:
            del self.filling[digest]
        return queued_ns

    def _evict(self) -> None:
        digest = next(iter(self.entries))
        link = self.entries[digest].link
        # An answer that is still to come would be kept after the server was told that nothing is.
        self.drop(digest)
        self._evicted += 1
        if link.lease is not None and link.lane is not None and link.lane.link is link:
            self.send(link, Unhold((digest,)))

    def take(self, link: Link, message: NearReply, shift: int) -> None:
        """Take in what a server says about what it holds. `shift` turns a point into its shard."""
        lease = link.lease
        if lease is None:
            raise RemoteProtocolError(f"a {type(message).__name__} came from a server that holds nothing")
        match message:
            case NearLease():
                if message.sent_ns == lease.asked_ns:
                    lease.asked_ns = 0
                    lease.rem_ns = message.rem_us * 1000
                    lease.until_ns = max(lease.until_ns, message.sent_ns + lease.rem_ns)
            case Invalidate():
                self._invalidate(link, message, shift)
                self.send(link, NearAck(message.number))
            case _:
                raise RemoteProtocolError("a session is held that was never asked for")

    def _invalidate(self, link: Link, message: Invalidate, shift: int) -> None:
        # Answers that are still to come are newer than this: on a connection they keep their order.
        entries = self.entries
        for digest in message.digests:
            entry = entries.get(digest)
            if entry is not None and entry.link is link:
                del entries[digest]
                self._invalidations += 1
        if message.shards:
            gone = [
                digest
                for digest, entry in entries.items()
                if entry.link is link and entry.point >> shift in message.shards
            ]
            for digest in gone:
                del entries[digest]
            self._revoked += len(gone)
