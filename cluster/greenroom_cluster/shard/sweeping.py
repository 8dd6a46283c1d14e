"""Rounds that remove expired sessions, in steps short enough that no request waits long for one.

A million sessions may end in one second. If an actor removed all of them at once, and its peers applied that
at once, every request would wait meanwhile. So a round stops after a number of looks and goes on a moment
later, after serving the requests that came in between. If a round found anything to look at, the next one
follows right away, else after `sweep_seconds`.
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
