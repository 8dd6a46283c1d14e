"""How a process writes to its directory: each step's entries at once, as a batch; a thread syncs them.

One sync runs at a time. What is written meanwhile is synced next.
"""

from collections.abc import Callable

from greenroom_cluster.links.outbox import DiskEffect
from greenroom_cluster.links.sync_news import SyncNews
from greenroom_cluster.shard.effects import Persist
from greenroom_cluster.shard.inputs import Synced
from simulations.kernel.directory import Directory, FailedError
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND

_LOOK_NS = 500 * MILLISECOND
_ROOMY = 1 << 40


class DiskWriter:
    """Writes to the directory of one process.

    With `interval_ns` it syncs a batch after half of that, unless it is to be synced at once.
    All syncs are in `news`. `on_synced()`, if one is awaited, and `on_measured(free_bytes)` are called in the
    process, and `on_failed` when a sync has failed, or a write.
    """

    def __init__(
        self,
        process: Process,
        directory: Directory,
        *,
        on_synced: Callable[[], None],
        on_measured: Callable[[int], None],
        on_failed: Callable[[str], None],
        interval_ns: int = 0,
    ) -> None:
        self.directory = directory
        self.news = SyncNews()
        self._process = process
        self._timeline = process.timeline
        self._on_synced = on_synced
        self._on_measured = on_measured
        self._on_failed = on_failed
        self._interval_ns = interval_ns
        self._syncing = False
        self._wanted = False
        # The position of the newest batch written, and the number of the newest that a sync covers.
        self._position = 0
        self._covered = directory.synced
        self._due_at = -1
        # The newest batch that this process has synced.
        self.reached = directory.synced
        self._look_at = 0
        self._short = False

    def write(self, effects: list[DiskEffect]) -> None:
        """Append entries to the log, and have them synced in their turn; or drop what is not needed.

        Raises FailedError, and then the process has ended.
        """
        if not self._process.alive:
            return
        for effect in effects:
            if isinstance(effect, Persist):
                try:
                    self.directory.write(effect.entries)
                except FailedError:
                    self._on_failed("write failed")
                    raise
                self._position = effect.position
                self._wanted = self._wanted or effect.at_once or not self._interval_ns
            else:
                self.directory.drop_before(effect.mark)
                self._process.network.happened["log dropped"] += 1
        self._timeline.after(0, self._go_on)

    def _go_on(self) -> None:
        process = self._process
        if process.paused:
            process.tell(0, self._go_on)
            return
        self._look()
        if self._syncing or not process.alive:
            return
        if self._wanted:
            self._sync()
        elif self._covered < self.directory.newest:
            self._arm()

    def _look(self) -> None:
        """Tell now and then how much room there is, as long as there may be too little."""
        room, now = self.directory.room, self._timeline.now
        if not self._process.alive or now < self._look_at or (room is None and not self._short):
            return
        self._look_at, self._short = now + _LOOK_NS, room is not None
        self._process.tell(0, self._on_measured, _ROOMY if room is None else room)
        if self._short:
            self._timeline.at(self._look_at, self._look)

    def _arm(self) -> None:
        if self._due_at < 0:
            self._due_at = self._timeline.now + self._interval_ns // 2
            self._timeline.at(self._due_at, self._due)

    def _due(self) -> None:
        self._due_at = -1
        if self._covered < self.directory.newest:
            self._wanted = True
            self._go_on()

    def _sync(self) -> None:
        self._wanted, self._syncing = False, True
        number, position = self.directory.newest, self._position
        self._covered = number
        self._timeline.after(self.directory.draw_sync_ns(), self._sync_ended, number, position)

    def _sync_ended(self, number: int, position: int) -> None:
        directory = self.directory
        if not self._process.alive:
            return
        if directory.hanging:
            directory.waiting.append(lambda: self._sync_ended(number, position))
        elif directory.failing:
            directory.fail_sync()
            self._on_failed("sync failed")
        else:
            directory.settle(number)
            self.reached = number
            self._process.tell(0, self._returned, number, position)

    def _returned(self, number: int, position: int) -> None:
        self._syncing = False
        if self.news.put(Synced(position, number, self.directory.stored_bytes)):
            self._on_synced()
        self._go_on()
