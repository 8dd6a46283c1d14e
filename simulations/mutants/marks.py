# ruff: noqa: ANN001, ANN202, ARG005  mutants reach into what they break, and are not typed code
"""Mutants of how older copies of directories are known: floors in the map, and marks beside it."""

import msgspec

from greenroom_cluster.coordination.draft import Draft
from greenroom_cluster.coordination.marks import Marks
from simulations.mutants.durable import SMALL
from simulations.mutants.patching import Patches, mutant
from simulations.plans.plan import Fault

OLDER_COPY = msgspec.structs.replace(
    SMALL,
    faults=(
        Fault(500, "roll back directory", "primary of shard 0", 4.0, 1.0),
        Fault(800, "kill actor", "backup of shard 0"),
        Fault(1490, "crash all nodes", "coordinator", 0.3),
    ),
)
"""A primary's machine is restored, during a power cut, from a copy that was made before a backup joined."""

COPY_WITHIN_A_RUN = msgspec.structs.replace(
    SMALL,
    marks_seconds=0.2,
    faults=(
        Fault(700, "roll back directory", "primary of shard 0", 5.0, 1.3),
        Fault(1990, "crash all nodes", "coordinator", 0.3),
    ),
)
"""In a power cut a machine is restored from a copy that was made while nothing was decided any more."""

COPY_AND_ALL_BOOT = msgspec.structs.replace(
    COPY_WITHIN_A_RUN,
    faults=(COPY_WITHIN_A_RUN.faults[0], Fault(1990, "crash all nodes", "coordinator", 0.3, 1.0)),
)
"""The same, and the coordinator's machine loses power, too."""

COPY_OF_WHO_LEFT_THE_MAP = msgspec.structs.replace(
    SMALL,
    actions=SMALL.actions[:120],
    seconds=7.5,
    marks_seconds=2.0,
    faults=(
        Fault(400, "roll back directory", "primary of shard 0", 6.0, 2.8),
        Fault(3700, "crash all nodes", "coordinator", 0.3, 1.0),
    ),
)
"""A machine is restored from an old copy while the other goes on alone, and all lose power soon after.

By then the coordinator has not written that the directory had left the map.
"""


@mutant("does not compare marks", flagged=True, budget=50, plan=OLDER_COPY)
def _(patches: Patches) -> None:
    """An older copy of a directory is taken for the newest."""
    patches.set(Draft, "is_older_copy", lambda self, actor: False)


@mutant("raises a directory's floor only when it is opened", flagged=True, budget=50, plan=OLDER_COPY)
def _(patches: Patches) -> None:
    """How far a directory had come when it began to count for more is forgotten."""
    patches.set(Draft, "_count", lambda self, proposer, proposal: None)


@mutant("hears no marks in heartbeats", flagged=True, budget=50, plan=COPY_WITHIN_A_RUN)
def _(patches: Patches) -> None:
    """How far a directory comes while nothing is decided is not noted."""
    patches.set(Marks, "hear", lambda self, actor, mark: None)


@mutant("forgets marks when it starts", flagged=True, budget=50, plan=COPY_AND_ALL_BOOT)
def _(patches: Patches) -> None:
    """A coordinator does not read the marks that the run before has kept."""
    original = Marks.__init__
    patches.set(Marks, "__init__", lambda self, kept, actors, seconds: original(self, {}, actors, seconds))


@mutant("keeps marks by directory", budget=50, plan=COPY_OF_WHO_LEFT_THE_MAP)
def _(patches: Patches) -> None:
    """Marks that were kept count for whoever opens the directory, also if it had left the map meanwhile."""
    original = Marks.__init__

    def begin(self, kept, actors, seconds):
        original(self, {}, actors, seconds)
        self.known.update(kept)

    def rest(self):
        changed, self._changed = self._changed, False
        return dict(self.known) if changed else None

    patches.set(Marks, "__init__", begin)
    patches.set(Marks, "rest", rest)
