"""The pairs of one actor, by peer."""

from itertools import count

from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.pairs.incoming import Incoming
from greenroom_cluster.shard.pairs.outgoing import UNTOLD_BYTES, Outgoing
from greenroom_cluster.shard.state.memory import Memory


class Pairs:
    """Pairs with peers that back primaries here (`outgoing`), or whose primaries are backed here."""

    __slots__ = ("_batches", "_context", "_memory", "incoming", "outgoing")

    def __init__(self, context: Context, memory: Memory) -> None:
        self._context = context
        self._memory = memory
        # Numbered across all pairs, so that a reply to a former pair never fits a batch of its successor.
        self._batches = count(1)
        self.outgoing: dict[bytes, Outgoing] = {}
        self.incoming: dict[bytes, Incoming] = {}

    def toward(self, peer: bytes, now_ns: int) -> Outgoing:
        """Return the pair with a peer that backs, or is to back, replicas here."""
        pair = self.outgoing.get(peer)
        if pair is None:
            # What may be added to the peer's memory: a little, until it says how much, see `memory`.
            room_bytes = min(UNTOLD_BYTES, self._memory.spare_bytes)
            pair = self.outgoing[peer] = Outgoing(self._context, peer, now_ns, room_bytes, self._batches)
        return pair

    def hear_of(self, peer: bytes, now_ns: int) -> Incoming:
        """Return the pair with a peer that is, or may become, the primary of replicas here."""
        incoming = self.incoming.get(peer)
        if incoming is None:
            incoming = self.incoming[peer] = Incoming(peer, now_ns)
        return incoming

    def close_unused(self) -> None:
        """Close the pairs that no longer serve any shard."""
        for peer in [peer for peer, pair in self.outgoing.items() if not pair.recipients]:
            self.outgoing.pop(peer).close()
