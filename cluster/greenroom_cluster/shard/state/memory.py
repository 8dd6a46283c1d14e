"""How much memory an actor's replicas hold, and how much more they may.

What the core keeps is counted: sessions, each with its index entry, key and table slot; the clients' kept
replies; logs; and held requests. The rest of the process is not counted but measured: the difference between
the resident size and the counted bytes, when these are at their maximum, is taken off the bound. Later, after
deletes, that difference says little, because part of the resident size is free to be used again. So growth is
refused where the resident size would exceed the bound, and yet a delete makes room at once.

A primary's growth also fills its backup, which cannot refuse what is logged. So a backup grants each peer a
part of its own free memory, renews that with every beacon, and reserves it for the peer (like a receive
window of TCP). Grants to all peers and memory in use never exceed the bound together. A new grant replaces
the former one only when the peer confirms the new one; until then the larger of both counts. A part is always
left for the primaries here, even while there are none, because a takeover can make some at any moment.

A primary without room now, but whose share of the free memory would be enough, waits for the next renewals:
memory is not full before that.

A copy that was found on disk is kept whatever the bound, and so is room for what it takes once it is applied.
If that is more than the bound, nothing may grow until there is room, but what does not grow goes on.

None of this is part of the replicated state: it decides what is logged, never what a logged record does.
"""

from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from greenroom_cluster.shard.settings import HostSettings, ns
from greenroom_cluster.shard.state.namespaces import name_behind
from greenroom_cluster.shard.state.sharing import is_over_share

UNLIMITED_BYTES = 1 << 62

# Measured as growth of the resident size: CPython 3.11, glibc 2.36, 32 tables, 100,000 to 300,000 sessions of
# 300 bytes that expire within two weeks: 194 to 216 bytes without a user, of which the expiry index
# takes 36; 297 to 317 with a user of one session, 370 to 389 with a user of five.
SESSION_BYTES = 180
EXPIRY_BYTES = 36
USER_BYTES = 144
# A place in the order of age, kept only if sessions without a user may be evicted: 28 to 49 bytes.
ANONYMOUS_BYTES = 48
# What a namespace other than `default` adds to a session: a longer key, and its place in an index of its own.
NAMED_BYTES = 256
REPLY_BYTES = 320
CLIENT_BYTES = 700

GROWTH_BYTES = SESSION_BYTES + EXPIRY_BYTES + USER_BYTES + REPLY_BYTES + CLIENT_BYTES
"""The most that applying a command adds, besides what its client chooses."""

_SPARE_BYTES_MAX = 4 << 20
_SPARE_SHARE = 32
_REPLIES_SHARE = 8
_FALLEN = 0.9
_AMPLE = 4
"""With more than a quarter of the limit free, counting what a replica holds may wait."""
_WANTED_OFFERS = 100
"""After a join was refused, room for it is kept back for so many offers; it is retried sooner."""
_NONE_NAMED: Mapping[bytes, int] = MappingProxyType({})
_REFUSED_NS = ns(60.0)
"""How long refused growth is shown, and the operator not told of it again."""


