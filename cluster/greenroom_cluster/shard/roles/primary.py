"""The work of a primary: admit requests, commit what all recipients have logged, reply.

A write is stamped, appended and sent to every recipient; once all that count have logged it, it is applied,
then answered. Reads are answered from applied state, under the leases of all recipients that count; without
them they are held until there are leases again. A request in the log is never refused afterwards: a peer may
commit it.

`membership` decides how the configuration changes.
"""

from typing import Any

import msgspec

from greenroom import wire
from greenroom.ending_messages import WatchSession
from greenroom.fields import LIST_LIMIT_MAX
from greenroom.ids import DIGEST_BYTES
from greenroom_cluster.shard.context import OpenProposal
from greenroom_cluster.shard.effects import ReplyToClient
from greenroom_cluster.shard.endings.watched import Apply, Watched
from greenroom_cluster.shard.fanout import Gather
from greenroom_cluster.shard.limits.admission import OPENING, SMALL_BYTES, Admission, Write, refused_by_disk
from greenroom_cluster.shard.limits.eviction import Eviction
from greenroom_cluster.shard.limits.namespace_growth import growth_of
from greenroom_cluster.shard.limits.paging import LONG, Long, Paging
from greenroom_cluster.shard.near.barriers import Origin
from greenroom_cluster.shard.near.served import Near
from greenroom_cluster.shard.pairs.replication import Replication
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.roles.held import Asking, HeldRequests, Request
from greenroom_cluster.shard.roles.membership import Membership
from greenroom_cluster.shard.roles.releases import Releases
from greenroom_cluster.shard.roles.upkeep import Upkeep
from greenroom_cluster.shard.state.copy import Copy
from greenroom_cluster.shard.state.kept_replies import Client, is_repeat, is_reply_to
from greenroom_cluster.shard.state.log import record_bytes
from greenroom_cluster.shard.state.namespaces import bare
from greenroom_cluster.shard.state.records import Expire, Within, asked
from greenroom_cluster.shard.state.stored import expiry_of, reply_with
from greenroom_cluster.shard.step import MARK_EPOCH, MARK_SEQUENCE, MARK_SHARD


