# ruff: noqa: ANN001, ANN002, ANN202, ARG001, ARG005, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of what clients keep: at the client, and at the primary that lets them.

Those of shards that change hands are in `near_hands`.
"""

from greenroom import wire
from greenroom.deadlines import NEVER_NS
from greenroom.dialog.near import Entry, NearCache
from greenroom.dialog.runners import Runners
from greenroom.near_messages import EncodedHeld, GetNear, Invalidate, NearLease
from greenroom_cluster.shard.clients.requests import Requests
from greenroom_cluster.shard.effects import ReplyToClient
from greenroom_cluster.shard.near import leases
from greenroom_cluster.shard.near.leases import Leases
from greenroom_cluster.shard.near.served import Near
from greenroom_cluster.shard.roles.primary import Primary
from simulations.mutants.near_stories import (
    CROWDED,
    CUT_OFF,
    DELAYED,
    FAR_AWAY,
    FORKED,
    HALF_OPEN,
    KILLED_EARLY,
    MOVED,
    REPEATED,
    STALLED,
    UNEVEN,
    WOKEN,
)
from simulations.mutants.patching import Patches, instead, mutant
from simulations.mutants.serving import serve_by

# --- the client's half -----------------------------------------------------------------------------------


@mutant("counts a lease from its receipt", flagged=True, budget=40, plan=STALLED)
def _(patches: Patches) -> None:
    """A lease begins when it comes, not when it was asked for."""
    original = NearCache.take

    def take(self, link, message, shift):
        original(self, link, message, shift)
        if isinstance(message, NearLease):
            link.lease.until_ns = max(link.lease.until_ns, self._now_ns() + link.lease.rem_ns)

    patches.set(NearCache, "take", take)


@mutant("reads the clock of the loop", flagged=True, budget=40, plan=STALLED)
def _(patches: Patches) -> None:
    """Whether a session may be shown is judged by the time at which something last came."""
    hit, learn, take = NearCache.hit, NearCache.learn, NearCache.take

    def stale_hit(self, digest, link, *, looks_again=False):
        with instead(self, _now_ns=lambda: getattr(self, "latest_ns", 0)):
            return hit(self, digest, link, looks_again=looks_again)

    def note(original):
        def noting(self, *arguments):
            self.latest_ns = self._now_ns()
            return original(self, *arguments)

        return noting

    patches.set(NearCache, "hit", stale_hit)
    patches.set(NearCache, "learn", note(learn))
    patches.set(NearCache, "take", note(take))


@mutant("keeps sessions over connections", flagged=True, budget=40, plan=STALLED)
def _(patches: Patches) -> None:
    """What came on a former connection to the same actor is shown under the lease of the next."""
    original = NearCache.greeted

    def greeted(self, link):
        original(self, link)
        for entry in self.entries.values():
            if entry.link.lane is link.lane:
                entry.link = link

    patches.set(NearCache, "greeted", greeted)


@mutant("keeps what its parent keeps", flagged=True, budget=40, plan=FORKED)
def _(patches: Patches) -> None:
    """The child of a fork shows what its parent had kept, though nobody tells it what changes."""
    patches.set(Runners, "forked", lambda self: [])


@mutant("keeps what its client changes", flagged=True, budget=20, plan=STALLED)
def _(patches: Patches) -> None:
    """A request that may change a session leaves what is kept of it."""

    def drop(self, digest):
        self.filling.pop(digest, None)

    patches.set(NearCache, "drop", drop)


@mutant("keeps an answer from before its own request", flagged=True, budget=80, plan=STALLED)
def _(patches: Patches) -> None:
    """An answer is kept although a request that may change the session was sent meanwhile."""
    patches.set(NearCache, "drop", lambda self, digest: self.entries.pop(digest, None))


@mutant("keeps what its client has let go", flagged=True, budget=40, plan=CROWDED)
def _(patches: Patches) -> None:
    """An answer is kept although the session made room since it was asked for."""
    original = NearCache._evict

    def evict(self):
        filling, self.filling = self.filling, {}
        original(self)
        self.filling = filling

    patches.set(NearCache, "_evict", evict)


@mutant("keeps an answer that no one holds", flagged=True, budget=20, plan=STALLED)
def _(patches: Patches) -> None:
    """Any session that is read is kept, whatever the server said."""
    original = NearCache.learn

    def learn(self, link, request, reply):
        filling = self.filling.get(getattr(request, "digest", b""))
        queued_ns = filling.queued_ns.get(request.request_id) if filling is not None else None
        shown = original(self, link, request, reply)
        if type(reply) is wire.Session and type(request) is wire.Get and queued_ns is not None:
            until_ns = queued_ns + 10_000_000_000
            self.entries[request.digest] = Entry(filling.link, request.point, reply, until_ns)
        return shown

    patches.set(NearCache, "learn", learn)


# --- giving leases ---------------------------------------------------------------------------------------


@mutant("gives leases of which its backups do not know", flagged=True, budget=40, plan=KILLED_EARLY)
def _(patches: Patches) -> None:
    """Sessions are held from the first wish on, whether or not the backups would wait."""

    def until_ns(self):
        if self.leaving or self._paused():
            return 0
        return min((each.pair.lease_until_ns for each in self._replication.counted), default=NEVER_NS)

    patches.set(Near, "until_ns", until_ns)


@mutant("gives leases without one", flagged=True, budget=40, plan=CUT_OFF)
def _(patches: Patches) -> None:
    """Whether the primary itself may answer does not matter."""
    patches.set(Near, "until_ns", lambda self: 0 if self.leaving or self._paused() else NEVER_NS)


@mutant("gives leases beyond its own", flagged=True, budget=150, plan=CUT_OFF)
def _(patches: Patches) -> None:
    """A lease is as long as any, however little is left of the primary's own."""
    original = Near.until_ns

    def until_ns(self):
        found = original(self)
        return NEVER_NS if found > self._step.now_ns else found

    patches.set(Near, "until_ns", until_ns)


