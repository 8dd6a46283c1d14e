# ruff: noqa: ANN001, ANN002, ANN202, ARG001, ARG005, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of who goes on with a shard after a power cut, with which log, and at what time."""

import msgspec

from greenroom_cluster.coordination.draft import Draft
from greenroom_cluster.shard.disk_log import DiskLog, DiskStalledError
from greenroom_cluster.shard.recovery import Recovery
from greenroom_cluster.shard.roles.membership import Membership
from greenroom_cluster.shard.roles.primary import Primary
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.state.clock import ShardClock
from simulations.mutants.durable import ALL_CUT, PRIMARY_LOST, SMALL
from simulations.mutants.patching import Patches, instead, mutant
from simulations.plans.plan import Action, Fault

_replace = msgspec.structs.replace

_WRITES = tuple(
    Action(
        number % 6, 5.0 + number * 7 % 11, ("create", "update", "patch", "get")[number // 6 % 4], number % 6
    )
    for number in range(1200)
)

HUNG_AND_CUT = _replace(
    SMALL,
    actions=_WRITES,
    durability=("interval",),
    interval_seconds=0.3,
    sync_ms=1.0,
    faults=(
        Fault(600, "hang sync", "actor n0/0", 3.0),
        Fault(600, "hang sync", "actor n1/0", 3.0),
        Fault(2400, "crash all nodes", "coordinator", 0.3),
    ),
)
"""No disk syncs any more, and after a while all machines lose power."""

ENDED_AT_THE_START = _replace(
    SMALL,
    disk_ms=200.0,
    start_seconds=(0.01, 0.6),
    seconds=8.0,
    faults=(
        Fault(900, "lose disks", "node n0", 0.5),
        Fault(900, "lose disks", "node n1", 0.5),
        *(Fault(4000 + 500 * number, "kill actor", f"actor n{number % 2}/0") for number in range(6)),
    ),
)
"""All disks are lost and given up. Who is to begin a shard is killed while the coordinator writes that."""

CUT_IN_SHORT_STEPS = _replace(ALL_CUT, step_bytes=500)
"""All machines lose power at once, and applying what is on disk takes many steps."""

PRIMARY_LOST_IN_SHORT_STEPS = _replace(
    PRIMARY_LOST,
    actions=_WRITES,
    seconds=9.0,
    log_bytes_min=1000,
    sync_ms=5.0,
    chunk_bytes=2000,
    step_bytes=500,
    session_bytes=2000,
    sessions=24,
)
"""Only the backup's disk is left, with snapshots that take many steps to be read."""

LONG_CUT = _replace(
    SMALL,
    seconds=14.0,
    deadline_seconds=1.0,
    deadline_ms=4000,
    actions=_WRITES,
    faults=(Fault(900, "crash all nodes", "coordinator", 8.0),),
)
"""All machines are without power for long, while sessions come to their end."""

CUT_WITH_A_CLOCK_BEHIND = _replace(
    ALL_CUT,
    faults=(
        Fault(880, "jump wall clock", "node n0", amount=-20.0),
        Fault(880, "jump wall clock", "node n1", amount=-20.0),
        *ALL_CUT.faults,
    ),
)
"""All machines lose power at once, and have clocks that are behind when they come back."""

SLOW_BACKUP = _replace(
    SMALL,
    sync_ms=1.0,
    seconds=5.0,
    bound_seconds=3.4,
    faults=(Fault(900, "hang sync", "backup of shard 0", 10.0),),
)
"""The disk of a backup stalls: the primary removes that, and goes on."""


@mutant("acknowledges while a sync is overdue", budget=20, plan=HUNG_AND_CUT)
def _(patches: Patches) -> None:
    """With interval, writes are confirmed however long the oldest has waited for its sync."""
    patches.set(DiskLog, "_is_late", lambda self, now_ns: False)


@mutant("puts an heir in the place of its predecessor", flagged=True, budget=20, plan=ALL_CUT)
def _(patches: Patches) -> None:
    """Whoever comes back with the directory of a member is that member."""
    original = Draft._succeed

    def succeed(self, actor):
        original(self, actor)
        former = {each.incarnation for each in self.actors.values() if each.directory == actor.directory}
        if not actor.directory:
            return
        for shard, entry in enumerate(self.shards):
            primary, *backups = [
                actor.incarnation if member in former else member for member in entry.members
            ] or [b""]
            self.shards[shard] = _replace(entry, primary=primary, backups=tuple(backups))

    patches.set(Draft, "_succeed", succeed)


@mutant("serves before what it found is committed", flagged=True, budget=20, plan=CUT_IN_SHORT_STEPS)
def _(patches: Patches) -> None:
    """Who recovers a shard answers before it has applied the log that was on its disk."""
    found = set()
    original, paused = Recovery.take, Primary.paused

    def take(self, now_ns, wall_us, shard, entry):
        replica = original(self, now_ns, wall_us, shard, entry)
        found.add(replica)
        return replica

    def is_paused(self):
        replication = self.replication
        with instead(replication, behind=replication.behind and self.copy not in found):
            return paused.fget(self)  # type: ignore[attr-defined]  # a property of the class

    patches.set(Recovery, "take", take)
    patches.set(Primary, "paused", property(is_paused))


@mutant("goes on with a part of its snapshot", budget=20, plan=PRIMARY_LOST_IN_SHORT_STEPS)
def _(patches: Patches) -> None:
    """Who recovers a shard as a former backup applies its log to what one step has read of the snapshot."""
    original = Replica.read_on

    def read_on(self, now_ns, wall_us):
        while len(self.log.unread) > 1:
            self.log.unread.popleft()
        original(self, now_ns, wall_us)

    patches.set(Replica, "read_on", read_on)


@mutant("slews the time without power away", budget=20, plan=LONG_CUT)
def _(patches: Patches) -> None:
    """The clock of a recovered shard goes on where it stood, and follows the wall clock slowly."""
    patches.set(ShardClock, "resume", lambda self, now_ns, *others: setattr(self, "_at_ns", now_ns))


@mutant("takes the time of a recovered shard from the wall clock", budget=20, plan=CUT_WITH_A_CLOCK_BEHIND)
def _(patches: Patches) -> None:
    """The clock of a recovered shard is set to the host's, though the log has seen a later time."""

    def resume(self, now_ns, wall_us, *others):
        self._last_us, self._at_ns = wall_us, now_ns

    patches.set(ShardClock, "resume", resume)


@mutant("blames a primary for the disk of its backup", budget=20, plan=SLOW_BACKUP)
def _(patches: Patches) -> None:
    """A primary ends if what it wrote is not everywhere in time, though its own disk has it."""
    original = Membership._check_disk

    def check(self, now_ns):
        original(self, now_ns)
        waiting = [each.waiting_since_ns for each in self._replication.counted if each.waiting_since_ns]
        if waiting and now_ns - min(waiting) > self._context.acknowledge_ns // 2:
            raise DiskStalledError("a backup has not acknowledged in time")

    patches.set(Membership, "_check_disk", check)


@mutant("waits for a copy that was never begun", budget=20, plan=ENDED_AT_THE_START)
def _(patches: Patches) -> None:
    """Who was to begin a shard empty, and has ended before it could, has nothing to come back with."""
    patches.set(Recovery, "_begin_if_started", lambda self, shard, entry: None)
