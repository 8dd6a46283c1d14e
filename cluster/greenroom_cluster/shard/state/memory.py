"""How much memory an actor's replicas hold, and how much more they may.

Counted is what the core keeps: sessions with what an index entry, a key and a table slot take, the clients'
kept replies, logs, and requests that are held. The rest of the process is not counted but measured: what the
resident size is beyond the counted, when that is at its most, is taken from the bound. Later, when sessions
were deleted, the same difference says little: a part of the resident size is free and waits to be used again.
So growth is refused where the resident size would pass the bound, and yet a delete makes room at once.

A primary's growth fills its backup too, which cannot refuse what is logged. So a backup grants each peer a
part of its own free memory, renewed with every beacon, and keeps that part for it (as a receiver's window
does in TCP). What is granted to all peers and what is used never exceed the bound together. A new grant
replaces the former one only when the peer has said that it has the new one; until then the larger counts.
A part is always left for the primaries here, also while there are none: a takeover makes some in no time.

Whoever has no room at the moment, but would have by its share of what is free, waits for the next renewals:
nothing is full before that.

None of this is part of the replicated state: it decides what is logged and never what a logged record does.
"""

from collections import defaultdict
from typing import Protocol

from greenroom_cluster.shard.settings import HostSettings, ns

UNLIMITED_BYTES = 1 << 62

# Measured as growth of the resident size: CPython 3.11, glibc 2.36, 32 tables, 100,000 to 300,000 sessions of
# 300 bytes, whose expiries lie within two weeks: 194 to 216 bytes without a user, of which the expiry index
# takes 36; 297 to 317 with a user of one session, 370 to 389 with a user of five.
SESSION_BYTES = 180
EXPIRY_BYTES = 36
USER_BYTES = 144
# A place in the order of age, only where sessions without a user may be evicted: 28 to 49 bytes.
ANONYMOUS_BYTES = 48
REPLY_BYTES = 320
CLIENT_BYTES = 700

GROWTH_BYTES = SESSION_BYTES + EXPIRY_BYTES + USER_BYTES + REPLY_BYTES + CLIENT_BYTES
"""What a command may add beside what its client chooses: the most that applying it takes."""

_SPARE_BYTES_MAX = 4 << 20
_SPARE_SHARE = 32
_REPLIES_SHARE = 8
_FALLEN = 0.9
_AMPLE = 4
"""Above a quarter of the limit it may wait to be counted what a replica holds."""
_WANTED_OFFERS = 100
"""For so many offers the room is kept back that a join was refused for; it is tried again sooner."""
_REFUSED_NS = ns(60.0)
"""For so long growth that was refused is shown, and the operator is not told of it again."""


