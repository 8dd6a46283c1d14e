"""The rounds in which replicas are rid of what is over, in steps that no request has to wait long for.

A million sessions may end in one second. If an actor removed all that it finds at once, and its peers applied
that at once, every request in between would wait for it. So a round stops after a number of looks and goes on
a moment later, when what has come meanwhile has been served. A round that found something to look at is
followed by the next right away; else the next comes after `sweep_seconds`.
"""

from collections.abc import Sequence

from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.settings import HostSettings, ns


class Sweeper:
    """Goes round the replicas of an actor. `due_ns` is when `step` is due, `pages_due_ns` when `go_on` is."""

    def __init__(self, settings: HostSettings) -> None:
        self._settings = settings
        self._next_shard = 0
        self._looked = False
        self.due_ns = 0
        self.pages_due_ns = 0

    def step(self, now_ns: int, wall_us: int, replicas: Sequence[Replica | None]) -> None:
        """Go on with the round, by at most `sweep_looks_max` sessions; a replica counts like a session."""
        left = self._settings.sweep_looks_max
        self.due_ns = now_ns + ns(self._settings.sweep_pause_seconds)
        while self._next_shard < len(replicas):
            if left <= 0:
                return
            replica = replicas[self._next_shard]
            self._next_shard += 1
            if replica is not None:
                looked = replica.sweep(now_ns, wall_us, left)
                if looked:
                    replica.count()
                self._looked |= looked > 0
                left -= 1 + looked
        if not self._looked:
            self.due_ns = now_ns + ns(self._settings.sweep_seconds)
        self._next_shard = 0
        self._looked = False

    def go_on(
        self, now_ns: int, wall_us: int, replicas: Sequence[Replica | None], unfinished: dict[int, None]
    ) -> None:
        """Log the next pages of long commands: a few, and the next a moment later."""
        left = self._settings.page_max
        self.pages_due_ns = now_ns + ns(self._settings.sweep_pause_seconds)
        for shard in tuple(unfinished):
            if left <= 0:
                return
            del unfinished[shard]
            replica = replicas[shard]
            if replica is not None and replica.primary is not None:
                left -= replica.primary.go_on(now_ns, wall_us, left)