class Primary:
    """The primary's side of one replica. An origin is a client connection or a `Gather`."""

    __slots__ = (
        *("_disk", "_releases", "_rereads", "_step", "_upkeep", "_waiting"),
        *("admission", "clock", "context", "copy", "eviction", "growth"),
        *("held", "log", "membership", "near", "paging", "replication", "shard"),
        *("table", "watched"),
    )

    def __init__(self, copy: Copy, resources: Resources, now_ns: int) -> None:
        self.copy = copy
        self.shard = copy.shard
        self.context = resources.context
        self.log = copy.log
        self.table = copy.table
        self.clock = copy.clock
        self._step = resources.step
        self._disk = resources.disk
        # None until a client wants to hold something, see `near_reads`.
        self.near: Near | None = None
        self.watched = Watched(copy, resources.watchers, self)
        self.held = HeldRequests(copy, resources.context.settings)
        # Who waits for the reply to a logged command, by client and request id.
        self._waiting: dict[tuple[bytes, int], tuple[Origin, Write]] = {}
        # Reads to serve again once an expiry is decided, by its sequence number.
        self._rereads: dict[int, tuple[Origin, Asking]] = {}
        self.replication = Replication(copy, resources)
        self.paging = Paging(copy.table, resources.context.settings)
        self._releases = Releases(self.replication, resources, self.paging)
        self.membership = Membership(self.replication, resources, self._releases, now_ns)
        self.admission = Admission(copy, resources, self.membership.shed)
        self.eviction = Eviction(self.replication, resources, self._releases.may_evict)
        self.growth = growth_of(self.replication, resources, self.eviction)
        self._upkeep = Upkeep(self.replication, resources.context, now_ns)

    @property
    def opened(self) -> OpenProposal | None:
        """The proposal whose outcome is not known."""
        return self.membership.opened

    @property
    def inherited(self) -> int:
        """The end of the log when this actor became primary; nothing is served before that is applied."""
        return self.replication.inherited

    @property
    def paused(self) -> bool:
        """Whether requests are held: to apply the log, to hand over, or while a former primary may serve.

        Also until the configuration is on the own disk.
        """
        return self.replication.behind or self.membership.draining or self.copy.unsettled

    def leased(self, now_ns: int) -> bool:
        """Whether every recipient that counts has granted a lease that still runs."""
        for recipient in self.replication.counted:
            if recipient.pair.lease_until_ns <= now_ns or recipient.refused:
                return False
        return True

    # --- requests -------------------------------------------------------------------------------------------

    def read(self, now_ns: int, wall_us: int, origin: Origin, client: bytes, request: Asking) -> None:
        """Answer a read from applied state, or hold it until a lease or a new configuration."""
        if self.paused or not self.leased(now_ns):
            self._hold(origin, client, request)
            return
        time_us = self.clock.read(now_ns, wall_us)
        if type(request) is wire.Get:
            if self.near is not None and self.near.read(origin, request, time_us):
                return
            stored = self.table.sessions.get(request.digest)
            if stored is None:
                self.reply(origin, wire.Missing(request.request_id))
            elif expiry_of(stored) > time_us:
                self.reply(origin, reply_with(request.request_id, stored))
            else:
                self._expire_first(now_ns, time_us, (request.digest,), origin, request)
            return
        if type(request) is WatchSession:
            self._watch(now_ns, time_us, origin, request)
            return
        assert isinstance(request, wire.ListByUser)
        if self.near is not None and self.near.hold_listing(origin, request):
            return
        self._list(now_ns, time_us, origin, request)

    def _watch(self, now_ns: int, time_us: int, origin: Origin, request: WatchSession) -> None:
        """Register a watch, or answer that the session is gone."""
        stored = self.table.sessions.get(request.digest)
        if stored is None:
            self._show(origin, wire.Missing(request.request_id), request)
        elif expiry_of(stored) > time_us:
            self.watched.watch(now_ns, time_us, origin, request, stored)
        else:
            self._expire_first(now_ns, time_us, (request.digest,), origin, request)

    def _list(self, now_ns: int, time_us: int, origin: Origin, request: wire.ListByUser) -> None:
        """Answer with the user's newest sessions, never so many that the reply outgrows a frame."""
        step, settings = self._step, self.context.settings
        if step.listed > settings.listed_max:
            self.reply(origin, wire.Overloaded(request.request_id, "too many sessions are listed at once"))
            return
        limit = min(max(request.limit, 0), LIST_LIMIT_MAX)
        live, over = self.table.newest_of(request.user_id, limit, time_us, settings.expire_batch_max)
        step.listed += len(live) + len(over)
        if over:
            # A bounded number at a time; the request is served again once they are decided.
            self._expire_first(now_ns, time_us, tuple(over), origin, request)
            return
        self.reply(origin, wire.Listing(request.request_id, (self.shard,), tuple(live)))

    def _expire_first(
        self, now_ns: int, time_us: int, over: tuple[bytes, ...], origin: Origin, request: Asking
    ) -> None:
        """Expire sessions before replying to a read, so that the reply stays true after a failover."""
        if self.log.held_bytes > self.context.settings.uncommitted_bytes_max:
            self.reply(origin, self.admission.too_many_bytes(request.request_id))
            return
        sequence = self.replication.decide(now_ns, time_us, Expire(over))
        self._rereads[sequence] = (origin, request)

    def submit(
        self,
        now_ns: int,
        wall_us: int,
        origin: Origin,
        client: bytes,
        command: Write,
        within: Within | None = None,
    ) -> None:
        """Log a write, unless it is a repeat, or a limit forbids it.

        Of another namespace than `default` the command comes by keys, and `within` is what is logged.
        """
        request_id = command.request_id
        known = self.table.clients.by_id.get(client)
        if known is not None and request_id <= known.newest and self._repeats(origin, known, command):
            return
        waiting, key = self._waiting, (client, request_id)
        logged = waiting.get(key)
        if logged is not None:
            if is_repeat(command, *asked(logged[1])):
                waiting[key] = (origin, command)
            else:
                self.reply(origin, _another(request_id))
            return
        replication = self.replication
        if replication.behind or self.membership.draining or self.copy.unsettled:
            # The same as `paused`, without another call for every write.
            self._hold(origin, client, within or command)
            return
        time_us = self.clock.read(now_ns, wall_us)
        if command.age_ms and self.admission.forgotten(known, command.age_ms, time_us):
            self.reply(origin, wire.Unknowable(request_id, "repeated after the shard may have forgotten it"))
            return
        kind, admission, size = type(command), self.admission, record_bytes(within or command)
        refusal = admission.refusal(now_ns, client, known, command, size)
        if refusal is None and self._disk is not None and self.context.short:
            refusal = refused_by_disk(command, replication.short_of_disk)
        if refusal is not None:
            self.reply(origin, refusal)
            return
        if (kind in LONG or self.paging.under_way) and self._pages(origin, client, command, within):
            return
        opened = admission.opened(command, size) if kind in OPENING else 0
        charge = self.growth.charge(client, known, command, size, opened)
        if type(charge) is not int:
            self.reply(origin, charge)  # type: ignore[arg-type]  # else it is a refusal
            return
        sequence = replication.append(now_ns, time_us, client, within or command, size, charge)
        if kind in OPENING or size > SMALL_BYTES or kind is wire.Clean:
            admission.logged(sequence, command, size)
        waiting[key] = (origin, command)
        if self.near is not None:
            self.near.appended(now_ns, origin, command, sequence)

    def submit_within(self, now_ns: int, wall_us: int, origin: Origin, client: bytes, within: Within) -> None:
        """Log a write of a namespace other than `default`."""
        if objection := self._releases.objection():
            self.reply(origin, wire.Overloaded(within.request_id, objection))
        elif isinstance(within.command, wire.DeleteByHandle):
            self.submit_by_handle(now_ns, wall_us, origin, client, within.command, within)
        else:
            self.submit(now_ns, wall_us, origin, client, bare(within), within)

    def submit_by_handle(
        self,
        now_ns: int,
        wall_us: int,
        origin: Origin,
        client: bytes,
        command: wire.DeleteByHandle,
        within: Within | None = None,
    ) -> None:
        """Log the deletion of the session that a handle names, which is found among those of its user."""
        user: Any = command.user_id if within is None else (within.namespace, command.user_id)
        if not self.paused:
            step, looks = self._step, self.context.settings.listed_max
            if step.listed > looks:
                reason = "too many handles are looked up at once"
                self.reply(origin, wire.Overloaded(command.request_id, reason))
                return
            step.listed += min(self.table.users.count(user), looks)
            found = self.table.digest_listed_as(user, command.digest, looks)
            command = msgspec.structs.replace(command, digest=found[:DIGEST_BYTES])
        if within is None:
            self.submit(now_ns, wall_us, origin, client, command)
        else:
            within = Within(within.namespace, command)
            self.submit(now_ns, wall_us, origin, client, bare(within), within)

    def _repeats(self, origin: Origin, known: Client, command: Write) -> bool:
        """Repeat the kept reply to a request; return False if there is none."""
        request_id = command.request_id
        if request_id < known.low:
            self.reply(origin, wire.Unknowable(request_id, "an id below the client's own low-watermark"))
            return True
        kept = known.replies.get(request_id)
        if kept is None or self.membership.quiet_until_ns:
            return False
        self._show(origin, kept.reply if is_reply_to(kept, command) else _another(request_id), command)
        return True

    def _pages(self, origin: Origin, client: bytes, command: Write, within: Within | None) -> bool:
        """Begin a command in pages, or refuse one that must wait for pages; return False to log it now."""
        paging, request_id = self.paging, command.request_id
        if isinstance(command, Long):
            if not paging.needed(command):
                return False
            refusal = paging.refusal(command)
            if refusal is None:
                paging.begin(client, command, within)
                self._waiting[client, request_id] = (origin, command)
                self._step.unfinished[self.shard] = None
                return True
            self.reply(origin, refusal)
            return True
        if isinstance(command, wire.Create | wire.Rotate) and paging.takes(
            command.digest if isinstance(command, wire.Create) else command.new_digest
        ):
            # The long command would remove the new session too, when it is logged at the end.
            self.reply(origin, wire.Overloaded(request_id, "a session of this id is being removed"))
            return True
        return False

    def go_on(self, now_ns: int, wall_us: int, room: int) -> int:
        """Log the next pages of long commands; return their cost in removals, at most about `room`."""
        settings = self.context.settings
        if self.paused or self.log.held_bytes > settings.uncommitted_bytes_max:
            return 0
        time_us = self.clock.read(now_ns, wall_us)
        paging, used = self.paging, 0
        for each in paging.ready(self.copy.committed):
            if used >= room:
                break
            first = self.log.appended + 1
            commands, cost = each.next_page(self.table, time_us, first, settings.page_max)
            used += cost
            for command in commands:
                self.replication.decide(now_ns, time_us, command)
            if commands:
                paging.sent(each, first, self.log.appended)
            elif not cost:
                paging.end(each)
                self.replication.decide(now_ns, time_us, each.last(), each.client)
        if paging.ready(self.copy.committed):
            self._step.unfinished[self.shard] = None
        return used

    def reply(self, origin: Origin, reply: wire.EncodedReply) -> None:
        """Send a reply to where the request came from."""
        if type(origin) is int:
            self.context.effects.append(ReplyToClient(origin, reply))
        else:
            assert isinstance(origin, Gather)
            origin.add(self.shard, reply, self.context.effects)

    def _show(self, origin: Origin, reply: wire.EncodedReply, asked_for: Any) -> None:
        """Send a reply that shows what is applied, once nobody may show what was before."""
        if self.near is None:
            self.reply(origin, reply)
        else:
            self.near.send(origin, reply, asked_for)

    def _hold(self, origin: Origin, client: bytes, request: Request) -> None:
        refusal = self.held.add(origin, client, request)
        if refusal is not None:
            self.reply(origin, refusal)

    def release(self, now_ns: int, wall_us: int) -> None:
        """Serve the held requests, if that is possible now, and go on with long commands."""
        if self.paging.under_way:
            self._step.unfinished[self.shard] = None
        if not self.held or self.paused or not self.leased(now_ns):
            return
        self._step.late = True
        for origin, client, request in self.held.take():
            if isinstance(request, Asking):
                self.read(now_ns, wall_us, origin, client, request)
            elif isinstance(request, wire.DeleteByHandle):
                self.submit_by_handle(now_ns, wall_us, origin, client, request)
            elif isinstance(request, Within):
                self.submit_within(now_ns, wall_us, origin, client, request)
            else:
                self.submit(now_ns, wall_us, origin, client, request)
        self._step.late = False

    # --- the log --------------------------------------------------------------------------------------------

    def advance(self, now_ns: int, wall_us: int) -> None:
        """Commit what every recipient that counts has logged: apply it, then reply."""
        copy, replication = self.copy, self.replication
        if self.membership.catching_up:
            self.membership.add_if_caught_up(now_ns)
        target = replication.decided()
        if target <= copy.committed:
            return
        target = copy.affordable(target)
        if target <= copy.committed:
            return
        again = self._apply(target)
        replication.tell_commit_point()
        copy.count()
        for origin, read in again:
            self.read(now_ns, wall_us, origin, b"", read)
        self._committed_more(now_ns)
        if replication.behind:
            self.end_inheritance(now_ns, wall_us)

    def end_inheritance(self, now_ns: int, wall_us: int) -> None:
        """Serve once all that was inherited is applied."""
        replication, copy = self.replication, self.copy
        if replication.behind and copy.committed >= replication.inherited and not self.log.unread:
            replication.behind = replication.copy_first = False
            self.release(now_ns, wall_us)
            self.membership.manage(now_ns)

    def _apply(self, target: int) -> list[tuple[Origin, Asking]]:
        """Apply the log up to a record, or as far as one step may, and reply; return reads to serve again."""
        copy, log, table = self.copy, self.log, self.table
        admission, paging = self.admission, self.paging
        walked, waiting, near = table.walked, self._waiting, self.near
        apply: Apply = table.apply if near is None else near.apply
        if self.watched:
            apply = self.watched.applying(apply)
        paged, effects, mark = paging.under_way, self.context.effects, self._step.mark
        again: list[tuple[Origin, Asking]] = []
        needed = self.replication.needed_after(target)
        # Usually all of them are applied and no recipient needs them any longer: one pass takes them out.
        keeps = needed < target or log.opening_at > copy.committed
        mark[MARK_SHARD] = self.shard
        for record in (log.records if keeps else log.take)(copy.committed, target):
            mark[MARK_EPOCH] = record.epoch
            mark[MARK_SEQUENCE] = copy.committed = sequence = record.sequence
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
            asker = waiting.pop((record.client, reply.request_id), None)
            if asker is not None:
                if near is not None:
                    near.send(asker[0], reply, asker[1])
                elif type(asker[0]) is int:
                    effects.append(ReplyToClient(asker[0], reply))
                else:
                    self.reply(asker[0], reply)
            if walked.items and copy.walked_enough(target):
                break
        mark[MARK_SEQUENCE] = 0
        copy.last_epoch = record.epoch
        if keeps:
            log.trim(min(needed, copy.committed))
        return again

    def _committed_more(self, now_ns: int) -> None:
        """Go on with what waited for these commits."""
        if self.paging.under_way:
            self._step.unfinished[self.shard] = None
        if self.eviction.under_way_bytes:
            self.eviction.settle()
        if self.membership.draining:
            self.membership.hand_over_if_drained(now_ns)

    def sweep(self, now_ns: int, wall_us: int, looks: int) -> int:
        """Log the expiry of sessions, after at most `looks` looks; return how many it took."""
        if not self.paused:
            self.eviction.help()
            self._expire_watched(now_ns, wall_us)
        return self._upkeep.sweep(now_ns, wall_us, looks, paused=self.paused)

    def _expire_watched(self, now_ns: int, wall_us: int) -> None:
        """Log the expiry of sessions that are watched, whose ends are to be told soon."""
        if self.watched:
            time_us = self.clock.read(now_ns, wall_us)
            over = self.watched.over(time_us, self.context.settings.expire_batch_max)
            if over:
                self.replication.decide(now_ns, time_us, Expire(tuple(over)))

    # --- configuration --------------------------------------------------------------------------------------

    def reconfigure(self, now_ns: int, wall_us: int) -> None:
        """Go on under a newly decided configuration that has this actor as primary."""
        self._upkeep.reconfigure()
        self.membership.reconfigure(now_ns)
        self.advance(now_ns, wall_us)
        self.release(now_ns, wall_us)

    def manage(self, now_ns: int, wall_us: int) -> None:
        """Check the recipients and the plan; serve again if no hand-over is under way any longer."""
        draining = self.membership.draining
        self.membership.manage(now_ns)
        if draining and not self.membership.draining:
            self.release(now_ns, wall_us)

    @property
    def at_rest(self) -> bool:
        """Whether nothing that was asked of this shard has still to take effect."""
        return self.copy.committed == self.log.appended and not self.paging.under_way

    def refuse_held(self, reason: str) -> None:
        """Refuse the requests that are held; none of them was logged."""
        for origin, _, held in self.held.take():
            self.reply(origin, wire.Overloaded(held.request_id, reason))

    def close(self) -> None:
        """Stop being primary: redirect everybody who waits, and say whose request may yet take effect."""
        for origin, _, held in self.held.take():
            self.reply(origin, self.context.redirect(held.request_id))
        for (_, request_id), (origin, _) in self._waiting.items():
            self.reply(origin, self.context.redirect(request_id, appended=True))
        for origin, read in self._rereads.values():
            self.reply(origin, self.context.redirect(read.request_id))
        self._waiting.clear()
        self._rereads.clear()
        if self.near is not None:
            self.near.close()
        self.watched.close()
        self.admission.close()
        self.eviction.close()
        self.membership.close()


def _another(request_id: int) -> wire.Unknowable:
    return wire.Unknowable(request_id, "another command was sent under this client's id and request id")