class Grant:
    """What a peer may still add here. `number` counts the grants sent to it."""

    __slots__ = ("_former_bytes", "left_bytes", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.left_bytes = 0
        self._former_bytes = 0

    @property
    def reserved_bytes(self) -> int:
        """What must stay free for the peer, whichever of its last two grants it uses."""
        return max(self.left_bytes, self._former_bytes, 0)

    def confirm(self) -> None:
        """Note that the peer uses the newest grant."""
        self._former_bytes = self.left_bytes

    def renew(self, room_bytes: int) -> None:
        """Offer another one."""
        self.number += 1
        self.left_bytes = room_bytes

    def spend(self, size: int) -> None:
        """Note how much the peer has added."""
        self.left_bytes -= size
        self._former_bytes -= size


class Holder(Protocol):
    """Holds memory, and has yet to tell the books how much."""

    def count_now(self) -> None:
        """Tell the books."""


class Memory:
    """The memory accounts, or books, of one actor."""

    __slots__ = (
        "_beyond_bytes",
        "_bound_bytes",
        "_excess_bytes",
        "_found",
        "_grants",
        "_joins",
        "_named_replies",
        "_offers",
        "_peak_bytes",
        "_peak_used_bytes",
        "_refusals",
        "_replies",
        "_reserved_bytes",
        "_used",
        "_wanted",
        "ample_bytes",
        "found_bytes",
        "free_bytes",
        "kept_bytes",
        "refilled",
        "replies_bytes",
        "replies_bytes_max",
        "slot",
        "spare_bytes",
        "uncounted",
        "used_bytes",
    )

    def __init__(self, settings: HostSettings, slot: str) -> None:
        bound = settings.memory_bytes_max
        self.slot = slot
        self.used_bytes = 0
        self.replies_bytes = 0
        self.replies_bytes_max = bound // _REPLIES_SHARE
        # Reserved for replies to commands that let no session grow: those go on when nothing else does.
        self.spare_bytes = min(_SPARE_BYTES_MAX, bound // _SPARE_SHARE)
        self.free_bytes = bound - self.spare_bytes
        """What may be added without touching anyone's grant; below 0 if more is used than may be."""
        self.ample_bytes = bound // _AMPLE
        """With more than this free, there is room for whatever comes before the books are next updated."""
        self._bound_bytes = bound
        self._excess_bytes = 0
        self._peak_bytes = 0
        self._peak_used_bytes = 0
        self._reserved_bytes = 0
        self._used: defaultdict[int, int] = defaultdict(int)
        self._replies: dict[int, int] = {}
        # Of these, by shard, those of each namespace other than `default`.
        self._named_replies: dict[int, Mapping[bytes, int]] = {}
        self._grants: dict[bytes, Grant] = {}
        self._joins: dict[int, int] = {}
        # By shard, how much more the copies found on disk take once they are applied.
        self._found: dict[int, int] = {}
        self.found_bytes = 0
        """The sum of that."""
        self.kept_bytes = 0
        """What is kept for copies: for these, and for those that join."""
        self.refilled = False
        """Whether copies from disk may exceed the bound."""
        # What such copies were let grow by although there was no room.
        self._beyond_bytes = 0
        # Shards that could have joined if less had been granted, and how many grants were offered since.
        self._wanted: dict[int, int] = {}
        self._offers = 0
        # By shard: the holders that have yet to tell what they hold.
        self.uncounted: dict[int, Holder] = {}
        # By slot that recently lacked memory: when growth was refused, and when the operator was told.
        self._refusals: dict[str, tuple[int, int]] = {}

    @property
    def bounded(self) -> bool:
        """Whether there is a bound at all."""
        return self._bound_bytes < UNLIMITED_BYTES

    @property
    def limit_bytes(self) -> int:
        """How much the core may keep: the bound, less what the rest of the process takes."""
        return self._bound_bytes - self._excess_bytes

    @property
    def overfull(self) -> bool:
        """Whether copies that were found on disk take more than there may be, or will."""
        return self.refilled and self.used_bytes + self.kept_bytes > self.limit_bytes

    @property
    def excess_bytes(self) -> int:
        """How much more is in use than may be, because copies were found on disk."""
        return max(self.used_bytes - self.limit_bytes, 0) if self.refilled else 0

    @property
    def leeway_bytes(self) -> int:
        """What may be added for replies to commands that let no session grow."""
        if self.overfull:
            # Kept replies have a bound of their own. Without an end to these, users would be logged out.
            return max(self.free_bytes, 0) + self.spare_bytes
        return self.free_bytes + self.spare_bytes

    @property
    def unused_bytes(self) -> int:
        """What is not in use, no matter for whom it is reserved."""
        return max(self.limit_bytes - self.used_bytes, 0)

    @property
    def shares(self) -> int:
        """How many share the free memory: each peer, and the primaries here as one."""
        return len(self._grants) + 1

    @property
    def share_bytes(self) -> int:
        """What each of them may add once all grants have been renewed."""
        granted = sum(grant.reserved_bytes for grant in self._grants.values())
        # What is kept for copies from disk is more than they take, and soon known.
        returned = granted + self.found_bytes
        return (self.free_bytes + returned - sum(self._wanted.values())) // self.shares

    # --- what is used ---------------------------------------------------------------------------------------

    def count_all(self) -> None:
        """Bring the books up to date."""
        while self.uncounted:
            self.uncounted.popitem()[1].count_now()

    def note(
        self, shard: int, used_bytes: int, replies_bytes: int, named: Mapping[bytes, int] = _NONE_NAMED
    ) -> None:
        """Count what a replica holds now; `replies_bytes` of it are kept replies and their clients.

        `named` tells how many of these each namespace other than `default` has, also when that changes.
        """
        self._named_replies[shard] = named
        more = used_bytes - self._used[shard]
        if more:
            self._used[shard] = used_bytes
            self.used_bytes += more
            self.free_bytes -= more
        if shard in self._joins:
            self._keep_free()
        more = replies_bytes - self._replies.get(shard, 0)
        if more:
            self._replies[shard] = replies_bytes
            self.replies_bytes += more

    def keeps_too_much_for(self, client: bytes) -> bool:
        """Whether more replies are kept than should be, and the namespace of this client has its share."""
        total, most = self.replies_bytes, self.replies_bytes_max
        if total <= most:
            return False
        by_shard, name = self._named_replies.values(), name_behind(client)
        if name:
            taken = sum(each.get(name, 0) for each in by_shard)
        else:
            taken = total - sum(sum(each.values()) for each in by_shard)
        return is_over_share(taken, total, most)

    def add(self, shard: int, size: int) -> None:
        """Count what a replica adds, before it is counted as a whole."""
        self._used[shard] += size
        self.used_bytes += size
        self.free_bytes -= size

    def drop(self, shard: int) -> None:
        """Forget a replica that was given up."""
        self._joins.pop(shard, None)
        self.drop_found(shard)

    def drop_found(self, shard: int) -> None:
        """Forget a copy that was given up; room that is kept for another one of the shard stays."""
        self.uncounted.pop(shard, None)
        self.note(shard, 0, 0)
        del self._named_replies[shard]
        self.keep_for_found(shard, 0)
        self._keep_free()

    def measured(self, resident_bytes: int) -> None:
        """Take in the resident size of the process."""
        risen = resident_bytes - self._peak_bytes
        fallen = resident_bytes < self._peak_bytes * _FALLEN
        if self.used_bytes >= self._peak_used_bytes or fallen:
            self._excess_bytes = resident_bytes - self.used_bytes
            self._peak_used_bytes = self.used_bytes
        elif risen > 0:
            # It grew although some was free, so the core could not have used that.
            self._excess_bytes += risen
        if risen > 0 or fallen:
            self._peak_bytes = resident_bytes
        self._keep_free()

    def rebound(self, bound_bytes: int) -> None:
        """Use another bound from now on."""
        self._bound_bytes = bound_bytes
        self.replies_bytes_max = bound_bytes // _REPLIES_SHARE
        self.spare_bytes = min(_SPARE_BYTES_MAX, bound_bytes // _SPARE_SHARE)
        self._keep_free()

    # --- what is refused ------------------------------------------------------------------------------------

    def refuse(self, slot: str, now_ns: int) -> bool:
        """Note that an actor had no memory for growth; return whether to tell the operator."""
        _, told_ns = self._refusals.get(slot, (0, None))
        tell = told_ns is None or now_ns - told_ns >= _REFUSED_NS
        self._refusals[slot] = (now_ns, now_ns if told_ns is None or tell else told_ns)
        return tell

    def refusing(self, now_ns: int) -> tuple[str, ...]:
        """Return the slots of the actors that had no memory for growth in the last minute."""
        return tuple(
            sorted(slot for slot, (at_ns, _) in self._refusals.items() if now_ns - at_ns < _REFUSED_NS)
        )

    # --- what is kept for others ----------------------------------------------------------------------------

    def offer(self, peer: bytes, seen: int) -> Grant:
        """Return the grant of a peer that uses grant number `seen`, renewed if that is the newest one."""
        grant = self._grants.get(peer)
        if grant is None:
            # The peer may still use one that was withdrawn.
            grant = self._grants[peer] = Grant(seen)
        if seen == grant.number:
            grant.confirm()
            self._offers += 1
            if self._offers % _WANTED_OFFERS == 0:
                self._wanted.clear()
            # Its share, or what is left: peers that were granted more before have yet to hear of less.
            grant.renew(min(self.share_bytes, self.free_bytes + grant.reserved_bytes))
            self._keep_free()
        return grant

    def spend(self, peer: bytes, size: int) -> None:
        """Note how much the records of a peer have added."""
        grant = self._grants.get(peer)
        if grant is not None:
            grant.spend(size)
            self._keep_free()

    def withdraw(self, peer: bytes) -> None:
        """Take back the grant of a peer that is gone, or has been silent so long that it is ignored."""
        if self._grants.pop(peer, None) is not None:
            self._keep_free()

    def keep_for_found(self, shard: int, size: int) -> None:
        """Keep so much for what is yet to be applied of a copy that was found on disk."""
        before = self._found.pop(shard, 0)
        if size:
            self._found[shard] = size
            self.refilled = True
        if size != before:
            self.found_bytes += size - before
            self._keep_free()

    def keeps_for_found(self, shard: int) -> bool:
        """Whether a copy that was found on disk is yet to be applied."""
        return shard in self._found

    def refusal_of_join(self, shard: int, size: int, missed: int | None = None) -> tuple[str, bool] | None:
        """Reserve room for a replica about to be sent; else return why not, and whether memory is full.

        Memory is not full if what is granted to peers would be enough: after a start nearly all of it is.
        Grants cannot be taken back at once, so less is granted until the next attempt. Of a copy found on
        disk that goes on only what it has `missed` needs room: it is kept in any case. If there is none even
        for that, a little is let in all the same, in all as much as is set aside for replies.
        """
        own = self._found.get(shard, 0)
        held = max(self._used.get(shard, 0) + own, self._joins.get(shard, 0))
        free = self.free_bytes + held
        room = max(self.free_bytes, 0)
        if self.free_bytes >= 0:
            self._beyond_bytes = 0
        # What adds nothing may always come: an empty shard, or no more than a copy that was found on disk.
        if size - held > room:
            if size <= free + self._reserved_bytes - self.found_bytes:
                self._wanted[shard] = size
                return f"actor {self.slot} takes it once others return the memory that they hold", False
            if missed is None:
                return self._refusal_for_want(shard, size, free)
            if missed > room:
                if self._beyond_bytes + missed > self.spare_bytes:
                    return self._refusal_for_want(shard, size, free)
                self._beyond_bytes += missed
        self._wanted.pop(shard, None)
        self._joins[shard] = size
        self._keep_free()
        return None

    def _refusal_for_want(self, shard: int, size: int, free: int) -> tuple[str, bool]:
        others = self.found_bytes - self._found.get(shard, 0)
        if size <= free + self._reserved_bytes - self.found_bytes + others:
            return f"actor {self.slot} takes it once it has applied what it found on its disk", False
        left = f"has {free} free" if free >= 0 else "is over its bound"
        return f"no memory: the copy takes {size} bytes, and actor {self.slot} {left} (--memory-max)", True

    def keeps_for(self, shard: int) -> bool:
        """Whether room is reserved for a replica, beside what its primary was granted."""
        return shard in self._joins

    def joined(self, shard: int) -> None:
        """Release the room reserved for a replica, which is complete."""
        if self._joins.pop(shard, None) is not None:
            self._keep_free()

    def _keep_free(self) -> None:
        kept = self.found_bytes
        for shard, size in self._joins.items():
            kept += max(size - self._used.get(shard, 0), 0)
        self.kept_bytes = kept
        self._reserved_bytes = reserved = kept + sum(grant.reserved_bytes for grant in self._grants.values())
        self.ample_bytes = self.limit_bytes // _AMPLE
        self.free_bytes = self.limit_bytes - self.spare_bytes - self.used_bytes - reserved