class Grant:
    """What a peer may still add here. `number` counts the grants that it was sent."""

    __slots__ = ("_former_bytes", "left_bytes", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.left_bytes = 0
        self._former_bytes = 0

    @property
    def reserved_bytes(self) -> int:
        """What must be kept free for the peer, whichever of the last two grants it goes by."""
        return max(self.left_bytes, self._former_bytes, 0)

    def confirm(self) -> None:
        """The peer goes by the newest grant."""
        self._former_bytes = self.left_bytes

    def renew(self, room_bytes: int) -> None:
        """Offer another one."""
        self.number += 1
        self.left_bytes = room_bytes

    def spend(self, size: int) -> None:
        """The peer has added so much."""
        self.left_bytes -= size
        self._former_bytes -= size


class Holder(Protocol):
    """Who holds memory, and has not told the books yet how much."""

    def count_now(self) -> None:
        """Tell them."""


class Memory:
    """The books of one actor."""

    __slots__ = (
        "_bound_bytes",
        "_excess_bytes",
        "_grants",
        "_joins",
        "_offers",
        "_peak_bytes",
        "_peak_used_bytes",
        "_refusals",
        "_replies",
        "_reserved_bytes",
        "_used",
        "_wanted",
        "ample_bytes",
        "free_bytes",
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
        # Kept for the replies to commands that let no session grow, which go on when nothing else does.
        self.spare_bytes = min(_SPARE_BYTES_MAX, bound // _SPARE_SHARE)
        self.free_bytes = bound - self.spare_bytes
        """What may be added, with nobody else's part in it; below 0 where more is used than may be."""
        self.ample_bytes = bound // _AMPLE
        """With more than this free there is room for whatever comes before the books are next made up."""
        self._bound_bytes = bound
        self._excess_bytes = 0
        self._peak_bytes = 0
        self._peak_used_bytes = 0
        self._reserved_bytes = 0
        self._used: defaultdict[int, int] = defaultdict(int)
        self._replies: dict[int, int] = {}
        self._grants: dict[bytes, Grant] = {}
        self._joins: dict[int, int] = {}
        # Shards that could have come if less had been granted, and how many grants were offered.
        self._wanted: dict[int, int] = {}
        self._offers = 0
        # By shard: who has yet to tell what it holds.
        self.uncounted: dict[int, Holder] = {}
        # Of the slots that lacked memory lately: when growth was refused, and when the operator was told.
        self._refusals: dict[str, tuple[int, int]] = {}

    @property
    def bounded(self) -> bool:
        """Whether there is a bound at all."""
        return self._bound_bytes < UNLIMITED_BYTES

    @property
    def limit_bytes(self) -> int:
        """How much may be counted: the bound, without what the process takes beyond the counted."""
        return self._bound_bytes - self._excess_bytes

    @property
    def unused_bytes(self) -> int:
        """What nothing counted takes, whoever may add it."""
        return max(self.limit_bytes - self.used_bytes, 0)

    @property
    def shares(self) -> int:
        """Among how many what is free is shared: each peer, and the primaries here."""
        return len(self._grants) + 1

    @property
    def share_bytes(self) -> int:
        """What each of them may add once what was granted has been shared anew."""
        granted = sum(grant.reserved_bytes for grant in self._grants.values())
        return (self.free_bytes + granted - sum(self._wanted.values())) // self.shares

    # --- what is used ---------------------------------------------------------------------------------------

    def count_all(self) -> None:
        """Bring the books up to date."""
        while self.uncounted:
            self.uncounted.popitem()[1].count_now()

    def note(self, shard: int, used_bytes: int, replies_bytes: int) -> None:
        """Count what a replica holds now; `replies_bytes` of it are kept replies and their clients."""
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

    def add(self, shard: int, size: int) -> None:
        """Count what a replica takes on before it is looked at as a whole."""
        self._used[shard] += size
        self.used_bytes += size
        self.free_bytes -= size

    def drop(self, shard: int) -> None:
        """A replica is given up."""
        self.uncounted.pop(shard, None)
        self._joins.pop(shard, None)
        self.note(shard, 0, 0)
        self._keep_free()

    def measured(self, resident_bytes: int) -> None:
        """Take in how much memory the process has."""
        risen = resident_bytes - self._peak_bytes
        fallen = resident_bytes < self._peak_bytes * _FALLEN
        if self.used_bytes >= self._peak_used_bytes or fallen:
            self._excess_bytes = resident_bytes - self.used_bytes
            self._peak_used_bytes = self.used_bytes
        elif risen > 0:
            # It took more although some was free: that is none that the counted could use.
            self._excess_bytes += risen
        if risen > 0 or fallen:
            self._peak_bytes = resident_bytes
        self._keep_free()

    def rebound(self, bound_bytes: int) -> None:
        """Go by another bound from now on."""
        self._bound_bytes = bound_bytes
        self.replies_bytes_max = bound_bytes // _REPLIES_SHARE
        self.spare_bytes = min(_SPARE_BYTES_MAX, bound_bytes // _SPARE_SHARE)
        self._keep_free()

    # --- what is refused ------------------------------------------------------------------------------------

    def refuse(self, slot: str, now_ns: int) -> bool:
        """Note that growth was refused for want of an actor's memory; return whether to tell the operator."""
        _, told_ns = self._refusals.get(slot, (0, None))
        tell = told_ns is None or now_ns - told_ns >= _REFUSED_NS
        self._refusals[slot] = (now_ns, now_ns if told_ns is None or tell else told_ns)
        return tell

    def refusing(self, now_ns: int) -> tuple[str, ...]:
        """Return the slots of the actors for want of whose memory growth was refused in the last minute."""
        return tuple(
            sorted(slot for slot, (at_ns, _) in self._refusals.items() if now_ns - at_ns < _REFUSED_NS)
        )

    # --- what is kept for others ----------------------------------------------------------------------------

    def offer(self, peer: bytes, seen: int) -> Grant:
        """Return the grant of a peer that goes by grant number `seen`, renewed if that is the newest one."""
        grant = self._grants.get(peer)
        if grant is None:
            # One that was withdrawn may still be what the peer goes by.
            grant = self._grants[peer] = Grant(seen)
        if seen == grant.number:
            grant.confirm()
            self._offers += 1
            if self._offers % _WANTED_OFFERS == 0:
                self._wanted.clear()
            # Its share, or what there is of that: who was granted more before has yet to hear of less.
            grant.renew(min(self.share_bytes, self.free_bytes + grant.reserved_bytes))
            self._keep_free()
        return grant

    def spend(self, peer: bytes, size: int) -> None:
        """Records of a peer have added so much."""
        grant = self._grants.get(peer)
        if grant is not None:
            grant.spend(size)
            self._keep_free()

    def withdraw(self, peer: bytes) -> None:
        """A peer is gone, or silent for so long that nothing is taken from it any more."""
        if self._grants.pop(peer, None) is not None:
            self._keep_free()

    def refusal_of_join(self, shard: int, size: int) -> tuple[str, bool] | None:
        """Keep room for a replica that is to be sent; return why that cannot be, and whether memory is full.

        It is not full where what peers hold in reserve would do: after a start that is nearly all. It cannot
        be taken back at once, so less is granted until it is tried again.
        """
        free = self.free_bytes + max(self._used.get(shard, 0), self._joins.get(shard, 0))
        # A shard that holds nothing comes whatever is free: it takes none of it.
        if size > max(free, 0):
            if size <= free + self._reserved_bytes:
                self._wanted[shard] = size
                return f"actor {self.slot} takes it once others return the memory that they hold", False
            left = f"has {free} free" if free >= 0 else "is over its bound"
            reason = f"no memory: the copy takes {size} bytes, and actor {self.slot} {left} (--memory-max)"
            return reason, True
        self._wanted.pop(shard, None)
        self._joins[shard] = size
        self._keep_free()
        return None

    def joined(self, shard: int) -> None:
        """A replica has come whole: nothing is kept for it any more."""
        if self._joins.pop(shard, None) is not None:
            self._keep_free()

    def _keep_free(self) -> None:
        reserved = sum(grant.reserved_bytes for grant in self._grants.values())
        for shard, size in self._joins.items():
            reserved += max(size - self._used.get(shard, 0), 0)
        self._reserved_bytes = reserved
        self.ample_bytes = self.limit_bytes // _AMPLE
        self.free_bytes = self.limit_bytes - self.spare_bytes - self.used_bytes - reserved
