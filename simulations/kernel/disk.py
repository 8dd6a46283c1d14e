"""How a process writes to its directory: each step's entries at once, as a batch; a thread syncs them.

What the thread does next the product decides (`links.disk_schedule`); this is what takes time, and may fail.
"""

from collections.abc import Callable

from greenroom.deadlines import NEVER_NS
from greenroom_cluster.links.disk_schedule import DiskSchedule, End, Measure, Sync, Wait
from greenroom_cluster.links.outbox import DiskEffect
from greenroom_cluster.links.sync_news import SyncNews
from greenroom_cluster.shard.effects import DropBefore, Persist
from greenroom_cluster.shard.inputs import Synced
from simulations.kernel.directory import Directory, FailedError
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND

FREE_BYTES_MIN = 8000
"""Room on the disks of actors below which they refuse what takes any."""
_LOOK_NS = 500 * MILLISECOND
_ROOMY = 1 << 40


class DiskWriter:
    """Writes to the directory of one process.

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
        # The newest batch that this process has synced.
        self.reached = directory.synced
        self._process = process
        self._timeline = process.timeline
        self._on_synced = on_synced
        self._on_measured = on_measured
        self._on_failed = on_failed
        self._schedule = DiskSchedule(interval_ns, free_bytes_min=FREE_BYTES_MIN, look_ns=_LOOK_NS)
        # Words of the loop that the thread has yet to hear, and when it wakes without one.
        self._words = 0
        self._wakes_ns = NEVER_NS
        self._syncing = False
        self._told_room: int | None = None

    # --- in the loop ---------------------------------------------------------------------------------------

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
                asks = self._schedule.wrote(effect)
            else:
                asks = self._schedule.drops(effect)
            if asks:
                self._words += 1
                self._timeline.after(0, self._go_on)

    # --- in the thread -------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Do what is next, if the thread is there: it may be stopped with the process, or wait for a sync."""
        if self._process.paused:
            self._process.tell(0, self._go_on)
        elif not self._syncing:
            self._hear()
            self._work()

    def _hear(self) -> bool:
        if not self._words:
            return False
        self._words -= 1
        self._schedule.heard()
        return True

    def _work(self) -> None:
        process = self._process
        while process.alive and not self._syncing:
            if process.paused:
                process.tell(0, self._work)
                return
            match self._schedule.next(process.machine.now_ns()):
                case Wait(until_ns=until_ns):
                    if not self._hear():
                        self._wake_at(until_ns)
                        return
                case Sync():
                    self._sync()
                case DropBefore(mark=mark):
                    self.directory.drop_before(mark)
                    process.network.happened["log dropped"] += 1
                case Measure():
                    self._measure()
                case End():
                    self._on_failed("sync failed")

    def _wake_at(self, until_ns: int) -> None:
        if until_ns == NEVER_NS:
            return
        moment = self._process.machine.moment(until_ns)
        if moment < self._wakes_ns:
            self._wakes_ns = moment
            self._timeline.at(moment, self._wake)

    def _wake(self) -> None:
        self._wakes_ns = NEVER_NS
        self._go_on()

    def _measure(self) -> None:
        """Tell how much room there is, while that is less than enough."""
        room = self.directory.room
        self._schedule.measured(_ROOMY if room is None else room)
        if room is not None or self._told_room is not None:
            self._told_room = room
            self._process.tell(0, self._on_measured, _ROOMY if room is None else room)

    def _sync(self) -> None:
        self._syncing = True
        number = self.directory.newest
        self._timeline.after(self.directory.draw_sync_ns(), self._sync_ended, number)

    def _sync_ended(self, number: int) -> None:
        directory = self.directory
        if not self._process.alive:
            return
        if directory.hanging:
            directory.waiting.append(lambda: self._sync_ended(number))
        elif directory.failing:
            directory.fail_sync()
            self._process.tell(0, self._failed)
        else:
            directory.settle(number)
            self.reached = number
            self._process.tell(0, self._returned, number)

    def _failed(self) -> None:
        self._syncing = False
        self._schedule.fail()
        self._work()

    def _returned(self, number: int) -> None:
        self._syncing = False
        if self.news.put(Synced(self._schedule.ended(), number, self.directory.stored_bytes)):
            self._on_synced()
        self._work()
