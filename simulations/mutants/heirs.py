# ruff: noqa: ANN001, ANN002, ANN202, ARG005, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of whom a coordinator hears that cannot tell whether its map is the newest."""

from msgspec.structs import replace

from greenroom_cluster.coordination import rules
from greenroom_cluster.coordination.hearing import Hearing
from greenroom_cluster.disk.entries import Configured
from greenroom_cluster.links.coordinator_session import CoordinatorSession, Remembered
from greenroom_cluster.shard import disk_log
from greenroom_cluster.shard.disk_log import DiskLog
from greenroom_cluster.shard.effects import Propose
from greenroom_cluster.shard.recovery import Recovery
from simulations.mutants.durable import SMALL
from simulations.mutants.patching import Patches, mutant
from simulations.plans.plan import Fault

ANOTHER_STAYS_OFF = replace(
    SMALL,
    nodes=3,
    seconds=12.0,
    bound_seconds=4.0,
    actions=SMALL.actions * 4,
    faults=(
        Fault(300, "crash node", "node n2", 30.0),
        Fault(6500, "crash all nodes", "coordinator", 0.3, 1.0),
    ),
)
"""All machines lose power, the coordinator's too, and one that has no member of the shard stays off."""

ADDED_AND_TAKEN_OVER = replace(
    SMALL,
    nodes=1,
    seconds=9.0,
    actions=SMALL.actions * 2,
    faults=(
        Fault(500, "slow snapshots", "node n1", 3.0, 100.0),
        Fault(501, "add node", "coordinator"),
        Fault(1000, "stale map", "primary of shard 0", 30.0),
        Fault(1900, "cut between", "node n0", 30.0, other="node n1"),
        Fault(2900, "cut between", "node n1", 30.0, other="coordinator"),
        Fault(2905, "restore coordinator", "coordinator", 4.0, 2.0),
    ),
)
"""A primary does not hear that whom it adds was added, and has taken over. Then the coordinator is restored
from a copy that was made before, and hears that primary alone.
"""

ADDED_BY_ITS_DISK = replace(
    ADDED_AND_TAKEN_OVER, faults=(*ADDED_AND_TAKEN_OVER.faults, Fault(2910, "crash node", "node n0", 0.3))
)
"""The same, and the primary's machine loses power, so that only its disk knows what it has proposed."""

PROPOSED_ON_A_SLOW_DISK = replace(
    ADDED_BY_ITS_DISK,
    faults=(*ADDED_BY_ITS_DISK.faults, Fault(1000, "hang sync", "primary of shard 0", 5.0)),
)
"""The same, and that machine's disk syncs nothing any more from before it proposes."""

ALL_CUT_AFTER_A_TAKEOVER = replace(
    ADDED_AND_TAKEN_OVER,
    faults=(*ADDED_AND_TAKEN_OVER.faults[:4], Fault(2950, "crash all nodes", "coordinator", 0.3)),
)
"""A primary does not hear that whom it adds was added, and has taken over. Then all machines lose power."""

RESTORED_WHILE_ALL_ARE_CUT = replace(
    ALL_CUT_AFTER_A_TAKEOVER,
    faults=(*ALL_CUT_AFTER_A_TAKEOVER.faults, Fault(3000, "restore coordinator", "coordinator", 4.0, 2.0)),
)
"""The same, and the coordinator is restored from a copy that was made before all that."""


@mutant("waits for every node when shards come back", budget=20, plan=ANOTHER_STAYS_OFF)
def _(patches: Patches) -> None:
    """An actor in the directory of a member does not speak for it."""
    patches.set(Hearing, "opened", lambda self, incarnation, directory: None)


@mutant("does not hear whom a member would add", flagged=True, budget=20, plan=ADDED_AND_TAKEN_OVER)
def _(patches: Patches) -> None:
    """A coordinator that is restored hears the members that its map names, and decides."""
    patches.set(CoordinatorSession, "_testimony", lambda self: None)


@mutant("ignores open proposals on disk", flagged=True, budget=20, plan=ADDED_BY_ITS_DISK)
def _(patches: Patches) -> None:
    """An actor does not tell whom those would have added who ran in its directory."""
    patches.set(Remembered, "additions", lambda self, epochs: [])


@mutant("sends a proposal before it is on disk", flagged=True, budget=20, plan=PROPOSED_ON_A_SLOW_DISK)
def _(patches: Patches) -> None:
    """A proposal leaves while it is being written, so that its proposer may have forgotten it."""
    original = disk_log._is_held
    patches.set(disk_log, "_is_held", lambda effect: not isinstance(effect, Propose) and original(effect))


@mutant("ignores what a directory knows", flagged=True, budget=20, plan=RESTORED_WHILE_ALL_ARE_CUT)
def _(patches: Patches) -> None:
    """If no node has a later map, a coordinator decides against an actor that knows of one."""
    patches.set(Hearing, "denied", lambda self, incarnation, epochs, ours: None)


@mutant("keeps configurations in memory alone", flagged=True, budget=20, plan=RESTORED_WHILE_ALL_ARE_CUT)
def _(patches: Patches) -> None:
    """An actor acts on a configuration that is not on its disk."""
    original = DiskLog.enter

    def enter(self, entry, *size):
        if not isinstance(entry, Configured):
            original(self, entry, *size)

    patches.set(DiskLog, "enter", enter)


@mutant("lets an earlier configuration claim", flagged=True, budget=20, plan=ALL_CUT_AFTER_A_TAKEOVER)
def _(patches: Patches) -> None:
    """Who was a member before the shard went on without him recovers it with what he has."""
    original = Recovery.manage

    def manage(self, now_ns, shard, entry):
        found = self._found.get(shard)
        if found is not None and self._context.incarnation in self._context.map.actors:
            entry = replace(entry, primary=self._context.incarnation, backups=())
            self._context.dead |= {self._context.incarnation}
        original(self, now_ns, shard, entry)

    patches.set(Recovery, "manage", manage)
    dropped = (rules.HEIR, rules.ALL_CLAIMED, rules.BEST_CLAIM)
    kept = tuple(rule for rule in rules.RULES["recover"] if rule not in dropped)
    patches.set(rules, "RULES", {**rules.RULES, "recover": kept})
