"""Growth: a command that adds data is logged only if there is room for it, here and at the backups.

Every command is charged the most that applying it can add, from when it is logged until it is applied, so
that applying it never runs out of memory. If there is no room for the charge, the real growth is computed: a
session that does not get larger can be written as long as there is any memory at all.
"""

import msgspec

from greenroom import wire
from greenroom.patching import ListInPathError, patch_data
from greenroom_cluster.planning.placement import node_of
from greenroom_cluster.shard.effects import MemoryFull
from greenroom_cluster.shard.limits.admission import Write
from greenroom_cluster.shard.limits.eviction import EVICTING, Eviction
from greenroom_cluster.shard.pairs.replication import Replication
from greenroom_cluster.shard.resources import Resources
from greenroom_cluster.shard.state.kept_replies import Client
from greenroom_cluster.shard.state.log import text_bytes
from greenroom_cluster.shard.state.memory import CLIENT_BYTES, GROWTH_BYTES, REPLY_BYTES
from greenroom_cluster.shard.state.namespaces import bare
from greenroom_cluster.shard.state.stored import decoded

GROWING = frozenset({wire.Create, wire.Update, wire.Patch, wire.Rotate})
_SHOWN = frozenset({wire.Patch, wire.Rotate})

TRIED_BYTES_MAX = 256 << 10
"""Larger sessions are not patched twice only to see whether they grow."""

_LOOKED_THROUGH_MAX = 256
"""How many unapplied records are searched for a session."""

REPLIES_FULL = "too many replies are kept that clients have yet to confirm (an eighth of --memory-max)"


class Growth:
    """Decides for one primary whether there is memory for its commands."""

    __slots__ = ("_context", "_copy", "_eviction", "_memory", "_replication", "_step")

    def __init__(self, replication: Replication, resources: Resources, eviction: Eviction) -> None:
        self._replication = replication
        self._copy = replication.copy
        self._context = resources.context
        self._memory = resources.memory
        self._step = resources.step
        self._eviction = eviction

    def charge(
        self, client: bytes, known: Client | None, command: Write, size: int, opened: int
    ) -> int | wire.EncodedReply:
        """Return what a command of this size is charged, or its refusal.

        `known` is what is known of the client. The reply to a patch holds the whole session that it opens.
        """
        memory = self._memory
        charge = size + GROWTH_BYTES + opened
        if charge <= memory.free_bytes and memory.replies_bytes <= memory.replies_bytes_max:
            for recipient in self._replication.recipients:
                if recipient.pair.room_bytes < charge:
                    break
            else:
                return charge
        return self._short(client, known, command, charge, opened)

    def _short(
        self, client: bytes, known: Client | None, command: Write, charge: int, opened: int
    ) -> int | wire.EncodedReply:
        """Decide about a command when there may be no room for it, here or at a recipient."""
        memory, kind = self._memory, type(command)
        if memory.replies_bytes > memory.replies_bytes_max:
            memory.count_all()
            if (
                known is None or (kind in _SHOWN and known.charged_below(command.low) < opened)
            ) and memory.keeps_too_much_for(client):
                return wire.Overloaded(command.request_id, REPLIES_FULL)
        if kind not in GROWING:
            return charge
        if charge > memory.free_bytes:
            memory.count_all()
        short = charge > memory.free_bytes
        for recipient in self._replication.recipients:
            if recipient.pair.room_bytes < charge and recipient.streaming:
                short = True
        return self._without_room(known, command, charge) if short else charge

    def _without_room(self, known: Client | None, command: Write, charge: int) -> int | wire.EncodedReply:
        """Decide about a command when some actor has no room for its charge."""
        memory = self._memory
        # A joiner counts too: when memory runs out, a second copy is worth more than more sessions.
        recipients = self._replication.recipients
        full = [each.pair for each in recipients if each.streaming and each.pair.room_bytes < charge]
        added = self._added(known, command)
        if (
            added is not None
            and added <= memory.leeway_bytes
            and all(added <= pair.room_bytes + pair.spare_bytes for pair in full)
        ):
            return added
        if all(pair.may_offer(charge) for pair in full) and (
            charge <= memory.free_bytes or charge <= memory.share_bytes
        ):
            for pair in full:
                pair.ask_for_room()
            return wire.Overloaded(command.request_id, "what memory is free is being shared anew")
        full = [pair for pair in full if not pair.may_offer(charge)]
        digest = command.digest  # type: ignore[union-attr]  # all that grow have one
        if self._eviction.make_room(charge, full, digest):
            return wire.Overloaded(command.request_id, EVICTING)
        slot = self._context.slot_of(full[0].peer) if full else memory.slot
        reason = (
            f"actor {slot} has no memory left for this session: shorten lifetimes or delete sessions, add a "
            f"node, or restart node {node_of(slot)} with a larger --memory-max"
        )
        if memory.refuse(slot, self._step.now_ns):
            self._context.effects.append(MemoryFull(slot))
        if command.age_ms:
            # An earlier attempt may still be on its way here, so nobody can say that nothing was applied.
            return wire.Overloaded(command.request_id, reason)
        return wire.Failed(command.request_id, wire.FailureCode.FULL, reason)

    def _added(self, known: Client | None, command: Write) -> int | None:
        """Return the most that a command adds whose session does not grow; None if it grows, or may."""
        kind = type(command)
        if kind is wire.Create or self._is_pending(command):
            return None
        stored = self._copy.table.sessions.get(command.digest)  # type: ignore[union-attr]  # all that grow have one
        if stored is None:
            return REPLY_BYTES
        before = decoded(stored)
        reply = REPLY_BYTES
        if not isinstance(command, wire.Update):
            if len(stored) > TRIED_BYTES_MAX:
                return None
            reply += len(stored)
        after = changed_by(command, before)
        if after is None:
            return REPLY_BYTES
        if after.grown > 0 or (before.user_id is None and after.user_id is not None):
            return None
        return reply + CLIENT_BYTES if known is None else max(reply - known.charged_below(command.low), 0)

    def _is_pending(self, command: Write) -> bool:
        """Whether an unapplied record may change the session."""
        log, committed = self._copy.log, self._copy.committed
        if log.appended - committed > _LOOKED_THROUGH_MAX:
            return True
        digest = command.digest  # type: ignore[union-attr]  # all that grow have one
        for record in log.records(committed, log.appended):
            other = bare(record.command)
            if digest in (getattr(other, "digest", None), getattr(other, "new_digest", None)):
                return True
            if isinstance(other, wire.DeleteByUser):
                return True
        return False


class Changed(msgspec.Struct, frozen=True, gc=False):
    """A session as a command would leave it: whose it is, and by how much it grows."""

    user_id: str | None
    grown: int


def changed_by(command: Write, before: wire.SessionState) -> Changed | None:
    """Return what an update, patch or rotation makes of a session; None if it changes nothing."""
    if isinstance(command, wire.Update):
        user_id, label, data = command.user_id, command.label, command.data
    else:
        assert isinstance(command, wire.Patch | wire.Rotate)
        user_id = before.user_id if command.user is None else command.user[0]
        label = before.label
        try:
            patched = patch_data(before.data, command.set, command.unset, ())
        except (ListInPathError, ValueError, RecursionError):
            return None
        assert patched is not None
        data = patched
    former = len(before.data) + text_bytes(before.label) + text_bytes(before.user_id)
    return Changed(user_id, len(data) + text_bytes(label) + text_bytes(user_id) - former)