@mutant("gives leases that do not cover all", flagged=True, budget=40, plan=MOVED)
def _(patches: Patches) -> None:
    """A connection may go on showing what it holds of shards that are not served any more."""
    patches.set(Near, "revoke", lambda self, holder: None)
    patches.set(Near, "close", lambda self: None)


@mutant("lets a lease outlast that of a shard", flagged=True, budget=40, plan=UNEVEN)
def _(patches: Patches) -> None:
    """A session is held for a connection that was given more time, for other shards, than this one has."""
    original = Near._may_hold

    def may_hold(self, now_ns, connection, key):
        holder = self._leases.by_connection.get(connection)
        if holder is None:
            return original(self, now_ns, connection, key)
        with instead(holder, granted_ns=0):
            return original(self, now_ns, connection, key)

    patches.set(Near, "_may_hold", may_hold)


@mutant("holds a session of a shard that is taken back", flagged=True, budget=40, plan=MOVED)
def _(patches: Patches) -> None:
    """Sessions are given out while all have to drop their shard, before it is handed over."""
    original = Near._may_hold

    def may_hold(self, now_ns, connection, key):
        with instead(self, leaving=False, _revoking={}):
            return original(self, now_ns, connection, key)

    patches.set(Near, "_may_hold", may_hold)


@mutant("trusts the clocks of clients", flagged=True, budget=40, plan=STALLED)
def _(patches: Patches) -> None:
    """A holder counts as alive for as long as its lease runs by the primary's clock."""
    patches.set(leases, "drifted", lambda span_ns: span_ns)


# --- changes ---------------------------------------------------------------------------------------------


@mutant("holds a session while a change waits", flagged=True, budget=20, plan=STALLED)
def _(patches: Patches) -> None:
    """A session is given out before everybody has dropped what it was."""
    original = Near._may_hold

    def may_hold(self, now_ns, connection, key):
        with instead(self, _olds={}, _pending={}):
            return original(self, now_ns, connection, key)

    patches.set(Near, "_may_hold", may_hold)


@mutant("tells only those whose lease runs", flagged=True, budget=20, plan=STALLED)
def _(patches: Patches) -> None:
    """Who may not show a session at the moment is not told that it has changed."""
    original = Near._bar

    def bar(self, now_ns, keys, olds):
        for key in keys:
            for holder in [each for each in self.holders.get(key, ()) if each.alive_ns < now_ns]:
                self._release(holder, key)
        original(self, now_ns, keys, olds)

    patches.set(Near, "_bar", bar)


@mutant("takes any acknowledgement for all", flagged=True, budget=20, plan=DELAYED)
def _(patches: Patches) -> None:
    """Whatever a holder acknowledges, it has dropped all that it was told to."""
    original = Leases.acknowledge

    def acknowledge(self, now_ns, wall_us, connection, number):
        original(self, now_ns, wall_us, connection, 1 << 60)

    patches.set(Leases, "acknowledge", acknowledge)


@mutant("leaves out all connections of a writer", flagged=True, budget=40, plan=STALLED)
def _(patches: Patches) -> None:
    """The client that changes a session is not told of it, on whatever connection it holds it."""
    clients: dict[int, bytes] = {}
    take_in, appended = Requests.take_in, Near.appended

    def noting(self, now_ns, wall_us, event):
        clients[event.connection] = event.client
        take_in(self, now_ns, wall_us, event)

    def leaving_out(self, now_ns, origin, command, sequence):
        digest = getattr(command, "digest", b"")
        for holder in list(self.holders.get(digest, ())):
            if isinstance(origin, int) and clients.get(holder.connection) == clients.get(origin):
                self._release(holder, digest)
        appended(self, now_ns, origin, command, sequence)

    patches.set(Requests, "take_in", noting)
    patches.set(Near, "appended", leaving_out)


@mutant("sends leases ahead of what is to be dropped", flagged=True, budget=20, plan=STALLED)
def _(patches: Patches) -> None:
    """A lease overtakes the words that were said before it on its connection."""
    original = Leases._say
    waiting: dict[object, list[Invalidate]] = {}

    def say(self, connection, message):
        queue = waiting.setdefault((self, connection), [])
        if isinstance(message, Invalidate):
            queue.append(message)
            return
        original(self, connection, message)
        # What is said now goes out with this lease; so keep the newest for the next.
        while len(queue) > 1:
            original(self, connection, queue.pop(0))

    patches.set(Leases, "_say", say)


