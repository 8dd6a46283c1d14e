"""What a primary does: admit requests, commit what all followers have logged, answer.

Write path: stamp, append, send to every follower; when all that count have logged it: apply, then answer.
Reads are answered from applied state under the lease of every follower that counts; without a lease they are
held and looked at anew. A request that stands in the log is never refused afterwards: the peer may commit it.

How the configuration changes is in `membership`.
"""

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from greenroom import wire
from greenroom.fields import LIST_LIMIT_MAX
from greenroom_cluster.shard.context import MARK_EPOCH, MARK_SEQUENCE, MARK_SHARD
from greenroom_cluster.shard.effects import Reply
from greenroom_cluster.shard.fanout import Gather
from greenroom_cluster.shard.limits.admission import OPENING, SMALL_BYTES, Admission
from greenroom_cluster.shard.limits.eviction import Eviction
from greenroom_cluster.shard.limits.growth import Growth
from greenroom_cluster.shard.limits.paging import LONG, Long, Paging
from greenroom_cluster.shard.pairs.outgoing import Follower
from greenroom_cluster.shard.roles.accepts import ACCEPTS, Kind
from greenroom_cluster.shard.roles.membership import Membership
from greenroom_cluster.shard.settings import ns
from greenroom_cluster.shard.state.log import record_bytes
from greenroom_cluster.shard.state.memory import ANSWER_BYTES, CLIENT_BYTES
from greenroom_cluster.shard.state.records import Command, Expire, ForgetClients, Record, asked
from greenroom_cluster.shard.state.results import Client, answers
from greenroom_cluster.shard.state.stored import expiry_of, reply_with

if TYPE_CHECKING:
    from greenroom_cluster.shard.context import OpenProposal
    from greenroom_cluster.shard.roles.replica import Replica

TELL_EVERY = 30
_REQUEST = Kind.REQUEST

Origin: TypeAlias = int | Gather
Read: TypeAlias = wire.Get | wire.ListByUser
Write: TypeAlias = wire.Mutation | wire.DeleteByUser | wire.Clean


