"""A pair of actors, seen from the backups' side; `outgoing` explains leases and graces."""

from greenroom_cluster.shard.messages import Beacon, BeaconOk
from greenroom_cluster.shard.state.memory import UNLIMITED_BYTES, Memory


class Incoming:
    """The pair with one peer, on the backups' side."""

    __slots__ = ("_refusal", "_refused", "backed", "grace_due_ns", "heard_ns", "near_ns", "peer")

    def __init__(self, peer: bytes, now_ns: int) -> None:
        self.peer = peer
        self.heard_ns = now_ns
        # When to look again at shards taken up later, for which the grace ends later than for the pair.
        self.grace_due_ns = 0
        self.backed: set[int] = set()
        # For how long clients may show what primaries there have answered.
        self.near_ns = 0
        self._refusal = 0
        self._refused: dict[int, tuple[int, int]] = {}

    def refuse(self, shard: int, epoch: int) -> None:
        """Stop backing the peer on this shard at this epoch and below, for good."""
        self.backed.discard(shard)
        self._refusal += 1
        self._refused[shard] = (epoch, self._refusal)

    def on_beacon(
        self, message: Beacon, now_ns: int, memory: Memory, *, disk_short: bool = False
    ) -> BeaconOk:
        """Note that the peer is alive; return which shards it is still backed on, and with how much room."""
        self.heard_ns = now_ns
        self.near_ns = max(self.near_ns, message.near_ns)
        if message.grant_seen < 0 or not memory.bounded:
            terms = (0, UNLIMITED_BYTES, 0, 0)
        else:
            grant = memory.offer(self.peer, message.grant_seen)
            spare = memory.spare_bytes // memory.shares
            # Below 0 not even what does not grow would go on, and it was not the sender that used too much.
            left = max(grant.left_bytes, 0) if memory.overfull else grant.left_bytes
            terms = (grant.number, left, spare, memory.share_bytes)
        if message.refusals_seen == self._refusal:
            return BeaconOk(message.sent_ns, self._refusal, (), *terms, disk_short, self.near_ns)
        # Refusals are kept for good, at most one a shard: a primary that closes its side of the pair and
        # opens it again asks for all of them.
        refused = tuple(
            (shard, epoch)
            for shard, (epoch, refusal) in self._refused.items()
            if refusal > message.refusals_seen
        )
        return BeaconOk(message.sent_ns, self._refusal, refused, *terms, disk_short, self.near_ns)
