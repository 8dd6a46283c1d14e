# ruff: noqa: ANN001, ANN202, ARG005  mutants reach into what they break, and are not typed code
"""Mutants of which log goes the furthest, whose word on that counts, and from where a copy goes on."""

from msgspec.structs import replace

from greenroom_cluster.coordination import recovery, rules
from greenroom_cluster.coordination.absence import Absence
from greenroom_cluster.shard.disk_log import DiskLog
from greenroom_cluster.shard.recovery import Recovery
from simulations.mutants.durable import SMALL
from simulations.mutants.patching import Patches, instead, mutant
from simulations.plans.plan import Action, Fault

BURST_OF_GIVEN_UP = replace(
    SMALL,
    sync_ms=1.0,
    seconds=9.0,
    deadline_seconds=0.03,
    actions=(
        *(Action(number, 100.0 + number, "create", number) for number in range(6)),
        *(Action(number, 785.0 + number, "update", number) for number in range(6)),
        Action(0, 1000.0, "update", 0),
    ),
    faults=(
        Fault(880, "cut between", "node of primary of shard 0", 0.4, other="node of backup of shard 0"),
        Fault(915, "roll back directory", "primary of shard 0", 5.0, 1.6),
        Fault(930, "kill actor", "primary of shard 0"),
        Fault(2510, "crash all nodes", "coordinator", 0.3, 2.0),
    ),
)
"""A primary is killed with writes that its backup never got and that nobody repeats, and joins that.

Later all lose power, the coordinator its map, and the former primary's machine is restored from a copy that
was made when it was killed.
"""

CUT_SOON_AFTER_A_TAIL = replace(
    BURST_OF_GIVEN_UP,
    durability=("interval",),
    faults=(*BURST_OF_GIVEN_UP.faults[::2], Fault(1930, "crash all nodes", "coordinator", 0.3)),
)
"""The same with interval, but the machines lose power soon after one more write, and no copy is put back."""


CLAIMS_AND_IS_GONE = replace(
    SMALL,
    seconds=10.0,
    recover_alone_seconds=3.0,
    bound_seconds=6.0,
    actions=SMALL.actions * 2,
    faults=(
        Fault(900, "kill actor for good", "actor n0/0", 3.5),
        Fault(900, "kill actor for good", "actor n1/0", 0.1),
        Fault(1500, "crash node", "node n1", 30.0),
    ),
)
"""All members of a shard are killed. One is back soon, claims, and loses power while the other is awaited."""

BACK_BESIDE_ITS_PRIMARY = replace(
    SMALL,
    seconds=9.0,
    lease_seconds=1.0,
    grace_seconds=1.25,
    recover_alone_seconds=0.5,
    faults=(
        Fault(700, "cut between", "node of primary of shard 0", 6.0, other="coordinator"),
        Fault(4000, "kill actor", "backup of shard 0"),
    ),
)
"""A primary goes on though the coordinator does not hear it. Its backup is killed, and soon back."""

BACK_TO_A_SHORTER_LOG = replace(
    SMALL,
    sync_ms=1.0,
    seconds=9.0,
    log_bytes_min=1000,
    recover_alone_seconds=0.5,
    faults=(
        Fault(1400, "roll back directory", "primary of shard 0", 5.0, 0.6),
        Fault(1990, "crash node", "node of primary of shard 0", 0.3),
        Fault(1990, "crash node", "node of backup of shard 0", 3.0),
    ),
)
"""In a power cut a primary's machine is restored from an older copy, and recovers alone.

Then its backup comes back, with a snapshot on disk that goes further.
"""


@mutant("cuts another tail off in memory alone", flagged=True, budget=50, plan=CUT_SOON_AFTER_A_TAIL)
def _(patches: Patches) -> None:
    """What a joiner cuts off its log stays on its disk until something else is written in its place."""
    patches.set(DiskLog, "cut", lambda self, shard, after: None)


@mutant("takes the longest log whatever its epoch", flagged=True, budget=50, plan=BURST_OF_GIVEN_UP)
def _(patches: Patches) -> None:
    """Of claims the one with the highest number wins, though a later epoch has superseded its end."""
    original = recovery.best_claimant

    def best_claimant(entry, actors, claims):
        return original(entry, actors, {claimant: (0, last[1]) for claimant, last in claims.items()})

    for module in (recovery, rules):
        patches.set(module, "best_claimant", best_claimant)


@mutant("counts the claims of who is gone", budget=20, plan=CLAIMS_AND_IS_GONE)
def _(patches: Patches) -> None:
    """A shard that need not wait for a member waits for what its heir has claimed before it fell silent."""
    patches.set(Absence, "judge", lambda self, *_: lambda incarnation: False)


@mutant("recovers beside a lease", budget=20, plan=BACK_BESIDE_ITS_PRIMARY)
def _(patches: Patches) -> None:
    """An heir goes on without a primary that is away, and does not wait for what was granted to that."""
    patches.set(Recovery, "_has_rested", lambda self, now_ns, entry, known: True)


@mutant("goes on before what it has applied", flagged=True, budget=50, plan=BACK_TO_A_SHORTER_LOG)
def _(patches: Patches) -> None:
    """A joiner goes on from where its log and the primary's part, though its snapshot goes further."""
    original = Recovery.take_up

    def take_up(self, shard, continues):
        found = self._found.get(shard)
        if found is None:
            return None
        with instead(found.replica, committed=0):
            return original(self, shard, continues)

    patches.set(Recovery, "take_up", take_up)