class Primary:
    """The primary's side of one replica. An origin is a client connection or a `Gather`."""

    __slots__ = (
        "_forget_from_ns",
        "_held_bytes",
        "_rereads",
        "_swept",
        "_tidied",
        "_tidied_ns",
        "_tidy_due_ns",
        "_waiting",
        "admission",
        "behind",
        "clock",
        "context",
        "copy_first",
        "counted",
        "eviction",
        "growth",
        "held",
        "inherited",
        "log",
        "membership",
        "paging",
        "replica",
        "shard",
        "table",
    )

    def __init__(self, replica: "Replica", now_ns: int) -> None:
        self.replica = replica
        self.shard = replica.shard
        self.context = replica.context
        self.log = replica.log
        self.table = replica.table
        self.clock = replica.clock
        self.counted: tuple[Follower, ...] = ()
        self.held: deque[tuple[Origin, bytes, Read | Write]] = deque()
        # Who waits for the answer to a command in the log, by client and request.
        self._waiting: dict[tuple[bytes, int], tuple[Origin, Write]] = {}
        # Reads to look at again once an expiry is decided, by its sequence number.
        self._rereads: dict[int, tuple[Origin, Read]] = {}
        self._held_bytes = 0
        # What the log holds already is applied before anything is served; perhaps once another member has it.
        self.inherited = self.log.appended
        self.behind, self.copy_first = replica.committed < self.inherited, False
        self._swept = 0
        self._tidied = 0
        self._tidied_ns = now_ns
        self._tidy_due_ns = 0
        self._forget_from_ns = 0
        self.membership = Membership(self, now_ns)
        self.admission = Admission(self)
        self.paging = Paging(replica.table, replica.context.settings)
        self.growth = Growth(self)
        self.eviction = Eviction(self)

    @property
    def epoch(self) -> int:
        """Epoch of the configuration."""
        return self.replica.epoch

    @property
    def committed(self) -> int:
        """Sequence number up to which everything is decided and applied."""
        return self.replica.committed

    @property
    def opened(self) -> "OpenProposal | None":
        """The proposal whose outcome is not known."""
        return self.membership.opened

    @property
    def held_bytes(self) -> int:
        """What the requests take that are held."""
        return self._held_bytes

    def leased(self, now_ns: int) -> bool:
        """Whether every follower that counts has promised not to take over yet."""
        for follower in self.counted:
            if follower.pair.lease_until_ns <= now_ns or follower.refused:
                return False
        return True

    @property
    def paused(self) -> bool:
        """Whether requests are held: not all is applied, it is handed over, or a former leader may serve."""
        return self.behind or self.membership.draining or _REQUEST not in ACCEPTS[self.replica.role]

    # --- requests -------------------------------------------------------------------------------------------

    def read(self, now_ns: int, wall_us: int, origin: Origin, client: bytes, request: Read) -> None:
        """Answer a read from applied state, or hold it until a lease or a new configuration."""
        if self.paused or not self.leased(now_ns):
            self._hold(origin, client, request)
            return
        time_us = self.clock.read(now_ns, wall_us)
        if type(request) is wire.Get:
            stored = self.table.sessions.get(request.digest)
            if stored is None:
                self.answer(origin, wire.Missing(request.request))
            elif expiry_of(stored) > time_us:
                self.answer(origin, reply_with(request.request, stored))
            else:
                self._expire_first(now_ns, time_us, (request.digest,), origin, request)
            return
        assert isinstance(request, wire.ListByUser)
        self._list(now_ns, time_us, origin, request)

    def _list(self, now_ns: int, time_us: int, origin: Origin, request: wire.ListByUser) -> None:
        """Answer with the user's newest sessions, never so many that the answer outgrows a frame."""
        context = self.context
        settings = context.settings
        if context.listed > settings.listed_max:
            self.answer(origin, wire.Overloaded(request.request, "too many sessions are listed at once"))
            return
        limit = min(max(request.limit, 0), LIST_LIMIT_MAX)
        live, over = self.table.newest_of(request.user_id, limit, time_us, settings.expire_batch_max)
        context.listed += len(live) + len(over)
        if over:
            # A bounded number at a time: the request is looked at again once that is decided.
            self._expire_first(now_ns, time_us, tuple(over), origin, request)
            return
        self.answer(origin, wire.Listing(request.request, (self.shard,), tuple(live)))

    def _expire_first(
        self, now_ns: int, time_us: int, over: tuple[bytes, ...], origin: Origin, request: Read
    ) -> None:
        """An answer that rests on an expiry waits until that expiry is decided, so that it stays true."""
        if self.log.held_bytes > self.context.settings.uncommitted_bytes_max:
            self.answer(origin, self.admission.too_many_bytes(request.request))
            return
        sequence = self.decide(now_ns, time_us, Expire(over))
        self._rereads[sequence] = (origin, request)

    def submit(self, now_ns: int, wall_us: int, origin: Origin, client: bytes, command: Write) -> None:
        """Log a write, unless it is a repeat, or a limit forbids it."""
        request = command.request
        known = self.table.clients.by_id.get(client)
        if known is not None and request <= known.newest and self._repeats(origin, known, command):
            return
        waiting, key = self._waiting, (client, request)
        logged = waiting.get(key)
        if logged is not None:
            if asked(logged[1]) == asked(command):
                waiting[key] = (origin, command)
            else:
                self.answer(origin, _another(request))
            return
        if self.paused:
            self._hold(origin, client, command)
            return
        time_us = self.clock.read(now_ns, wall_us)
        if command.age_ms and self.admission.forgotten(known, command.age_ms, time_us):
            self.answer(origin, wire.Unknowable(request, "repeated after the shard may have forgotten it"))
            return
        kind, admission, size = type(command), self.admission, record_bytes(command)
        refusal = admission.refusal(now_ns, known, command, size)
        if refusal is not None:
            self.answer(origin, refusal)
            return
        if (kind in LONG or self.paging.under_way) and self._pages(origin, client, command):
            return
        opened = admission.opened(command, size) if kind in OPENING else 0
        charge = self.growth.charge(known, command, size, opened)
        if type(charge) is not int:
            self.answer(origin, charge)  # type: ignore[arg-type]  # else it is a refusal
            return
        sequence = self._append(now_ns, time_us, client, command, size, charge)
        if kind in OPENING or size > SMALL_BYTES or kind is wire.Clean:
            admission.logged(sequence, command, size)
        waiting[key] = (origin, command)

    def _repeats(self, origin: Origin, known: Client, command: Write) -> bool:
        """Answer a request that was answered before; False if there is no answer to it."""
        request = command.request
        if request < known.low:
            self.answer(origin, wire.Unknowable(request, "an id below the client's own low-watermark"))
            return True
        kept = known.results.get(request)
        if kept is None or self.membership.quiet_until_ns:
            return False
        self.answer(origin, kept.reply if answers(kept, command) else _another(request))
        return True

    def _pages(self, origin: Origin, client: bytes, command: Write) -> bool:
        """Begin a command that takes pages, or refuse what has to wait for one; False to log it now."""
        paging, request = self.paging, command.request
        if isinstance(command, Long):
            if not paging.needed(command):
                return False
            refusal = paging.refusal(command)
            if refusal is None:
                paging.begin(client, command)
                self._waiting[client, request] = (origin, command)
                self.context.unfinished[self.shard] = self
                return True
            self.answer(origin, refusal)
            return True
        if isinstance(command, wire.Create | wire.Rotate) and paging.takes(
            command.digest if isinstance(command, wire.Create) else command.new_digest
        ):
            # The command that removed it decides only at its end, and would remove it a second time.
            self.answer(origin, wire.Overloaded(request, "a session of this id is being removed"))
            return True
        return False

    def go_on(self, now_ns: int, wall_us: int, room: int) -> int:
        """Log the next pages of long commands; return what they cost in removals, about `room` at most."""
        settings = self.context.settings
        if self.paused or self.log.held_bytes > settings.uncommitted_bytes_max:
            return 0
        time_us = self.clock.read(now_ns, wall_us)
        paging, used = self.paging, 0
        for each in paging.ready(self.committed):
            if used >= room:
                break
            first = self.log.appended + 1
            commands, cost = each.next_page(self.table, time_us, first, settings.page_max)
            used += cost
            for command in commands:
                self.decide(now_ns, time_us, command)
            if commands:
                paging.sent(each, first, self.log.appended)
            elif not cost:
                paging.end(each)
                self.decide(now_ns, time_us, each.last(), each.client)
        if paging.ready(self.committed):
            self.context.unfinished[self.shard] = self
        return used

    def _append(
        self, now_ns: int, time_us: int, client: bytes, command: Command, size: int, charge: int
    ) -> int:
        log = self.log
        sequence = log.appended + 1
        log.append(Record(self.replica.epoch, sequence, time_us, client, command), size, charge)
        self.context.memory.add(self.shard, charge)
        for follower in self.membership.followers:
            if follower.streaming:
                pair = follower.pair
                pair.unsent[self.shard] = follower
                pair.room_bytes -= charge
                if pair.room_bytes < pair.enough_bytes:
                    pair.ask_for_room()
                if follower.waiting_since_ns == 0:
                    follower.waiting_since_ns = now_ns
        if not self.counted:
            self.context.ready[self.shard] = self
        return sequence

    def decide(self, now_ns: int, time_us: int, command: Command, client: bytes = b"") -> int:
        """Log what the primary decides on its own, which removes sessions and adds an answer at most."""
        size = record_bytes(command)
        return self._append(now_ns, time_us, client, command, size, size + ANSWER_BYTES + CLIENT_BYTES)

    def answer(self, origin: Origin, reply: wire.EncodedReply) -> None:
        """Send an answer to where the request came from."""
        if type(origin) is int:
            self.context.effects.append(Reply(origin, reply))
        else:
            assert isinstance(origin, Gather)
            origin.add(self.shard, reply, self.context.effects)

    def _hold(self, origin: Origin, client: bytes, request: Read | Write) -> None:
        settings = self.context.settings
        size = 0 if isinstance(request, Read) else record_bytes(request)
        if len(self.held) >= settings.held_requests_max:
            reason = "too many requests wait while the shard changes hands"
            self.answer(origin, wire.Overloaded(request.request, reason))
        elif self._held_bytes + size > settings.held_bytes_max:
            reason = "too many bytes of requests wait while the shard changes hands"
            self.answer(origin, wire.Overloaded(request.request, reason))
        else:
            self._held_bytes += size
            self.held.append((origin, client, request))
            self.replica.count()

    def release(self, now_ns: int, wall_us: int) -> None:
        """Look again at the requests that were held, and at what long commands have left to do."""
        if self.paging.under_way:
            self.context.unfinished[self.shard] = self
        if self.paused or not self.held or not self.leased(now_ns):
            return
        held, self.held = self.held, deque()
        self._held_bytes = 0
        self.replica.count()
        for origin, client, request in held:
            if isinstance(request, Read):
                self.read(now_ns, wall_us, origin, client, request)
            else:
                self.submit(now_ns, wall_us, origin, client, request)

    # --- the log --------------------------------------------------------------------------------------------

    def advance(self, now_ns: int, wall_us: int) -> None:
        """Commit what every follower that counts has logged: apply it, then answer."""
        replica = self.replica
        if self.membership.catching_up:
            self.membership.add_if_caught_up(now_ns)
        target = self.membership.decided()
        if target <= replica.committed:
            return
        target = replica.affordable(target)
        if target <= replica.committed:
            return
        again = self._apply(target)
        self._tell_commit_point()
        replica.count()
        for origin, read in again:
            self.read(now_ns, wall_us, origin, b"", read)
        self._committed_more(now_ns)
        if self.behind and replica.committed >= self.inherited:
            self.behind = self.copy_first = False
            self.release(now_ns, wall_us)

    def _apply(self, target: int) -> list[tuple[Origin, Read]]:
        """Apply the log up to a record, or what one step may, and answer; return reads to look at anew."""
        replica, log, table = self.replica, self.log, self.table
        admission, paging = self.admission, self.paging
        apply, walked, waiting = table.apply, table.walked, self._waiting
        paged, effects, mark = paging.under_way, self.context.effects, self.context.mark
        again: list[tuple[Origin, Read]] = []
        needed = self._needed_after(target)
        # The usual: all of them are applied, and nobody needs them any more, so one pass takes them out.
        keeps = needed < target or log.opening_at > replica.committed
        mark[MARK_SHARD] = self.shard
        for record in (log.records if keeps else log.take)(replica.committed, target):
            mark[MARK_EPOCH] = record.epoch
            mark[MARK_SEQUENCE] = replica.committed = sequence = record.sequence
            before = table.removed
            reply = apply(record)
            if paged:
                paging.applied(sequence, table.removed - before)
            if reply is None:
                if sequence in self._rereads:
                    again.append(self._rereads.pop(sequence))
                continue
            if admission.costs:
                admission.applied(sequence)
            asker = waiting.pop((record.client, reply.request), None)
            if asker is not None:
                if type(asker[0]) is int:
                    effects.append(Reply(asker[0], reply))
                else:
                    self.answer(asker[0], reply)
            if walked.items and replica.walked_enough(target):
                break
        mark[MARK_SEQUENCE] = 0
        if keeps:
            log.trim(min(needed, replica.committed))
        return again

    def _tell_commit_point(self) -> None:
        for follower in self.membership.followers:
            if follower.streaming:
                follower.pair.commits_due[self.shard] = follower

    def _committed_more(self, now_ns: int) -> None:
        """Do what waited for records to be committed."""
        if self.paging.under_way:
            self.context.unfinished[self.shard] = self
        if self.eviction.under_way_bytes:
            self.eviction.settle()
        if self.membership.draining:
            self.membership.hand_over_if_drained(now_ns)

    def trim(self) -> None:
        """Drop the records that nobody needs any more."""
        self.log.trim(self._needed_after(self.replica.committed))
        self.replica.count()

    def _needed_after(self, committed: int) -> int:
        """Return the number up to which nobody needs the records, if so much is committed."""
        for follower in self.membership.followers:
            if follower.acknowledged < committed:
                committed = follower.acknowledged
        return committed

    def sweep(self, now_ns: int, wall_us: int, looks: int) -> int:
        """Log what is over: sessions and, now and then, silent clients. Return at how many it looked.

        Nothing new before the last of it is committed, else it would pile up while a peer is away.
        """
        tidies = now_ns >= self._tidy_due_ns
        if tidies:
            self._tidy_due_ns = now_ns + ns(self.context.settings.sweep_seconds)
            self._tell_followers()
        if self.paused or self.committed < self._swept:
            return 0
        time_us = self.clock.read(now_ns, wall_us)
        over, looked = self.table.due(time_us, looks)
        if over:
            self._swept = self.decide(now_ns, time_us, Expire(tuple(over)))
        if tidies:
            self._warn_of_the_clock()
            self._forget_silent_clients(now_ns, time_us)
        return looked

    def _warn_of_the_clock(self) -> None:
        if self.clock.doubted_us:
            self.context.warn(
                f"the wall clock is {self.clock.doubted_us / 1e6:.1f} s ahead of the shard's time and is "
                "followed only slowly: check this host's clock",
                self.shard,
            )

    def _tell_followers(self) -> None:
        """Tell the commit point again: a backup that had still to hear of its configuration let it pass.

        Soon after a change of the configuration that is likely, so after 1, 2, 4, ... sweeps.
        """
        self._tidied += 1
        soon = self._tidied < TELL_EVERY and self._tidied & (self._tidied - 1) == 0
        if soon or self._tidied % TELL_EVERY == 0:
            self._tell_commit_point()

    def _forget_silent_clients(self, now_ns: int, time_us: int) -> None:
        settings = self.context.settings
        if now_ns - self._tidied_ns > ns(settings.operation_deadline_seconds):
            # After a pause or a time without service, clients only seem to have been silent: their repeats
            # may wait in the sockets, and must still find the results.
            self._forget_from_ns = now_ns + settings.forget_us * 1000
        self._tidied_ns = now_ns
        since_us = time_us - settings.forget_us
        silent = self.table.clients.silent_since(since_us) if now_ns >= self._forget_from_ns else ()
        if silent:
            self._swept = self.decide(now_ns, time_us, ForgetClients(silent, since_us))

    # --- configuration --------------------------------------------------------------------------------------

    def reconfigure(self, now_ns: int, wall_us: int) -> None:
        """Go on under a configuration that was decided and has this actor as primary."""
        self._tidied = 0
        self.membership.reconfigure(now_ns)
        self.advance(now_ns, wall_us)
        self.release(now_ns, wall_us)

    def on_refused(self, now_ns: int, reason: str) -> None:
        """The coordinator refused the open proposal."""
        self.membership.on_refused(now_ns, reason)

    def drop_connection(self, connection: int) -> None:
        """Forget held requests of a connection that is gone."""
        if self.held:
            self.held = deque(
                entry
                for entry in self.held
                if (entry[0] if isinstance(entry[0], int) else entry[0].connection) != connection
            )
            self._held_bytes = sum(
                record_bytes(request) for _, _, request in self.held if not isinstance(request, Read)
            )

    def close(self) -> None:
        """Stop being primary: tell everybody who waits where to look, and what may have happened."""
        for origin, _, held in self.held:
            self.answer(origin, self.context.redirect(held.request))
        self.held.clear()
        for (_, request), (origin, _) in self._waiting.items():
            self.answer(origin, self.context.redirect(request, appended=True))
        for origin, read in self._rereads.values():
            self.answer(origin, self.context.redirect(read.request))
        self._waiting.clear()
        self._rereads.clear()
        self.admission.close()
        self.eviction.close()
        self.membership.close()


def _another(request: int) -> wire.Unknowable:
    return wire.Unknowable(request, "another command was sent under this client's id and request id")