@mutant("takes a closed connection for dropped", flagged=True, budget=20, plan=HALF_OPEN)
def _(patches: Patches) -> None:
    """Nobody waits for what came on a connection that is gone."""
    original = Leases.connection_closed

    def connection_closed(self, now_ns, connection):
        holder = self.by_connection.get(connection)
        if holder is not None:
            holder.alive_ns = 0
            for _, part, barrier in tuple(holder.owed):
                part.acknowledged(holder, barrier, now_ns, 0)
        original(self, now_ns, connection)

    patches.set(Leases, "connection_closed", connection_closed)


@mutant("acknowledges before holders have dropped", flagged=True, budget=20, plan=STALLED)
def _(patches: Patches) -> None:
    """A reply leaves as soon as its command is applied."""
    patches.set(Near, "send", lambda self, origin, reply, command: self._reply(origin, reply))


@mutant("reads what holders do not know of", flagged=True, budget=20, plan=STALLED)
def _(patches: Patches) -> None:
    """Reads show what is applied, also while holders may show what was before."""
    patches.set(Near, "read", lambda self, origin, request, time_us: False)


@mutant("reads what was before without a lease", flagged=True, budget=40, plan=WOKEN)
def _(patches: Patches) -> None:
    """While a change waits, what was before it is read whether or not the primary may answer."""
    original = Primary.read

    def read(self, now_ns, wall_us, origin, client, request):
        near = self.near if type(request) is wire.Get else None
        if near is None or not near.read(origin, request, self.clock.read(now_ns, wall_us)):
            original(self, now_ns, wall_us, origin, client, request)

    serve_by(patches, "read", read)


@mutant("refuses by what holders do not know of", flagged=True, budget=40, plan=STALLED)
def _(patches: Patches) -> None:
    """A refusal leaves at once, although it tells of a change that waits."""
    original = Near.send

    def send(self, origin, reply, command):
        if isinstance(reply, wire.Failed):
            self._reply(origin, reply)
        else:
            original(self, origin, reply, command)

    patches.set(Near, "send", send)


@mutant("repeats an answer that waits", flagged=True, budget=40, plan=DELAYED)
def _(patches: Patches) -> None:
    """A repeat is answered at once by the kept reply, while the first answer waits."""
    patches.set(Primary, "_show", lambda self, origin, reply, asked_for: self.reply(origin, reply))


@mutant("holds what a kept reply shows", flagged=True, budget=60, plan=REPEATED)
def _(patches: Patches) -> None:
    """A repeated patch is answered by a kept reply that its client keeps, though others have come since."""
    show, leaving, take_in = Primary._show, NearCache.leaving, Requests.take_in
    clients: dict[int, bytes] = {}
    keeping: set[bytes] = set()

    def noting(self, now_ns, wall_us, event):
        clients[event.connection] = event.client
        if any(isinstance(each, GetNear) for each in event.requests):
            keeping.add(event.client)
        take_in(self, now_ns, wall_us, event)

    def may_hold(near, origin, key):
        return clients[origin] in keeping and near._may_hold(near._step.now_ns, origin, key)

    def holding(self, origin, reply, asked_for):
        near = self.near
        plain = near is None or type(asked_for) is not wire.Patch or type(reply) is not wire.EncodedSession
        if plain or near._in_the_way(asked_for) or not may_hold(near, origin, asked_for.digest):
            show(self, origin, reply, asked_for)
        else:
            near._hold(origin, asked_for.digest)
            held = EncodedHeld(reply.request_id, reply.state, 10**9)
            self.context.effects.append(ReplyToClient(origin, held))

    def awaiting(self, link, request):
        sent = leaving(self, link, request)
        if type(request) is wire.Patch and link.lease is not None:
            self._await(link, request)
        return sent

    patches.set(Requests, "take_in", noting)
    patches.set(Primary, "_show", holding)
    patches.set(NearCache, "leaving", awaiting)


@mutant("lists what holders do not know of", flagged=True, budget=40, plan=FAR_AWAY)
def _(patches: Patches) -> None:
    """A listing shows what is applied, also while holders may show what was before."""
    patches.set(Near, "hold_listing", lambda self, origin, request: False)


@mutant("overlooks commands that name no session", flagged=True, budget=80, plan=STALLED)
def _(patches: Patches) -> None:
    """Only holders of a session that a command names are told that it changes."""
    patches.set(Near, "apply", lambda self, record: self.table.apply(record))


@mutant("lets a deletion by handle pass", flagged=True, budget=80, plan=DELAYED)
def _(patches: Patches) -> None:
    """A deletion by handle is answered at once if there is no such session any more."""
    original = Near._in_the_way

    def in_the_way(self, command):
        if type(command) is wire.DeleteByHandle:
            return tuple(self._olds.get(command.digest, ()))
        return original(self, command)

    patches.set(Near, "_in_the_way", in_the_way)
