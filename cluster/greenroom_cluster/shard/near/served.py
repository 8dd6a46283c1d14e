"""What the primary of one shard has given out to be shown without asking, and what waits for that.

A session is held for a connection from an answer on until it changes. Then each holder is told, whether its
lease runs or not, and until all of them have acknowledged that, or their time is over, nothing leaves that
shows the new state: no reply to a command, also not a refusal, no kept reply, no listing. Reads get the old
state, under the primary's lease as always. Commit, replication and other sessions go on.

Holders are told as a change is appended, where its command names the session, so that this and the backups'
acknowledgement overlap. As it is applied they are looked at again: whom a command concerns may show only
then, and that nobody is forgotten depends on nothing else. Only as it is appended the connection on which it
came is left out, for its client has dropped the session when it sent that; not so if the command has waited
here, for an answer may have come between. If that was a patch, the connection holds the session again with
the answer. A kept reply never does that, for it may show a state that is long gone.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from greenroom import wire
from greenroom.deadlines import NEVER_NS
from greenroom.ending_messages import SessionEnded, Unwatched
from greenroom.near_messages import DIGESTS_MAX, IN_ANY_CASE, EncodedHeld, GetNear
from greenroom_cluster.shard.effects import ReplyToClient
from greenroom_cluster.shard.near.barriers import Barrier, Delayed, Origin, Read, Renewal
from greenroom_cluster.shard.near.leases import HELD_MAX, HOLDERS_MAX, Holder, Leases
from greenroom_cluster.shard.pairs.outgoing import Outgoing
from greenroom_cluster.shard.pairs.replication import Replication
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.state.namespaces import bare
from greenroom_cluster.shard.state.records import Evict, Expire, Record
from greenroom_cluster.shard.state.stored import expiry_of, heading_of, reply_with

_OF_ONE = frozenset({wire.Create, wire.Update, wire.Patch, wire.Delete, wire.DeleteByHandle})
_BY_DIGEST = frozenset({wire.Create, wire.Update, wire.Patch, wire.Delete, wire.Rotate})
"""Commands whose clients drop the session that these name."""


class Near:
    """The holders in one shard, and what waits for them. `reply` and `read` are those of its primary.

    `leaving`: nothing more is given out, before the shard is handed over. `over_ns`: until then somebody may
    show something of it.
    """

    __slots__ = (
        *(
            "_barriers",
            "_context",
            "_leases",
            "_listings",
            "_olds",
            "_paused",
            "_pending",
            "_read",
            "_replication",
        ),
        *("_reply", "_revoking", "_step", "_time_us", "holders", "leaving", "over_ns"),
        *("shard", "table"),
    )

    def __init__(
        self,
        replication: Replication,
        resources: Resources,
        paused: Callable[[], bool],
        reply: Callable[[Origin, wire.EncodedReply], None],
        read: Callable[[int, int, Origin, bytes, Read], None],
    ) -> None:
        self.shard = replication.copy.shard
        self.table = replication.copy.table
        self._replication = replication
        self._context = resources.context
        self._leases: Leases = resources.near
        self._step = resources.step
        self._paused = paused
        self._reply = reply
        self._read = read
        self.holders: dict[bytes, dict[Holder, None]] = {}
        # Sessions that a record which is not applied yet may change, with the newest such record.
        self._pending: dict[bytes, int] = {}
        self._barriers: dict[Barrier, None] = {}
        self._olds: dict[bytes, list[Barrier]] = {}
        self._listings: list[tuple[Origin, Read]] = []
        # Who was told to drop the whole shard: under which number, and until when it may yet show it.
        self._revoking: dict[Holder, tuple[int, int]] = {}
        self.leaving = False
        self.over_ns = 0
        # When the record was stamped that was applied last.
        self._time_us = 0

    # --- giving out ---------------------------------------------------------------------------------------

    def answer(
        self, now_ns: int, time_us: int, connection: int, request: GetNear, stored: bytes
    ) -> EncodedHeld | None:
        """Return the session, held for that connection; None if it is not to be."""
        expires_us = expiry_of(stored)
        if request.seen != IN_ANY_CASE and heading_of(stored).version != request.seen:
            return None
        if expires_us <= time_us or not self._may_hold(now_ns, connection, request.digest):
            self._leases.refused += 1
            return None
        self._hold(connection, request.digest)
        return EncodedHeld(request.request_id, msgspec.Raw(stored), expires_us - time_us)

    def _hold(self, connection: int, key: bytes) -> None:
        holder = self._leases.register(connection, self, key)
        self.holders.setdefault(key, {})[holder] = None
        self.note_alive(holder.alive_ns)
        self._leases.granted += 1

    def _may_hold(self, now_ns: int, connection: int, key: bytes) -> bool:
        if self.leaving or key in self._olds or key in self._pending:
            return False
        until_ns = self.until_ns()
        if until_ns <= now_ns:
            return False
        leases = self._leases
        holder = leases.by_connection.get(connection)
        if holder is None:
            return leases.count < HOLDERS_MAX
        if holder in self._revoking:
            return False  # with what it drops then it would drop this, too
        # Its lease may outlast that of this shard; and whoever let others wait has to acknowledge that first.
        if holder.granted_ns > until_ns or holder.late > holder.acknowledged:
            return False
        if key in holder.keys:
            return True
        return len(holder.keys) < HELD_MAX and leases.count < HOLDERS_MAX

    def until_ns(self) -> int:
        """Return until when a lease may run that covers this shard, 0 if none may.

        Nobody takes over before that: every member that counts has promised to wait, and knows that clients
        may show sessions without asking.
        """
        if self.leaving or self._paused():
            return 0
        until_ns, lease_ns = NEVER_NS, self._leases.lease_ns
        for recipient in self._replication.counted:
            pair = recipient.pair
            if recipient.refused or pair.near_ns < lease_ns:
                return 0
            until_ns = min(until_ns, pair.lease_until_ns)
        return until_ns

    def note_alive(self, alive_ns: int) -> None:
        """Note that a holder of this shard may show it until then."""
        self.over_ns = max(self.over_ns, alive_ns)

    def may_add(self, pair: Outgoing, now_ns: int) -> bool:
        """Whether a peer may become a member: it knows of the leases, or none runs any more."""
        return pair.near_ns >= self._leases.lease_ns or now_ns > self.over_ns

    # --- changes ------------------------------------------------------------------------------------------

    def appended(self, now_ns: int, origin: Origin, command: Any, sequence: int) -> None:
        """Tell the holders of the session that a command names, which stands in the log from now on."""
        kind = type(command)
        if kind not in _BY_DIGEST:
            return
        keys = (command.digest, command.new_digest) if kind is wire.Rotate else (command.digest,)
        for key in keys:
            self._pending[key] = sequence
        holders = self.holders.get(command.digest)
        if holders is None:
            return
        writer = None
        if isinstance(origin, int) and not self._step.late:
            writer = self._leases.by_connection.get(origin)
        if writer in holders:
            assert writer is not None
            self._release(writer, command.digest)
            if kind is wire.Patch:
                writer.renewing.add(command.request_id)
        self._bar(now_ns, (command.digest,), {key: self.table.sessions.get(key) for key in keys})

    def apply(self, record: Record) -> wire.EncodedReply | None:
        """Apply a record, and tell the holders of what it changes."""
        command = bare(record.command)
        sessions, holders = self.table.sessions, self.holders
        keys = self._named(command)
        # All that a record changes shows at once, or not yet, whoever holds what of it.
        held = any(key in holders or (len(keys) > 1 and key in self._olds) for key in keys)
        olds = {key: sessions.get(key) for key in keys} if held else {}
        reply = self.table.apply(record, command)
        self._time_us = record.time_us
        changed = {key: old for key, old in olds.items() if sessions.get(key) is not old}
        if changed:
            self._bar(self._step.now_ns, tuple(changed), changed)
        for key in keys:
            if self._pending.get(key) == record.sequence:
                del self._pending[key]
        return reply

    def _named(self, command: Any) -> tuple[bytes, ...]:
        """Return the keys of the sessions that a command may change, or of all that are held."""
        kind = type(command)
        if kind in _OF_ONE:
            return (command.digest,)
        if kind is wire.Rotate:
            return (command.digest, command.new_digest)
        if kind is Expire or kind is Evict:
            digests: tuple[bytes, ...] = command.digests
            return digests
        if kind is wire.DeleteByUser:
            return tuple(self.table.users.oldest(command.user_id))
        return tuple(self.holders) if kind is wire.Clean else ()

    def _bar(self, now_ns: int, keys: tuple[bytes, ...], olds: dict[bytes, bytes | None]) -> None:
        """Have all holders drop these sessions, and let wait what shows another state than `olds`."""
        dropped: dict[Holder, list[bytes]] = {}
        for key in keys:
            for holder in self.holders.pop(key, ()):
                self._leases.release(holder, key)
                dropped.setdefault(holder, []).append(key)
        barrier = Barrier(now_ns, olds)
        self._join(barrier)
        for holder, theirs in dropped.items():
            for start in range(0, len(theirs), DIGESTS_MAX):
                self._leases.invalidate(holder, tuple(theirs[start : start + DIGESTS_MAX]))
            if holder.alive_ns >= now_ns:
                barrier.holders[holder] = holder.invalidated
                barrier.until_ns = max(barrier.until_ns, holder.alive_ns)
                holder.owed.append((holder.invalidated, self, barrier))
        if not barrier.holders:
            return
        self._leases.waits += 1
        self._barriers[barrier] = None
        for each in olds:
            self._olds.setdefault(each, []).append(barrier)
        self._leases.alarm(barrier.until_ns + 1, self.shard)

    def _join(self, barrier: Barrier) -> None:
        """Have a barrier wait for those for whom an earlier change of the same sessions waits."""
        for key in barrier.olds if self._olds else ():
            for earlier in self._olds.get(key, ()):
                barrier.until_ns = max(barrier.until_ns, earlier.until_ns)
                for holder, number in earlier.holders.items():
                    if holder not in barrier.holders:
                        barrier.holders[holder] = number
                        holder.owed.append((number, self, barrier))

    # --- what waits ---------------------------------------------------------------------------------------

    def send(self, origin: Origin, reply: wire.EncodedReply, command: Any) -> None:
        """Send the reply to a command, once nobody may show what was before."""
        renewal = self._renewal(origin, reply, command)
        barriers = self._in_the_way(command) if self._barriers else ()
        if not barriers:
            self._show(self._step.now_ns, origin, reply, renewal)
            return
        delayed = Delayed(origin, reply, renewal, len(barriers))
        for barrier in barriers:
            barrier.delayed.append(delayed)

    def tell(self, connection: int, ended: SessionEnded, key: bytes) -> None:
        """Tell a connection that a session has ended, once nobody may show it."""
        barriers = self._olds.get(key, ())
        if not barriers:
            self._say(connection, ended)
            return
        delayed = Delayed(connection, ended, None, len(barriers))
        for barrier in barriers:
            barrier.delayed.append(delayed)

    def _say(self, origin: Origin, message: wire.EncodedReply | SessionEnded | Unwatched) -> None:
        if isinstance(message, SessionEnded | Unwatched):
            assert isinstance(origin, int), "a connection has watched that"
            self._context.effects.append(ReplyToClient(origin, message))
        else:
            self._reply(origin, message)

    def _renewal(self, origin: Origin, reply: wire.EncodedReply, command: Any) -> Renewal | None:
        """Return what the connection of a patch is to hold again, None if it did not hold it."""
        if type(command) is not wire.Patch or not isinstance(origin, int):
            return None
        holder = self._leases.by_connection.get(origin)
        if holder is None or command.request_id not in holder.renewing:
            return None
        holder.renewing.remove(command.request_id)
        if type(reply) is not wire.EncodedSession:
            return None
        stored = self.table.sessions[command.digest]
        return Renewal(reply.request_id, command.digest, stored, expiry_of(stored) - self._time_us)

    def _show(
        self, now_ns: int, origin: Origin, reply: wire.EncodedReply | SessionEnded, renewal: Renewal | None
    ) -> None:
        """Send a reply that nobody waits for any longer; hold what it shows, if that is as it stands."""
        if (
            renewal is None
            or not isinstance(origin, int)
            or origin not in self._leases.by_connection  # the connection is gone
            or self.table.sessions.get(renewal.key) is not renewal.stored
            or not self._may_hold(now_ns, origin, renewal.key)
        ):
            self._say(origin, reply)
            return
        self._hold(origin, renewal.key)
        held = EncodedHeld(renewal.request_id, msgspec.Raw(renewal.stored), renewal.left_us)
        self._context.effects.append(ReplyToClient(origin, held))

    def _in_the_way(self, command: Any) -> tuple[Barrier, ...]:
        kind = type(command)
        if kind not in _BY_DIGEST:
            # It tells of any session; also one by handle, which may have found none any more.
            return tuple(self._barriers)
        found = dict.fromkeys(self._olds.get(command.digest, ()))
        if kind is wire.Rotate:
            found.update(dict.fromkeys(self._olds.get(command.new_digest, ())))
        return tuple(found)

    def read(self, origin: Origin, request: wire.Get, time_us: int) -> bool:
        """Answer a read by what was before a change that waits; return False if none does."""
        barriers = self._olds.get(request.digest)
        if barriers is None:
            return False
        old = barriers[0].olds[request.digest]
        if old is None:
            self._reply(origin, wire.Missing(request.request_id))
        elif expiry_of(old) > time_us:
            self._reply(origin, reply_with(request.request_id, old))
        else:
            # That it is over shows only in the new state.
            barriers[0].reads.append((origin, request))
        return True

    def hold_listing(self, origin: Origin, request: wire.ListByUser) -> bool:
        """Have a listing wait until no change does, for it shows the sessions of one moment.

        Return False if none does.
        """
        if self._barriers:
            self._listings.append((origin, request))
        return bool(self._barriers)

    def acknowledged(self, holder: Holder, barrier: object, now_ns: int, wall_us: int) -> None:
        """Let this barrier, or without one a revocation, wait for this holder no longer."""
        if not isinstance(barrier, Barrier):
            number, _ = self._revoking.get(holder, (holder.acknowledged + 1, 0))
            if number <= holder.acknowledged:
                del self._revoking[holder]
                self._release_all(holder)
                self._look_again(now_ns)
            return
        barrier.holders.pop(holder, None)
        if barrier in self._barriers and not barrier.holders:
            self._close(barrier, now_ns, wall_us)

    def attend(self, now_ns: int, wall_us: int) -> None:
        """Wait no longer for holders whose time is over."""
        for holder in [each for each, (_, alive_ns) in self._revoking.items() if alive_ns < now_ns]:
            if holder.is_gone:
                del self._revoking[holder]
                self._release_all(holder)
        for barrier in [each for each in self._barriers if each.until_ns < now_ns]:
            self._leases.waits_lapsed += 1
            for holder, number in barrier.holders.items():
                holder.late = max(holder.late, number)
            self._close(barrier, now_ns, wall_us)

    def _close(self, barrier: Barrier, now_ns: int, wall_us: int) -> None:
        del self._barriers[barrier]
        for key in barrier.olds:
            left = [each for each in self._olds[key] if each is not barrier]
            if left:
                self._olds[key] = left
            else:
                del self._olds[key]
        self._leases.waited(now_ns - barrier.began_ns)
        for delayed in barrier.delayed:
            delayed.barriers -= 1
            if not delayed.barriers:
                self._show(now_ns, delayed.origin, delayed.reply, delayed.renewal)
        waiting: list[tuple[Origin, Read]] = [*barrier.reads]
        if not self._barriers:
            waiting += self._listings
            self._listings = []
        for origin, request in waiting:
            self._read(now_ns, wall_us, origin, b"", request)
        self._look_again(now_ns)

    def _look_again(self, now_ns: int) -> None:
        """Have the hand-over go on, if one waits."""
        if self.leaving:
            self._leases.alarm(now_ns, self.shard)

    # --- endings ------------------------------------------------------------------------------------------

    def leave(self, now_ns: int) -> bool:
        """Give out nothing more, and have all holders drop this shard; return whether nobody shows it now."""
        if not self.leaving:
            self.leaving = True
            for holder in {each: None for those in self.holders.values() for each in those}:
                self.revoke(holder)
        alive_ns = max((alive_ns for _, alive_ns in self._revoking.values()), default=0)
        if alive_ns >= now_ns:
            self._leases.alarm(alive_ns + 1, self.shard)
        return alive_ns < now_ns and not self._barriers

    def is_revoking(self, holder: Holder) -> bool:
        """Whether a holder was told to drop all of this shard, and has not acknowledged that."""
        return holder in self._revoking

    def revoke(self, holder: Holder) -> None:
        """Have a holder drop all of this shard, unless it was told already.

        It counts as one until it has acknowledged that, for what changes meanwhile.
        """
        if holder not in self._revoking:
            number = self._leases.invalidate(holder, (), (self.shard,))
            self._revoking[holder] = (number, holder.alive_ns)
            holder.owed.append((number, self, None))

    def _release_all(self, holder: Holder) -> None:
        for key in [key for key, part in holder.keys.items() if part is self]:
            self._release(holder, key)

    def _release(self, holder: Holder, key: bytes) -> None:
        self._leases.release(holder, key)
        self.forget(holder, key)

    def forget(self, holder: Holder, key: bytes) -> None:
        """Note that a holder holds this no longer."""
        holders = self.holders.get(key)
        if holders is not None and holders.pop(holder, self) is None and not holders:
            del self.holders[key]

    def close(self) -> None:
        """Stop being primary: have everything dropped, and send away who waits."""
        self.leaving = True
        told: dict[Holder, None] = {}
        for key, holders in self.holders.items():
            told.update(holders)
            for holder in holders:
                self._leases.release(holder, key)
        self.holders.clear()
        for holder in told:
            self._leases.invalidate(holder, (), (self.shard,))
        barriers, self._barriers = tuple(self._barriers), {}
        self._olds.clear()
        self._revoking.clear()
        waiting: dict[Delayed, None] = {}
        for barrier in barriers:
            waiting.update(dict.fromkeys(barrier.delayed))
            self._listings += barrier.reads
        for origin, request in self._listings:
            self._reply(origin, self._context.redirect(request.request_id))
        self._listings = []
        for delayed in waiting:
            if isinstance(delayed.reply, SessionEnded):
                # The next primary will say that it is gone, once nobody may show it.
                self._say(delayed.origin, Unwatched((self.shard,)))
                continue
            request_id = delayed.reply.request_id
            self._reply(delayed.origin, self._context.redirect(request_id, appended=True))
