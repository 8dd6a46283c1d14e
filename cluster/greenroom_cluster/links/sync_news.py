"""What was synced, on its way from the thread that syncs to the loop that steps the core.

Most often nobody waits for it: a primary's own disk is ready before its backup answers. Then it is taken in
with the next step, and the loop is not woken for it. Else the loop is woken: it says after each step whether
anything waits. Loop and thread each write first and look then, so that one of them sees what the other did.
"""

from greenroom_cluster.shard.inputs import Synced


class SyncNews:
    """The `newest` sync, the newest that was `taken`, and whether the loop waits for one."""

    __slots__ = ("_awaited", "newest", "taken")

    def __init__(self) -> None:
        self._awaited = False
        self.newest: Synced | None = None
        self.taken: Synced | None = None

    def put(self, synced: Synced) -> bool:
        """Note a sync, in the thread; return whether to wake the loop."""
        self.newest = synced
        return self._awaited

    def take(self) -> Synced | None:
        """Return the newest sync, in the loop; None if that was taken before."""
        newest = self.newest
        if newest is self.taken:
            return None
        self.taken = newest
        return newest

    def look_out(self, *, awaited: bool) -> bool:
        """Say in the loop whether anything waits for a sync; return whether it is here already."""
        self._awaited = awaited
        return awaited and self.newest is not self.taken
