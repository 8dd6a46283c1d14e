"""How many snapshots an actor sends at a time, in all and to one peer, and which shards wait for their turn.

Few to one peer, because its acknowledgements arrive together, and each asks for the next chunk in the same
step. The limit is per peer, so that a peer that hangs or refuses delays only its own joins.
"""

from collections.abc import Container

from greenroom_cluster.shard.settings import HostSettings


class JoinSlots:
    """The joins under way from one actor that take much, by peer. `begun` counts all that ever were.

    `renewed` holds the peers for which `take_turn` may have something.
    """

    def __init__(self, settings: HostSettings) -> None:
        self._settings = settings
        self.begun = 0
        self._taken: dict[bytes, int] = {}
        self._waiting: dict[bytes, dict[int, None]] = {}
        self.renewed: dict[bytes, None] = {}

    @property
    def taken(self) -> int:
        """How many joins are under way."""
        return sum(self._taken.values())

    def free(self, peer: bytes) -> bool:
        """Whether a join to this peer may begin."""
        settings = self._settings
        return self._taken.get(peer, 0) < settings.joins_per_peer_max and self.taken < settings.joins_max

    def begin(self) -> int:
        """Return the number of a join that begins."""
        self.begun += 1
        return self.begun

    def take(self, peer: bytes) -> None:
        """Count a join that sends a snapshot."""
        self._taken[peer] = self._taken.get(peer, 0) + 1

    def give_back(self, peer: bytes, *, joined: bool) -> None:
        """Count a join that ended. If it failed, other shards wait for the next look at all of them."""
        left = self._taken.pop(peer) - 1
        if left:
            self._taken[peer] = left
        if joined:
            self.renewed[peer] = None

    def wait(self, peer: bytes, shard: int) -> None:
        """Remember a shard that waits to begin a join to this peer."""
        self._waiting.setdefault(peer, {})[shard] = None

    def forget_others(self, peers: Container[bytes]) -> None:
        """Forget the shards that wait for other peers than these."""
        for peer in [peer for peer in self._waiting if peer not in peers]:
            del self._waiting[peer]

    def take_turn(self) -> int | None:
        """Return the next shard that may begin after a join succeeded, if any waits."""
        while self.renewed:
            peer = next(iter(self.renewed))
            waiting = self._waiting.get(peer)
            if waiting and self.free(peer):
                shard = next(iter(waiting))
                del waiting[shard]
                return shard
            if not waiting:
                self._waiting.pop(peer, None)
            del self.renewed[peer]
        return None
