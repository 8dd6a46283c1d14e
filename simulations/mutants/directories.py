# ruff: noqa: ANN001, ANN202, ARG001, ARG005  mutants reach into what they break, and are not typed code
"""Mutants of what is believed of a directory: of its bytes, and of the place where it lies."""

from msgspec.structs import replace

from greenroom_cluster.coordination import adoption
from greenroom_cluster.disk import batches, notes
from greenroom_cluster.disk.batches import DamagedError
from greenroom_cluster.disk.directory import Place
from simulations.mutants.durable import CUT_IN_INTERVAL, CUT_IN_SHORT_LOGS, SMALL
from simulations.mutants.patching import Patches, mutant
from simulations.plans.plan import Fault

FLIPPED = replace(
    SMALL,
    sync_ms=1.0,
    faults=tuple(
        Fault(at_ms, "flip bit", "backup of shard 0", 0.5, 1.0 + at_ms // 900 % 2)
        for at_ms in range(500, 6000, 900)
    ),
)
"""Bits flip in what a backup has on its disk, which is killed each time."""

FLIPPED_AT_THE_END = replace(FLIPPED, faults=tuple(replace(fault, amount=0.0) for fault in FLIPPED.faults))
"""The same, in the newest batch that is stable."""

FLIPPED_AFTER_A_SNAPSHOT = replace(
    CUT_IN_SHORT_LOGS,
    chunk_bytes=100,
    sync_ms=5.0,
    actions=SMALL.actions[:120],
    faults=(
        Fault(2000, "crash all nodes", "coordinator", 1.0),
        Fault(2500, "flip bit", "backup of shard 0", 2.0),
    ),
)
"""After writes the last thing on each disk is a snapshot, for which files were deleted. All machines lose
power, and a bit of the newest batch of the backup flips.
"""

ALL_KILLED = replace(SMALL, faults=(Fault(900, "kill shard", "primary of shard 0"),))
"""All members of a shard are killed, amid writes."""

CLONED = replace(
    SMALL,
    nodes=3,
    shards=2,
    faults=(Fault(900, "clone directory", "primary of shard 0", 2.0, other="primary of shard 1"),),
)
"""An actor is killed, and started on a copy of the directory of another one, on another machine."""

CLONED_AT_HOME = replace(
    CLONED,
    nodes=2,
    actors=2,
    shards=4,
    faults=(Fault(900, "clone directory", "actor n0/0", 2.0, other="actor n0/1"),),
)
"""The same on one machine."""

MAP_LOST = replace(
    SMALL,
    seconds=12.0,
    faults=(
        Fault(900, "crash node", "node of backup of shard 0", 2.0),
        Fault(1890, "crash node", "node of primary of shard 0", 6.0),
        Fault(1900, "crash all nodes", "coordinator", 0.3, 2.0),
    ),
)
"""A primary removes its backup; then the coordinator loses its disk, and that backup comes back first."""


@mutant("makes the map anew before all who may know more came", flagged=True, budget=20, plan=MAP_LOST)
def _(patches: Patches) -> None:
    """The newest configuration among the directories that have come is taken for the newest of all."""
    patches.set(adoption, "concerned", lambda shown, newest: {})


@mutant("takes a torn end for damage", budget=20, plan=CUT_IN_INTERVAL)
def _(patches: Patches) -> None:
    """Whatever stands at the end of a log and is no whole batch is damage, though it was never synced."""
    original = batches.believable

    def believable(found, first, noted):
        whole = original(found := list(found), first, noted)
        if len(whole) < len(found):
            raise DamagedError("the end is torn")
        return whole

    patches.set(batches, "believable", believable)


@mutant("forgets why it has deleted files", budget=50, plan=FLIPPED_AFTER_A_SNAPSHOT)
def _(patches: Patches) -> None:
    """Of what was synced when files were deleted for it, only the hint tells that a power cut takes along."""
    original = notes.encode_beginning
    patches.set(notes, "encode_beginning", lambda known: original(known._replace(synced=0)))


@mutant("takes damage for a torn end", budget=20, plan=FLIPPED_AT_THE_END)
def _(patches: Patches) -> None:
    """What follows the first bad batch of the newest file is cut off, though it was synced."""

    def believable(found, first, noted):
        whole: list[batches.Batch] = []
        for batch in found:
            if batch is None or batch.number != first + len(whole):
                break
            whole.append(batch)
        return whole

    patches.set(batches, "believable", believable)


@mutant("skips a batch that is damaged", budget=20, plan=FLIPPED)
def _(patches: Patches) -> None:
    """A bad batch in a full file is left out, and those behind it are read."""

    def sealed(found, first, last):
        return (batch for batch in found if batch is not None)

    patches.set(batches, "sealed", sealed)


@mutant("reads its tail back without writing it anew", budget=20, plan=ALL_KILLED)
def _(patches: Patches) -> None:
    """Whoever opens a log relies on what the kernel shows of it, though no sync of that has succeeded."""
    original = batches.read_tail

    def read_tail(firsts, found_in, noted):
        return original(firsts, found_in, noted)._replace(unsettled=len(firsts), batches=[])

    patches.set(batches, "read_tail", read_tail)


@mutant("takes the lock of a copy for that of the directory", budget=20, plan=CLONED_AT_HOME)
def _(patches: Patches) -> None:
    """A copy of a directory on the same machine is opened, for nobody holds its lock."""
    _overlook(patches, "inode", "filesystem")


@mutant("opens a directory of another machine", budget=20, plan=CLONED)
def _(patches: Patches) -> None:
    """A directory that was copied from another machine is opened there."""
    _overlook(patches, "machine", "inode", "filesystem")


def _overlook(patches: Patches, *names: str) -> None:
    """Have some of what tells places apart not be looked at."""
    original = Place.moved_from

    def moved_from(self, former):
        return original(self, replace(former, **{name: getattr(self, name) for name in names}))

    patches.set(Place, "moved_from", moved_from)
